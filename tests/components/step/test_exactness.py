"""Tests that a window's gradient does not depend on its micro-batches."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microstep.components.step import standard
from tests.components.step.windows import distance, reference, stepped, task
from tests.mutants import RULES, sum_of_means

SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=5)
WEIGHTS = st.none() | st.lists(st.floats(0.1, 5), min_size=4, max_size=4)


@settings(deadline=None, max_examples=60)
@given(SIZES, WEIGHTS, st.sampled_from([0.0, 0.1, 0.5]), st.none() | st.floats(0.01, 2))
def test_any_cut_takes_the_step_of_the_whole_window(sizes, weights, smoothing, clip) -> None:
    """In fp64, any micro-batches agree with one large batch to 1e-10, with class weights, smoothing and clipping."""
    job = task(weights, smoothing)
    assert distance(stepped(sizes, job, clip), reference(sum(sizes), job, clip)) < 1e-10


@settings(deadline=None, max_examples=25)
@given(SIZES, WEIGHTS, st.none() | st.floats(0.01, 2))
def test_sharpness_aware_steps_do_not_depend_on_the_cut_either(sizes, weights, clip) -> None:
    """Both passes of SAM are exact: any micro-batches agree with one large batch."""
    job = task(weights)
    whole = stepped([sum(sizes)], job, clip, rho=0.1)
    assert distance(stepped(sizes, job, clip, rho=0.1), whole) < 1e-10
    assert distance(whole, stepped([sum(sizes)], job, clip)) > 1e-6, "rho had no effect"


@pytest.mark.parametrize("mutant", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize(("weights", "smoothing"), [(None, 0.0), ((1, 2, 3, 4), 0.0), (None, 0.1)])
def test_each_wrong_rule_is_caught_on_ragged_micro_batches(monkeypatch, mutant, weights, smoothing) -> None:
    """The test above fails for each wrong rule that is in common use."""
    monkeypatch.setattr(standard, "accumulate_gradient", mutant(nominal=3))
    job, sizes = task(weights, smoothing), [7, 7, 2]
    assert distance(stepped(sizes, job), reference(sum(sizes), job)) > 1e-4


@pytest.mark.parametrize("mutant", [rule for rule in RULES if rule is not sum_of_means], ids=lambda r: r.__name__)
def test_wrong_rules_are_right_where_nothing_is_ragged(monkeypatch, mutant) -> None:
    """The wrong rules agree with ours on micro-batches of equal size."""
    monkeypatch.setattr(standard, "accumulate_gradient", mutant(nominal=3))
    assert distance(stepped([5, 5, 5], task()), reference(15, task())) < 1e-10


def test_class_weights_break_the_usual_rule_on_equal_micro_batches(monkeypatch) -> None:
    """Mean ÷ accum is wrong with class weights even if all micro-batches have the same size."""
    job = task((1, 2, 3, 40))
    monkeypatch.setattr(standard, "accumulate_gradient", RULES[0](nominal=3))
    assert distance(stepped([5, 5, 5], job), reference(15, job)) > 1e-4
