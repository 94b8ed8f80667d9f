"""Damage to a checkpoint is noticed, and the next older intact one is used."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from microstep.config.compose import compose
from microstep.errors import CheckpointRefused
from microstep.run.checkpoints import manifest
from microstep.run.checkpoints.checkpoints import Checkpoints
from microstep.run.checkpoints.recovery import recover_state
from microstep.training.build import build_trainer
from microstep.training.resume import resume
from tests.faults.runs import differences, manifest_of, metrics_of, unfinished
from tests.faults.zygote import Zygote

WORDS = ("model=mlp", "threads=1", "progress=false", "epochs=6", "optimizer.lr=0.1")
Harm = Callable[[Path], None]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A finished run of six epochs."""
    run = tmp_path_factory.mktemp("damage") / "whole"
    build_trainer(compose(WORDS), run).fit()
    return run


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    return unfinished(whole, tmp_path / "run")


def flip(file: Path, bit: int) -> None:
    content = bytearray(file.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)


def cut(file: Path, twentieths: int) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * twentieths // 20])


def flip_one(file: Path) -> None:
    flip(file, 8 * file.stat().st_size // 2)


def halve(file: Path) -> None:
    cut(file, 10)


HARMS: list[Harm] = [flip_one, halve, Path.unlink]


def file_of(run: Path, which: str) -> Path:
    return run / "checkpoints" / manifest_of(run)[which]["file"]


def test_400_flipped_bits_are_all_noticed(run: Path) -> None:
    """Any single bit, anywhere in the file; the original loads again when the bit is restored."""
    file, bits = file_of(run, "last"), random.Random(0)
    for bit in (bits.randrange(8 * file.stat().st_size) for _ in range(400)):
        flip(file, bit)
        with pytest.raises(CheckpointRefused, match="its checksum is not the manifest's"):
            Checkpoints(run / "checkpoints").load("last")
        flip(file, bit)
    assert Checkpoints(run / "checkpoints").load("last")["progress"]["epoch"] == 6


@pytest.mark.parametrize("twentieths", range(20))
def test_a_truncated_checkpoint_is_noticed(run: Path, twentieths: int) -> None:
    """Cut at any twentieth, to nothing too."""
    cut(file_of(run, "last"), twentieths)
    with pytest.raises(CheckpointRefused, match="bytes where the manifest has"):
        Checkpoints(run / "checkpoints").load("last")


def test_without_the_checksum_most_flips_would_pass(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail: torch itself loads nearly all of them as if they were intact."""
    digest = manifest_of(run)["last"]["sha256"]
    monkeypatch.setattr(manifest, "sha256", lambda content: SimpleNamespace(hexdigest=lambda: digest))
    file, bits, passed = file_of(run, "last"), random.Random(0), 0
    for bit in (bits.randrange(8 * file.stat().st_size) for _ in range(40)):
        flip(file, bit)
        passed += loads(run)
        flip(file, bit)
    assert passed > 30


def loads(run: Path) -> bool:
    try:
        Checkpoints(run / "checkpoints").load("last")
    except CheckpointRefused:
        return False
    return True


@pytest.mark.parametrize("harm", HARMS)
def test_the_next_older_one_is_used_and_the_run_is_the_same(whole: Path, run: Path, harm: Harm, capsys) -> None:
    """A warning names the lost checkpoint and where the run resumes; at the end only the training time differs."""
    previous = manifest_of(run)["previous"]["epoch"]
    harm(file_of(run, "last"))
    resume(run).fit()
    told = capsys.readouterr().err
    assert f"warning: the last checkpoint is lost: {file_of(whole, 'last').name}" in told.replace(
        f"{run.resolve()}/checkpoints/", ""
    )
    assert f"going back to the previous checkpoint, of epoch {previous}" in told
    assert differences(run, whole) == []


@pytest.mark.parametrize("harm", HARMS)
def test_where_none_is_whole_the_run_is_refused(zygote: Zygote, run: Path, harm: Harm, tmp_path: Path) -> None:
    """Exit code 6, with a line for each lost checkpoint; nothing of the run is changed."""
    for file in (run / "checkpoints").glob("*.pt"):
        harm(file)
    files = [file for file in run.rglob("*") if file.is_file() and file.name not in ("train.log", ".lock.holder")]
    before = {file: file.read_bytes() for file in files}
    assert zygote.run("train.py", f"resume={run}", cwd=tmp_path) == 6
    assert "no checkpoint is whole" in (tmp_path / "output.txt").read_text().splitlines()[-1]
    assert {file: file.read_bytes() for file in before} == before


def test_a_best_checkpoint_that_is_lost_is_told_of(tmp_path: Path, capsys) -> None:
    """If the last is intact and the best is not, the run resumes, and the best is chosen from there on."""
    trainer = build_trainer(compose([*WORDS, "epochs=1"]), tmp_path / "run")
    trainer.fit()
    trainer.progress.epoch = 2  # a second epoch that was no better
    trainer.save()
    trainer.checkpoints.wait()
    flip_one(tmp_path / "run" / "checkpoints" / "epoch-0001.pt")
    again = Checkpoints(tmp_path / "run" / "checkpoints")
    found = recover_state(again)
    assert found is not None
    assert found.progress.best_epoch == 2
    assert again.load("best")["progress"]["epoch"] == 2
    assert Checkpoints(again.directory).entry("best").epoch == 2  # in the manifest on disk, too
    assert "warning: the best checkpoint, of epoch 1, is lost: later ones can still be best" in capsys.readouterr().err


def test_the_record_has_the_best_that_is_left(tmp_path: Path) -> None:
    """run.json names the epoch whose checkpoint is the best now, with its metrics, not one that is lost."""
    trainer = build_trainer(compose([*WORDS, "epochs=3"]), tmp_path / "run")
    trainer.run_epoch(1)
    trainer.progress.best_value = 2.0  # no later epoch is better
    trainer.run_epoch(2)
    trainer.checkpoints.wait()
    flip_one(tmp_path / "run" / "checkpoints" / "epoch-0001.pt")
    resume(tmp_path / "run")
    row = metrics_of(tmp_path / "run")[1]
    val = {name.removeprefix("val_"): float(value) for name, value in row.items() if name.startswith("val_")}
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["metrics"] == {"best": {"epoch": 2, **val}}


def test_a_lost_manifest_is_not_guessed_at(zygote: Zygote, run: Path, tmp_path: Path) -> None:
    """Without a manifest nothing can be verified: exit code 6, and the checkpoints stay where they are."""
    (run / "checkpoints" / "manifest.json").unlink()
    assert zygote.run("train.py", f"resume={run}", cwd=tmp_path) == 6
    assert "no checkpoint is whole" in (tmp_path / "output.txt").read_text()
    assert len(list((run / "checkpoints").glob("*.pt"))) >= 2
