"""A resume may change some keys and is refused for others: the line has each key with both values."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from microstep.config.allowlist import ALLOW_ALL
from microstep.config.compose import compose
from microstep.errors import ConfigError
from microstep.run.record import RunRecord
from microstep.run.resume import resume_overrides, typed_keys
from microstep.run.saved_run import OVERRIDABLE_KEYS, SavedRun

RUN = ("epochs=3", "scheduler=constant")
SUBJECT = "resume=run"
JSONL = {"_target_": "microstep.components.logger.JsonLines", "path": None}


def changes(*words: str, run: tuple[str, ...] = RUN) -> dict[str, object]:
    """Return the values that these overrides change of a run that was started with others."""
    return resume_overrides(compose(run), compose(words), typed_keys(words), SUBJECT)


def refusal(*words: str, run: tuple[str, ...] = RUN) -> str:
    with pytest.raises(ConfigError) as caught:
        changes(*words, run=run)
    return str(caught.value)


@pytest.mark.parametrize(
    ("word", "key", "value"),
    [
        ("num_workers=3", "num_workers", 3),
        ("progress=false", "progress", False),
        ("log_every_steps=7", "log_every_steps", 7),
        ("checkpoint.every_epochs=2", "checkpoint.every_epochs", 2),
        ("checkpoint.every_minutes=0.5", "checkpoint.every_minutes", 0.5),
        ("checkpoint.every_steps=9", "checkpoint.every_steps", 9),
        ("checkpoint.keep=best", "checkpoint.keep", "best"),
        ("device=cpu", "device", "cpu"),
        ("threads=2", "threads", 2),
        ("allocator=default", "allocator", "default"),
        ("profile=3:4", "profile", "3:4"),
        ("expected_time=true", "expected_time", True),
        ("dataset.root=/elsewhere", "dataset.root", "/elsewhere"),
        ("dataset.resident=false", "dataset.resident", False),
        ("logger=jsonl", "logger", {"jsonl": JSONL}),
        ("epochs=4", "epochs", 4),
        ("strategy.run_on=1", "strategy.run_on", 1),
    ],
)
def test_what_does_not_change_the_result_may_be_changed(word: str, key: str, value: object) -> None:
    """Workers, bars, logging, when it saves, where it runs, where the data lie, and more epochs."""
    folder, parallel = ["dataset=image_folder", f"{key}=/data"], ["strategy=ddp", "strategy.processes=2"]
    needed = {"dataset.root": folder, "strategy.run_on": parallel}.get(key, [])
    assert changes(*[one for one in needed if not one.startswith(key)], word, run=(*RUN, *needed)) == {key: value}


def test_every_key_that_may_be_changed_is_tried() -> None:
    """The list above is complete, except for keys of some datasets."""
    tried = {row[1] for row in test_what_does_not_change_the_result_may_be_changed.pytestmark[0].args[1]}
    others = {f"dataset.{name}" for name in ("budget_gib", "cache", "download", "file", "max_pixels")}
    assert tried | others | {"steps"} == OVERRIDABLE_KEYS


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("seed=1", "seed=1 (it has 0)"),
        ("accum=2", "accum=2 (it has 1)"),
        ("batch_size=32", "batch_size=32 (it has 64)"),
        ("optimizer.lr=0.5", "optimizer.lr=0.5 (it has 0.03)"),
        ("max_grad_norm=1", "max_grad_norm=1.0 (it has None)"),
        ("deterministic=false", "deterministic=False (it has True)"),
        ("compile=true", "compile=True (it has False)"),
        (
            "precision=bf16",
            "precision._target_=microstep.components.precision.bf16 (it has microstep.components.precision.full)",
        ),
        ("model=mlp", "model._target_=microstep.components.model.mlp (it has microstep.components.model.SmallCNN)"),
        (
            "scheduler=cosine",
            "scheduler._target_=microstep.components.scheduler.cosine (it has microstep.components.scheduler.constant)",
        ),
        ("+optimizer.maximize=true", "optimizer.maximize=True (it has None)"),
    ],
)
def test_what_would_make_another_run_of_it_is_refused(word: str, told: str) -> None:
    """Exit code 2, with what was typed and what the run has."""
    line = refusal(word)
    assert line.startswith(f"{SUBJECT}: this is another experiment: ")
    assert told in line
    assert line.endswith("; leave it as it was, or start a new run")


def test_all_that_is_refused_is_told_at_once() -> None:
    """The line names all of them at once, and no key that may be changed."""
    line = refusal("seed=1", "num_workers=2", "accum=4", "batch_size=64")
    assert "seed=1 (it has 0), accum=4 (it has 1);" in line
    assert "num_workers" not in line
    assert "batch_size" not in line


def test_what_the_run_has_anyway_may_be_typed() -> None:
    """The command that started a run can be typed again: a chosen option, a list, a reference."""
    words = ("model=mlp", "model.hidden=[32,16]", "optimizer.lr=0.1", "epochs=3", "scheduler=constant", "accum=2")
    assert changes(*words, run=words) == {}


def test_a_default_of_the_program_is_not_what_was_typed() -> None:
    """A run whose epochs, seed and model are not the defaults is resumed without typing any of them."""
    assert changes(run=("epochs=3", "seed=5", "model=mlp", "optimizer.lr=0.5")) == {}
    assert changes("num_workers=2", run=("seed=5", "model=mlp")) == {"num_workers": 2}


def test_words_about_resuming_are_no_keys() -> None:
    """`resume`, `trust`, `sweep` and the keys of Hydra change nothing of the run."""
    words = ["resume=run", "trust=[a.B]", "sweep=s", "hydra.run.dir=x", "hydra/job_logging=none"]
    assert typed_keys([*words, "+optimizer.nesterov=true", "model@model=mlp"]) == ["optimizer.nesterov", "model"]


def test_epochs_can_not_shrink() -> None:
    """Fewer epochs are refused; as many as before is no change."""
    assert refusal("epochs=2") == "epochs=2: the run has 3; choose as many or more"
    assert changes("epochs=3") == {}


def test_steps_grow_as_epochs_do() -> None:
    """A run may get more of the unit that it is counted in, and nothing of the other."""
    run = ("steps=50", "scheduler=constant")
    assert changes("steps=60", run=run) == {"steps": 60}
    assert refusal("steps=40", run=run) == "steps=40: the run has 50; choose as many or more"
    assert refusal("epochs=40", run=run) == "epochs=40: the length of the run is steps=50; type steps=N"
    assert refusal("steps=40") == "steps=40: the length of the run is epochs=3; type epochs=N"
    planned = "its learning rate was planned for 50 steps; start a new run, or use scheduler=constant next time"
    assert refusal("steps=60", run=("steps=50",)) == f"steps=60: {planned}"


@pytest.mark.parametrize("scheduler", ["cosine", "linear", "onecycle"])
def test_epochs_can_not_grow_where_the_rate_was_planned(scheduler: str) -> None:
    """A run of more epochs would have had other learning rates from its first step."""
    planned = "its learning rate was planned for 3 epochs; start a new run, or use scheduler=constant next time"
    assert refusal("epochs=9", run=("epochs=3", f"scheduler={scheduler}")) == f"epochs=9: {planned}"


@pytest.mark.parametrize("scheduler", ["constant", "multistep", "warm_restarts"])
def test_epochs_can_grow_where_the_rate_does_not_depend_on_them(scheduler: str) -> None:
    """A schedule that counts in epochs from the start has the same rates in a longer run."""
    run = compose([*RUN, f"scheduler={scheduler}"])
    longer = compose([*RUN, f"scheduler={scheduler}", "epochs=9"])
    assert resume_overrides(run, longer, ["epochs"], SUBJECT) == {"epochs": 9}


def test_epochs_can_not_grow_where_another_key_refers_to_them() -> None:
    """A schedule, or any other value, that refers to ${epochs} counts as planned for that number."""
    run = compose(RUN)
    OmegaConf.set_struct(run, False)
    run.scheduler = {"_target_": "torch.optim.lr_scheduler.CosineAnnealingLR", "T_max": "${epochs}"}
    with pytest.raises(ConfigError, match="its learning rate was planned for 3 epochs"):
        resume_overrides(run, compose(["epochs=4"]), ["epochs"], SUBJECT)
    run.scheduler.T_max = 3
    assert resume_overrides(run, compose(["epochs=4"]), ["epochs"], SUBJECT) == {"epochs": 4}


def test_epochs_can_not_grow_under_a_schedule_that_is_not_known() -> None:
    """A target whose signature is unknown may use the number of epochs."""
    run = compose(RUN)
    run.scheduler._target_ = "nowhere.Schedule"
    with pytest.raises(ConfigError, match="its learning rate was planned"):
        resume_overrides(run, compose(["epochs=4"]), ["epochs"], SUBJECT)


def note(run_dir: Path, resumed: object) -> Path:
    """Write a run.json with these resumes."""
    (run_dir / "run.json").write_text(json.dumps({"status": "interrupted", "resumed": resumed}))
    return run_dir


def described(run_dir: Path, *words: str) -> SavedRun:
    """Return the saved run of a directory, to which the config that these words describe is written."""
    (run_dir / "config.yaml").write_text(OmegaConf.to_yaml(compose(words)))
    return SavedRun.read(run_dir, "resume")


def test_what_earlier_resumes_changed_counts(tmp_path: Path) -> None:
    """If a key was changed twice, the later value applies."""
    times = [{"overrides": {"epochs": 4, "threads": 2}}, {"overrides": {}}, {"overrides": {"epochs": 5}}]
    assert RunRecord.read(note(tmp_path, times)).overrides == {"epochs": 5, "threads": 2}
    config = described(tmp_path, *RUN).config(ALLOW_ALL)
    assert (config.epochs, config.threads) == (5, 2)


@pytest.mark.parametrize("resumed", [None, 3, "text", {}, [3], [None], [{}], [{"overrides": 3}], [{"overrides": None}]])
def test_a_damaged_list_of_resumes_is_none(tmp_path: Path, resumed: object) -> None:
    """A run needs only config.yaml and the checkpoint, not run.json."""
    assert RunRecord.read(note(tmp_path, resumed)).overrides == {}


@pytest.mark.parametrize("content", ["", "{", "[]", "\x00", "[" * 100_000])
def test_a_damaged_run_json_changes_nothing(tmp_path: Path, content: str) -> None:
    """A run.json that is not JSON changes nothing either."""
    (tmp_path / "run.json").write_text(content)
    assert RunRecord.read(tmp_path).overrides == {}


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"seed": 7}, "run.json says that a resume changed seed"),
        ({"model._target_": "os.system"}, "run.json says that a resume changed model._target_"),
        ({"trust": ["os.system"]}, "run.json says that a resume changed trust"),
        ({"epochs": "many"}, "epochs=many: "),
        ({"epochs": 0}, "epochs=0: out of range"),
        ({"epochs": [3]}, "epochs="),
        ({"threads": {"a": 1}}, "threads="),
        ({"device": "gpu"}, "device=gpu: no such option"),
        ({"dataset.root": "${oc.env:HOME}"}, "run.json"),
        ({"dataset.root": "a ${epochs} ${oc.env:HOME}"}, "run.json"),
    ],
)
def test_a_run_json_that_was_tampered_with_is_refused(tmp_path: Path, overrides: object, says: str) -> None:
    """A run directory is not trusted: only keys that a resume may change are accepted, and no resolver runs."""
    note(tmp_path, [{"overrides": overrides}])
    with pytest.raises(ConfigError) as caught:
        described(tmp_path, *RUN, "dataset=image_folder", "dataset.root=/data").config(ALLOW_ALL)
    assert says in str(caught.value)
    assert str(Path.home()) not in str(caught.value)
