"""Tests of the averages of weights."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from microstep.components.average import ema, swa


class Tied(nn.Module):
    """Two layers with one weight, BatchNorm's buffers, and a buffer that is not saved."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other, self.norm = nn.Linear(2, 2), nn.Linear(2, 2), nn.BatchNorm1d(2)
        self.other.weight = self.one.weight
        self.register_buffer("scratch", torch.zeros(1), persistent=False)


def states(count: int) -> list[Tied]:
    torch.manual_seed(0)
    found = [Tied() for _ in range(count)]
    for number, net in enumerate(found):
        net.norm.num_batches_tracked.fill_(number)
        net.norm.running_mean.fill_(number)
    return found


def test_ema_is_the_recurrence_with_a_shorter_memory_at_first() -> None:
    """After n steps the factor is min(decay, (1 + n) / (10 + n)); buffers are averaged, and counters copied."""
    average, nets = ema(0.3), states(6)
    expected = nets[0].one.weight.detach().clone()
    for number, net in enumerate(nets):
        average.update(net, number + 1)
        decay = min(0.3, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * net.one.weight.detach()
    weights = average.weights(nets[-1])
    assert weights.keys() == nets[0].state_dict().keys()
    assert torch.allclose(weights["one.weight"], expected) and torch.equal(
        weights["one.weight"], weights["other.weight"]
    )
    assert weights["norm.num_batches_tracked"] == 5
    assert 3 < weights["norm.running_mean"][0] < 5


def test_swa_is_the_mean_after_the_epochs_from_the_start_on() -> None:
    """With 8 steps in 4 epochs and start=0.5, the weights after steps 4, 6 and 8 are averaged."""
    average, nets = swa(8, 2, lambda weights, samples: {}, start=0.5), states(8)
    for number, net in enumerate(nets):
        average.update(net, number + 1)
        assert (average.weights(net) is None) is (number + 1 < 4)
    expected = torch.stack([nets[step - 1].one.weight for step in (4, 6, 8)]).mean(0)
    assert torch.allclose(average.weights(nets[0])["one.weight"], expected)


@pytest.mark.parametrize(("total", "every", "refused"), [(15, None, True), (20, None, False), (15, 5, False)])
def test_swa_that_would_average_nothing_is_refused(total, every, refused) -> None:
    """A run of few steps whose last quarter has no multiple of `every_steps` is refused: no weights would count."""
    with pytest.raises(ValueError, match=r"every_steps=10: steps 12 to 15 ") if refused else nullcontext():
        swa(total, 10, lambda weights, samples: {}, every_steps=every)


def test_swa_recomputes_statistics_once_a_new_average() -> None:
    """`refresh` asks for the statistics of the averaged weights in batches of bn_samples, also after a load."""
    asked = []

    def recompute(weights, samples):
        asked.append(samples)
        return {"norm.running_mean": torch.full((2,), 7.0)}

    average, net = swa(4, 1, recompute, start=0.5, bn_samples=16), states(1)[0]
    average.refresh()
    average.update(net, 2)
    for _ in range(2):
        average.refresh()
    rebuilt = swa(4, 1, recompute, start=0.5, bn_samples=16)
    rebuilt.load_state_dict(average.state_dict())
    rebuilt.load(net, average.weights(net))
    rebuilt.refresh()
    assert asked == [16]
    assert rebuilt.weights(net)["norm.running_mean"].tolist() == [7, 7]


@pytest.mark.parametrize("make", [ema, lambda: swa(4, 1, lambda weights, samples: {}, start=0)], ids=["ema", "swa"])
def test_a_loaded_average_goes_on_with_the_same_bits(make) -> None:
    """A new average with the entries and the state of another continues as that one does."""
    straight, average, rebuilt, nets = make(), make(), make(), states(4)
    for step, net in enumerate(nets):
        straight.update(net, step + 1)
    for step, net in enumerate(nets[:2]):
        average.update(net, step + 1)
    rebuilt.load_state_dict(average.state_dict())
    rebuilt.load(nets[0], {name: value.clone() for name, value in average.weights(nets[0]).items()})
    for step, net in enumerate(nets[2:], 2):
        rebuilt.update(net, step + 1)
    pair = straight.weights(nets[0]), rebuilt.weights(nets[0])
    assert all(torch.equal(pair[0][name], pair[1][name]) for name in pair[0])


def test_an_average_leaves_the_model_alone() -> None:
    """Later steps change no average, and averaging no weight."""
    average, net = ema(), states(1)[0]
    average.update(net, 1)
    kept = average.weights(net)["one.weight"].clone()
    net.one.weight.data.fill_(9)
    assert torch.equal(average.weights(net)["one.weight"], kept)
    average.update(net, 2)
    assert (net.one.weight == 9).all()
