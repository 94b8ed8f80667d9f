"""The result of a check, and its output on the terminal, in files and in TensorBoard."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from microstep.components.logger.event_file import EventFile
from microstep.components.logger.tensorboard import code_summary, image_summary, scalar_summary
from microstep.utils.files import storage_errors, write_atomic
from microstep.utils.json_files import write_json
from microstep.utils.terminal import print_and_log, print_json
from microstep.utils.text import display_path


@dataclass(frozen=True)
class CheckResult:
    """The result of a check as text, numbers, images and curves."""

    report_text: str
    verdict_text: str  #: one sentence, printed last
    numbers: Mapping[str, Any]  #: for JSON
    images: Mapping[str, bytes] = field(default_factory=dict)  #: name → PNG
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)  #: TensorBoard tag → value by epoch, from 1
    passed: bool = True


def write_result(result: CheckResult, check: str, directory: Path) -> None:
    """Write `<check>.txt`, `<check>.json`, a PNG for each image and a TensorBoard events file; print the result."""
    text = f"{result.report_text}\n\n{result.verdict_text}\n"
    for name, content in result.images.items():
        write_atomic(directory / f"{name}.png", content)
    numbers = {"sentence": " ".join(result.verdict_text.split()), **result.numbers}
    write_json(directory / f"{check}.json", numbers)
    write_atomic(directory / f"{check}.txt", text.encode(errors="backslashreplace"))
    with storage_errors(directory):
        write_tensorboard(result, text, check, directory)
    print_and_log(f"{result.report_text}\n\n  written to {display_path(directory)}\n\n{result.verdict_text}")
    print_json({"check": check, "passed": result.passed, "directory": display_path(directory), **numbers})


def write_tensorboard(result: CheckResult, text: str, check: str, directory: Path) -> None:
    events = EventFile(directory)
    events.add(code_summary(f"check/{check}", text))
    for name in result.images:
        events.add(image_summary(f"check/{name}", directory / f"{name}.png"))
    for tag, values in result.curves.items():
        for epoch, value in enumerate(values, 1):
            events.add(scalar_summary({tag: value}), epoch)
