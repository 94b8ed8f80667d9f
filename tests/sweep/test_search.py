"""A search proposes its trials from the results of its runs alone."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from microstep.config.compose import Composer
from microstep.config.search_path import CONF
from microstep.config.sweep_jobs import compose_study
from microstep.errors import ConfigError
from microstep.run.record import RunRecord
from microstep.run.saved_run import SavedRun
from microstep.sweep.search import Search, build_study
from tests.conftest import ROOT, call

pytest.importorskip("optuna")
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
    return build_study(composed)


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
        (["search=tpe,random", *SPACE], "search=tpe,random: a search has one value of its own keys; give one"),
        (["search=tpe"], "search=tpe: no key has several values to choose from; give some: "),
        (["search=tpe", "search.trails=3", *SPACE], "search.trails=3: no such key; did you mean search.trials or "),
        (["search=tpe", "search.trials=0", *SPACE], "search.trials=0: out of range; it must be at least 1"),
        (["search=tpe", "seed=0,1", "search.seeds=2", *SPACE], "search.seeds=2: seed= lists the seeds already; "),
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
        build_study(composed)
    assert str(raised.value).startswith(message)


def test_a_search_is_for_sweeps(tmp_path: Path) -> None:
    """Without -m it is refused, and nothing is made."""
    done = call("train.py", "search=tpe", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: search=tpe: it chooses the runs of a sweep; add -m, or leave it out\n"
    assert not any(tmp_path.iterdir())


SWEEP = ("-m", "search=tpe", "search.trials=4", "search.batch=2", SPACE[0], "model=mlp", *QUICK, "sweep=s")


def list_runs(sweep: Path) -> dict[str, str]:
    return {file.parent.name: json.loads(file.read_text())["status"] for file in sorted(sweep.glob("*/run.json"))}


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
