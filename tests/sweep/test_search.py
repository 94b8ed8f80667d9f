"""A search proposes its trials from the results of its runs alone."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from microstep.config.compose import Composer
from microstep.config.search_path import CONF
from microstep.config.sweep_jobs import ComposedStudy, compose_study
from microstep.errors import ConfigError
from microstep.run.pruning import MedianRule
from microstep.run.record import RunRecord
from microstep.run.saved_run import SavedRun
from microstep.sweep.search import Search, build_search
from microstep.sweep.study_runner import build_study
from tests.conftest import ROOT, call

SPACE = ("optimizer.lr=tag(log,interval(1e-3,1))", "model=mlp,small_cnn", "optimizer.momentum=interval(0,0.9)")
QUICK = (
    "epochs=1",
    "dataset=synthetic",
    "dataset.samples=100",
    "dataset.val_samples=20",
    "dataset.test_samples=20",
    "dataset.size=8",
)
#: The best is lr 0.1, momentum 0.5.
FINISHED = {"status": "finished", "monitor": "accuracy", "direction": "max"}


def make_search(*words: str, sampler: str = "tpe") -> Search:
    with Composer.open(CONF, "train") as composer:
        composed = compose_study(composer, [f"search={sampler}", *SPACE, *words])
    assert composed is not None
    return build_search(composed)


def result(score: float | None, name: str = "accuracy") -> SavedRun:
    content = FINISHED | {"metrics": {"val": {name: score}}} if score is not None else {"status": "failed"}
    return SavedRun(Path("run"), RunRecord.of(content), "run")


def answer(job: list[str]) -> float:
    """Return a score of a job's values, which has one maximum."""
    values = dict(word.split("=", 1) for word in job)
    return 1 - abs(float(values["optimizer.momentum"]) - 0.5) - 0.01 * (values["model"] == "mlp")


def propose(search: Search, generations: int = 99) -> list[list[str]]:
    """Return the jobs of some generations, after the results of which the search continues."""
    jobs = []
    for _ in range(generations):
        asked = search.ask()
        jobs += asked
        if asked:
            search.tell([result(answer(job)) for job in asked])
    return jobs


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_trial_depends_on_space_seed_number_and_earlier_generations_only(sampler: str) -> None:
    """A search that is built anew proposes the same; more trials keep the first; another seed proposes others."""
    words = ["search.trials=16", "search.batch=3"]
    first = propose(make_search(*words, sampler=sampler))
    assert len(first) == 16
    assert propose(make_search(*words, sampler=sampler)) == first
    longer = propose(make_search("search.trials=18", "search.batch=3", sampler=sampler))
    assert longer[:15] == first[:15]
    assert len(longer) == 18
    assert propose(make_search(*words, "search.seed=1", sampler=sampler))[0] != first[0]


def test_trials_of_a_generation_do_not_see_each_other() -> None:
    """Two results of one generation change no other trial of it, whatever the order in which they arrive."""
    good, bad = (make_search("search.trials=24", "search.batch=12") for _ in range(2))
    for search, score in ((good, 0.9), (bad, 0.1)):
        search.tell([result(score if number else 0.5) for number, _ in enumerate(search.ask())])
    whole = make_search("search.trials=24", "search.batch=24")
    assert whole.ask()[:12] == [[f"{key}={value}" for key, value in trial.items()] for trial in good.asked[:12]]
    assert good.ask() != bad.ask()


def test_tpe_finds_better_values_than_chance() -> None:
    """Over three seeds, the mean of the last ten of 40 proposals of TPE is above that of random ones."""
    means = {}
    for sampler in ("tpe", "random"):
        found = [propose(make_search("search.trials=40", f"search.seed={seed}", sampler=sampler)) for seed in range(3)]
        means[sampler] = sum(answer(job) for jobs in found for job in jobs[-10:]) / 30
    assert means["tpe"] > means["random"] + 0.1


def test_a_trial_is_the_mean_over_its_runs_and_fails_with_one_of_them() -> None:
    """Repeats are `search.seeds`, or the seeds and folds that are listed; a diverged run makes no score."""
    search = make_search("search.seeds=2", "search.trials=3", "search.batch=3", "seed=5")
    jobs = search.ask()
    assert [job[-1] for job in jobs] == ["seed=5", "seed=6"] * 3
    search.tell([result(score) for score in (0.5, 0.7, 0.9, None, 0.1, 0.2)])
    assert [trial.value for trial in search.told] == [pytest.approx(0.6), None, pytest.approx(0.15)]
    assert search.conclude().startswith("best of 2 trials: validation accuracy 0.6000 by ")
    listed = make_search("seed=1,2", "search.trials=1")
    assert [job[-1] for job in listed.ask()] == ["seed=1", "seed=2"]


def test_the_objective_decides_by_its_own_direction() -> None:
    """A loss is minimized: the best trial has the least."""
    search = make_search("search.objective=min:loss", "search.trials=2", "search.batch=2", *QUICK)
    search.ask()
    search.tell([result(0.5, "loss"), result(0.2, "loss")])
    assert "validation loss 0.2000" in search.conclude()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["search=tpo", *SPACE], "search=tpo: no such option; did you mean tpe"),
        (["search=tpe,random", *SPACE], "search=tpe,random: it takes one value; give one"),
        (["search=tpe"], "search=tpe: no key has several values to choose from; give some: "),
        (["search=tpe", "search.trails=3", *SPACE], "search.trails=3: no such key; did you mean search.trials or "),
        (["search=tpe", "search.trials=0", *SPACE], "search.trials=0: out of range; it must be at least 1"),
        (["search=tpe", "seed=0,1", "search.seeds=2", *SPACE], "search.seeds=2: seed= lists the seeds already; "),
        (["search.trials=3", *SPACE], "search.trials=3: it belongs to a search; add search=tpe or search=random"),
        (["search=tpe", "optimizer.lr=tag(lg,interval(1,2))"], "optimizer.lr=tag(lg,interval(1,2)): no such tag: lg; "),
        (["search=tpe", "optimizer.lr=interval(a,b)"], "optimizer.lr=interval(a,b): interval(…) can't be read; "),
        (["search=tpe", "optimizer.lr=interval(1,2),3"], "optimizer.lr=interval(1,2),3: an interval is no value of "),
        (["search=tpe", "search.trails=3", *SPACE], "search.trails=3: no such key; did you mean search.trials "),
        (["search=tpe", "model=mlp,smal_cnn"], "model=smal_cnn: no such option; did you mean small_cnn"),
        (["search=tpe", "optimizer.lr=interval(-1,1)"], "optimizer.lr=-1.0: out of range"),
        (["search=tpe", "optimizer.lr=interval(1,0.1)"], "optimizer.lr=interval(1,0.1): an interval begins below "),
        (["search=tpe", "optimizer.momentum=tag(log,interval(0,1))"], "optimizer.momentum=tag(log,interval(0,1)): an "),
        (["search=tpe", "search.objective=test/accuracy", *SPACE], "search.objective=test/accuracy: a search that "),
        (["search=tpe", "search.objective=acuracy", *SPACE], "search.objective=acuracy: the task has no such metric; "),
    ],
)
def test_what_a_search_needs_is_checked_before_anything_starts(words: list[str], message: str) -> None:
    """Each line names what was typed, the reason, and a way out; every value of a list is checked."""
    with pytest.raises(ConfigError) as raised, Composer.open(CONF, "train") as composer:
        composed = compose_study(composer, words)
        assert composed is not None
        build_search(composed)
    assert str(raised.value).startswith(message)


PARAMS = "{model: 'mlp,small_cnn', optimizer.lr: 'interval(0.1,1)', dataset.repeats: 2, dataset.folds: 2}"
OVERRIDDEN = "defaults: [{override /search: random}]\nsearch: {trials: 3}"


def compose_yaml(directory: Path, text: str) -> ComposedStudy | None:
    (directory / "experiment").mkdir()
    (directory / "experiment" / "mine.yaml").write_text(
        f"# @package _global_\n{text}\nhydra: {{sweeper: {{params: {PARAMS}}}}}\n"
    )
    with Composer.open(CONF, "train", directory) as composer:
        return compose_study(composer, ["experiment=mine", "dataset.fold=0,1"])


@pytest.mark.parametrize("head", ["search: {sampler: random, trials: 3}", OVERRIDDEN])
def test_a_search_is_kept_in_a_yaml(tmp_path: Path, head: str) -> None:
    """Settings that the yaml leaves out have their defaults; its params may hold dataset.repeats."""
    study = compose_yaml(tmp_path, head)
    assert study is not None
    assert (study.settings.sampler, study.settings.trials, study.settings.batch) == ("random", 3, 1)
    assert [one.key for one in study.space.dimensions] == ["model", "optimizer.lr"]
    assert len(study.space.repeats) == 4


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("search: {sampler: tpe, trails: 3}", "search.trails: Key 'trails' not in"),
        ("search: {sampler: tpee}", "search.sampler=tpee: no such option; the options are tpe, random"),
        ("search: tpe", "search: .*; write search: {sampler: tpe}"),
    ],
)
def test_what_is_wrong_in_a_yaml_is_refused(tmp_path: Path, head: str, message: str) -> None:
    """No key of a search is ignored."""
    with pytest.raises(ConfigError, match=f"^{message}"):
        compose_yaml(tmp_path, head)


def test_optuna_is_asked_for_if_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra, and only a search needs it."""
    monkeypatch.setattr("microstep.sweep.study_runner.find_spec", lambda name: None)
    with Composer.open(CONF, "train") as composer:
        composed = compose_study(composer, ["search=random", *SPACE])
        assert composed is not None
        with pytest.raises(ConfigError, match=r"^search=random: Optuna is not installed; pip install optuna$"):
            build_study(composed)


def test_a_search_is_for_sweeps(tmp_path: Path) -> None:
    """Without -m it is refused, and nothing is made."""
    done = call("train.py", "search=tpe", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: search=tpe: it chooses the runs of a sweep; add -m, or leave it out\n"
    assert not any(tmp_path.iterdir())


def curve(values: list[float], directory: Path, **facts: object) -> SavedRun:
    """Return a run with this validation accuracy by epoch."""
    directory.mkdir()
    rows = [f"{epoch},{value}\n" for epoch, value in enumerate(values, 1)]
    (directory / "metrics.csv").write_text("".join(["epoch,val_accuracy\n", *rows]))
    return SavedRun(
        directory, RunRecord.of({**FINISHED, "metrics": {"val": {"accuracy": max(values)}}, **facts}), "run"
    )


def test_a_run_is_pruned_below_the_median_of_earlier_runs(tmp_path: Path) -> None:
    """Best values so far are compared, after the second epoch at the earliest, with five runs at least."""
    runs = [curve([0.5, 0.1 * number, 0.9], tmp_path / str(number)) for number in range(5)]
    assert MedianRule.of(runs[1:], ("accuracy", "max")).medians == ()
    rule = MedianRule.of(runs, ("accuracy", "max"))
    assert rule.medians == (0.5, 0.5, 0.9)
    assert [rule(epoch, 0.4) is not None for epoch in (1, 2, 3, 4)] == [False, True, True, False]
    assert rule(2, 0.5) is None
    assert "0.4, and the median of earlier runs was 0.9" in str(rule(3, 0.4))
    assert MedianRule.of(runs, ("accuracy", "min")).medians[2] == pytest.approx(-0.2)


def test_a_pruned_run_is_told_with_its_own_sign(tmp_path: Path) -> None:
    """A metric may be negative, as R² is, and earlier runs in which it is undefined prune none."""
    runs = [curve([-0.5, -0.4], tmp_path / str(number)) for number in range(5)]
    reason = MedianRule.of(runs, ("accuracy", "max"))(2, -3.2)
    assert reason == "pruned after epoch 2: -3.2, and the median of earlier runs was -0.4"
    assert "0.7, and the median of earlier runs was -0.5" in str(MedianRule.of(runs, ("accuracy", "min"))(2, -0.7))
    undefined = [curve([float("nan")] * 2, tmp_path / f"nan-{number}") for number in range(3)]
    assert MedianRule.of([*undefined, *runs[:2]], ("accuracy", "max"))(2, 0.9) is None


def test_limits_come_from_earlier_generations_and_pruned_runs_stay_pruned(tmp_path: Path) -> None:
    """A pruned trial, also one that was resumed to its end, sets no limit, and its score doesn't count."""
    search = make_search("search.prune=median", "search.trials=12", "search.batch=6")
    assert search.settings == {}
    search.ask()
    told = [curve([0.5, 0.6], tmp_path / str(number)) for number in range(5)]
    search.tell([*told, curve([0.1, 0.2, 0.99], tmp_path / "resumed", pruned={"epoch": 2})])
    assert search.settings["prune"].medians == (0.5, 0.6)
    assert [trial.state.name for trial in search.told] == ["COMPLETE"] * 5 + ["PRUNED"]
    assert search.told[-1].intermediate_values == {2: 0.2}
    assert "best of 5 trials" in search.conclude()


PRUNED = ("search=random", "search.trials=8", "search.batch=6", "search.seed=4", "search.prune=median", "sweep=s")


def test_a_pruned_run_ends_and_can_be_resumed_to_its_end(tmp_path: Path) -> None:
    """No point or report follows, a repeat runs nothing, and a resume has the bits of a run that was not pruned."""
    words = ("-m", *PRUNED, "optimizer.lr=tag(log,interval(1e-4,0.3))", "model=mlp", "epochs=3", "progress=false")
    first = call("train.py", *words, cwd=tmp_path)
    assert (first.returncode, first.stderr) == (0, "")
    sweep = tmp_path / "outputs/sweeps/s"
    statuses = list_runs(sweep)
    pruned = sweep / next(name for name, status in statuses.items() if status == "pruned")
    assert f"{pruned.name}  pruned after epoch 2: " in first.stdout
    assert not (pruned / "reports").exists()
    events = EventAccumulator(str(pruned)).Reload()
    assert [event.step for event in events.Scalars("val/accuracy")] == [1, 2]
    again = call("train.py", *words, cwd=tmp_path)
    assert "8 runs finished already" in again.stdout
    assert call("train.py", f"resume={pruned}", cwd=tmp_path).returncode == 0
    assert (
        call(
            "train.py", f"optimizer.lr={pruned.name[13:]}", *words[-3:], "hydra.run.dir=whole", cwd=tmp_path
        ).returncode
        == 0
    )
    files = [directory / "model.safetensors" for directory in (pruned, tmp_path / "whole")]
    assert load_file(files[0]).keys() == load_file(files[1]).keys()
    assert all(torch.equal(value, load_file(files[1])[name]) for name, value in load_file(files[0]).items())
    hashes = [RunRecord.read(file.parent).experiment_hash for file in files]
    assert hashes[0] == hashes[1]
    finished = call("train.py", *words, cwd=tmp_path)
    assert "8 runs finished already" in finished.stdout
    assert again.stdout.splitlines()[-1] == finished.stdout.splitlines()[-1]


SWEEP = ("-m", "search=tpe", "search.trials=4", "search.batch=2", SPACE[0], "model=mlp", *QUICK, "sweep=s")


def list_runs(sweep: Path) -> dict[str, str]:
    return {file.parent.name: json.loads(file.read_text())["status"] for file in sorted(sweep.glob("*/run.json"))}


def test_a_trial_that_is_proposed_again_is_run_once(tmp_path: Path) -> None:
    """It counts as a trial, and no run is said to have been there before."""
    words = ("-m", "search=random", "search.trials=5", "model=mlp,small_cnn", *QUICK, "sweep=s")
    first = call("train.py", *words, cwd=tmp_path)
    assert len(list_runs(tmp_path / "outputs/sweeps/s")) == 2
    assert "finished already" not in first.stdout
    assert "best of 5 trials" in first.stdout
    assert "2 runs finished already" in call("train.py", *words, cwd=tmp_path).stdout


@pytest.mark.parametrize("kills", [[1], pytest.param([1, 1, 2, 3, 3], marks=pytest.mark.long)])
def test_a_killed_search_ends_with_the_trials_of_an_uninterrupted_one(kills: list[int], tmp_path: Path) -> None:
    """After kill -9 in the middle the same command ends with the same trials; then it runs nothing; more adds some."""
    assert call("train.py", *SWEEP, cwd=tmp_path).returncode == 0
    whole = list_runs(tmp_path / "outputs/sweeps/s")
    assert set(whole.values()) == {"finished"}
    other = [*SWEEP[:-1], "sweep=killed"]
    killed = tmp_path / "outputs/sweeps/killed"
    for count in kills:
        words = [sys.executable, str(ROOT / "train.py"), *other]
        process = subprocess.Popen(words, cwd=tmp_path, start_new_session=True)
        while len(list(killed.glob("*/run.json"))) < count and process.poll() is None:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    done = call("train.py", *other, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert list_runs(killed) == whole
    again = call("train.py", *other, cwd=tmp_path)
    assert "4 runs finished already" in again.stdout
    assert "[" not in again.stdout
    order = json.loads((killed / "sweep.json").read_text())["study"]["order"]
    assert sorted(order) == sorted(whole)
    configs = [yaml.safe_load(file.read_text()) for file in killed.glob("*/config.yaml")]
    assert not any("search" in config for config in configs)


def test_a_run_that_diverges_is_a_result_of_the_search(tmp_path: Path) -> None:
    """The search goes on, ends with exit code 0, and a repeat does not run it again."""
    words = ("-m", "search=random", "search.trials=2", "optimizer.lr=1e30,2e30", *QUICK, "model=mlp", "sweep=s")
    for _ in range(2):
        done = call("train.py", *words, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
    assert "no trial has a score" in done.stdout
    assert "finished already" in done.stdout
