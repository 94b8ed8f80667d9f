"""What an examination comes to: said on the terminal, kept in its directory, shown in TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from microstep.components.logger.event_file import EventsFile
from microstep.components.logger.tensorboard import code, picture, scalars
from microstep.utils.files import storing, write_whole
from microstep.utils.json_files import write_json
from microstep.utils.terminal import say
from microstep.utils.text import display_path


@dataclass(frozen=True)
class Finding:
    """What was found: a page of text, the same as numbers, pictures and curves; the sentence comes last."""

    page: str
    sentence: str
    numbers: Mapping[str, Any]  #: for JSON
    pictures: Mapping[str, bytes] = field(default_factory=dict)  #: name → PNG
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)  #: TensorBoard's tag → value by epoch, from 1
    passed: bool = True


def tell(finding: Finding, check: str, directory: Path) -> None:
    """Write a finding's files into an existing directory, and say it.

    `<check>.txt`, `<check>.json`, a PNG for each picture, and a TensorBoard events file with all of it.

    Raises:
        StorageError: where they can't be written.
    """
    text = f"{finding.page}\n\n{finding.sentence}\n"
    for name, content in finding.pictures.items():
        write_whole(directory / f"{name}.png", content)
    write_json(directory / f"{check}.json", {"sentence": finding.sentence, **finding.numbers})
    write_whole(directory / f"{check}.txt", text.encode(errors="backslashreplace"))
    with storing(directory):
        show(finding, text, check, directory)
    say(f"{finding.page}\n\n  written to {display_path(directory)}\n\n{finding.sentence}")


def show(finding: Finding, text: str, check: str, directory: Path) -> None:
    """Write what TensorBoard shows."""
    events = EventsFile(directory)
    events.add(code(f"check/{check}", text))
    for name in finding.pictures:
        events.add(picture(f"check/{name}", directory / f"{name}.png"))
    for tag, values in finding.curves.items():
        for epoch, value in enumerate(values, 1):
            events.add(scalars({tag: value}), epoch)
