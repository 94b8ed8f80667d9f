"""checkpoint.keep=best leaves a finished run its best checkpoint alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from microstep.config.compose import compose
from microstep.errors import CheckpointRefused
from microstep.run.checkpoints import checkpoints as module
from microstep.run.checkpoints.checkpoints import Checkpoints
from microstep.training.build import build_trainer
from microstep.training.resume import resume
from tests.faults.runs import manifest_of
from tests.faults.zygote import Zygote

WORDS = ("model=mlp", "threads=1", "progress=false", "epochs=3", "scheduler=constant")


def trained(run: Path, *words: str, best: int = 2) -> Path:
    """Train a run of three epochs, one of which is the best by validation."""
    trainer = build_trainer(compose([*WORDS, *words]), run)
    evaluate = trainer.evaluate
    trainer.evaluate = lambda name: evaluate(name) | {"accuracy": float(trainer.progress.epoch + 1 == best)}
    trainer.fit()
    return run


@pytest.fixture(scope="module")
def dropped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("keep") / "run", "checkpoint.keep=best")


def files_of(run: Path) -> list[str]:
    return sorted(file.name for file in (run / "checkpoints").iterdir())


def status_of(run: Path) -> str:
    return str(json.loads((run / "run.json").read_text())["status"])


def test_a_finished_run_keeps_its_best_checkpoint_alone(dropped: Path) -> None:
    """It has reports and weights as by default, and the checkpoint loads."""
    assert (files_of(dropped), [*manifest_of(dropped)]) == (["epoch-0002.pt", "manifest.json"], ["best"])
    assert status_of(dropped) == "finished"
    assert {"val", "test"} <= {path.name for path in (dropped / "reports").iterdir()}
    assert Checkpoints(dropped / "checkpoints").load("best")["progress"]["epoch"] == 2


def test_if_the_last_epoch_is_the_best_the_run_can_be_made_longer(tmp_path: Path) -> None:
    """Its one file is the last checkpoint, too. By default a run keeps all three."""
    run = trained(tmp_path / "run", "checkpoint.keep=best", best=3)
    assert (files_of(run), sorted(manifest_of(run))) == (["epoch-0003.pt", "manifest.json"], ["best", "last"])
    resume(run, ["epochs=4"]).fit()
    assert manifest_of(run)["best"]["epoch"] in (3, 4)
    assert len(files_of(trained(tmp_path / "all", best=1))) == 4


def test_why_it_does_not_go_on_is_one_line(dropped: Path, tmp_path: Path, zygote: Zygote) -> None:
    """A resume, more epochs and the last checkpoint are refused with exit code 6, and the run is not changed."""
    run = Path(shutil.copytree(dropped, tmp_path / "run"))
    before = (run / "run.json").read_bytes()
    with pytest.raises(CheckpointRefused, match=r"checkpoint\.keep=best has dropped the last one"):
        resume(run)
    for program, words in (("train.py", ["resume=run", "epochs=9"]), ("evaluate.py", ["run=run", "checkpoint=last"])):
        assert zygote.run(program, *words, cwd=tmp_path) == 6
        assert "checkpoint.keep=best has dropped the last one; " in (tmp_path / "output.txt").read_text()
        (tmp_path / "output.txt").unlink()
    assert zygote.run("train.py", "resume=run", cwd=tmp_path) == 0
    assert (run / "run.json").read_bytes() == before


@pytest.mark.parametrize("dies_in", ["write_manifest", "find_checkpoint_files"])
def test_a_death_in_between_leaves_a_finished_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_in: str
) -> None:
    """It names all checkpoints, or the best alone; either way run.json and the reports were written before."""
    run, keep = tmp_path / "run", Checkpoints.keep

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    def dying(self: Checkpoints, kept: dict) -> None:
        if kept.keys() == {"best"}:
            assert status_of(run) == "finished"
            assert (run / "reports" / "test" / "scores.csv").exists()
            monkeypatch.setattr(module, dies_in, die)
        keep(self, kept)

    monkeypatch.setattr(Checkpoints, "keep", dying)
    with pytest.raises(KeyboardInterrupt):
        trained(run, "checkpoint.keep=best")
    assert sorted(manifest_of(run)) in (["best"], ["best", "last", "previous"])
    assert Checkpoints(run / "checkpoints").load("best")["progress"]["epoch"] == 2
    assert status_of(run) == "finished"


def test_a_run_that_fails_at_its_end_keeps_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is dropped before the run has finished, so it can be resumed."""
    trainer = build_trainer(compose([*WORDS, "checkpoint.keep=best"]), tmp_path / "run")
    monkeypatch.delattr(trainer.weights.__class__, "write")
    with pytest.raises(AttributeError):
        trainer.fit()
    assert {"last", "best", "previous"} <= {*manifest_of(tmp_path / "run")}


def test_a_sweep_skips_such_runs(tmp_path: Path, zygote: Zygote) -> None:
    """The same command again finds them finished, and so does the one that keeps all checkpoints."""
    words = ("-m", *WORDS, "seed=0,1", "sweep=s")
    assert zygote.run("train.py", *words, "checkpoint.keep=best", cwd=tmp_path) == 0
    for extra in (["checkpoint.keep=best"], []):
        (tmp_path / "output.txt").unlink()
        assert zygote.run("train.py", *words, *extra, cwd=tmp_path) == 0
        assert "2 runs, 2 finished already, 0 to do" in (tmp_path / "output.txt").read_text()
