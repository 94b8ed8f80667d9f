"""Reads and writes the manifest: file names, sizes and checksums of the checkpoints of a run."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from microstep.errors import CheckpointRefused
from microstep.run.progress import Position
from microstep.utils.json_files import read_json, write_json

MANIFEST_FILE = "manifest.json"
MAX_MANIFEST_BYTES = 2**16


@dataclass(frozen=True)
class CheckpointEntry:
    """Entry of the manifest for one checkpoint."""

    file: str
    sha256: str
    bytes: int
    epoch: int  #: epochs finished
    window: int  #: windows finished of the next epoch
    optimizer_steps: int

    @property
    def position(self) -> Position:
        return Position(self.epoch, self.window)


def make_entry(content: bytes, position: Position, optimizer_steps: int) -> CheckpointEntry:
    name = f"epoch-{position.epoch:04d}" + (f"+{position.window:06d}" if position.window else "")
    digest = sha256(content).hexdigest()
    return CheckpointEntry(f"{name}.pt", digest, len(content), position.epoch, position.window, optimizer_steps)


def read_manifest(directory: Path) -> dict[str, CheckpointEntry | None]:
    """Return the entries of a manifest, None for a damaged entry; empty if there is no file. Refuse a damaged file."""
    file = directory / MANIFEST_FILE
    try:
        return {name: parse_entry(fields) for name, fields in read_json(file, MAX_MANIFEST_BYTES).items()}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise CheckpointRefused(str(file), f"it is damaged: {error}", "use another run") from None


def parse_entry(fields: Any) -> CheckpointEntry | None:
    """Return an entry, without directories in its file name; None if a field is missing or of a wrong type."""
    types = {"file": str, "sha256": str, "bytes": int, "epoch": int, "window": int, "optimizer_steps": int}
    known: dict[str, Any] = {"window": 0} | fields if isinstance(fields, dict) else {}  # 0.1.0 had no windows
    if not all(type(known.get(name)) is kind for name, kind in types.items()):
        return None
    return CheckpointEntry(**{name: known[name] for name in types} | {"file": Path(known["file"]).name})


def write_manifest(directory: Path, entries: Mapping[str, CheckpointEntry]) -> None:
    write_json(directory / MANIFEST_FILE, {name: asdict(entry) for name, entry in entries.items()}, durable=True)


def read_verified(file: Path, entry: CheckpointEntry) -> bytes:
    """Return the content of a file. Raise CheckpointRefused if its size or SHA-256 is not that of the entry."""
    if not file.is_file():
        reason = "the manifest names it, and it is not there"
    elif (size := file.stat().st_size) != entry.bytes:
        reason = f"{size} bytes where the manifest has {entry.bytes}"
    elif sha256(content := file.read_bytes()).hexdigest() != entry.sha256:
        reason = "its checksum is not the manifest's"
    else:
        return content
    raise CheckpointRefused(str(file), reason, "use another checkpoint")
