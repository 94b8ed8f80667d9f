"""TensorBoard events, in the run directory itself: a run is one line in the browser."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from torch import Tensor
from torch.utils.tensorboard.summary import pr_curve

from microstep.config.hparams import Value
from microstep.errors import StorageError
from microstep.logger.events import PREFIX, EventsFile
from microstep.logger.summaries import code, layout, picture, pictures, scalars, session_end, session_start, tagged
from microstep.types.events import EpochReport, Results, WindowReport


class TensorBoard:
    """Writes scalars by window and by epoch, the config as text, a row of hparams, and at the end pictures and curves.

    Args:
        directory: the run's.
        config_yaml: shown as it is.
        settings: of the hparams tab, by dotted key.
        shown: N × C × H × W in 0…1: some of the pictures to be trained on, as the model sees them.
    """

    def __init__(
        self, directory: Path, config_yaml: str, settings: Mapping[str, Value], shown: Tensor | None = None
    ) -> None:
        begun = any(directory.glob(f"{PREFIX}.*"))
        self.events = EventsFile(directory)
        if begun:  # a run that is taken up again has said that already
            return
        self.events.add(code("config", config_yaml))
        self.events.add(session_start(settings))
        if shown is not None:
            self.events.add(pictures("train/pictures", shown))

    def window(self, report: WindowReport) -> None:
        """Write `train/…`."""
        values = asdict(report)
        window = values.pop("window")
        self.events.add(scalars(tagged("train", values)), window)

    def epoch(self, report: EpochReport) -> None:
        """Write `train_epoch/…` and `val/…`, and `best_val/…` where it is the best so far; first of all the layout."""
        if report.epoch == 1:  # a run that is taken up again before its end writes that epoch again
            self.events.add(layout([name for name in report.val if name in report.train]))
        values = tagged("train_epoch", report.train) | tagged("val", report.val)
        best = tagged("best_val", report.val) if report.best else {}
        self.events.add(scalars(values | best), report.epoch)

    def finish(self, results: Results) -> None:
        """Write `test/…`, the reports' pictures, and precision-recall curves."""
        best = results.best_epoch
        self.events.add(scalars(tagged("test", results.test)), best)
        for name, split in results.splits.items():
            for title, file in split.report.pictures.items():
                self.events.add(picture(f"{name}/{title}", file), best)
        for label, (positive, score) in results.splits["test"].report.curves.items():
            self.events.add(pr_curve(f"test/pr/{label}", positive.numpy(), score.numpy()), best)

    def close(self, error: BaseException | None) -> None:
        """Write how the run ended; where there is no room for it, what ended the run is what is told."""
        with suppress(*([StorageError] if error else [])):
            self.events.add(session_end(failed=error is not None))
