"""What an examination comes to: said on the terminal, kept in its directory, shown in TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from microstep.components.logger.event_file import EventFile
from microstep.components.logger.tensorboard import code_summary, image_summary, scalar_summary
from microstep.utils.files import storage_errors, write_atomic
from microstep.utils.json_files import write_json
from microstep.utils.terminal import print_and_log
from microstep.utils.text import display_path


@dataclass(frozen=True)
class CheckResult:
    """What was found: a page of text, the same as numbers, pictures and curves; the sentence comes last."""

    page: str
    sentence: str
    numbers: Mapping[str, Any]  #: for JSON
    pictures: Mapping[str, bytes] = field(default_factory=dict)  #: name → PNG
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)  #: TensorBoard's tag → value by epoch, from 1
    passed: bool = True


def write_result(result: CheckResult, check: str, directory: Path) -> None:
    """Write a finding's files into an existing directory, and say it.

    `<check>.txt`, `<check>.json`, a PNG for each picture, and a TensorBoard events file with all of it.

    Raises:
        StorageError: where they can't be written.
    """
    text = f"{result.page}\n\n{result.sentence}\n"
    for name, content in result.pictures.items():
        write_atomic(directory / f"{name}.png", content)
    write_json(directory / f"{check}.json", {"sentence": result.sentence, **result.numbers})
    write_atomic(directory / f"{check}.txt", text.encode(errors="backslashreplace"))
    with storage_errors(directory):
        write_tensorboard(result, text, check, directory)
    print_and_log(f"{result.page}\n\n  written to {display_path(directory)}\n\n{result.sentence}")


def write_tensorboard(result: CheckResult, text: str, check: str, directory: Path) -> None:
    """Write what TensorBoard shows."""
    events = EventFile(directory)
    events.add(code_summary(f"check/{check}", text))
    for name in result.pictures:
        events.add(image_summary(f"check/{name}", directory / f"{name}.png"))
    for tag, values in result.curves.items():
        for epoch, value in enumerate(values, 1):
            events.add(scalar_summary({tag: value}), epoch)
