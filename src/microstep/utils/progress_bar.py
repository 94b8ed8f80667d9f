"""Progress bars: one for the epochs, one for the split at work. Calm: none in a pipe, none for what is over at once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from tqdm import tqdm

from microstep.utils.terminal import TerminalState

T = TypeVar("T")
Values = Mapping[str, float]
BAR_DELAY = 0.4  #: seconds that a split must take before it gets a bar


class ProgressBars:
    """Bars on stderr where it is a terminal of the run's own and `enabled`; otherwise nothing is drawn."""

    def __init__(self, enabled: bool) -> None:
        self.is_shown = enabled and sys.stderr.isatty() and TerminalState.heard is None
        self.outer: tqdm[Any] | None = None

    def epochs(self, epochs: Iterable[int], done: int, total: int) -> Iterator[int]:
        """Yield the epochs that are left under the outer bar."""
        with tqdm(
            epochs,
            initial=done,
            total=total,
            desc="epochs",
            unit="epoch",
            disable=not self.is_shown,
            dynamic_ncols=True,
        ) as bar:
            self.outer = bar
            yield from bar

    def samples(
        self,
        items: Iterable[T],
        label: str,
        total: int,
        count: Callable[[T], int],
        running: Callable[[], Values],
        done: int = 0,
    ) -> Iterator[T]:
        """Yield windows or batches under the inner bar, which counts samples and shows the running metrics.

        The metrics are read only when the bar is drawn: reading them waits for the device.

        Args:
            done: samples that were seen before the first of these parts.
        """
        if not self.is_shown:
            yield from items
            return
        with tqdm(
            initial=done,
            total=total,
            desc=label,
            unit=" samples",
            unit_scale=True,
            leave=False,
            delay=BAR_DELAY,
            dynamic_ncols=True,
        ) as bar:
            for part in items:
                yield part
                if bar.update(count(part)):
                    bar.set_postfix(format_values(running()), refresh=False)

    def images(self, items: Iterable[T], label: str, total: int) -> Iterator[T]:
        """Yield arrays of pictures under the inner bar."""
        return self.samples(items, label, total, len, dict)  # type: ignore[arg-type]

    def show_epoch(self, values: Values) -> None:
        """Show values on the outer bar."""
        if self.outer is not None:
            self.outer.set_postfix(format_values(values), refresh=False)


def format_values(values: Values) -> dict[str, str]:
    return {name: f"{value:.4f}" for name, value in values.items()}
