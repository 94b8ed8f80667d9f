"""Evaluate a run again: its model and data are rebuilt from its directory, the report is written there and printed.

    python evaluate.py run=RUN_DIR                     the test split, the best checkpoint by validation
    python evaluate.py run=RUN_DIR split=val           or train
    python evaluate.py run=RUN_DIR checkpoint=last     written to reports/<split>-last/

A run directory is not trusted: what it asks to be built must be named in your own conf/, or in trust=[TARGET,…].
"""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from microstep import cli


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
@cli.job
def evaluate(config: DictConfig) -> None:
    """Evaluate one split of one run."""
    from microstep.again import evaluate_run
    from microstep.files import shown
    from microstep.gate import targets_of, trusting
    from microstep.logger import Bars, emit, metrics_row, show_notices, with_report

    show_notices()
    gate = trusting(targets_of(cli.config_directories(), config.trust))
    done = evaluate_run(Path(config.run), config.split, config.checkpoint, gate, config.device, Bars(config.progress))
    rows = {
        config.split: metrics_row(done.result.metrics),
        "checkpoint": f"{config.checkpoint}, of epoch {done.epoch}",
        "report": shown(done.directory),
    }
    emit(with_report(done.result.report.text, rows))


if __name__ == "__main__":
    cli.launch(evaluate, "evaluate")
