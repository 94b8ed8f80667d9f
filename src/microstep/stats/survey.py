"""One pass over a split's pictures, in parallel where they are decoded: a bad file is noted, and stops nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from unicodedata import category

from microstep.components.dataset.images import Pictures, chunked
from microstep.components.dataset.workers import Wanted, Workers, explained
from microstep.errors import DataError, MicrostepError
from microstep.stats.tally import Chunk, Marks, Tally

Bar = Callable[[Iterable[Chunk], str, int], Iterator[Chunk]]  #: a stream of chunks, its label, pictures in all


@dataclass(frozen=True)
class Survey:
    """What one pass over a split has found."""

    split: str
    pictures: Pictures
    tally: Tally
    marks: Marks  #: of the pictures that could be read
    unreadable: dict[int, str]  #: row → why
    sampled: bool

    @classmethod
    def of(cls, split: str, rows: Sequence[int], workers: Workers, bar: Bar, sampled: bool) -> Survey:
        """Read some rows of a split of the workers'.

        Raises:
            DataError: where none of them can be read.
            MicrostepError: for a worker that died or took too long.
        """
        pictures, unreadable = workers.reader.pictures[split], dict[int, str]()
        tally, marks = None, []
        with explained():
            for chunk in bar(chunks_of(workers, split, rows, unreadable), split, len(rows)):
                found = Tally.of(chunk, pictures)
                tally = found if tally is None else tally + found
                marks.append(Marks.of(chunk, pictures.scale, sampled))
        if tally is None:
            row, reason = next(iter(unreadable.items()))
            first = f"{name_of(pictures, row)}: {reason}"
            raise DataError(f"split={split}", f"none of {len(rows):,} pictures can be read ({first})", "mend the files")
        return cls(split, pictures, tally, Marks.joined(marks), dict(sorted(unreadable.items())), sampled)

    def name(self, row: int) -> str:
        """Return what a person finds a picture by."""
        return name_of(self.pictures, row)


def chunks_of(workers: Workers, split: str, rows: Sequence[int], unreadable: dict[int, str]) -> Iterator[Chunk]:
    """Yield pictures, as many as fit a chunk; those of a chunk with a bad file come at the end, one by one.

    Args:
        unreadable: takes the row of each bad file, and what is wrong with it.
    """
    wanted = [Wanted(split, chunk) for chunk in chunked(rows, workers.reader.pictures[split])]
    spoilt = list[int]()
    for one, found in zip(wanted, workers.stream(wanted), strict=True):
        if isinstance(found, MicrostepError):
            spoilt += one.rows
        else:
            yield Chunk(one.rows, found.numpy())
    singly = [Wanted(split, [row]) for row in spoilt]
    for one, found in zip(singly, workers.stream(singly), strict=True):
        if isinstance(found, MicrostepError):
            unreadable[one.rows[0]] = str(found.args[1])
        else:
            yield Chunk(one.rows, found.numpy())


def name_of(pictures: Pictures, row: int) -> str:
    return printable(pictures.name(row))


def printable(name: str) -> str:
    """Return a name without what breaks a line, or can't be written as UTF-8."""
    return "".join("�" if category(letter) in ("Cc", "Cs") else letter for letter in name)
