"""The parts of docs/extending.md, copied out of the page into a folder of their own, work as it says."""

from __future__ import annotations

import random
import re
import shlex
import time
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.docs.test_docs import code_blocks
from tests.faults.runs import differences
from tests.faults.test_kills import killed_after, said
from tests.faults.zygote import Zygote

PAGE = (ROOT / "docs" / "extending.md").read_text()
SECTIONS = {part.partition("\n")[0]: part for part in re.split("^## ", PAGE, flags=re.MULTILINE)[1:]}
FILE = re.compile(r"^`([\w/]+\.(?:py|yaml))`:\n\n((?: {4}.*\n|\n)+)", re.MULTILINE)
FILES = {name: code_blocks(f"{block}\n")[0] + "\n" for name, block in FILE.findall(PAGE)}
COMMANDS = {
    title: shlex.split(line, comments=True)[2:]
    for title, part in SECTIONS.items()
    for line in part.splitlines()
    if line.startswith("    python train.py ")
}
WITH_STATE = [title for title in COMMANDS if "state_dict" in SECTIONS[title] or "average" in title]
COMMON = ("threads=1", "progress=false", "checkpoint.every_steps=4")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a folder with all files of the page, and the data that they read."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "data").mkdir()
    for name in ("train", "test"):
        pixels = np.random.default_rng(0).integers(0, 256, (60, 3, 6, 6), dtype=np.uint8)
        np.savez(tmp_path / "data" / f"{name}.npz", pixels=pixels, labels=np.arange(60) % 2)
    return tmp_path


@pytest.mark.parametrize("title", COMMANDS)
def test_a_part_of_ones_own_trains(zygote: Zygote, project: Path, title: str) -> None:
    """The command of each section trains, with the files of the page and nothing else."""
    words = (*COMMON, *COMMANDS[title], "epochs=2", "hydra.run.dir=run")
    assert zygote.run("train.py", *words, cwd=project, PYTHONPATH=f"{project}:{ROOT}") == 0, said(project)
    assert (project / "run" / "reports" / "test").is_dir()


@pytest.mark.parametrize("title", WITH_STATE)
def test_a_part_with_a_state_survives_a_kill(zygote: Zygote, project: Path, title: str) -> None:
    """Killed at three random moments and resumed, the run is the uninterrupted one, bit for bit."""
    words, environment = (*COMMON, *COMMANDS[title], "model=mlp", "epochs=6"), {"PYTHONPATH": f"{project}:{ROOT}"}
    began = time.monotonic()
    assert zygote.run("train.py", *words, "hydra.run.dir=whole", cwd=project, **environment) == 0, said(project)
    seconds, moments = time.monotonic() - began, random.Random(title)
    for _ in range(3):
        killed_after(moments.uniform(0.3, 0.7) * seconds, zygote, project, *words, "hydra.run.dir=run", **environment)
    again = (*words, "hydra.run.dir=run", "resume=auto")
    assert zygote.run("train.py", *again, cwd=project, **environment) == 0, said(project)
    assert differences(project / "run", project / "whole") == []


def test_every_slot_has_its_example() -> None:
    """No part of a run is left without an example that is run."""
    slots = ("data set", "task", "loss", "metric", "step", "gradient", "average", "stop", "logger", "augmentation")
    assert [slot for slot in slots if not any(slot in title for title in COMMANDS)] == []
