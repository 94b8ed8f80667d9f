"""With augmentation and sampling, the weights of a run do not depend on its execution."""

from dataclasses import replace

import pytest
import torch

from microstep.config.compose import compose
from microstep.training.build import build_trainer
from microstep.training.loaders import EpochPlan, Loaders
from tests.conftest import fit
from tests.tasks.weights import identical, last_weights, relative

FP64 = ("precision=fp64", "epochs=2", "model.width=4", "dataset.val_samples=900", "max_grad_norm=1")
CUTS = {"whole": ("batch_size=60",), "cut": ("batch_size=20", "accum=3"), "ragged": ("batch_size=7", "accum=9")}
IMBALANCE = ("task.class_weights=balanced", "sampler=balanced")
FOLDER = (
    "dataset=image_folder",
    "dataset.size=16",
    "model.width=4",
    "batch_size=7",
    "epochs=2",
    "dataset.resident=false",
)


def weights(directory, *words):
    fit(list(words), directory)
    return last_weights(directory)


@pytest.mark.parametrize("augment", ["crop_flip", pytest.param("cutout", marks=pytest.mark.long), "mixup", "cutmix"])
def test_a_batch_can_be_cut_as_one_likes(augment, tmp_path):
    """In fp64 60, 20 × 3 and sixty-three cut as 7 × 9 … of the same windows end within 1e-10, augmented and mixed.

    With class weights, a weighted sampler, label smoothing and clipping; partners lie in other micro-batches.
    """
    words = (*FP64, *IMBALANCE, f"augment={augment}")
    whole, cut = (weights(tmp_path / name, *words, *CUTS[name]) for name in ("whole", "cut"))
    assert relative(cut, whole) < 1e-10
    ragged = weights(tmp_path / "ragged", *words, *CUTS["ragged"])
    assert relative(ragged, weights(tmp_path / "63", *words, "batch_size=63")) < 1e-10
    assert relative(ragged, whole) > 1e-6, "other windows are another experiment"


def test_augmentation_does_something(tmp_path):
    """Each recipe ends elsewhere than the others and than none."""
    recipes = ("none", "crop_flip", "cutout", "mixup", "cutmix")
    found = [weights(tmp_path / name, *FP64, "batch_size=60", f"augment={name}") for name in recipes]
    for number, one in enumerate(found):
        assert all(relative(one, other) > 1e-6 for other in found[:number])


@pytest.mark.parametrize("wrong", ["own labels alone", "partner in the micro-batch"])
def test_wrong_mixing_is_caught(wrong, monkeypatch, tmp_path):
    """The first test fails where micro-batches weigh their own labels alone, or partners come from the micro-batch."""
    words = (*FP64, *IMBALANCE, "augment=mixup", "augment.alpha=1.0")
    right = weights(tmp_path / "right", *words, *CUTS["whole"])
    if wrong == "own labels alone":
        monkeypatch.setattr(Loaders, "plan_epoch", own_labels)
    else:
        monkeypatch.setattr(EpochPlan, "request", neighbours)
    assert relative(weights(tmp_path / "wrong", *words, *CUTS["cut"]), right) > 1e-6


def own_labels(self, epoch, plan=Loaders.plan_epoch):
    found = plan(self, epoch)
    return replace(found, weights=self.weights[found.order])


def neighbours(self, positions):
    chosen = self.positions[positions.start : positions.stop]
    both = torch.cat([chosen, chosen.roll(1)])
    return self.order[both], both


def test_workers_change_no_bit(photos, tmp_path):
    """After two epochs of crop_flip weights are bit-identical for 0, 1 and 2 workers, who live on between epochs."""
    words = (*FOLDER, f"dataset.root={photos}", "augment=crop_flip", "dataset.val_fraction=0.2")
    found = [weights(tmp_path / str(count), *words, f"num_workers={count}") for count in (0, 1, 2)]
    assert identical(found[0], found[1])
    assert identical(found[0], found[2])


@pytest.mark.parametrize("augment", ["none", "crop_flip", "cutout", "mixup", "cutmix"])
def test_resident_and_streaming_end_with_the_same_bits(augment, photos, tmp_path):
    """Resident and streamed data give the same weights to the last bit."""
    words = (*FOLDER, f"dataset.root={photos}", f"augment={augment}", "dataset.val_fraction=0.2", "num_workers=0")
    streaming = weights(tmp_path / "streaming", *words)
    resident = weights(tmp_path / "resident", *words[:5], *words[6:], "dataset.resident=true")
    assert identical(streaming, resident)


@pytest.mark.parametrize("augment", ["crop_flip", "mixup", "randaugment"])
def test_a_second_pass_over_a_window_brings_the_same_batches(augment, photos, tmp_path):
    """Sharpness-aware steps read a window twice: what was read ahead and what is read again are the same."""
    words = [*FOLDER, f"dataset.root={photos}", f"augment={augment}", "dataset.val_fraction=0.2", "num_workers=1"]
    trainer = build_trainer(compose([*words, "progress=false", "threads=1", "accum=2"]), tmp_path)
    for window in trainer.loaders.train(1):
        first, second = ([batch.inputs for batch in window.batches] for _ in range(2))
        assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_sharpness_aware_steps_are_exact_on_mixed_pictures(tmp_path):
    """Both of their passes see the same mixture, however it is cut."""
    words = (*FP64, "augment=cutmix", "step=sam", "epochs=1")
    whole, cut = (weights(tmp_path / name, *words, *CUTS[name]) for name in ("whole", "cut"))
    assert relative(cut, whole) < 1e-10
