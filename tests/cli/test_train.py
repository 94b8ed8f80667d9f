"""Guarantees of train.py about a run's weights, tested by running it."""

import json

import pytest

from microstep.components.step import standard
from tests.conftest import fit
from tests.mutants import RULES, sum_of_means
from tests.tasks.weights import identical, last_weights, relative

FP64 = ("precision=fp64", "epochs=2", "model.width=8")


@pytest.fixture(scope="module")
def whole(zygote, tmp_path_factory):
    """A run over whole windows of 21: `batch_size=21 accum=1`, two epochs of digits, whose last window is ragged."""
    return run(zygote, tmp_path_factory.mktemp("whole"), *FP64, "batch_size=21", "accum=1")


def run(zygote, directory, *words):
    done = zygote.call("train.py", *words, "hydra.run.dir=run", cwd=directory)
    assert done.returncode == 0, done.stderr
    return directory / "run"


def test_seven_times_three_is_twenty_one(zygote, whole, tmp_path) -> None:
    """In fp64 `batch_size=7 accum=3` ends where `batch_size=21 accum=1` does, to 1e-10 relative in every tensor."""
    cut = run(zygote, tmp_path, *FP64, "batch_size=7", "accum=3")
    assert relative(last_weights(cut), last_weights(whole)) < 1e-10
    steps = [json.loads((r / "run.json").read_text())["optimizer_steps"] for r in (cut, whole)]
    assert steps == [2 * 69, 2 * 69]


def test_an_effective_batch_is_cut_by_accum_alone(zygote, whole, tmp_path) -> None:
    """`effective_batch_size=21 accum=7` is the same experiment again, in micro-batches of three."""
    cut = run(zygote, tmp_path, *FP64, "effective_batch_size=21", "accum=7")
    assert relative(last_weights(cut), last_weights(whole)) < 1e-10


@pytest.mark.parametrize("mutant", RULES, ids=lambda rule: rule.__name__)
def test_each_wrong_rule_is_caught_by_a_whole_run(whole, monkeypatch, tmp_path, mutant) -> None:
    """The comparison above fails for each rule that is in use elsewhere: the epoch's short last window is enough."""
    monkeypatch.setattr(standard, "accumulate_gradient", mutant(nominal=3))
    words = [*FP64, "batch_size=7", "accum=3"]
    if mutant is sum_of_means:
        words.append("max_grad_norm=1")
    fit(words, tmp_path / "run")
    assert relative(last_weights(tmp_path / "run"), last_weights(whole)) > 1e-6


def test_the_same_seed_gives_the_same_bits_and_another_does_not(zygote, tmp_path) -> None:
    """Two runs of one command end with bit-identical weights; another seed doesn't."""
    words = ("epochs=1", "model.width=8", "progress=false")
    runs = {}
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        assert zygote.call("train.py", *words, f"seed={seed}", f"hydra.run.dir={name}", cwd=tmp_path).returncode == 0
        runs[name] = last_weights(tmp_path / name)
    assert identical(runs["one"], runs["again"])
    assert not identical(runs["one"], runs["other"])


def test_a_neighbour_in_the_process_changes_no_bit(tmp_path) -> None:
    """A run after another in one process ends with the bits it has alone: nothing leaks from job to job."""
    words = ["epochs=1", "model.width=8"]
    fit(words, tmp_path / "alone")
    fit([*words, "seed=5", "precision=bf16", "deterministic=false", "step=sam"], tmp_path / "neighbour")
    fit(words, tmp_path / "after")
    assert identical(last_weights(tmp_path / "alone"), last_weights(tmp_path / "after"))


def test_logging_and_progress_change_no_bit(tmp_path) -> None:
    """The logging frequency is no part of the experiment: same bits, same experiment hash."""
    found = []
    for name, words in (("quiet", ["log_every_steps=1000"]), ("loud", ["log_every_steps=1", "num_workers=2"])):
        fit(["epochs=1", "model.width=8", *words], tmp_path / name)
        found.append(json.loads((tmp_path / name / "run.json").read_text())["experiment_hash"])
    assert identical(last_weights(tmp_path / "quiet"), last_weights(tmp_path / "loud"))
    assert found[0] == found[1]


@pytest.mark.parametrize("seeds", [2, pytest.param(5, marks=pytest.mark.long)])
def test_digits_with_defaults_reaches_98_per_cent(tmp_path, seeds) -> None:
    """`python train.py`: at least 98 % of the test digits in the mean of the seeds, never under 96.5 %."""
    accuracies = [fit([f"seed={seed}"], tmp_path / str(seed)).test["accuracy"] for seed in range(seeds)]
    assert min(accuracies) >= 0.965
    assert sum(accuracies) / seeds >= 0.98
