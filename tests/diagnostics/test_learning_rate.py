"""check=lr suggests a learning rate that trains, by a range test."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from microstep.config.compose import compose
from microstep.diagnostics.drift.training import start_training
from microstep.diagnostics.learning_rate import HIGHEST, LOWEST, WINDOWS, RangeTest, measure, run_learning_rate_check
from microstep.errors import Diverged
from microstep.training.build import build_trainer
from microstep.training.training_loop import train_epoch
from microstep.utils.progress_bar import ProgressBars
from tests.conftest import call

WORDS = ("model=mlp", "threads=1", "progress=false")


def checked(*words: str):
    return run_learning_rate_check(compose([*WORDS, *words, "check=lr"]))


@pytest.mark.parametrize("words", [(), ("optimizer=adamw",), ("step=sam", "scheduler=onecycle")])
def test_the_suggestion_trains(words: tuple[str, ...], tmp_path: Path) -> None:
    """Five epochs with it reach 90 %, and the same check gives the same losses to the bit."""
    result = checked(*words)
    assert result.passed
    lr = result.numbers["suggestion"]
    trained = build_trainer(compose([*WORDS, *words, "epochs=5", f"optimizer.lr={lr}"]), tmp_path / "run").fit()
    assert trained.splits["val"].metrics["accuracy"] > 0.9
    assert checked(*words).numbers == result.numbers


@pytest.mark.parametrize("words", [("max_grad_norm=1e-12",), ("max_grad_norm=1e-12", "precision=fp16", "batch_size=4")])
def test_nothing_is_suggested_if_nothing_lowers_the_loss(words: tuple[str, ...]) -> None:
    """The check then does not pass, and says what it has tried."""
    result = checked(*words)
    assert (result.passed, result.numbers["suggestion"]) == (False, None)
    assert result.verdict_text == "No learning rate from 1e-06 to 10 lowers the loss by 5 %."
    assert len(result.numbers["losses"]) == WINDOWS


def test_it_ends_once_the_loss_rises() -> None:
    """Rates beyond are not tried; no loss in the result is infinite or undefined."""
    numbers = checked().numbers
    assert LOWEST == numbers["rates"][0] < numbers["suggestion"] < numbers["rates"][-1] < HIGHEST
    assert all(map(math.isfinite, numbers["losses"]))
    assert len(numbers["rates"]) == len(numbers["losses"]) < WINDOWS


def test_groups_keep_their_ratios(monkeypatch: pytest.MonkeyPatch) -> None:
    """A group with a tenth of optimizer.lr has a tenth in each window; the rates of the test are optimizer.lr."""
    words = ("scheduler=constant", "param_groups=[{match: bias, lr: 0.003}]")
    training = start_training("test", compose([*WORDS, *words]))
    groups, seen = training.optimization.optimizer.param_groups, []

    def train(*arguments: object) -> None:
        seen.append(sorted(group["lr"] for group in groups))
        train_epoch(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("microstep.diagnostics.learning_rate.train_epoch", train)
    test = measure(training, ProgressBars(False))
    assert seen[: len(test.rates)] == [pytest.approx([rate / 10, rate]) for rate in test.rates]


def test_the_steepest_fall_is_suggested_and_one_odd_loss_is_not() -> None:
    """A single low loss does not decide, because losses are averaged with their neighbors."""
    rates = [10 ** (-6 + number / 30) for number in range(150)]
    losses = [2.0 - 1.5 / (1 + math.exp(-(number - 90) / 5)) for number in range(110)] + [4.0] * 40
    assert RangeTest(rates, losses).suggestion == pytest.approx(rates[90], rel=0.2)
    losses[40] = 1.0
    assert RangeTest(rates, losses).suggestion == pytest.approx(rates[90], rel=0.2)


def test_noise_of_the_first_windows_and_the_end_suggest_nothing() -> None:
    """The rate is one at which the loss has fallen, although a bad first window falls faster."""
    rates = [10 ** (-6 + number / 30) for number in range(110)]
    losses = [1.0 - 0.5 / (1 + math.exp(-(number - 90) / 8)) for number in range(110)]
    losses[:4], losses[-4:] = [1.8, 1.6, 1.4, 1.2], [3.0, 30.0, 1e3, 1e5]
    assert RangeTest(rates, losses).suggestion == pytest.approx(rates[90], rel=0.5)


def test_the_command_is_the_one_that_was_typed_with_the_suggestion(tmp_path: Path) -> None:
    """It can be run as it is printed; the picture and the numbers are beside it."""
    done = call(
        "train.py", "check=lr", *WORDS, "model.hidden=[8, 8]", "optimizer.lr=5", "hydra.run.dir=out", cwd=tmp_path
    )
    assert (done.returncode, done.stderr) == (0, "")
    lr = json.loads((tmp_path / "out/lr.json").read_text())["suggestion"]
    words = done.stdout.splitlines()[-1].partition("train.py ")[2]
    assert words == f"model=mlp threads=1 progress=false 'model.hidden=[8, 8]' optimizer.lr={lr:g}"
    assert (tmp_path / "out/lr.png").read_bytes().startswith(b"\x89PNG")


def test_a_loss_that_is_never_finite_is_the_error_of_training() -> None:
    """Without a single loss there is nothing to draw or to suggest."""
    with pytest.raises(Diverged, match=r"epoch 1, step 1: the loss \((nan|inf)\)"):
        checked("dataset.mean=[0.3]", "dataset.std=[1e-38]")


def test_an_early_fall_does_not_hide_a_later_one() -> None:
    """At first only the frequencies of the classes may be learned; a tenth of the rate with the lowest loss is used."""
    rates = [10 ** (-6 + number / 30) for number in range(150)]
    losses = [2.0 - 0.3 / (1 + math.exp(-(number - 60) / 3)) - 0.2 * number / 150 for number in range(140)] + [4.0] * 10
    assert RangeTest(rates, losses).suggestion == pytest.approx(rates[100], rel=0.7)
