"""Checkpoints are plain and atomic, and nothing is loaded that the run did not write."""

from __future__ import annotations

import csv
import io
import json
import pickle
import shutil
from concurrent.futures import wait
from hashlib import sha256
from pathlib import Path
from threading import Event, Timer

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from microstep.config.allowlist import ALLOW_ALL
from microstep.config.compose import compose
from microstep.errors import CheckpointRefused, StorageError
from microstep.evaluation.evaluate import evaluate_run
from microstep.run.checkpoints import checkpoints as checkpoint
from microstep.run.checkpoints.archive import serialize_state
from microstep.run.checkpoints.checkpoints import Checkpoints
from microstep.run.lock import directory_lock
from microstep.run.monitor import Monitor
from microstep.run.progress import Position, Progress
from microstep.training.build import build_trainer
from microstep.utils.progress_bar import ProgressBars
from tests.conftest import files_limited, fit
from tests.run.test_lock import is_taken

CPU = torch.device("cpu")
MANIFEST = "manifest.json"


def state(value: float = 1.0) -> dict:
    return {"model": {"weight": torch.full((3, 4), value)}, "progress": {"epoch": 1, "best": value}}


@pytest.fixture
def saved(tmp_path) -> Path:
    """The checkpoints of three epochs, the second of which was the best."""
    for epoch, best in ((1, True), (2, True), (3, False)):
        save(tmp_path / "checkpoints", state(epoch), epoch, best)
    return tmp_path / "checkpoints"


def save(directory: Path, content: dict, epoch: int, best: bool) -> Checkpoints:
    """Save after an epoch, and wait until it is written."""
    checkpoints = Checkpoints(directory)
    checkpoints.save(content, Progress(epoch=epoch, optimizer_steps=10 * epoch), best)
    checkpoints.wait()
    return checkpoints


def manifest_of(directory: Path) -> dict:
    """Return a manifest as any program would read it."""
    return json.loads((directory / MANIFEST).read_text())


def edit(directory: Path, content: object) -> None:
    (directory / MANIFEST).write_text(content if isinstance(content, str) else json.dumps(content))


def replace_best(directory: Path, content: bytes) -> None:
    """Put other bytes in place of the best checkpoint, and make size and checksum in the manifest match."""
    manifest = manifest_of(directory)
    (directory / manifest["best"]["file"]).write_bytes(content)
    manifest["best"] |= {"sha256": sha256(content).hexdigest(), "bytes": len(content)}
    edit(directory, manifest)


def refusal(directory: Path, which: str = "best") -> str:
    """Return why a checkpoint was refused, with exit code 6."""
    with pytest.raises(CheckpointRefused) as caught:
        Checkpoints(directory).load(which)
    assert caught.value.exit_code == 6
    return str(caught.value)


def test_what_was_saved_comes_back(saved):
    """`best` and `last` load the saved state, tensors bit for bit and plain values equal."""
    for which, value in (("best", 2.0), ("last", 3.0)):
        loaded = Checkpoints(saved).load(which)
        assert torch.equal(loaded["model"]["weight"], torch.full((3, 4), value))
        assert loaded["progress"] == {"epoch": 1, "best": value}


def test_the_manifest_describes_them(saved):
    """The manifest has the true file, checksum, size, position and steps of the last, previous and best checkpoint."""
    manifest = manifest_of(saved)
    assert list(manifest) == ["last", "previous", "best"]
    for which, epoch in (("best", 2), ("previous", 2), ("last", 3)):
        content = (saved / manifest[which]["file"]).read_bytes()
        assert manifest[which] == {
            "file": f"epoch-{epoch:04d}.pt",
            "sha256": sha256(content).hexdigest(),
            "bytes": len(content),
            "epoch": epoch,
            "window": 0,
            "optimizer_steps": 10 * epoch,
        }


def test_what_the_manifest_no_longer_names_is_removed(saved):
    """The last, the previous and the best file are kept; older ones are removed, and no temporary file is left."""
    assert sorted(p.name for p in saved.iterdir()) == ["epoch-0002.pt", "epoch-0003.pt", MANIFEST]
    save(saved, state(4), 4, best=False)
    assert sorted(p.name for p in saved.iterdir()) == ["epoch-0002.pt", "epoch-0003.pt", "epoch-0004.pt", MANIFEST]
    save(saved, state(5), 5, best=True)
    assert sorted(p.name for p in saved.iterdir()) == ["epoch-0004.pt", "epoch-0005.pt", MANIFEST]


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path, monkeypatch):
    """The state at the time of the call is written, even if the tensors change meanwhile."""
    writing, content = Event(), state(1)
    monkeypatch.setattr(checkpoint, "serialize_state", lambda state: writing.wait(10) and serialize_state(state))
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(content, Progress(epoch=1), best=True)
    content["model"]["weight"].zero_()
    content["progress"]["best"] = 0
    assert not list(tmp_path.glob("checkpoints/*"))
    writing.set()
    loaded = checkpoints.load("last")
    assert (loaded["model"]["weight"] == 1).all()
    assert loaded["progress"]["best"] == 1.0


def test_the_run_directory_is_locked_until_a_checkpoint_is_written(tmp_path, monkeypatch):
    """Other processes are refused, also if who saved was interrupted and dropped; this one waits for the manifest."""
    writing = Event()
    monkeypatch.setattr(checkpoint, "serialize_state", lambda state: writing.wait(10) and serialize_state(state))
    Checkpoints(tmp_path / "checkpoints").save(state(1), Progress(epoch=1), best=True)
    assert is_taken(tmp_path)
    Timer(0.2, writing.set).start()
    with directory_lock(tmp_path):
        assert Checkpoints(tmp_path / "checkpoints").entry("last").epoch == 1


def test_a_failure_to_write_is_told_at_the_next_occasion(saved):
    """Asking for a failure does not wait; the next save, and the end, raise it once."""
    checkpoints = Checkpoints(saved)
    checkpoints.raise_failure()
    for occasion in (checkpoints.wait, lambda: checkpoints.save(state(5), Progress(epoch=5), best=False)):
        with files_limited(200):
            checkpoints.save(state(4), Progress(epoch=4), best=False)
            wait([checkpoints.pending_write])
        with pytest.raises(StorageError):
            occasion()
        checkpoints.wait()
    checkpoints.save(state(4), Progress(epoch=4), best=False)
    checkpoints.wait()
    checkpoints.raise_failure()
    assert Checkpoints(saved).load("last")["progress"]["best"] == 4


def test_in_mid_epoch_the_name_says_the_window(saved):
    """Each position has its own file name; the manifest stores the window, and the run resumes there."""
    checkpoints = Checkpoints(saved)
    checkpoints.save(state(3.5), Progress(epoch=3, window=7, optimizer_steps=37), best=False)
    checkpoints.wait()
    last = manifest_of(saved)["last"]
    assert (last["file"], last["epoch"], last["window"]) == ("epoch-0003+000007.pt", 3, 7)
    assert Checkpoints(saved).entry("last").position == checkpoints.saved_position == Position(3, 7)
    assert str(checkpoints.saved_position) == "epoch 4, window 7"


def test_the_one_before_is_one_that_is_whole(saved):
    """A last checkpoint that was damaged does not become the previous one; the one before it stays."""
    (saved / "epoch-0003.pt").write_bytes(b"damaged")
    save(saved, state(4), 4, best=False)
    assert manifest_of(saved)["previous"]["epoch"] == 2
    assert Checkpoints(saved).load("previous")["progress"]["best"] == 2


def test_what_saving_cost_is_counted(tmp_path):
    """Saves, bytes of the last one, time that training paused, and time of the second thread."""
    checkpoints = save(tmp_path / "checkpoints", state(), 1, best=True)
    cost = checkpoints.saving
    assert (cost.saves, cost.bytes) == (1, manifest_of(checkpoints.directory)["last"]["bytes"])
    assert 0 < cost.pause_seconds < 5
    assert 0 < cost.write_seconds < 5


def test_what_would_have_to_be_run_to_be_loaded_is_not_saved(saved):
    """It is refused when it is saved, with its name in the state; the checkpoints stay as they are."""
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    with pytest.raises(CheckpointRefused, match=r"state\.optimizer\.file is a PosixPath"):
        save(saved, {"model": {}, "optimizer": {"file": Path()}}, 4, best=True)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


def test_a_run_writes_plain_torch_files(trained):
    """Any program can read a run's checkpoint with weights_only=True; key `model` is the state dict."""
    manifest = manifest_of(trained / "checkpoints")
    loaded = torch.load(trained / "checkpoints" / manifest["best"]["file"], weights_only=True)
    assert set(loaded) == {
        *("model", "optimizer", "scheduler", "precision", "metrics", "progress", "run", "choices", "logs", "metadata")
    }
    assert all(isinstance(value, torch.Tensor) for value in loaded["model"].values())
    parameters = json.loads((trained / "run.json").read_text())["parameters"]
    assert sum(value.numel() for value in loaded["model"].values()) == parameters > 1000


def test_the_best_is_the_best_by_validation_accuracy(tmp_path):
    """In a real run the best epoch is that of the highest accuracy in metrics.csv, the latest of equals."""
    fit(["epochs=8", "model=mlp", "optimizer.lr=0.6", "scheduler=constant", "batch_size=16"], tmp_path / "run")
    with (tmp_path / "run" / "metrics.csv").open() as stream:
        accuracies = [float(row["val_accuracy"]) for row in csv.DictReader(stream)]
    latest_best = max(range(8), key=lambda epoch: (accuracies[epoch], epoch)) + 1
    manifest = manifest_of(tmp_path / "run" / "checkpoints")
    assert manifest["best"]["epoch"] == latest_best
    assert manifest["last"]["epoch"] == 8
    assert len(set(accuracies)) > 1


def test_minutes_between_checkpoints_count_from_the_start_of_training(tmp_path):
    """A trainer that was built an hour ago, as in a notebook, does not save after its first window."""
    trainer = build_trainer(
        compose(["epochs=1", "model=mlp", "progress=false", "checkpoint.every_minutes=30"]), tmp_path
    )
    trainer.checkpoint_schedule.timer_start -= 3600
    assert trainer.fit().saving.saves == 1


def test_of_equally_good_epochs_the_later_is_kept(tmp_path):
    """If nothing is learned, all epochs tie, and the last one, which has trained longest, is the best."""
    fit(["epochs=3", "model=mlp", "optimizer.lr=1e-12"], tmp_path / "run")
    assert manifest_of(tmp_path / "run" / "checkpoints")["best"]["epoch"] == 3


@given(values=st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=12), down=st.booleans())
def test_the_best_of_any_sequence_is_its_latest_optimum(values, down):
    """The direction of the monitored metric decides."""
    monitor, progress = Monitor("accuracy", "min" if down else "max"), Progress()
    taken = [progress.finish_epoch(epoch, {"accuracy": v}, monitor) for epoch, v in enumerate(values, 1)]
    optimum = min(values) if down else max(values)
    latest = len(values) - values[::-1].index(optimum)
    assert progress.best_epoch == latest
    assert taken[latest - 1]
    assert not any(taken[latest:])


def test_a_nan_is_never_the_best():
    """An epoch whose metric is NaN, even the first, is replaced by any with a number."""
    progress = Progress()
    for epoch, value in enumerate([float("nan"), 0.5, float("nan"), 0.25], 1):
        progress.finish_epoch(epoch, {"accuracy": value}, Monitor("accuracy", "max"))
    assert progress.best_epoch == 2


def test_there_is_none_before_the_first_epoch(tmp_path):
    """A run that never finished an epoch is refused as such."""
    assert "there is no best checkpoint" in refusal(tmp_path)


NO_JSON = ["", "{", "not json", '{"best": ']
NO_ENTRY = ["[]", "{}", '{"best": []}', '{"best": null}', "3", "null", "[1]", "true", '"best"', '[["best", 1]]']


@pytest.mark.parametrize("content", NO_JSON + NO_ENTRY)
def test_a_damaged_manifest_is_refused(saved, content):
    """A manifest that is not JSON, not an object, or has no entry is refused: no checkpoint is guessed."""
    edit(saved, content)
    refusal(saved)


def test_a_manifest_nested_without_end_is_refused(saved):
    """A run directory is not trusted: nesting that would exhaust the parser is refused like other damage."""
    edit(saved, "[" * 100_000)
    refusal(saved)


def test_a_manifest_that_is_no_text_is_refused(saved):
    """Bytes that are not UTF-8 are damage, too."""
    (saved / MANIFEST).write_bytes(b"\xff\xfe\x00{")
    assert "it is damaged" in refusal(saved)


def test_a_missing_file_is_refused_by_name(saved):
    """The line names the missing file."""
    (saved / "epoch-0002.pt").unlink()
    assert refusal(saved).startswith(f"{saved / 'epoch-0002.pt'}: ")


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: content + b"\0"])
def test_a_file_of_another_size_is_refused(saved, damage):
    """The line has both sizes: that of the file and that of the manifest."""
    file = saved / "epoch-0002.pt"
    size = file.stat().st_size
    file.write_bytes(damage(file.read_bytes()))
    assert f"{file.stat().st_size} bytes where the manifest has {size}" in refusal(saved)


@pytest.mark.parametrize("key", ["file", "sha256", "bytes", "epoch", "optimizer_steps"])
def test_a_manifest_without_what_is_checked_is_refused(saved, key):
    """A missing checksum or size does not switch the check off."""
    manifest = manifest_of(saved)
    del manifest["best"][key]
    edit(saved, manifest)
    assert "the manifest's best entry is damaged" in refusal(saved)
    assert Checkpoints(saved).load("last")["progress"]["best"] == 3  # one entry's damage is that entry's


class Code:
    """Makes a marker file when it is unpickled by a loader that runs code."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def as_torch_file(content: object) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


@pytest.mark.parametrize("form", [pickle.dumps, as_torch_file], ids=["pickle", "torch"])
@pytest.mark.parametrize("wrap", [lambda c: c, lambda c: {"model": c}, lambda c: {"model": {}, "progress": [c]}])
def test_a_pickle_with_code_is_refused_and_not_run(saved, tmp_path, form, wrap):
    """Even if size and checksum in the manifest match, the code in it never runs."""
    marker = tmp_path / "marker"
    replace_best(saved, form(wrap(Code(marker))))
    assert "torch can't read it" in refusal(saved)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Code(marker)))
    assert marker.exists()  # such a pickle does run code where it is let


def test_a_manifest_can_not_point_outside(saved, tmp_path):
    """Only the name of a path in the manifest is used: nothing outside the directory is opened."""
    shutil.move(saved / "epoch-0002.pt", tmp_path / "epoch-0002.pt")
    for path in ("../epoch-0002.pt", str(tmp_path / "epoch-0002.pt")):
        manifest = manifest_of(saved)
        manifest["best"]["file"] = path
        edit(saved, manifest)
        assert refusal(saved).startswith(f"{saved / 'epoch-0002.pt'}: ")


@pytest.mark.parametrize("content", [torch.ones(2), [1, 2], "text"])
def test_a_checkpoint_that_is_no_dictionary_is_refused(saved, content):
    """An intact torch file of something else is not the state of a run."""
    replace_best(saved, as_torch_file(content))
    refusal(saved)


WRONG_MODELS = [None, [1], 3, {}, {"unknown": torch.ones(1)}, {"head.2.bias": torch.ones(3)}, {"head.2.bias": "text"}]


def with_best(trained: Path, run: Path, content: object) -> Path:
    """Return a copy of a run whose best checkpoint holds another state, with a matching manifest."""
    shutil.copytree(trained, run)
    save(run / "checkpoints", content, 9, best=True)  # type: ignore[arg-type]
    return run


@pytest.mark.parametrize("model", WRONG_MODELS, ids=lambda model: type(model).__name__)
def test_another_models_checkpoint_is_refused(trained, tmp_path, model):
    """Weights that are missing, unknown, of another shape, or not tensors are refused."""
    run = with_best(trained, tmp_path / "run", {"model": model})
    with pytest.raises(CheckpointRefused, match="it is not this model's"):
        evaluate_run(run, "test", "best", ALLOW_ALL, None, ProgressBars(False))


def test_a_state_dict_whose_keys_are_no_names_is_refused(trained, tmp_path):
    """A run directory is not trusted: any content of its checkpoint is refused with an error of ours."""
    run = with_best(trained, tmp_path / "run", {"model": {3: torch.ones(1)}})
    with pytest.raises(CheckpointRefused):
        evaluate_run(run, "test", "best", ALLOW_ALL, None, ProgressBars(False))


@pytest.mark.parametrize("epoch", ["three", None, [3]])
def test_a_manifest_whose_epoch_is_no_number_is_refused(trained, tmp_path, epoch):
    """Damage in any of the manifest's fields is a refusal."""
    shutil.copytree(trained, tmp_path / "run")
    manifest = manifest_of(trained / "checkpoints")
    manifest["best"]["epoch"] = epoch
    edit(tmp_path / "run" / "checkpoints", manifest)
    with pytest.raises(CheckpointRefused):
        evaluate_run(tmp_path / "run", "test", "best", ALLOW_ALL, None, ProgressBars(False))


def test_where_the_disk_is_full_the_old_checkpoints_stay_whole(saved):
    """A failed save is exit code 4; files and manifest are as before, and no part is left behind."""
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    with files_limited(200), pytest.raises(StorageError, match="ulimit -f") as caught:
        save(saved, state(4), 4, best=True)
    assert caught.value.exit_code == 4
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    assert Checkpoints(saved).load("best")["progress"]["best"] == 2


def test_a_directory_that_can_not_be_made_is_a_failure_of_storage(tmp_path):
    """If a file has the directory's name, saving fails with exit code 4 like any other failure to write."""
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(StorageError):
        save(tmp_path / "checkpoints", state(), 1, best=True)
