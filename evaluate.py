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

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig

from microstep import cli, jobs

if TYPE_CHECKING:
    from microstep.gate import Gate


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
@jobs.job
def evaluate(config: DictConfig) -> None:
    """Evaluate one split of one run, classify pictures, or compare runs."""
    from microstep.config import trusted
    from microstep.gate import trusting
    from microstep.logger import emit, show_notices

    show_notices()
    if config.baseline is not None:
        emit(comparison(config))
        return
    gate = trusting(jobs.config_directories(), trusted(config), Path(config.run))
    emit(split_report(config, gate) if config.input is None else input_report(config, gate))


def split_report(config: DictConfig, gate: Gate) -> str:
    """Evaluate a split and return what is said of it."""
    from microstep.again import evaluate_run
    from microstep.files import shown
    from microstep.logger import Bars, metrics_row, with_report

    done = evaluate_run(Path(config.run), config.split, config.checkpoint, gate, config.device, Bars(config.progress))
    rows = {
        config.split: metrics_row(done.result.metrics),
        "checkpoint": f"{config.checkpoint}, of epoch {done.epoch}",
        "report": shown(done.directory),
    }
    return with_report(done.result.report.text, rows)


def comparison(config: DictConfig) -> str:
    """Compare runs and return what is said of them."""
    from microstep.compare import compare
    from microstep.config import trusted
    from microstep.errors import ConfigError
    from microstep.gate import trusting

    if config.input is not None:
        raise ConfigError(f"input={config.input}", "pictures without labels tell no runs apart", "leave it out")
    gates = partial(trusting, jobs.config_directories(), trusted(config), None)
    return compare(config.run, config.baseline, config.split, config.checkpoint, gates).text


def input_report(config: DictConfig, gate: Gate) -> str:
    """Classify pictures and return what is said of them."""
    from microstep.errors import legible
    from microstep.files import shown
    from microstep.logger import Bars
    from microstep.predict import predict_input
    from microstep.task.answers import counts
    from microstep.utils.tables import format_fields

    done = predict_input(Path(config.run), config.input, config.checkpoint, gate, config.device, Bars(config.progress))
    rows = {
        "pictures": f"{len(done.answers.rows):,} classified, {len(done.answers.unreadable):,} unreadable",
        "classes": counts(done.answers),
        "checkpoint": f"{config.checkpoint}, of epoch {done.epoch}",
        "predictions": legible(shown(done.directory / "predictions.csv")),
        "contact sheet": legible(shown(done.directory / "contact_sheet.png")),
    }
    return format_fields(rows)


if __name__ == "__main__":
    cli.launch(evaluate, "evaluate")
