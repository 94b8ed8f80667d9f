"""A run that is taken up again, from Python: `from microstep.training.resume import resume`."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from microstep.config.compose import compose
from microstep.errors import CheckpointRefused, ConfigError, DataError, RunInUse
from microstep.run.checkpoints.checkpoints import Checkpoints
from microstep.run.progress import Progress
from microstep.training import provenance as identity
from microstep.training.build import build_trainer
from microstep.training.resume import resume
from tests.cli.test_main import write_idx
from tests.conftest import fit
from tests.faults.interruptions import stop_at
from tests.faults.runs import differences, manifest_of, scalars_of, state_of
from tests.run.test_directory import still_locked

WORDS = ("model=mlp", "model.dropout=0.2", "threads=1", "progress=false", "epochs=3", "log_every_steps=5")
SAME = "it is the same run, bit for bit"


def stopped(run: Path, *words: str, windows: int = 30, lost: bool = False) -> Path:
    """Return a run that was stopped after so many of its windows: by default in its second epoch of 23."""
    stop_at(build_trainer(compose([*WORDS, *words]), run), windows, lost)
    return run


def record_of(run: Path) -> dict:
    return json.loads((run / "run.json").read_text())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing happens to."""
    run = tmp_path_factory.mktemp("whole") / "run"
    fit(WORDS, run)
    return run


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped in its second epoch."""
    return stopped(tmp_path_factory.mktemp("interrupted") / "run")


@pytest.fixture
def run(interrupted: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(interrupted, tmp_path / "run")


@pytest.mark.parametrize("words", [[], ["num_workers=2", "checkpoint.every_steps=3", "dataset.resident=false"]])
def test_it_ends_as_if_nothing_had_happened(whole: Path, run: Path, capsys, words: Sequence[str]) -> None:
    """Weights, optimizer, reports and logs, whatever is changed that may be; and it says so."""
    results = resume(run, ["progress=false", *words]).fit()
    assert f"resumed after epoch 2, window 7: {SAME}\n" in capsys.readouterr().out
    assert differences(run, whole) == []
    assert results.samples_seen == 3 * 1437
    assert record_of(run)["status"] == "finished"


@pytest.mark.parametrize(
    "schedule", ["multistep scheduler.milestones=[1.5]", "warm_restarts scheduler.cycle_epochs=1.3"]
)
def test_a_longer_run_has_the_same_rates(tmp_path: Path, schedule: str) -> None:
    """A schedule in epochs goes on, killed in mid-epoch and given more epochs, as in a run that had them at once."""
    words = ("model.hidden=[8]", *f"scheduler={schedule}".split())
    fit([*WORDS, *words, "epochs=4"], tmp_path / "whole")
    resume(stopped(tmp_path / "run", *words, "checkpoint.every_steps=4", windows=31, lost=True), ["epochs=4"]).fit()
    assert differences(tmp_path / "run", tmp_path / "whole") == []


def test_stopped_again_and_again(whole: Path, tmp_path: Path) -> None:
    """A resumed run can be stopped like any other, also in the same epoch."""
    stopped(tmp_path / "run", windows=3)
    for windows in (5, 22, 23, 24, 60):
        stop_at(resume(tmp_path / "run"), windows)
    resume(tmp_path / "run").fit()
    assert differences(tmp_path / "run", whole) == []


@pytest.mark.parametrize("lost", [False, True])
def test_no_log_has_a_gap_or_a_duplicate(tmp_path: Path, lost: bool) -> None:
    """A row an epoch and an event every five windows, also where the process was gone before it could save."""
    run = stopped(tmp_path / "run", "checkpoint.every_steps=4", windows=43, lost=lost)
    resume(run).fit()
    with (run / "metrics.csv").open() as stream:
        assert [row["epoch"] for row in csv.DictReader(stream)] == ["1", "2", "3"]
    steps = {tag: [step for step, _ in events] for tag, events in scalars_of(run).items()}
    assert steps["train/loss"] == list(range(5, 70, 5))
    assert steps["val/loss"] == [1, 2, 3]
    assert len(steps["test/loss"]) == 1


def test_run_json_tells_of_each_resume(run: Path) -> None:
    """When, after what, what was changed, by which command; and the rest is what it was."""
    before = record_of(run)
    stop_at(resume(run, ["num_workers=1"]), 50)
    resume(run).fit()
    times = record_of(run)["resumed"]
    assert [set(time) for time in times] == [{"at", "after", "overrides", "command"}] * 2
    assert [time["after"] for time in times] == ["epoch 2, window 7", "epoch 3, window 4"]
    assert [time["overrides"] for time in times] == [{"num_workers": 1}, {}]
    assert record_of(run)["experiment_hash"] == before["experiment_hash"]
    assert record_of(run)["train_seconds"] > 0


def test_config_yaml_stays_as_it_was(run: Path) -> None:
    """Overrides of a resume are recorded in run.json only."""
    before = (run / "config.yaml").read_bytes()
    resume(run, ["num_workers=1", "log_every_steps=3"]).fit()
    assert (run / "config.yaml").read_bytes() == before


def test_more_epochs_are_the_run_of_so_many(tmp_path: Path) -> None:
    """A finished run of two epochs, extended to three, is a run of three bit for bit; the wish persists."""
    constant = [*WORDS, "scheduler=constant"]
    fit([*constant, "epochs=3"], tmp_path / "three")
    fit([*constant, "epochs=2"], tmp_path / "two")
    stop_at(resume(tmp_path / "two", ["epochs=3"]), 50)
    resume(tmp_path / "two").fit()
    assert differences(tmp_path / "two", tmp_path / "three") == []
    assert (record_of(tmp_path / "two")["epoch"], record_of(tmp_path / "two")["epochs"]) == (3, 3)


def test_a_finished_run_is_concluded_again(whole: Path, tmp_path: Path) -> None:
    """From Python nothing stands in the way: nothing is trained, and the same is reported."""
    run = shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(run / "reports")
    results = resume(run).fit()
    assert results.optimizer_steps == 69
    assert differences(run, whole) == []
    assert record_of(run)["status"] == "finished"


def test_a_run_that_died_before_its_first_checkpoint_starts_again(whole: Path, tmp_path: Path) -> None:
    """There is nothing to go on from: it begins anew in the same directory, and ends the same."""
    run = stopped(tmp_path / "run", windows=10, lost=True)
    assert not list(run.glob("checkpoints/*"))
    resume(run).fit()
    assert differences(run, whole) == []
    assert [time["after"] for time in record_of(run)["resumed"]] == [None]


def test_a_damaged_run_json_is_no_obstacle(whole: Path, run: Path) -> None:
    """It is written anew."""
    (run / "run.json").write_text('{"status": "runn')
    resume(run).fit()
    assert differences(run, whole) == []
    assert record_of(run)["epoch"] == 3


# What is refused.


def refused(run: Path, kind: type[Exception], *words: str) -> str:
    """Return why a resume is refused; the checkpoints stay, and the directory is given back."""
    before = manifest_of(run)
    with pytest.raises(kind) as caught:
        resume(run, words)
    assert manifest_of(run) == before
    assert not still_locked(run)
    return str(caught.value)


def test_other_data_are_refused(tmp_path: Path) -> None:
    """One pixel is enough: exit code 2, and with the old data back it goes on."""
    root = write_idx(tmp_path / "data")
    data = ("dataset=fashion_mnist", f"dataset.root={root}", "dataset.val_samples=20", "batch_size=10")
    run = stopped(tmp_path / "run", *data, windows=5)
    file = root / "train-images-idx3-ubyte"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    said = f"resume={run}: the data have changed since the run; put back what dataset.root held then, or give "
    assert refused(run, DataError).startswith(said)
    file.write_bytes(content)
    resume(run).fit()


def test_data_may_move(tmp_path: Path) -> None:
    """The same data elsewhere are the same data."""
    root = write_idx(tmp_path / "data")
    data = ("dataset=fashion_mnist", "dataset.val_samples=20", "batch_size=10")
    run = stopped(tmp_path / "run", *data, f"dataset.root={root}", windows=5)
    shutil.move(root, tmp_path / "elsewhere")
    resume(run, [*data[:2], f"dataset.root={tmp_path / 'elsewhere'}"]).fit()
    assert record_of(run)["resumed"][0]["overrides"] == {"dataset.root": str(tmp_path / "elsewhere")}


def test_a_config_that_was_edited_is_refused(run: Path) -> None:
    """Half of one experiment and half of another is no result: exit code 6."""
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("seed: 0", "seed: 1", 1))
    line = refused(run, CheckpointRefused)
    assert line == f"{run / 'config.yaml'}: it was changed since the run; start a new run"


def test_a_neutral_key_may_be_edited(whole: Path, run: Path) -> None:
    """A key that can't change the result may be changed."""
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("  every_steps: null", "  every_steps: 2"))
    resume(run).fit()
    assert differences(run, whole) == []


def test_another_experiment_is_refused(run: Path) -> None:
    """Before anything of the directory is touched."""
    assert "this is another experiment: seed=1 (it has 0)" in refused(run, ConfigError, "seed=1")


def test_another_runs_checkpoint_is_refused(run: Path, tmp_path: Path) -> None:
    """Checkpoints of another model, put in place of its own: exit code 6, no traceback."""
    other = stopped(tmp_path / "other", "model.hidden=[16]")
    shutil.rmtree(run / "checkpoints")
    shutil.copytree(other / "checkpoints", run / "checkpoints")
    assert "it was changed since the run" in refused(run, CheckpointRefused)


def test_while_a_run_is_at_work_it_is_not_resumed(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process's lock is exit code 5."""
    from tests.run.test_lock import another

    with another(run), pytest.raises(RunInUse):
        resume(run)


# What is said.


def said_on_resume(run: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[str, str]:
    capsys.readouterr()
    resume(run, words).fit()
    told = capsys.readouterr()
    return told.out, told.err


def test_other_threads_are_told_of(run: Path, capsys) -> None:
    """It continues, and is not called the same."""
    out, err = said_on_resume(run, capsys, "threads=2")
    assert SAME not in out
    place = "warning: resumed after epoch 2, window 7: the run continues, but is not the same bit for bit: "
    assert f"{place}threads 2 (was 1)\n" in err


def test_other_versions_are_told_of(run: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each package with both versions; also a change of the source."""
    now = identity.get_package_versions()
    monkeypatch.setattr(identity, "get_package_versions", lambda *others: now | {"torch": "9.9"})
    monkeypatch.setattr(identity, "source_hash", lambda config: "another")
    out, err = said_on_resume(run, capsys)
    assert SAME not in out
    assert f"the run continues, but is not the same bit for bit: the source, torch 9.9 (was {now['torch']})" in err


def test_without_determinism_nothing_is_promised(tmp_path: Path, capsys) -> None:
    """deterministic=false: it may be the same, and may not."""
    run = stopped(tmp_path / "run", "deterministic=false")
    out, err = said_on_resume(run, capsys)
    assert SAME not in out
    assert "with deterministic=false the run continues, and may not be the same bit for bit" in err


def test_another_device_goes_on_in_the_saved_dtype(tmp_path: Path) -> None:
    """`precision=amp` chooses by the device, but what a run has computed in so far it goes on in."""
    built = build_trainer(compose(["model=mlp", "threads=1", "progress=false", "precision=amp", "epochs=2"]), tmp_path)
    stop_at(built, 30)
    assert built.precision.name == "bf16"
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    state = checkpoints.load("last")
    precision = {**state["run"]["precision"], "name": "fp16", "dtype": "float16", "scaler": True}
    checkpoints.save(
        state | {"run": state["run"] | {"precision": precision}}, Progress(**state["progress"]), best=False
    )
    checkpoints.wait()  # as it would be, had it been made on a GPU
    again = resume(tmp_path)
    assert (again.precision.name, again.precision.describe()["scaler"]) == ("fp16", True)
    again.fit()


def test_a_run_json_of_any_shape_is_no_obstacle(tmp_path: Path) -> None:
    """Valid metrics and earlier resumes in a damaged run.json are kept."""
    built = build_trainer(compose(["model=mlp", "threads=1", "progress=false", "epochs=2"]), tmp_path)
    stop_at(built, 30)
    for content in ('{"metrics": 3, "resumed": 4}', '{"resumed": "twice"}', "[]", "{"):
        (tmp_path / "run.json").write_text(content)
        stop_at(resume(tmp_path), state_of(tmp_path, "last")["progress"]["windows"] + 2)
    resume(tmp_path).fit()
    assert record_of(tmp_path)["status"] == "finished"
    assert len(record_of(tmp_path)["resumed"]) == 2  # since it was last damaged
