"""The three programs. The docstrings of their tasks introduce the texts of `--help`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from microstep.cli.job import format_already_finished
from microstep.cli.launch import join_world, prepare_sweep
from microstep.cli.main import Program
from microstep.config.allowlist import Allowlist, allowlist_from
from microstep.config.experiment import flatten, get_trusted_names
from microstep.config.hydra_job import get_choices, get_config_directories, get_run_directory
from microstep.errors import ConfigError, escape_unprintable
from microstep.utils.imports import imports_without_gc
from microstep.utils.progress_bar import ProgressBars
from microstep.utils.tables import format_fields
from microstep.utils.terminal import install_notice_handler, print_above_bars, print_json
from microstep.utils.text import display_path

if TYPE_CHECKING:
    from microstep.run.pruning import MedianRule
    from microstep.run.resume import ResumePlan

# Functions import modules that need torch: it is imported only after the config has been checked.


def run_train(config: DictConfig, resumed: ResumePlan | None = None, prune: MedianRule | None = None) -> int | None:
    """Train an image classifier and write a run directory.

    python train.py                                            digits, small CNN, fp32: under a minute on 2 cores
    python train.py precision=amp accum=2                      mixed precision, two micro-batches per optimizer step
    python train.py -m precision=fp32,amp accum=1,2,4 sweep=S  six runs and a summary; repeat it to resume
    python train.py -m effective_batch_size=64 accum=1,2,4     the same optimizer step in 1, 2 or 4 parts
    python train.py dataset=fashion_mnist model=resnet18 model.norm=group
    python train.py resume=RUN_DIR                             resume an interrupted run, bit for bit
    python train.py check=accumulation accum=4 batch_size=16   is accumulation exact? if not, why not
    python train.py check=precision                            speed and error of fp32, bf16 and fp16
    python train.py check=drift accum=4                        effect of rounding, compared with another seed
    python train.py check=learning                             does it learn? if not, why not?
    python train.py check=lr                                   which learning rate lowers the loss fastest?
    python train.py check=resume                               does a resume restore every component?
    python train.py replay=RUN_DIR window=1234                 repeat one optimizer step, and show what made it
    """
    with imports_without_gc():
        from microstep.training.build import build_trainer
        from microstep.training.compiler import skip_compiler_in_optimizers
        from microstep.training.resume import resume_trainer

    skip_compiler_in_optimizers()
    if config.check is not None:
        from microstep.diagnostics import run_check

        return run_check(config, get_run_directory())
    if resumed is not None and config.replay is not None:
        from microstep.diagnostics.replay.check import run_replay

        return run_replay(resumed, config.window, get_run_directory())
    if resumed is not None and resumed.finished:
        print(format_already_finished(resumed))
        return None
    trainer = build_trainer(config, get_run_directory()) if resumed is None else resume_trainer(resumed)
    trainer.prune = prune or trainer.prune
    trainer.fit()
    return None


def run_evaluate(config: DictConfig) -> None:
    """Evaluate a run again, compare runs, or classify images. A report is printed and written.

        python evaluate.py run=RUN_DIR                     the test split, the best checkpoint by validation
        python evaluate.py run=RUN_DIR split=val           or train
        python evaluate.py run=RUN_DIR dataset=table dataset.file=FILE   other labeled images: reports/table-<file>/
        python evaluate.py run=RUN_DIR checkpoint=last     written to reports/<split>-last/
        python evaluate.py run=RUN_DIR checkpoint=model.safetensors   the exported weights: reports/<split>-model/
        python evaluate.py run=RUN_DIR tta=flip            each image and its mirror image: reports/<split>-tta-flip/
        python evaluate.py run=A baseline=B                is A better than B? outputs/comparisons/…/
        python evaluate.py run=A checkpoint=last baseline=A baseline_checkpoint=best   two checkpoints of one run
        python evaluate.py run=RUN_DIR input=FOLDER        classify unlabeled images: reports/input-<folder>/
        python evaluate.py run=RUN_DIR export=onnx         a file that runs without microstep: export/onnx/; or torch
        python evaluate.py run=RUN_DIR export=card         a model card for the Hugging Face hub: README.md
        python evaluate.py weights=FILE input=FOLDER       by a model.safetensors alone: outputs/predictions/<folder>/

    FOLDER is searched recursively; a single image will do, too. predictions.csv lists the five most likely classes of
    each image, or why it can't be read; contact_sheet.png shows the images. `split` is not used.

    A and B are run directories, or quoted patterns for several seeds: 'run=outputs/sweeps/s/*'. The reports of `split`
    and `checkpoint` are compared: the difference with its 95 % interval, an exact test, and the samples that differ.

    A run directory is not trusted. Each target in its config must also be named in your own conf/ or in
    trust=[TARGET,…], and so must each resolver: trust='["${oc.env:DATA}"]'.
    """
    install_notice_handler()
    if config.baseline is not None:
        print_above_bars(compare(config))
        return
    if config.baseline_checkpoint is not None:
        subject = f"baseline_checkpoint={config.baseline_checkpoint}"
        raise ConfigError(subject, "there is no baseline", "add baseline=RUN_DIR; of the same run is possible")
    allowlist = allowlist_from(get_config_directories(), get_trusted_names(config), config.run and Path(config.run))
    report = export_model if config.export else evaluate_split if config.input is None else classify_input
    print_above_bars(report(config, allowlist, ProgressBars(config.progress)))


def evaluate_split(config: DictConfig, allowlist: Allowlist, bars: ProgressBars) -> str:
    with imports_without_gc():
        from microstep.components.logger.console import format_metrics, format_report
        from microstep.evaluation.evaluate import evaluate_run

    run, overrides, other = Path(config.run), get_overrides(config), None
    if "_target_" in config.dataset:
        file = Path(config.dataset.get("file") or config.dataset.get("root") or "")
        other = get_choices()["dataset"] + f"-{file.resolve().stem}-{config.split}".removesuffix("-test"), config
    evaluated = run, config.split, config.checkpoint, allowlist, config.device, bars, overrides
    done = evaluate_run(*evaluated, tta=config.tta, other=other)
    rows = {
        config.split if other is None else other[0]: format_metrics(done.result.metrics),
        "checkpoint": f"{config.checkpoint}, of epoch {done.epoch}",
        "report": display_path(done.directory),
    }
    print_json({"metrics": done.result.metrics, "epoch": done.epoch, "directory": display_path(done.directory)})
    return format_report(done.result.report.text, rows)


def get_overrides(config: DictConfig) -> dict[str, Any]:
    """Return the values that evaluate.py was given instead of a run's own, by dotted key."""
    nodes = ["num_workers", "allocator", *(["dataset"] if "_target_" not in config.dataset else [])]
    given = flatten(OmegaConf.masked_copy(config, nodes))
    return {key: value for key, value in given if value is not None}


def compare(config: DictConfig) -> str:
    with imports_without_gc():
        from microstep.evaluation.comparison.compare import compare_runs

    if config.input is not None:
        raise ConfigError(f"input={config.input}", "images without labels can't compare runs", "leave it out")
    make_allowlist = partial(allowlist_from, get_config_directories(), get_trusted_names(config), None)
    asked = config.run, config.baseline, config.split, config.checkpoint
    return compare_runs(*asked, make_allowlist, config.baseline_checkpoint, get_overrides(config)).text


def classify_input(config: DictConfig, allowlist: Allowlist, bars: ProgressBars) -> str:
    with imports_without_gc():
        from microstep.evaluation.predict import predict_input, predict_with_weights
        from microstep.evaluation.predictions import format_class_counts

    common, exported = (allowlist, config.device, bars, get_overrides(config)), config.weights is not None
    if exported:
        done = predict_with_weights(Path(config.weights), config.input, *common)
    else:
        done = predict_input(Path(config.run), config.input, config.checkpoint, *common)
    images, failed = len(done.classified.rows), len(done.classified.errors)
    print_json({"images": images, "failed": failed, "epoch": done.epoch, "directory": display_path(done.directory)})
    rows = {
        "images": f"{images:,} classified, {failed:,} failed",
        **({"classes": counts} if (counts := format_class_counts(done.classified)) else {}),
        "weights" if exported else "checkpoint": f"{config.weights or config.checkpoint}, of epoch {done.epoch}",
        "predictions": escape_unprintable(display_path(done.directory / "predictions.csv")),
        "contact sheet": escape_unprintable(display_path(done.directory / "contact_sheet.png")),
    }
    return format_fields(rows)


def export_model(config: DictConfig, allowlist: Allowlist, bars: ProgressBars) -> str:
    with imports_without_gc():
        from microstep.evaluation.export import export_run

    where = Path(config.run), config.export, config.split, config.checkpoint
    file, result = export_run(*where, allowlist, bars, get_overrides(config))
    print_json({**result, "directory": display_path(file.parent)})
    return format_fields({"export": escape_unprintable(display_path(file)), "result": result["sentence"]})


def run_compute_stats(config: DictConfig) -> None:
    """Compute a data set's exact statistics and check its health. The report is text, JSON and a page of images.

    python compute_stats.py dataset=fashion_mnist                    the official training split
    python compute_stats.py dataset=fashion_mnist split=train,test   each, both together, and leaks between them
    python compute_stats.py dataset=fashion_mnist ratio=0.01 seed=1  a random sample, with standard errors

    Mean and standard deviation per channel are printed as yaml for the data set's config. The report names unreadable
    files, exact duplicates (within a split, across splits, with different labels), images of one color, and classes
    with too few images. An unreadable file is no failure here. Images are decoded by num_workers processes.
    """
    with imports_without_gc():
        import torch

        from microstep.dataset_report.report import write_dataset_report
        from microstep.training.builders import build_dataset

    install_notice_handler()
    dataset = build_dataset(config, torch.device("cpu"), num_workers=config.num_workers)
    name, bar = get_choices()["dataset"], ProgressBars(config.progress).images
    report = write_dataset_report(dataset, name, config.split, config.ratio, config.seed, Path(config.output), bar)
    print_above_bars(report)


train = Program("train", run_train, prepare_sweep, join_world)
evaluate = Program("evaluate", run_evaluate)
compute_stats = Program("compute_stats", run_compute_stats)
