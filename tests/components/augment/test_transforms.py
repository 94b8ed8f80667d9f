"""Transforms of torchvision.transforms.v2 are a pure function of (seed, epoch, position), like every augmentation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from torchvision.transforms import v2

from microstep.components.augment import torchvision_transforms
from microstep.config.allowlist import allowlist_from
from microstep.config.compose import compose
from microstep.config.search_path import CONF
from microstep.errors import ConfigError
from microstep.evaluation.evaluate import evaluate_run
from microstep.training.build import build_trainer
from microstep.training.resume import resume
from microstep.utils.progress_bar import ProgressBars
from tests.conftest import fit
from tests.faults.interruptions import stop_at
from tests.faults.runs import differences
from tests.tasks.weights import identical, last_weights, relative

NAMES = "torchvision.transforms.v2."
CROP = f"{{_target_:{NAMES}RandomAffine,degrees:15,translate:[0.1,0.1]}}"
NESTED = f"{{_target_:{NAMES}RandomApply,p:0.5,transforms:[{{_target_:{NAMES}GaussianNoise}}]}}"
WORDS = ("augment=torchvision", f"augment.transforms=[{CROP},{NESTED}]", "threads=1", "progress=false")
SMALL = (*WORDS, "model=mlp", "model.hidden=[8]", "epochs=2")
FP64 = (*WORDS, "precision=fp64", "epochs=1", "model.width=4", "dataset.val_samples=900")
LATE = f"{{_target_:{NAMES}RandomApply,p:0.002,transforms:[{{_target_:{NAMES}Resize,size:4}}]}}"


def weights(directory: Path, *words: str) -> dict[str, torch.Tensor]:
    fit(words, directory)
    return last_weights(directory)


def test_a_batch_can_be_cut_as_one_likes(tmp_path: Path) -> None:
    """In fp64, 63 and 7 × 9 of the same windows end within 1e-10; without transforms, elsewhere."""
    whole, cut = (weights(tmp_path / w[0], *FP64, *w) for w in (("batch_size=63",), ("batch_size=7", "accum=9")))
    assert relative(cut, whole) < 1e-10
    assert relative(weights(tmp_path / "plain", *FP64[2:], "batch_size=63"), whole) > 1e-6


def test_resident_images_and_any_workers_end_with_the_same_bits(tmp_path: Path) -> None:
    """Whoever reads and transforms the images, the weights are the same to the last bit."""
    ways = ([], *(["dataset.resident=false", f"num_workers={count}"] for count in (0, 2)))
    resident, *streamed = (weights(tmp_path / str(n), *SMALL, *words) for n, words in enumerate(ways))
    assert all(identical(resident, other) for other in streamed)


def test_a_stopped_run_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """A run that is killed in its second epoch and resumed equals one that is not, bit for bit."""
    fit(SMALL, tmp_path / "whole")
    stop_at(build_trainer(compose([*SMALL, "checkpoint.every_steps=3"]), tmp_path / "run"), 31, lost=True)
    resume(tmp_path / "run").fit()
    assert differences(tmp_path / "run", tmp_path / "whole") == []


@pytest.mark.parametrize("words", [[], ["dataset.resident=false", "num_workers=1"]])
def test_a_transform_that_fails_late_ends_the_run_in_one_line(tmp_path: Path, words: list[str]) -> None:
    """The error of a worker process is that of the training process."""
    with pytest.raises(ConfigError, match=r"^augment\.transforms: they make torch\.uint8, \(1, 4, 4\) of .*; give a "):
        fit([*SMALL, f"augment.transforms=[{LATE}]", *words], tmp_path / "run")


def test_a_transform_of_pil_images_leaves_no_layout_of_its_own() -> None:
    """PIL's images come with their channels last; the batch has them first, as without them."""
    pipeline = torchvision_transforms([v2.ToPILImage(), v2.RandomHorizontalFlip(), v2.PILToTensor()])
    images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    plan = pipeline.plan(torch.arange(4), (8, 8), 0, 1)
    assert pipeline.apply(images, plan, torch.zeros(3, dtype=torch.uint8)).is_contiguous()


def test_a_run_directory_may_name_torchvision_s_transforms_alone(tmp_path: Path) -> None:
    """A run of typed transforms is evaluated without trust=; a nested target of anyone else is refused."""
    fit(SMALL, tmp_path)
    gate = allowlist_from([CONF])
    evaluate_run(tmp_path, "test", "best", gate, "cpu", ProgressBars(False))
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    for target in (
        "os.system",
        f"{NAMES}functional.to_pil_image",
        f"{NAMES}_deprecated.np.load",
        "torchvision.io.Image",
    ):
        config["augment"]["transforms"][1]["transforms"] = [
            {"_target_": f"{NAMES}Lambda", "lambd": {"_target_": target}}
        ]
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
        with pytest.raises(ConfigError, match=rf"^augment\._target_={target}: the run directory names it, .*trust="):
            evaluate_run(tmp_path, "test", "best", gate, "cpu", ProgressBars(False))
