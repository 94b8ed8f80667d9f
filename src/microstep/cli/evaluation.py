"""Runs evaluate.py: evaluates, compares, classifies, exports. Its `--help` is the docstring of `run_evaluate`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from microstep.config.allowlist import Allowlist, allowlist_from
from microstep.config.experiment import flatten, get_trusted_names
from microstep.config.hydra_job import get_choices, get_config_directories
from microstep.errors import ConfigError, escape_unprintable
from microstep.utils.imports import imports_without_gc
from microstep.utils.progress_bar import ProgressBars
from microstep.utils.tables import format_fields
from microstep.utils.terminal import install_notice_handler, print_above_bars, print_json
from microstep.utils.text import display_path

# Functions import modules that need torch: it is imported only after the config has been checked.


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
        from microstep.evaluation.model_card import write_card

    run, common = Path(config.run), (allowlist, bars, get_overrides(config))
    if config.export == "card":
        file, result = write_card(run, config.split, *common)
    else:
        file, result = export_run(run, config.export, config.split, config.checkpoint, *common)
    print_json({**result, "directory": display_path(file.parent)})
    return format_fields({"export": escape_unprintable(display_path(file)), "result": result["sentence"]})
