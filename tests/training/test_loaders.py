"""An epoch's order is a pure function of (seed, epoch); a window's weight is known before its first sample is read."""

from __future__ import annotations

import re
import weakref
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from microstep.components.accumulation import Fixed
from microstep.components.augment import Pipeline, crop_flip, none
from microstep.components.augment.mixing import Cutmix, Mixup
from microstep.components.dataset import ResidentSplit
from microstep.components.dataset.normalization import Normalizer
from microstep.components.sampler import Balanced, Shuffle
from microstep.components.task import Classification
from microstep.errors import ConfigError
from microstep.training.loaders import Loaders
from microstep.types.data import Batch, Positions, Window

CPU = torch.device("cpu")
WEIGHTS = [0.25, 1.0, 3.5]


class Rows(ResidentSplit):
    """A resident split of one-pixel pictures, a row's pixel and index telling which it is; it counts its fetches."""

    locked = False

    def __init__(self, samples: int) -> None:
        numbers = torch.arange(samples)
        pixels = (numbers % 256).to(torch.uint8).view(-1, 1, 1, 1)
        super().__init__(pixels, numbers * 7 % 3, 10 * numbers, Normalizer(1.0, [0.0], [1.0], CPU), CPU)
        self.fetched: list[weakref.ref[Tensor]] = []
        self.held: list[int] = []  #: at each fetch, how many earlier batches were still alive

    def fetch(self, rows: Tensor, positions: Tensor) -> Batch:
        assert not self.locked, "a sample was read"
        self.held.append(sum(earlier() is not None for earlier in self.fetched))
        batch = super().fetch(rows, positions)
        self.fetched.append(weakref.ref(batch.inputs))
        return batch


def loaders(
    split: Rows, batch_size: int = 4, accum: int = 3, seed: int = 0, weights=None, cut=None, augment=None, sampler=None
) -> Loaders:
    task = Classification(("a", "b", "c"), split.targets, CPU, class_weights=weights)
    splits, sampler, augment = {"train": split, "val": split}, sampler or Shuffle(split.targets), augment or none()
    return Loaders(splits, sampler, augment, cut or Fixed(accum, batch_size), task, 5, seed, CPU)


def order(samples: int, seed: int, epoch: int, batch_size: int = 4, accum: int = 3) -> list[int]:
    """Return the rows of an epoch, as its batches bring them."""
    windows = loaders(Rows(samples), batch_size, accum, seed).train(epoch)
    return [index // 10 for window in windows for batch in window.batches for index in batch.indices.tolist()]


@given(
    samples=st.integers(1, 60),
    seed=st.integers(0, 2**63 - 1),
    epoch=st.integers(1, 10**6),
    cut=st.tuples(st.integers(1, 70), st.integers(1, 5)),
)
@settings(deadline=None, max_examples=60)
def test_an_epochs_order_is_a_permutation_that_seed_and_epoch_fix(samples, seed, epoch, cut):
    """Every row once, and the same order however it is cut and whatever torch's own generator was left at."""
    torch.manual_seed(seed % 1000)
    first = order(samples, seed, epoch)
    torch.rand(3)
    assert sorted(first) == list(range(samples))
    assert order(samples, seed, epoch, *cut) == first


def test_epochs_and_seeds_differ_in_their_order():
    """No two of twenty epochs, of three seeds each, go through the data in the same order."""
    orders = {tuple(order(50, seed, epoch)) for seed in range(3) for epoch in range(1, 21)}
    assert len(orders) == 60
    assert tuple(range(50)) not in orders


def test_an_epoch_does_not_depend_on_the_epochs_before():
    """Epoch 3 is the same after epochs 1 and 2 as at once: there is no state that a restart could lose."""
    one = loaders(Rows(30))
    for epoch in (1, 2):
        list(one.train(epoch))
    after = [batch.indices.tolist() for window in one.train(3) for batch in window.batches]
    assert [index // 10 for indices in after for index in indices] == order(30, 0, 3)


class OfLength:
    """A sampler whose order has another length from an epoch on."""

    def __init__(self, samples: int, length: int, epoch: int) -> None:
        self.samples, self.length, self.epoch = samples, length, epoch

    def order(self, *key: int) -> Tensor:
        return torch.arange(self.length if key[1] >= self.epoch else self.samples) % self.samples


@pytest.mark.parametrize("length", [1, 13, 25, 27, 52])
@pytest.mark.parametrize(
    "augment", [none(), crop_flip(0.0, 0.5), Pipeline((), Mixup(0.2)), Pipeline((), Cutmix(1.0))], ids=lambda p: str(p)
)
def test_an_order_may_have_any_length(length, augment):
    """An epoch has as many samples as the order has rows, each with its own augmentation and a partner among them."""
    one = loaders(Rows(26), augment=augment, sampler=OfLength(26, length, epoch=1))
    assert one.samples == length
    for epoch in (1, 2):
        batches = [batch for window in one.train(epoch) for batch in window.batches]
        assert torch.cat([batch.indices for batch in batches]).tolist() == [10 * (row % 26) for row in range(length)]
        assert torch.cat([batch.positions for batch in batches]).tolist() == list(range(length))


@pytest.mark.parametrize("length", [1, 25, 27, 52])
def test_an_order_that_changes_its_length_is_refused(length):
    """The schedule is planned for epochs of one length. The error is one line, before anything is read."""
    split = Rows(26)
    one = loaders(split, sampler=OfLength(26, length, epoch=3))
    assert [sum(window.samples for window in one.train(epoch)) for epoch in (1, 2)] == [26, 26]
    split.locked = True
    reason = f"sampler (OfLength): its order has {length} rows in epoch 3, and 26 in epoch 1; correct it"
    with pytest.raises(ConfigError, match=re.escape(reason)):
        list(one.train(3))


@pytest.mark.parametrize("rows", [[], [0, 26], [-1, 3]], ids=str)
@pytest.mark.parametrize("epoch", [1, 3])
def test_an_order_of_other_rows_is_refused(rows, epoch):
    """An empty order, and rows that the split does not have."""

    class Wrong(Shuffle):
        def order(self, *key: int) -> Tensor:
            return torch.tensor(rows, dtype=torch.int64) if key[1] >= epoch else super().order(*key)

    reason = f"sampler (Wrong): its order of epoch {epoch} is empty, or not of the rows 0 to 25; correct it"
    with pytest.raises(ConfigError, match=re.escape(reason)):
        list(loaders(Rows(26), sampler=Wrong(torch.arange(26))).train(epoch))


def test_a_sample_bears_its_position_and_its_index():
    """Positions count through the epoch; the target and the pixel are those of the row that stands there."""
    split = Rows(26)
    batches = [batch for window in loaders(split).train(1) for batch in window.batches]
    positions = torch.cat([batch.positions for batch in batches])
    rows = torch.cat([batch.indices for batch in batches]) // 10
    assert positions.tolist() == list(range(26))
    assert torch.equal(torch.cat([batch.targets for batch in batches]), split.targets[rows])
    assert torch.equal(torch.cat([batch.inputs for batch in batches]).flatten(), rows.float())


def test_the_last_micro_batch_and_the_last_window_hold_what_is_left():
    """No sample is dropped and none is padded: 26 samples of 4 × 3 are 12, 12 and 2; 23 are 12 and 11."""
    for samples, sizes in ((26, [[4, 4, 4], [4, 4, 4], [2]]), (23, [[4, 4, 4], [4, 4, 3]]), (3, [[3]])):
        windows = list(loaders(Rows(samples)).train(1))
        assert [[len(batch.indices) for batch in window.batches] for window in windows] == sizes
        assert [window.samples for window in windows] == [sum(window) for window in sizes]
        assert [window.number for window in windows] == list(range(len(sizes)))


@given(
    weights=st.lists(st.floats(0.01, 100), min_size=3, max_size=3),
    cut=st.tuples(st.integers(1, 9), st.integers(1, 4)),
    epoch=st.integers(1, 50),
)
@settings(deadline=None, max_examples=50)
def test_a_windows_weight_is_the_sum_of_its_samples_weights(weights, cut, epoch):
    """Whatever classes weigh and however windows are cut, ragged ones too."""
    for window in loaders(Rows(29), *cut, weights=weights).train(epoch):
        labels = [label for batch in window.batches for label in batch.targets.tolist()]
        assert window.weight == pytest.approx(sum(weights[label] for label in labels), rel=1e-12)


def test_without_class_weights_a_window_weighs_its_samples():
    """Then the weighted mean is the mean."""
    assert [window.weight for window in loaders(Rows(26)).train(1)] == [12.0, 12.0, 2.0]


def test_the_weight_is_known_before_the_first_sample_is_read():
    """All of an epoch's windows are planned and weighed while reading any picture is an error."""
    split = Rows(29)
    split.locked = True
    windows = list(loaders(split, weights=WEIGHTS).train(1))
    total = sum(WEIGHTS[label] for label in split.targets.tolist())
    assert sum(window.weight for window in windows) == pytest.approx(total)
    with pytest.raises(AssertionError, match="a sample was read"):
        next(iter(windows[0].batches))


def test_batches_are_fetched_one_at_a_time():
    """A batch is read when it is asked for; while the next one is read, at most the one before is still held."""
    split = Rows(24)
    window = next(iter(loaders(split, batch_size=2, accum=10).train(1)))
    assert split.fetched == []
    for number, batch in enumerate(window.batches, 1):
        assert len(split.fetched) == number
        del batch
    assert len(split.fetched) == 10
    assert max(split.held) <= 1


def test_a_windows_batches_can_be_iterated_again():
    """A second pass, as sharpness-aware steps need, brings the same samples, and so does one after a broken pass."""
    window = next(iter(loaders(Rows(24)).train(1)))
    next(iter(window.batches))
    first, second = ([batch.indices.tolist() for batch in window.batches] for _ in range(2))
    assert first == second
    assert [len(batch) for batch in first] == [4, 4, 4]


class Strided:
    """Another accumulation: two windows, of the even and of the odd positions, in lists and in steps."""

    def windows(self, order: Positions) -> Iterator[Window]:
        yield Window((order[::2],))
        yield Window((list(order[1::2])[:3], list(order[1::2])[3:]))

    def steps(self, samples: int) -> int:
        return 2


def test_any_plan_of_positions_is_followed():
    """Windows need not be slices: positions in steps, or in lists, bring those samples and their weights."""
    split, windows = Rows(11), list(loaders(Rows(11), weights=WEIGHTS, cut=Strided()).train(4))
    positions = [[p for batch in window.batches for p in batch.positions.tolist()] for window in windows]
    rows = [[i // 10 for batch in window.batches for i in batch.indices.tolist()] for window in windows]
    assert positions == [[0, 2, 4, 6, 8, 10], [1, 3, 5, 7, 9]]
    expected = order(11, 0, 4)
    assert rows == [expected[::2], expected[1::2]]
    for window, members in zip(windows, rows, strict=True):
        assert window.weight == pytest.approx(sum(WEIGHTS[split.targets[row]] for row in members))


@pytest.mark.parametrize("rule", [Mixup(0.4), Cutmix(1.0)], ids=str)
@pytest.mark.parametrize("cut", [(4, 3), (1, 5), (29, 1)])
def test_partners_and_shares_do_not_depend_on_the_cut(rule, cut):
    """Whichever micro-batch a sample falls into, it is mixed with the same sample, in the same share."""
    plan = rule.plan(29, (1, 1), CPU, 0, 2)
    found = loaders(Rows(29), *cut, augment=Pipeline((), rule)).train(2)
    batches = [batch for window in found for batch in window.batches]
    rows = torch.tensor(order(29, 0, 2))
    partners = rows[plan.partners]
    assert torch.equal(torch.cat([batch.mix.targets for batch in batches]), partners * 7 % 3)
    assert torch.equal(torch.cat([batch.mix.share for batch in batches]), plan.share)
    pixels = torch.cat([batch.inputs for batch in batches]).flatten().double()
    torch.testing.assert_close(pixels, plan.share * rows + (1 - plan.share) * partners, rtol=0, atol=1e-4)


@pytest.mark.parametrize("cut", [(4, 3), (29, 1)])
def test_a_mixed_window_weighs_what_its_labels_do(cut):
    """Σ λ·w[a] + (1 − λ)·w[b] over the window's samples, known before the first of them is read."""
    split = Rows(29)
    windows = list(loaders(split, *cut, weights=WEIGHTS, augment=Pipeline((), Mixup(1.0))).train(1))
    assert split.fetched == []
    weights = torch.tensor(WEIGHTS, dtype=torch.float64)
    for window in windows:
        parts = [(b.mix.share * weights[b.targets], (1 - b.mix.share) * weights[b.mix.targets]) for b in window.batches]
        assert window.weight == pytest.approx(sum((own + other).sum().item() for own, other in parts), rel=1e-12)


def test_a_sample_that_is_drawn_twice_has_two_positions():
    """A sampler with replacement brings a row as often as it drew it, each time at a position of its own."""
    one = loaders(Rows(40), sampler=Balanced(Rows(40).targets))
    batches = [batch for window in one.train(1) for batch in window.batches]
    rows = torch.cat([batch.indices for batch in batches]) // 10
    assert rows.tolist() == Balanced(Rows(40).targets).order(0, 1).tolist()
    assert len(rows.unique()) < 40
    assert torch.cat([batch.positions for batch in batches]).tolist() == list(range(40))


def test_what_will_be_fetched_is_announced_once_and_in_order():
    """A split that reads ahead is told the very tensors that fetch will be given, before the first of them."""

    class Announced(Rows):
        expected: tuple = ()

        def expect(self, requests):
            self.expected = tuple(requests)

        def fetch(self, rows, positions):
            assert rows is self.expected[len(self.fetched)][0]
            return super().fetch(rows, positions)

    split = Announced(26)
    for window in loaders(split).train(1):
        assert sum(len(batch.indices) for batch in window.batches) == window.samples
    assert len(split.fetched) == 7
    split.fetched.clear()
    assert len(list(loaders(split).evaluation("val"))) == 6


def test_evaluation_goes_through_a_split_in_its_own_order():
    """Once, in batches of the evaluation's size, unshuffled, whatever was trained before."""
    one = loaders(Rows(13))
    list(one.train(1))
    batches = list(one.evaluation("val"))
    assert [len(batch.indices) for batch in batches] == [5, 5, 3]
    assert torch.cat([batch.indices for batch in batches]).tolist() == list(range(0, 130, 10))


def test_time_waited_for_data_is_counted():
    """The clock moves while batches are fetched, and not while windows are planned."""
    one = loaders(Rows(24))
    windows = list(one.train(1))
    assert one.wait_timer.waited == 0
    list(windows[0].batches)
    assert one.wait_timer.waited > 0
