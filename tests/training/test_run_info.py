"""Facts, summary and warnings of a run."""

import logging

import pytest
from torch import nn

from microstep.config.compose import compose
from microstep.training.provenance import experiment_hash
from microstep.training.run_info import format_batch_size, warn_inexact_accumulation


def said(caplog, model: nn.Module, accum: int) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="microstep.notice"):
        warn_inexact_accumulation(model, accum)
    return [record.getMessage() for record in caplog.records]


def test_batchnorm_and_dropout_are_named_once_in_one_line(caplog) -> None:
    """With accum > 1 a model with either is told of in one line that says what to do; without, nothing is said."""
    both = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(0.5), nn.BatchNorm2d(1))
    (line,) = said(caplog, both, accum=2)
    assert "BatchNorm" in line and "dropout" in line and "model.norm=group" in line and "\n" not in line
    assert "dropout" not in said(caplog, nn.Sequential(nn.BatchNorm2d(1)), accum=2)[0]
    assert said(caplog, both, accum=1) == []
    assert said(caplog, nn.Sequential(nn.GroupNorm(1, 1), nn.Dropout(0.0)), accum=4) == []


def test_a_frozen_layer_is_not_told_of(caplog) -> None:
    """A layer that stays in evaluation mode while the model trains is exact; the search restores every mode."""

    class Stays(nn.Sequential):
        def train(self, mode: bool = True):
            return super().train(False)

    for before in (True, False):
        model = nn.Sequential(Stays(nn.BatchNorm2d(1), nn.Dropout(0.5)), nn.Dropout(0.5))
        model[1].train(before)
        modes = [module.training for module in model.modules()]
        assert "BatchNorm" not in said(caplog, model, accum=2)[0]
        assert said(caplog, model[0], accum=2) == []
        assert [module.training for module in model.modules()] == modes


@pytest.mark.parametrize(
    ("words", "row"),
    [
        ([], "64 × accum 1 → effective 64"),
        (["accum=4"], "64 × accum 4 → effective 256 (accum multiplies batch_size)"),
        (["effective_batch_size=64", "accum=4"], "16 × accum 4 → effective 64 (effective_batch_size is given: accum"),
    ],
)
def test_the_batch_row_says_what_was_set(words, row) -> None:
    """The summary shows micro-batch, effective batch, and which of the two was asked for."""
    assert format_batch_size(compose(words)).startswith(row)


def test_the_experiment_hash_is_of_what_can_change_a_result() -> None:
    """Another seed, precision or data set is another experiment; logging, workers and names are not."""
    base = experiment_hash(compose([]), "data")
    assert experiment_hash(compose(["progress=false", "num_workers=3", "log_every_steps=7", "sweep=x"]), "data") == base
    others = [experiment_hash(compose(words), "data") for words in (["seed=1"], ["accum=2"], ["optimizer.lr=0.5"])]
    assert len({base, experiment_hash(compose([]), "other data"), *others}) == 5
