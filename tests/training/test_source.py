"""Files that a config names count by their content, when a run begins."""

import json
import os
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, open_dict

from microstep.config.allowlist import ALLOW_ALL
from microstep.config.compose import compose
from microstep.evaluation.evaluate import evaluate_run
from microstep.sweep.definition import Job, Sweep, SweepPlan
from microstep.sweep.planning import plan_sweep
from microstep.training.build import build_trainer
from microstep.training.provenance import config_hash, experiment_hash
from microstep.training.resume import resume
from microstep.training.source import digest_files
from microstep.utils.progress_bar import ProgressBars
from tests.faults.interruptions import stop_at
from tests.faults.runs import differences

WORDS = ("model=torchvision", "model.name=resnet18")


def hashed(*words: str) -> str:
    return experiment_hash(compose([*WORDS, *words]), "data")


def test_another_content_is_another_experiment(tmp_path: Path) -> None:
    """The same path with other bytes differs, even if size and mtime are kept."""
    file = tmp_path / "my weights.pt"
    found = []
    for content in (b"one", b"two"):
        file.write_bytes(content)
        os.utime(file, (1, 1))
        found.append(hashed(f"model.weights='{file}'"))
    assert found[0] != found[1]
    file.write_bytes(b"one")
    assert hashed(f"model.weights='{file}'") == found[0]


def test_the_same_content_elsewhere_is_the_same_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy, a link, a relative path and `~` name the same experiment; what a resume compares is unchanged."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "one.pt").write_bytes(b"one")
    (tmp_path / "copy.safetensors").write_bytes(b"one")
    (tmp_path / "link.pt").symlink_to("one.pt")
    names = ("one.pt", "copy.safetensors", "link.pt", f"{tmp_path}/one.pt", "~/one.pt")
    assert len({hashed(f"model.weights='{name}'") for name in names}) == 1
    before = config_hash(compose([*WORDS, "model.weights=one.pt"]))
    (tmp_path / "one.pt").unlink()
    assert config_hash(compose([*WORDS, "model.weights=one.pt"])) == before


def test_any_value_may_name_a_file(tmp_path: Path) -> None:
    """A file of a component of one's own counts, too; those of the data set are in its fingerprint."""
    file = tmp_path / "words"
    file.write_text("one")
    config = compose([])
    with open_dict(config):
        config.model = {"_target_": "mine.net", "inner": {"words": str(file)}}
        config.dataset.file = str(file)
    assert digest_files(config) == {"model.inner.words": sha256(b"one").hexdigest()}


def test_what_names_no_file_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A word that a file happens to be called, a directory, a pipe, and text that no path can be."""
    monkeypatch.chdir(tmp_path)
    for name in ("resnet18", "cpu", "DEFAULT"):
        (tmp_path / name).write_text("")
    os.mkfifo(tmp_path / "pipe.pt")
    (tmp_path / "folder.pt").mkdir()
    config = compose(WORDS)
    names = ("DEFAULT", "pipe.pt", "folder.pt", "nowhere.pt", "a" * 5000 + ".pt", "~nobody-here/x.pt", "null\0byte.pt")
    for config.model.weights in (*names, "resnet18", "", 0.5, None, ["cpu"]):
        assert digest_files(config) == {}


class Net(torch.nn.Sequential):
    """A network that begins with the weights in a file, as torchvision's do."""

    def __init__(self, num_classes: int, weights: str, load_weights: bool = True) -> None:
        super().__init__(torch.nn.Flatten(), torch.nn.Linear(64, num_classes))
        if load_weights:
            self.load_state_dict(torch.load(weights))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return save_weights(tmp_path / "weights.pt", 0.0)


def save_weights(file: Path, value: float) -> Path:
    torch.save({"1.weight": torch.full((10, 64), value), "1.bias": torch.zeros(10)}, file)
    return file


def config_of(file: Path) -> DictConfig:
    config = compose(["epochs=2", "threads=1", "progress=false"])
    with open_dict(config):
        config.model = {"_target_": f"{__name__}.Net", "weights": str(file)}
    return config


def plan(directory: Path, file: Path) -> SweepPlan:
    return plan_sweep(Sweep(directory, (Job(0, "job", (), config_of(file)),), "", False, False))


def test_a_sweep_finds_a_run_by_the_content_of_its_files(tmp_path: Path, weights: Path) -> None:
    """Another content makes it stale; the same elsewhere, or a file that is gone, does not."""
    sweep = tmp_path / "sweep"
    build_trainer(config_of(weights), sweep / "job").fit()
    recorded = json.loads((sweep / "job" / "run.json").read_text())["files"]
    assert recorded == {"model.weights": sha256(weights.read_bytes()).hexdigest()}
    moved = weights.rename(tmp_path / "moved.pt")
    assert plan(sweep, moved).finished
    assert plan(sweep, weights).finished  # it can't be told whether it has changed
    assert plan(sweep, tmp_path / "another that is gone.pt").stale
    save_weights(weights, 1.0)
    assert plan(sweep, weights).stale == {"job": "content of a file that the config names"}
    assert plan(sweep, moved).finished


@pytest.mark.parametrize("change", ["gone", "changed", "same"])
def test_a_run_goes_on_without_the_file_that_it_began_with(tmp_path: Path, weights: Path, change: str, caplog) -> None:
    """Its hash, its bits and its report are those of an unbroken run. A change of the file is mentioned."""
    build_trainer(config_of(weights), tmp_path / "whole").fit()
    stop_at(build_trainer(config_of(weights), tmp_path / "broken"), 30)
    {"gone": weights.unlink, "changed": lambda: save_weights(weights, 1.0), "same": lambda: None}[change]()
    resume(tmp_path / "broken").fit()
    assert differences(tmp_path / "whole", tmp_path / "broken") == []
    hashes = {json.loads((tmp_path / n / "run.json").read_text())["experiment_hash"] for n in ("whole", "broken")}
    assert len(hashes) == 1
    told = "model.weights: the file is gone or has changed since the run began" in caplog.text
    assert told == (change != "same")
    assert evaluate_run(tmp_path / "broken", "test", "best", ALLOW_ALL, None, ProgressBars(False)).result.metrics
