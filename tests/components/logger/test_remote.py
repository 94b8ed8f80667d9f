"""Tests of the loggers that send a run's scalars and files elsewhere."""

from __future__ import annotations

import json
import logging
import shutil
import signal
import time
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from microstep.components.logger import remote
from microstep.components.logger.event_file import EventFile
from microstep.components.logger.remote import RemoteLogger
from microstep.components.logger.sinks import JsonLines
from microstep.components.logger.tensorboard import scalar_summary
from microstep.config.compose import compose
from microstep.training.build import build_trainer
from microstep.types.events import WindowReport
from microstep.types.protocols import Sink
from tests.components.logger.sinks import Hanging, Slow, read
from tests.faults.runs import scalars_of, state_of

CONF = Path(__file__).parent / "conf"
RUN = ("model=mlp", "model.hidden=[8]", "epochs=3", "threads=1", "progress=false", "log_every_steps=2")


def train(run: Path, *words: str) -> Path:
    build_trainer(compose([*RUN, *words], CONF), run).fit()
    return run


def weights_of(run: Path) -> dict[str, str]:
    """Return a SHA-256 of model, optimizer and position in each checkpoint."""
    parts = ("model", "optimizer", "scheduler", "metrics")
    states = {name: state_of(run, name) for name in ("last", "best")}
    return {name: sha256(repr([state[part] for part in parts]).encode()).hexdigest() for name, state in states.items()}


def places(lines: list[dict[str, Any]]) -> Counter[tuple[str, int]]:
    """Count the points by their first tag and step."""
    return Counter((next(tag for tag in line if "/" in tag), line["step"]) for line in lines if "step" in line)


def begun(sink: Sink, directory: Path, points: int = 0, node: object = None) -> RemoteLogger:
    """Return the logger of a run after some windows, which TensorBoard has written."""
    directory.mkdir(exist_ok=True)
    events = EventFile(directory)
    for number in range(1, points + 1):
        events.add(scalar_summary({"train/loss": 0.5}), number)
    logger = RemoteLogger(sink, "jsonl", node, directory, {})
    logger.window(WindowReport(points, 0.5, 0.1, 1.0, 1.0, 0, 100.0, 0.1))
    return logger


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run without a logger."""
    return train(tmp_path_factory.mktemp("plain") / "run")


def test_a_sink_gets_what_tensorboard_gets_and_the_files(tmp_path: Path) -> None:
    """Tags, steps and values are TensorBoard's; the settings come first, then the reports, the weights and the end."""
    run = train(tmp_path / "run", "logger=jsonl")
    first, *points = [line for line in read(run) if "file" not in line and "failed" not in line]
    assert first["settings"]["optimizer.lr"] == 0.03
    found = {(tag, line["step"]): value for line in points for tag, value in line.items() if "/" in tag}
    shown = {(tag, step): float(value) for tag, values in scalars_of(run).items() for step, value in values}
    assert {key: found[key] for key in shown} == pytest.approx(shown, rel=1e-6)
    sent = {line["file"] for line in read(run) if "file" in line}
    assert sent == {str(file.relative_to(run)) for file in run.glob("reports/*/*")} | {"model.safetensors"}
    assert read(run)[-1] == {"run": first["run"], "failed": False}


@pytest.mark.parametrize("name", ["refusing", "breaking", "hanging"])
def test_a_server_that_fails_costs_a_warning_and_no_bit(
    plain: Path, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The run is finished, its weights are those of a run without a logger, and it takes a second more at most."""
    began = time.monotonic()
    with caplog.at_level(logging.WARNING, "microstep.notice"):
        run = train(tmp_path / "run", f"logger={name}")
    record = json.loads((run / "run.json").read_text())
    assert time.monotonic() - began < 2 * record["train_seconds"] + 4
    assert (record["status"], weights_of(run)) == ("finished", weights_of(plain))
    (warning,) = [entry.getMessage() for entry in caplog.records if entry.name == "microstep.notice"]
    assert warning.startswith(f"logger.{name}: ")
    if name == "breaking":
        assert len(places(read(run))) == 2  # in order, and nothing after the failure


def test_the_end_waits_a_second_for_a_hanging_sink_and_longer_for_one_that_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sink has `PATIENCE` for each request, however many wait."""
    monkeypatch.setattr(remote, "PATIENCE", 0.3)
    for kind, seconds in ((Hanging, (0.25, 0.6)), (Slow, (0.9, 2.0))):
        logger = begun(kind(tmp_path / kind.__name__), tmp_path / kind.__name__, points=10)
        began = time.monotonic()
        logger.close(None)
        assert seconds[0] < time.monotonic() - began < seconds[1]
        assert logger.given_up is (kind is Hanging)


def test_a_run_that_is_killed_sends_every_point_once(zygote, plain: Path, tmp_path: Path) -> None:
    """Whether it dies before the sink has a point, or after that and before it is recorded; in one remote run."""
    words = (*RUN, "checkpoint.every_steps=8", "logger=deadly", "hydra.run.dir=run", "resume=auto")
    codes = [zygote.run("train.py", "--config-dir", str(CONF), *words, cwd=tmp_path) for _ in range(4)]
    assert codes == [-signal.SIGKILL] * 3 + [0], (tmp_path / "output.txt").read_text()
    lines = read(tmp_path / "run")
    shown = {(tag, step) for tag, values in scalars_of(plain).items() for step, _ in values}
    sent = Counter((tag, line["step"]) for line in lines if "step" in line for tag in line if "/" in tag)
    assert {key: sent[key] for key in shown} == dict.fromkeys(shown, 1)
    assert set(sent.values()) == {1}
    assert len({line["run"] for line in lines}) == 1
    assert weights_of(tmp_path / "run") == weights_of(plain)


def test_each_run_of_a_sweep_is_a_remote_run(zygote, tmp_path: Path) -> None:
    """They may share a file. No name has the logger, and the sweep is finished with any other."""
    words = ("-m", *RUN[:2], "epochs=1", "threads=1", "seed=0,1", "sweep=s")
    assert zygote.run("train.py", *words, "logger=jsonl", "logger.jsonl.path=all, (of them).jsonl", cwd=tmp_path) == 0
    assert zygote.run("train.py", *words, "logger=[]", cwd=tmp_path) == 0
    lines = [json.loads(line) for line in (tmp_path / "all, (of them).jsonl").read_text().splitlines()]
    assert Counter(line["run"] for line in lines if "settings" in line).most_common(1)[0][1] == 1
    assert sorted(line["name"] for line in lines if "name" in line) == ["seed-0", "seed-1"]
    assert [line["failed"] for line in lines if "failed" in line] == [False, False]
    assert len(list((tmp_path / "outputs" / "sweeps" / "s").glob("*/run.json"))) == 2


def test_a_sink_that_comes_later_gets_every_point(plain: Path, tmp_path: Path) -> None:
    """So does one that failed or lagged in an earlier attempt: the points are in the event files."""
    run = shutil.copytree(plain, tmp_path / "run")
    for _ in range(2):
        begun(JsonLines(run), run).close(None)
        shown = {(tag, step) for tag, values in scalars_of(plain).items() for step, _ in values}
        sent = Counter((tag, line["step"]) for line in read(run) if "step" in line for tag in line if "/" in tag)
        assert {key: sent[key] for key in shown} == dict.fromkeys(shown, 1)


def test_a_new_run_in_the_directory_is_a_new_remote_run(tmp_path: Path) -> None:
    """What an attempt without a checkpoint has left is not continued, unless the run is resumed."""
    begun(JsonLines(tmp_path / "run"), tmp_path / "run", points=2).close(KeyboardInterrupt())
    (before,) = {line["run"] for line in read(tmp_path / "run")}
    (tmp_path / "run" / "run.json").write_text(json.dumps({"status": "failed"}))
    run = train(tmp_path / "run", "logger=jsonl")
    (after,) = {line["run"] for line in read(run)}
    assert after != before
    assert json.loads((run / "logger.jsonl.json").read_text())["id"] == after


def test_another_place_gets_every_point(tmp_path: Path) -> None:
    """A logger of the same name that sends elsewhere begins a remote run; the one before is not continued."""
    places_of = {}
    for name, points in (("a.jsonl", 2), ("b.jsonl", 1), ("b.jsonl", 0)):
        begun(JsonLines(tmp_path, str(tmp_path / name)), tmp_path, points, node={"path": name}).close(None)
        lines = [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        places_of[name] = ({line["run"] for line in lines}, sorted(places(lines).elements()))
    assert places_of["a.jsonl"][1] == [("train/loss", 1), ("train/loss", 2)]
    assert places_of["b.jsonl"][1] == [("train/loss", 1), ("train/loss", 2)]
    assert len(places_of["a.jsonl"][0] | places_of["b.jsonl"][0]) == 2


def test_a_run_that_fails_says_so(tmp_path: Path) -> None:
    """The remote run ends as failed."""
    begun(JsonLines(tmp_path), tmp_path).close(ValueError())
    assert read(tmp_path)[-1]["failed"] is True


def test_a_file_of_another_kind_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """`path=` does not append to a file that holds something else."""
    (tmp_path / "notes.txt").write_text("mine\n")
    logger = begun(JsonLines(tmp_path, str(tmp_path / "notes.txt")), tmp_path)
    logger.close(None)
    assert (tmp_path / "notes.txt").read_text() == "mine\n"
    assert logger.given_up
