"""Tests of the losses that `task.loss` names, and of those of a user's own."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from microstep.components.task import Classification, bce, focal
from microstep.components.task.losses import LOSSES
from microstep.config.choices import CLASSIFICATION_CHOICES
from microstep.config.compose import compose
from microstep.errors import ConfigError
from microstep.types.data import Mix
from tests.conftest import error_of, fit
from tests.tasks.weights import identical, last_weights, relative

CPU = torch.device("cpu")
CLASSES = ("a", "b", "c")
OWN = "{_target_:tests.components.task.test_losses.Poly,epsilon:2.0}"
FP64 = ("precision=fp64", "epochs=1", "model.width=4", "dataset.val_samples=900", "max_grad_norm=1")
IMBALANCE = ("task.class_weights=balanced", "augment=mixup")


class Poly(nn.Module):
    """Poly-1 loss (Leng et al., ICLR 2022)."""

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        rest = 1 - outputs.softmax(1).gather(1, targets[:, None])[:, 0]
        return F.cross_entropy(outputs, targets, reduction="none") + self.epsilon * rest


def mean_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets)


def drawn(samples: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    outputs = 3 * torch.randn(samples, 3, generator=generator, dtype=torch.float64)
    return outputs, torch.randint(0, 3, (samples,), generator=generator)


def task(loss, weights=None, smoothing: float = 0.0) -> Classification:
    return Classification(CLASSES, torch.arange(3), CPU, weights, smoothing, loss)


@given(smoothing=st.floats(0, 0.9), samples=st.integers(1, 20), seed=st.integers(0, 100))
@settings(deadline=None, max_examples=50)
def test_focal_without_focus_is_cross_entropy(smoothing, samples, seed):
    """With gamma=0 the focal loss is torch's cross-entropy, with and without label smoothing."""
    outputs, targets = drawn(samples, seed)
    expected = F.cross_entropy(outputs, targets, reduction="none", label_smoothing=smoothing)
    torch.testing.assert_close(focal(outputs, targets, 0, smoothing), expected, rtol=1e-12, atol=1e-12)


def test_focal_is_the_formula_of_the_paper():
    """−(1 − p)^gamma · log p of the true class (Lin et al., 2017)."""
    outputs, targets = drawn(9)
    p = outputs.softmax(1).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(focal(outputs, targets, gamma=3), -((1 - p) ** 3) * p.log(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("gamma", [0, 0.5, 1, 2])
def test_focal_has_a_gradient_where_the_model_is_sure(gamma):
    """The gradient is finite even if a probability is exactly 1."""
    outputs = torch.tensor([[1000.0, 0.0, 0.0], [0.0, 0.0, 0.0]], requires_grad=True)
    focal(outputs, torch.tensor([0, 1]), gamma).sum().backward()
    assert outputs.grad.isfinite().all()


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_bce_is_one_against_all(smoothing):
    """It is torch's binary cross-entropy for a one-hot target, whose smoothed ones are those of timm."""
    outputs, targets = drawn(9)
    off = smoothing / 3
    soft = torch.full_like(outputs, off).scatter(1, targets[:, None], 1 - smoothing + off)
    expected = nn.BCEWithLogitsLoss(reduction="none")(outputs, soft).mean(1)
    torch.testing.assert_close(bce(outputs, targets, smoothing), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("loss", ["focal", "bce", Poly(1.0)], ids=["focal", "bce", "own"])
def test_a_mixed_sample_has_both_losses_with_their_class_weights(loss):
    """The sum is Σ share · w[own] · loss(own) + (1 − share) · w[partner] · loss(partner)."""
    (outputs, targets), (_, partners) = drawn(12), drawn(12, 1)
    weights, share = torch.tensor([0.2, 1.0, 7.0], dtype=torch.float64), torch.linspace(0, 1, 12)
    plain = loss if callable(loss) else LOSSES[loss]
    own, others = (weights[labels] * plain(outputs, labels) for labels in (targets, partners))
    found = task(loss, weights.tolist()).loss_sum(outputs, targets, Mix(partners, share))
    torch.testing.assert_close(found, (share * own + (1 - share) * others).sum(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("loss", ["focal", "bce", OWN], ids=["focal", "bce", "own"])
def test_a_batch_can_be_cut_as_one_likes(loss, tmp_path):
    """In fp64 a batch and its parts end within 1e-10 of each other, with class weights and mixup."""
    words = (*FP64, *IMBALANCE, f"task.loss={loss}", *(["task.label_smoothing=0"] if loss == OWN else []))
    for name, cut in {"whole": ("batch_size=60",), "cut": ("batch_size=20", "accum=3")}.items():
        fit([*words, *cut], tmp_path / name)
    whole, cut = (last_weights(tmp_path / name) for name in ("whole", "cut"))
    assert relative(cut, whole) < 1e-10
    fit([*FP64, *IMBALANCE, "batch_size=60"], tmp_path / "default")
    assert relative(last_weights(tmp_path / "default"), whole) > 1e-3, "it is another loss"


def test_cross_entropy_is_the_default():
    """Its name gives the bits of no name, and the negative log-likelihood is reported only beside another loss."""
    outputs, targets = drawn(9)
    for smoothing in (0.0, 0.1):
        one, other = task(None, None, smoothing), task("cross_entropy", None, smoothing)
        assert torch.equal(one.loss_sum(outputs, targets), other.loss_sum(outputs, targets))
        assert ("nll" in one.metrics().directions) == ("nll" in other.metrics().directions) == bool(smoothing)
    assert "nll" in task("focal").metrics().directions


def test_the_options_are_the_losses():
    """The names that a config may use are those that the task knows."""
    assert set(CLASSIFICATION_CHOICES["task.loss"]) == {"cross_entropy", *LOSSES}


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["task.loss=focl"], r"^task\.loss=focl: no such option; the options are cross_entropy, focal, bce$"),
        ([f"task.loss={OWN}"], r"^task\.label_smoothing=0\.1: task\.loss is .*; add task\.label_smoothing=0$"),
    ],
)
def test_a_wrong_value_is_refused_with_what_works(words, error):
    """The config is refused before anything is built."""
    with pytest.raises(ConfigError, match=error):
        compose(words)


@pytest.mark.parametrize("samples", [1, 7])
def test_a_loss_returns_one_number_a_sample(samples):
    """A mean, a sum or a matrix is refused with the shape."""
    outputs, targets = drawn(samples)
    for loss in (mean_loss, partial(F.cross_entropy, reduction="sum"), lambda outputs, targets: outputs):
        with pytest.raises(ConfigError, match=rf"^task\.loss: for {samples} samples it returns a tensor of shape \("):
            task(loss).loss_sum(outputs, targets)


def test_a_loss_that_is_no_vector_ends_a_run_at_once(zygote, tmp_path):
    """The first batch is refused with exit code 2, and no directory is left."""
    loss = "{_target_:tests.components.task.test_losses.mean_loss,_partial_:true}"
    done = zygote.call("train.py", f"task.loss={loss}", "task.label_smoothing=0", "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 2
    assert "not one number each; let it return the loss of each sample" in error_of(done)
    assert not (tmp_path / "run").exists()


def test_a_loss_of_ones_own_conf_is_resumed_and_evaluated(zygote, tmp_path: Path):
    """From a yaml of the user's own a run is resumed bit for bit; without that yaml its loss is not trusted."""
    (tmp_path / "conf" / "task").mkdir(parents=True)
    yaml = "_target_: microstep.components.task.Classification\nloss: {_target_: %s, epsilon: 2}\n"
    target = "tests.components.task.test_losses.Poly"
    (tmp_path / "conf" / "task" / "poly.yaml").write_text(yaml % target)
    words = ("task=poly", "scheduler=constant", "model=mlp", "model.hidden=[8]")
    assert zygote.call("train.py", *words, "epochs=2", "hydra.run.dir=straight", cwd=tmp_path).returncode == 0
    assert zygote.call("train.py", *words, "epochs=1", "hydra.run.dir=run", cwd=tmp_path).returncode == 0
    assert zygote.call("train.py", "resume=run", "epochs=2", cwd=tmp_path).returncode == 0
    assert identical(last_weights(tmp_path / "run"), last_weights(tmp_path / "straight"))
    assert "nll" in zygote.call("evaluate.py", "run=run", cwd=tmp_path).stdout
    (tmp_path / "conf").rename(tmp_path / "elsewhere")
    done = zygote.call("evaluate.py", "run=run", cwd=tmp_path)
    assert (done.returncode, target in error_of(done)) == (2, True)
