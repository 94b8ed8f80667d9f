"""Configs that an attacker may have planted in a run directory: each makes a file, the marker, if any of it runs."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from omegaconf import OmegaConf

from microstep.config.compose import compose

FOREIGN = "tests.faults.planted.stranger"  #: a target that no yaml of ours names
Node = dict[str, Any]


def stranger(file: str) -> None:
    """Make the marker."""
    Path(file).touch()


def evil(marker: Path) -> Node:
    """Return a node that makes the marker when it is built."""
    return {"_target_": FOREIGN, "file": str(marker)}


class Pickled:
    """Makes the marker when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return stranger, (self.marker,)


def pickled(marker: Path) -> str:
    """Return a pickle that makes the marker."""
    file = marker.with_name("planted.pkl")
    file.write_bytes(pickle.dumps(Pickled(marker)))
    return str(file)


def array(marker: Path) -> str:
    """Return a .npy whose one object makes the marker."""
    file = marker.with_name("planted.npy")
    np.save(file, np.array([Pickled(marker)], dtype=object), allow_pickle=True)
    return str(file)


def repository(marker: Path) -> str:
    """Return a hub repository whose hubconf.py makes the marker."""
    directory = marker.with_name("planted")
    directory.mkdir(exist_ok=True)
    (directory / "hubconf.py").write_text(f"open({str(marker)!r}, 'w').close()\ndef net(): ...\n")
    return str(directory)


def python(marker: Path) -> str:
    """Return an expression that makes the marker."""
    return f"__import__('pathlib').Path({str(marker)!r}).touch()"


#: Targets that everybody has installed and that run what their arguments say.
PLANTS: dict[str, Callable[[Path], Node]] = {
    FOREIGN: lambda marker: {"file": str(marker)},
    "builtins.exec": lambda marker: {"_args_": [python(marker)]},
    "os.system": lambda marker: {"command": f"touch '{marker}'"},
    "torch.load": lambda marker: {"f": pickled(marker), "weights_only": False},
    "numpy.load": lambda marker: {"file": array(marker), "allow_pickle": True},
    "joblib.load": lambda marker: {"filename": pickled(marker)},
    "torch.hub.load": lambda marker: {"repo_or_dir": repository(marker), "model": "net", "source": "local"},
    "sympy.sympify": lambda marker: {"a": python(marker)},
    "torch.utils.collect_env.run": lambda marker: {"command": f"touch '{marker}'"},
}


def plant(target: str, marker: Path) -> Node:
    """Return the node that makes the marker by way of a target."""
    return {"_target_": target, **PLANTS[target](marker)}


@cache
def sound() -> str:
    """Return the config of a run as it should be."""
    return OmegaConf.to_yaml(compose(["model=mlp", "threads=1"]))


class Plain(yaml.SafeDumper):
    """Writes shared values several times, because a run has no anchors."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def run_with(directory: Path, **changes: Any) -> Path:
    """Return a run directory whose config has been tampered with."""
    return written(directory, yaml.dump({**yaml.safe_load(sound()), **changes}, Dumper=Plain))


def written(directory: Path, text: str) -> Path:
    """Return a run directory with this config.yaml."""
    directory.mkdir(exist_ok=True)
    (directory / "config.yaml").write_text(text, encoding="utf-8")
    return directory
