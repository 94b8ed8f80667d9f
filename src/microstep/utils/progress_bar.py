"""Progress bars: one for the epochs, and one for the current split. None is drawn in a pipe or for a short split."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from tqdm import tqdm

from microstep.utils.terminal import TerminalState

T = TypeVar("T")
Values = Mapping[str, float]
Count = Callable[[T], int]  #: returns the samples of an item
RunningValues = Callable[[], Values]  #: called only when a bar is drawn: it waits for the device
BAR_DELAY = 0.4  #: seconds after which a split gets a bar


class ProgressBars:
    """Progress bars on stderr, if they are enabled, it is a terminal and the run is not silenced."""

    def __init__(self, enabled: bool) -> None:
        self.is_shown = enabled and sys.stderr.isatty() and TerminalState.captured_warnings is None
        self.epoch_bar: tqdm[Any] | None = None

    def epochs(self, epochs: Iterable[int], done: int, total: int) -> Iterator[int]:
        disable = not self.is_shown
        with tqdm(epochs, "epochs", total, initial=done, unit="epoch", dynamic_ncols=True, disable=disable) as bar:
            self.epoch_bar = bar
            yield from bar

    def samples(
        self, items: Iterable[T], label: str, total: int, count: Count[T], running_values: RunningValues, done: int = 0
    ) -> Iterator[T]:
        """Yield windows or batches under the inner bar, which counts samples, beginning with those already done."""
        if not self.is_shown:
            yield from items
            return
        settings: dict[str, Any] = {"unit": " samples", "unit_scale": True, "leave": False, "delay": BAR_DELAY}
        with tqdm(initial=done, total=total, desc=label, dynamic_ncols=True, **settings) as bar:
            for item in items:
                yield item
                if bar.update(count(item)):
                    bar.set_postfix(format_values(running_values()), refresh=False)

    def images(self, items: Iterable[T], label: str, total: int) -> Iterator[T]:
        return self.samples(items, label, total, len, dict)  # type: ignore[arg-type]

    def show_epoch(self, values: Values) -> None:
        if self.epoch_bar is not None:
            self.epoch_bar.set_postfix(format_values(values), refresh=False)


def format_values(values: Values) -> dict[str, str]:
    return {name: f"{value:.4f}" for name, value in values.items()}
