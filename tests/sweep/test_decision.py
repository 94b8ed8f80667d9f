"""until=decided runs two settings seed by seed until their difference on validation is clear."""

import json
from pathlib import Path

import numpy as np
import pytest

from microstep.config.compose import Composer
from microstep.config.search_path import CONF
from microstep.config.sweep_jobs import compose_study
from microstep.errors import ConfigError, MicrostepError
from microstep.run.record import RunRecord
from microstep.run.saved_run import SavedRun
from microstep.sweep.decision import Decision
from microstep.sweep.summary.write import write_summary
from tests.conftest import call

SETTINGS = ("model=mlp,small_cnn", "until=decided")


def make_decision(*words: str) -> Decision:
    with Composer.open(CONF, "train") as composer:
        composed = compose_study(composer, [*SETTINGS, *words])
    assert composed is not None
    return Decision(composed.settings, composed.space)


def result(val: float, test: float = 0.5, direction: str = "max", samples: int = 10**6) -> SavedRun:
    content = {"status": "finished", "monitor": "score", "direction": direction, "data": {"samples": {"val": samples}}}
    return SavedRun(
        Path("run"), RunRecord.of(content | {"metrics": {"val": {"score": val}, "test": {"score": test}}}), "run"
    )


def decide(decision: Decision, differences: "np.ndarray", **facts: object) -> str | None:
    for difference in differences:
        if not decision.ask():
            break
        decision.tell([result(0.5 + difference, **facts), result(0.5, **facts)])  # type: ignore[arg-type]
    return decision.verdict


def test_each_pair_is_the_next_seed_with_both_settings() -> None:
    """Seeds count from the typed one; no key of the decision reaches a run."""
    decision = make_decision("seed=3", "epochs=2", "decide.max_seeds=2", "decide.difference=1")
    assert decision.ask() == [["epochs=2", f"model={name}", "seed=3"] for name in ("mlp", "small_cnn")]
    decision.tell([result(0.5), result(0.5)])
    assert [job[-1] for job in decision.ask()] == ["seed=4", "seed=4"]
    decision.tell([result(0.6), result(0.5)])
    assert decision.ask() == []
    assert decision.most_jobs == 4


@pytest.mark.parametrize(
    ("mean", "direction", "word"),
    [(0.1, "max", "is better than"), (-0.1, "max", "is worse than"), (0.1, "min", "is worse than")],
)
def test_a_clear_difference_ends_early(mean: float, direction: str, word: str) -> None:
    """Three standard deviations need less than 60 % of decide.max_seeds; a lower loss is the better one."""
    noise = np.random.default_rng(0).standard_normal(20) * abs(mean) / 3
    decision = make_decision()
    assert decide(decision, mean + noise, direction=direction) == f"model=mlp {word} model=small_cnn"
    assert len(decision.pairs) < 12


def test_equal_settings_are_told_apart_in_one_study_of_twenty_at_most() -> None:
    """Of 200 studies without a difference, which look after every pair, at most 5 % call one setting better."""
    random, false = np.random.default_rng(1), 0
    for _ in range(200):
        verdict = decide(make_cached_decision(), random.standard_normal(20) * 0.02)
        false += verdict is not None and "than" in verdict.replace("larger than", "")
    assert false <= 10


def make_cached_decision() -> Decision:
    """Return a new decision without composing a config again."""
    if not hasattr(make_cached_decision, "parts"):
        first = make_decision()
        make_cached_decision.parts = first.keys, first.space  # type: ignore[attr-defined]
    return Decision(*make_cached_decision.parts)  # type: ignore[attr-defined]


def test_equivalence_is_decided_too_but_not_by_equal_scores_alone() -> None:
    """Small differences end as none of the given size; equal scores of few samples may differ by a sample."""
    noise = np.random.default_rng(2).standard_normal(20) * 0.001
    assert decide(make_decision("decide.difference=1"), noise) == "no difference larger than 1 points"
    open_end = make_decision("decide.difference=1", "decide.max_seeds=6")
    assert decide(open_end, np.zeros(6), samples=20) is None
    assert "undecided; decide.max_seeds=12 adds seeds, decide.plan=true plans them" in open_end.conclude()


def test_the_test_split_decides_nothing_and_is_told_at_the_end() -> None:
    """Whatever the test scores are, lines before the end don't have them."""
    decision = make_decision("decide.max_seeds=5")
    told = []
    while decision.ask():
        told.append(decision.tell([result(0.5, test=0.9), result(0.5, test=0.1)]))
    assert not any("test" in line for line in told)
    assert all("+0.00 points" in line for line in told)
    assert "test score: model=mlp 0.9000 ± 0.0000; model=small_cnn 0.1000" in decision.conclude()


def test_a_run_that_diverged_ends_it_with_its_directory() -> None:
    """A pair without a score can't be compared."""
    decision = make_decision()
    decision.ask()
    failed = SavedRun(
        Path("sweep/broken"), RunRecord.of({"status": "failed", "error": "the loss is not finite"}), "run"
    )
    with pytest.raises(MicrostepError, match=r"^sweep/broken: it has no score: the loss is not finite; "):
        decision.tell([result(0.5), failed])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model=mlp,small_cnn", "until=decidd"], "until=decidd: no such option; the options are decided"),
        (["until=decided"], "until=decided: it compares two settings, seed by seed; give one key two values, such as "),
        (["until=decided", "seed=0,1"], "until=decided seed=0,1: it compares two settings, seed by seed; "),
        (["until=decided", "optimizer.lr=1,2,3"], "until=decided optimizer.lr=1,2,3: it compares two settings, "),
        (
            ["until=decided", "optimizer.lr=1,2", "model=mlp,small_cnn"],
            "until=decided optimizer.lr=1,2 model=",
        ),
        (["until=decided", "model=mlp,mlp"], "model=mlp,mlp: both are the same experiment; compare settings "),
        (["until=decided", "num_workers=0,1"], "num_workers=0,1: both are the same experiment; compare settings "),
        (["until=decided", "search=tpe", "model=mlp,small_cnn"], "until=decided: search=tpe chooses the runs; "),
        (["decide.difference=1", "model=mlp,small_cnn"], "decide.difference=1: it belongs to until=decided; add "),
        ([*SETTINGS, "decide.difference=0"], "decide.difference=0.0: out of range; it must be above 0"),
        ([*SETTINGS, "decide.max_seeds=2,3"], "decide.max_seeds=2,3: it takes one value; "),
        ([*SETTINGS, "decide.seeds=2"], "decide.seeds=2: no such key; did you mean decide.max_seeds or "),
    ],
)
def test_what_it_needs_is_checked_before_anything_starts(words: list[str], message: str) -> None:
    """Each line names what was typed, the reason, and a way out."""
    with pytest.raises(ConfigError) as raised, Composer.open(CONF, "train") as composer:
        compose_study(composer, words)
    assert str(raised.value).startswith(message)


RUN = ("-m", "model=mlp", "optimizer.lr=0.03,1e-6", "until=decided", "epochs=1", "progress=false", "sweep=s")


def test_it_runs_until_it_is_decided_and_a_repeat_runs_nothing(tmp_path: Path) -> None:
    """Lines of runs have no test metric; decide.plan reads the pairs and runs nothing; its keys reach no run."""
    done = call("train.py", *RUN, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "optimizer.lr=0.03 is better than optimizer.lr=1e-06" in done.stdout.splitlines()[-2]
    assert done.stdout.splitlines()[-1].startswith("test accuracy: optimizer.lr=0.03 ")
    assert done.stdout.count("test accuracy") == 1
    runs = sorted(file.parent.name for file in (tmp_path / "outputs/sweeps/s").glob("*/config.yaml"))
    assert "until" not in (tmp_path / "outputs/sweeps/s" / runs[0] / "config.yaml").read_text()
    again = call("train.py", *RUN, cwd=tmp_path)
    assert f"{len(runs)} runs finished already" in again.stdout
    assert again.stdout.splitlines()[-1] == done.stdout.splitlines()[-1]
    plan = call("train.py", *RUN, "decide.plan=true", "decide.difference=3", cwd=tmp_path)
    assert plan.returncode == 0, plan.stderr
    rows = [line.split() for line in plan.stdout.splitlines()]
    assert [row[0] for row in rows[2:8]] == ["0.25", "0.5", "1", "2", "3", "5"]
    index = tmp_path / "outputs/sweeps/s/sweep.json"
    content = json.loads(index.read_text())
    assert content["study"]["verdict"] == "optimizer.lr=0.03 is better than optimizer.lr=1e-06"
    assert "verdict at any time" in (index.parent / "summary.md").read_text()
    assert "test_accuracy" in (index.parent / "summary.csv").read_text()
    index.write_text(json.dumps(content | {"study": content["study"] | {"verdict": ""}}))
    write_summary(index.parent)  # as long as it is undecided, nothing shows a test metric
    assert "test_accuracy" not in (index.parent / "summary.csv").read_text()
    score = json.loads((index.parent / runs[0] / "run.json").read_text())["metrics"]["test"]["accuracy"]
    assert f"{score:.4f}" not in (index.parent / "summary.html").read_text()
    assert "name one: sweep=NAME" in call("train.py", *RUN[:-1], "decide.plan=true", cwd=tmp_path).stderr
    assert call("train.py", *RUN[:-1], "sweep=none", "decide.plan=true", cwd=tmp_path).returncode == 2
    assert not (tmp_path / "outputs/sweeps/none").exists()
