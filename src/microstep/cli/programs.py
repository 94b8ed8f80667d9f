"""The programs: what a job of each does. Their docstrings introduce the pages of `--help`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from microstep.cli import job as jobs
from microstep.cli.main import Program
from microstep.config.hydra_job import get_choice, get_config_directories, get_run_directory
from microstep.sweep.runner import run_sweep

if TYPE_CHECKING:
    from microstep.config.allowlist import Allowlist
    from microstep.run.resume import ResumePlan

# Each function imports what it needs: torch only comes in once the config is known to be right.


def run_train(config: DictConfig, resumed: ResumePlan | None = None) -> int | None:
    """Train an image classifier, and leave a run directory with everything about it.

    python train.py                                            digits, small CNN, fp32: under a minute on 2 cores
    python train.py precision=amp accum=2                      mixed precision, two micro-batches an optimizer step
    python train.py -m precision=fp32,amp accum=1,2,4 sweep=S  six runs and a summary; the same command goes on
    python train.py -m effective_batch_size=64 accum=1,2,4     the same batch, cut differently
    python train.py dataset=fashion_mnist model=resnet18 model.norm=group
    python train.py resume=RUN_DIR                             go on with a run that was interrupted, bit for bit
    python train.py check=accumulation accum=4 batch_size=16   is the cut batch the same batch? if not, why not
    python train.py check=precision                            what fp32, bf16 and fp16 cost and lose with this model
    python train.py check=drift accum=4                        how far rounding takes two cuts apart, beside two seeds
    """
    if config.check is not None:
        from microstep.diagnostics import run_check

        return run_check(config, get_run_directory())
    from microstep.training.build import build_trainer
    from microstep.training.resume import resume_trainer

    if resumed is None:
        build_trainer(config, get_run_directory()).fit()
    elif resumed.finished:
        print(jobs.format_already_finished(resumed.directory))
    else:
        resume_trainer(resumed).fit()
    return None


def run_evaluate(config: DictConfig) -> None:
    """Evaluate a run again: its model and data are rebuilt from its directory, the report is written there and printed.

        python evaluate.py run=RUN_DIR                     the test split, the best checkpoint by validation
        python evaluate.py run=RUN_DIR split=val           or train
        python evaluate.py run=RUN_DIR checkpoint=last     written to reports/<split>-last/
        python evaluate.py run=RUN_DIR checkpoint=model.safetensors   the best as others get it: reports/<split>-model/
        python evaluate.py run=A baseline=B                is A better? on the same samples: outputs/comparisons/…/
        python evaluate.py run=RUN_DIR input=FOLDER        classify pictures without labels: reports/input-<folder>/

    FOLDER, its folders too, or one picture: predictions.csv has the five likeliest classes of each picture, and why one
    can't be read; contact_sheet.png shows them. `split` has no part in that.

    A and B are run directories, or patterns, quoted, for settings over seeds: 'run=outputs/sweeps/s/*'. The reports
    of `split` and `checkpoint` are compared: the difference with its 95 % interval, the exact test, what flipped.

    A run directory is not trusted: what it asks to be built must be named in your own conf/, or in trust=[TARGET,…];
    so must what it asks a resolver for: trust='["${oc.env:DATA}"]'.
    """
    from microstep.config.allowlist import allowlist_from
    from microstep.config.experiment import get_trusted_names
    from microstep.utils.terminal import install_notice_handler, print_above_bars

    install_notice_handler()
    if config.baseline is not None:
        print_above_bars(comparison(config))
        return
    gate = allowlist_from(get_config_directories(), get_trusted_names(config), Path(config.run))
    print_above_bars(split_report(config, gate) if config.input is None else input_report(config, gate))


def split_report(config: DictConfig, gate: Allowlist) -> str:
    """Evaluate a split and return what is said of it."""
    from microstep.components.logger.console import format_metrics, format_report
    from microstep.evaluation.evaluate import evaluate_run
    from microstep.utils.progress_bar import ProgressBars
    from microstep.utils.text import display_path

    done = evaluate_run(
        Path(config.run), config.split, config.checkpoint, gate, config.device, ProgressBars(config.progress)
    )
    rows = {
        config.split: format_metrics(done.result.metrics),
        "checkpoint": f"{config.checkpoint}, of epoch {done.epoch}",
        "report": display_path(done.directory),
    }
    return format_report(done.result.report.text, rows)


def comparison(config: DictConfig) -> str:
    """Compare runs and return what is said of them."""
    from microstep.config.allowlist import allowlist_from
    from microstep.config.experiment import get_trusted_names
    from microstep.errors import ConfigError
    from microstep.evaluation.comparison.compare import compare_runs

    if config.input is not None:
        raise ConfigError(f"input={config.input}", "pictures without labels tell no runs apart", "leave it out")
    gates = partial(allowlist_from, get_config_directories(), get_trusted_names(config), None)
    return compare_runs(config.run, config.baseline, config.split, config.checkpoint, gates).text


def input_report(config: DictConfig, gate: Allowlist) -> str:
    """Classify pictures and return what is said of them."""
    from microstep.errors import escape_unprintable
    from microstep.evaluation.predict import predict_input
    from microstep.evaluation.predictions import format_class_counts
    from microstep.utils.progress_bar import ProgressBars
    from microstep.utils.tables import format_fields
    from microstep.utils.text import display_path

    done = predict_input(
        Path(config.run), config.input, config.checkpoint, gate, config.device, ProgressBars(config.progress)
    )
    rows = {
        "pictures": f"{len(done.classified.rows):,} classified, {len(done.classified.unreadable):,} unreadable",
        "classes": format_class_counts(done.classified),
        "checkpoint": f"{config.checkpoint}, of epoch {done.epoch}",
        "predictions": escape_unprintable(display_path(done.directory / "predictions.csv")),
        "contact sheet": escape_unprintable(display_path(done.directory / "contact_sheet.png")),
    }
    return format_fields(rows)


def run_compute_stats(config: DictConfig) -> None:
    """Compute a data set's exact statistics, and report on its health: as text, as JSON, and as a page of pictures.

    python compute_stats.py dataset=fashion_mnist                    the official training split
    python compute_stats.py dataset=fashion_mnist split=train,test   each, both together, and leaks between them
    python compute_stats.py dataset=fashion_mnist ratio=0.01 seed=1  a random sample, with standard errors

    Mean and deviation per channel are printed as yaml for the data set's config. The report names files that can't be
    read, exact duplicates (within a split, across splits, with different labels), pictures of one colour, and classes
    with too few pictures; a bad file is no failure here. Pictures are decoded by num_workers processes.
    """
    import torch

    from microstep.dataset_report.report import write_dataset_report
    from microstep.training.builders import build_dataset
    from microstep.utils.progress_bar import ProgressBars
    from microstep.utils.terminal import install_notice_handler, print_above_bars

    install_notice_handler()
    dataset = build_dataset(config, torch.device("cpu"), num_workers=config.num_workers)
    bar = ProgressBars(config.progress).images
    print_above_bars(
        write_dataset_report(
            dataset, get_choice("dataset"), config.split, config.ratio, config.seed, Path(config.output), bar
        )
    )


train = Program("train", run_train, run_sweep)
evaluate = Program("evaluate", run_evaluate)
compute_stats = Program("compute_stats", run_compute_stats)
