"""If the data become unreadable during training, the progress is kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.faults.runs import differences, manifest_of
from tests.faults.zygote import Zygote

CONF = ("--config-dir", str(Path(__file__).parent / "conf"))
DATA = ("dataset=image_folder", "dataset.root=photos", "dataset.size=8", "dataset.resident=false", "num_workers=0")
WORDS = (*CONF, *DATA, "model=unplugged", "epochs=3", "batch_size=8", "threads=1", "progress=false", "device=cpu")
WINDOWS = 7  #: an epoch: 54 photos of 60, in windows of 8


@pytest.fixture
def home(photos: Path, tmp_path: Path) -> Path:
    """Return a working directory with photos of its own."""
    shutil.copytree(photos, tmp_path / "photos")
    return tmp_path


def failed(zygote: Zygote, home: Path, at: int, when: str) -> None:
    """Run until the photos are gone; it ends with exit code 2 and one line that names one of them."""
    done = zygote.call("train.py", *WORDS, "hydra.run.dir=deep/run", cwd=home, UNPLUGGED=f"photos {at} {when}")
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: photos/") and "No such file or directory" in line


@pytest.mark.parametrize(
    ("at", "when", "epoch"),
    [
        (WINDOWS + 2, "training", 1),
        pytest.param(2 * WINDOWS + 1, "training", 2, marks=pytest.mark.long),
        (4, "evaluating", 3),
    ],
    ids=["in the second epoch", "in the third epoch", "in the final report"],
)
def test_a_run_whose_data_are_lost_after_a_checkpoint_goes_on_later(
    zygote: Zygote, home: Path, at: int, when: str, epoch: int
) -> None:
    """Its directory stays; with the data back, the same run, bit for bit."""
    assert zygote.run("train.py", *WORDS, "hydra.run.dir=whole", cwd=home) == 0
    failed(zygote, home, at, when)
    assert manifest_of(home / "deep" / "run")["last"]["epoch"] == epoch
    assert json.loads((home / "deep" / "run" / "run.json").read_text())["status"] == "failed"
    (home / "photos.away").rename(home / "photos")
    assert zygote.run("train.py", "resume=deep/run", *CONF, cwd=home) == 0, (home / "output.txt").read_text()
    assert differences(home / "deep" / "run", home / "whole") == []


@pytest.mark.parametrize("at", [2, WINDOWS], ids=["in training", "in validation"])
def test_a_run_whose_data_are_lost_before_its_first_checkpoint_leaves_no_directory(
    zygote: Zygote, home: Path, at: int
) -> None:
    """There is no checkpoint to resume from; the created directory is removed."""
    failed(zygote, home, at, "training")
    assert sorted(path.name for path in home.iterdir()) == ["photos.away"]
