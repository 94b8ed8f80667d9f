"""The manifest: which checkpoints there are, and what their bytes must be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from microstep.errors import CheckpointRefused
from microstep.run.progress import Position
from microstep.utils.json_files import read_json, write_json

MANIFEST_FILE = "manifest.json"
MAX_MANIFEST_BYTES = 2**16  #: bytes that a manifest may have
OTHER_CHECKPOINT_REMEDY = "use another checkpoint"


@dataclass(frozen=True)
class CheckpointEntry:
    """What the manifest says of one checkpoint."""

    file: str
    sha256: str
    bytes: int
    epoch: int  #: epochs finished
    window: int  #: windows of the next epoch
    optimizer_steps: int

    @property
    def place(self) -> Position:
        """Where the run stood."""
        return Position(self.epoch, self.window)


Manifest = Mapping[str, CheckpointEntry]


def make_entry(content: bytes, position: Position, optimizer_steps: int) -> CheckpointEntry:
    """Return a new checkpoint's entry; no two places share a file name."""
    name = f"epoch-{position.epoch:04d}" + (f"+{position.window:06d}" if position.window else "")
    digest = sha256(content).hexdigest()
    return CheckpointEntry(f"{name}.pt", digest, len(content), position.epoch, position.window, optimizer_steps)


def read_manifest(directory: Path) -> dict[str, CheckpointEntry | None]:
    """Return a manifest, None for an entry that is damaged; empty before the first checkpoint.

    Raises:
        CheckpointRefused: where it is damaged.
    """
    file = directory / MANIFEST_FILE
    try:
        return {name: parse_entry(fields) for name, fields in read_json(file, MAX_MANIFEST_BYTES).items()}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise CheckpointRefused(str(file), f"it is damaged: {error}", "use another run") from None


def parse_entry(fields: Any) -> CheckpointEntry | None:
    """Return an entry where it has all its fields, each of its kind; its file is a name in the directory."""
    kinds = {"file": str, "sha256": str, "bytes": int, "epoch": int, "window": int, "optimizer_steps": int}
    known: dict[str, Any] = {"window": 0} | fields if isinstance(fields, dict) else {}  # 0.1.0 had no windows
    if not all(type(known.get(name)) is kind for name, kind in kinds.items()):
        return None
    return CheckpointEntry(**{name: known[name] for name in kinds} | {"file": Path(known["file"]).name})


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write the manifest, whole and durable."""
    write_json(directory / MANIFEST_FILE, {name: asdict(entry) for name, entry in manifest.items()}, durable=True)


def is_intact(file: Path, entry: CheckpointEntry) -> bool:
    """Say whether a file is what was written."""
    try:
        read_verified(file, entry)
    except CheckpointRefused:
        return False
    return True


def read_verified(file: Path, entry: CheckpointEntry) -> bytes:
    """Return a file's content where its size and SHA-256 are the manifest's.

    Raises:
        CheckpointRefused: where they aren't, or the file is not there.
    """
    if not file.is_file():
        raise CheckpointRefused(str(file), "the manifest names it, and it is not there", OTHER_CHECKPOINT_REMEDY)
    if file.stat().st_size != entry.bytes:
        reason = f"{file.stat().st_size} bytes where the manifest has {entry.bytes}"
        raise CheckpointRefused(str(file), reason, OTHER_CHECKPOINT_REMEDY)
    content = file.read_bytes()
    if sha256(content).hexdigest() != entry.sha256:
        raise CheckpointRefused(str(file), "its checksum is not the manifest's", OTHER_CHECKPOINT_REMEDY)
    return content
