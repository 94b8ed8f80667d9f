"""Checkpoints: plain torch files, a manifest with their checksums, and the care to load nothing else."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from microstep.errors import CheckpointRefused
from microstep.files import storing, write_json, write_whole

MANIFEST = "manifest.json"
FIELDS = {"file": str, "sha256": str, "bytes": int, "epoch": int, "optimizer_steps": int}


class Checkpoints:
    """The checkpoints of one run: the last, and the best by validation. Both may be the same file."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.manifest = read_manifest(directory / MANIFEST)

    def save(self, state: Mapping[str, Any], epoch: int, optimizer_steps: int, best: bool) -> None:
        """Write a checkpoint whole, then point the manifest at it, then remove what the manifest no longer names.

        Args:
            state: tensors and plain values only; key `model` is the model's state dict.
            best: whether it is the best so far.
        """
        with storing(self.directory):
            self.directory.mkdir(exist_ok=True)
        content = serialised(state)
        file = f"epoch-{epoch:04d}.pt"
        write_whole(self.directory / file, content)
        digest = sha256(content).hexdigest()
        entry = {
            "file": file,
            "sha256": digest,
            "bytes": len(content),
            "epoch": epoch,
            "optimizer_steps": optimizer_steps,
        }
        before = {e["file"] for e in self.manifest.values()}
        self.manifest = self.manifest | {"last": entry} | ({"best": entry} if best else {})
        write_json(self.directory / MANIFEST, self.manifest, durable=True)
        for old in before - {e["file"] for e in self.manifest.values()}:
            (self.directory / old).unlink(missing_ok=True)

    def entry(self, which: str) -> dict[str, Any]:
        """Return what the manifest says of the `best` or `last` checkpoint.

        Raises:
            CheckpointRefused: where there is none, or a field is missing or of another kind.
        """
        entry = self.manifest.get(which)
        if entry is None:
            reason = f"there is no {which} checkpoint"
            raise CheckpointRefused(str(self.directory), reason, "let the run finish an epoch")
        if not whole(entry):
            raise CheckpointRefused(str(self.directory / MANIFEST), f"its {which} entry is damaged", "use another run")
        return dict(entry)

    def load(self, which: str, device: torch.device) -> dict[str, Any]:
        """Return the state of the `best` or `last` checkpoint, checked by size and SHA-256 before it is read.

        Raises:
            CheckpointRefused: where it is missing, is not what was written, or holds more than tensors and values.
        """
        entry = self.entry(which)
        file = self.directory / Path(entry["file"]).name
        content = verified(file, entry)
        try:
            return dict(torch.load(io.BytesIO(content), map_location=device, weights_only=True))
        except Exception as error:  # whatever torch makes of bytes that it wasn't given by us
            reason = f"torch can't read it: {str(error).splitlines()[0]}"
            raise CheckpointRefused(str(file), reason, "use another checkpoint") from None


def whole(entry: Any) -> bool:
    """Say whether a manifest's entry has all its fields, each of its kind."""
    return isinstance(entry, dict) and all(isinstance(entry.get(name), kind) for name, kind in FIELDS.items())


def read_manifest(file: Path) -> dict[str, Any]:
    """Return a manifest; empty before the first checkpoint.

    Raises:
        CheckpointRefused: where it is damaged.
    """
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointRefused(str(file), f"it is damaged: {error}", "use another run") from None


def serialised(state: Mapping[str, Any]) -> bytes:
    """Return a state as torch.save writes it."""
    stream = io.BytesIO()
    torch.save(dict(state), stream)
    return stream.getvalue()


def verified(file: Path, entry: Mapping[str, Any]) -> bytes:
    """Return a file's content where its size and SHA-256 are the manifest's."""
    if not file.is_file():
        raise CheckpointRefused(str(file), "the manifest names it, and it is not there", "use checkpoint=last or best")
    if file.stat().st_size != entry["bytes"]:
        reason = f"{file.stat().st_size} bytes where the manifest has {entry['bytes']}"
        raise CheckpointRefused(str(file), reason, "use another checkpoint")
    content = file.read_bytes()
    if sha256(content).hexdigest() != entry["sha256"]:
        raise CheckpointRefused(str(file), "its checksum is not the manifest's", "use another checkpoint")
    return content
