"""The statements of docs/tips.md about the usual snippets are still true, in both languages."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
import torch
from benchmarks.five_tips import accumulation
from benchmarks.five_tips.accumulation import Own, Usual
from benchmarks.five_tips.bars import losses, none, own, running, usual, written
from benchmarks.five_tips.deviation import by_batch, exact, pictures
from benchmarks.five_tips.digits import flat, network
from benchmarks.five_tips.precision import same_bits
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import classification_report
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from tqdm import tqdm

from microstep.components.precision import full
from microstep.errors import DataError
from tests.conftest import ROOT

ENGLISH, CHINESE = ((ROOT / "docs" / name).read_text() for name in ("tips.md", "tips.zh-CN.md"))
CUDA_AMP = {
    "GradScaler": torch.cuda.amp.GradScaler,
    "autocast": torch.cuda.amp.autocast,
}


def quoted(text: str) -> bool:
    """Say whether a message stands in both pages, whole or up to its `…`."""
    return all(any(matches(line, text) for line in page.splitlines()) for page in (ENGLISH, CHINESE))


def matches(line: str, text: str) -> bool:
    said = line.strip().partition(": ")[2]
    return said == text or (said.endswith(" …") and text.startswith(said.removesuffix(" …")))


@pytest.mark.parametrize("page", [ENGLISH, CHINESE], ids=["en", "zh"])
def test_every_picture_is_there(page) -> None:
    """A page shows five pictures, none of them over 80 kB."""
    files = [ROOT / "docs" / name for name in re.findall(r"!\[.+?\]\((.+?)\)", page)]
    assert len(files) == 5
    assert all(0 < file.stat().st_size < 80_000 for file in files)


@pytest.mark.parametrize("name", CUDA_AMP)
def test_torch_cuda_amp_warns_that_it_is_deprecated(name) -> None:
    """`torch.cuda.amp` is there still; each call warns as the page quotes, and without a GPU says that it is off."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        CUDA_AMP[name]()
    kinds = {w.category for w in heard}
    assert kinds == ({FutureWarning} if torch.cuda.is_available() else {FutureWarning, UserWarning})
    assert all(quoted(str(w.message)) for w in heard)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the page tells of a machine without a GPU")
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:.*[Dd]isabling")
def test_the_pasted_snippet_computes_in_fp32_without_a_gpu() -> None:
    """Its layers' outputs are float32, its scaler scales nothing, and it ends with the weights of plain fp32."""
    with torch.cuda.amp.autocast():
        assert nn.Linear(4, 4)(torch.ones(1, 4)).dtype == torch.float32
    assert torch.cuda.amp.GradScaler().scale(torch.ones(())).item() == 1
    assert same_bits()


def test_the_scheduler_moves_though_the_scaler_skipped() -> None:
    """If any step but the first overflows, the learning rate falls, the weights stay, and nothing warns."""
    net = nn.Linear(4, 1)
    optimizer, scaler = torch.optim.SGD(net.parameters(), lr=0.1), torch.amp.GradScaler("cpu")
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    for factor in (1.0, float("inf")):
        before = flat(net.parameters())
        scaler.scale(net(torch.ones(1, 4)).sum() * factor).backward()
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
        optimizer.zero_grad()
    assert torch.equal(before, flat(net.parameters()))
    assert scheduler.get_last_lr() == [0.025]


def test_gradients_clipped_before_they_are_unscaled_are_tiny() -> None:
    """Clipped to 1 while scaled by 65536, a gradient's norm is 1/65536 when it is applied."""
    net = nn.Linear(4, 1)
    optimizer, scaler = torch.optim.SGD(net.parameters(), lr=1.0), torch.amp.GradScaler("cpu")
    before = flat(net.parameters())
    scaler.scale(net(torch.ones(1, 4)).sum()).backward()
    nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    scaler.step(optimizer)
    assert (flat(net.parameters()) - before).norm().item() == pytest.approx(1 / 65536, rel=1e-2)


def test_unscaling_at_every_micro_batch_is_refused() -> None:
    """A second `unscale_` before `update` raises what the page quotes."""
    net = nn.Linear(4, 1)
    optimizer, scaler = torch.optim.SGD(net.parameters(), lr=1.0), torch.amp.GradScaler("cpu")
    scaler.scale(net(torch.ones(1, 4)).sum()).backward()
    scaler.unscale_(optimizer)
    with pytest.raises(RuntimeError) as raised:
        scaler.unscale_(optimizer)
    assert quoted(str(raised.value))


class Stream(IterableDataset):
    """Samples without a number."""

    def __iter__(self):
        yield torch.ones(1)


def test_what_no_longer_runs_raises_as_quoted() -> None:
    """`iter(loader).next()`, `loss.data[0]` and the length of a stream's loader are gone."""
    loader = DataLoader(TensorDataset(torch.ones(4, 1)), 2)
    for attempt in (
        lambda: iter(loader).next(),
        lambda: torch.ones(()).data[0],
        lambda: len(DataLoader(Stream())),
    ):
        with pytest.raises((AttributeError, IndexError, TypeError)) as raised:
            attempt()
        assert quoted(str(raised.value))


def test_set_description_draws_at_every_step() -> None:
    """In a log file the snippet's bar leaves a drawing for each of 200 steps, microstep's none at all."""
    steps = [lambda: torch.ones(())] * 200
    assert written(usual, steps).count("\r") >= 200
    assert written(own, steps) == written(none, steps) == ""
    assert tqdm.set_description.__defaults__ == (None, True)  # refresh


def test_the_last_batch_does_not_stand_for_its_epoch() -> None:
    """The number that the snippet leaves on the screen is far from the epoch's mean, as far as the page says."""
    (seen,) = losses(epochs=1)
    assert seen[-1][0] == 29
    assert seen[-1][1] / running(seen)[-1] - 1 == pytest.approx(-0.69, abs=0.02)


def test_the_usual_rule_is_wrong_where_the_page_says() -> None:
    """In two epochs the snippet takes 44 steps, the next epoch's first 40 % off; with a last step, that is 51 % off."""
    bare = [step.error for step in Usual(torch.float64, flush=False).steps(network(), 2)]
    mended = [step.error for step in Usual(torch.float64, flush=True).steps(network(), 1)]
    assert len(bare) == 44 and bare[22] == pytest.approx(0.40, abs=0.01)
    assert len(mended) == 23 and mended[22] == pytest.approx(0.51, abs=0.01)
    assert max(bare[:22] + mended[:22]) < 1e-12, "a full window is right without class weights"


def test_microsteps_rule_is_exact_on_the_same_windows() -> None:
    """In fp64 every window's gradient is that of the uncut window, class weights and the short window included."""
    steps = list(Own(full(accumulation.CPU, "float64"), accumulation.WEIGHTS).steps(network(), 1))
    assert [step.samples for step in steps] == [64] * 22 + [29]
    assert max(step.error for step in steps) < 1e-12


def test_the_report_raises_for_an_absent_class() -> None:
    """`target_names` alone raises as quoted where a class is in neither list; with all labels named it is a row."""
    names = ["a", "b", "c"]
    with pytest.raises(ValueError) as raised:
        classification_report([0, 1, 0], [0, 1, 1], target_names=names)
    assert quoted(str(raised.value))
    text = classification_report([0, 1, 0], [0, 1, 1], labels=range(3), target_names=names, zero_division=0)
    assert re.search(r"c +0\.00 +0\.00 +0\.00 +0\n", text)


def test_the_report_warns_of_a_class_that_is_never_predicted() -> None:
    """It warns three times over, as quoted."""
    with pytest.warns(UndefinedMetricWarning) as heard:
        classification_report([0, 1, 2], [0, 1, 1], target_names=["a", "b", "c"])
    assert len(heard) == 3 and quoted(str(heard[0].message))


def test_a_mean_of_deviations_is_too_small() -> None:
    """It is below the deviation over all pixels, and the more so, the smaller the batches."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 1, 1, 1)) * np.ones((1, 1, 4, 4), np.int64) // 2
    pixels = (pixels + np.random.default_rng(1).integers(0, 128, pixels.shape)).astype(np.uint8)
    averages = [by_batch(pixels, range(64), size)[1].mean() for size in (1, 4, 16, 64)]
    assert averages == sorted(averages)
    assert averages[0] < 0.9 * exact(pixels)[1]
    assert averages[-1] == pytest.approx(exact(pixels)[1], rel=1e-9)


def test_the_statistics_of_fashion_mnist_are_the_pages() -> None:
    """The exact figures, and what a picture at a time makes of them, are those of the table."""
    try:
        pixels, _ = pictures("train")
    except DataError:
        pytest.skip("Fashion-MNIST is not here")
    one = pixels.reshape(len(pixels), -1).std(1, dtype=np.float32).mean() / 255
    figures = [f"{value:.4f}" for value in (*exact(pixels), one)]
    assert figures == ["0.2860", "0.3530", "0.3202"]
    assert all(figure in page for figure in figures for page in (ENGLISH, CHINESE))
