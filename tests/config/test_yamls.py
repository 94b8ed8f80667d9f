"""Every yaml under conf/ composes, checks and builds."""

import pytest
import torch

from microstep.config.compose import compose
from microstep.training.build import build_trainer
from tests.components.dataset.cifar_files import write_cifar
from tests.components.dataset.tables import grouped
from tests.conftest import ROOT

CONF = ROOT / "conf"
TASKS_CONF = ROOT / "tests" / "components" / "task" / "conf"
TARGETS = {"task/multilabel": "labeled_digits", "task/regression": "numbered_digits"}
EXTRA = {
    "accumulation/auto": ["effective_batch_size=64"],
    "model/resnet18": ["model.norm=group"],
    "model/timm": ["batch_size=3"],
    "model/torchvision": ["batch_size=3"],
    "precision/auto": ["model=mlp"],
    "augment/torchvision": ["augment.transforms=[{_target_:torchvision.transforms.v2.RandomRotation,degrees:9}]"],
    "scheduler/head_first": ["param_groups=[{match:head,lr:0.1}]"],
    "stop/at": ["stop.epoch=3"],
    "strategy/ddp": ["strategy.processes=2", "strategy.run_on=1"],
    "stop/budget": ["stop.minutes=30"],
    "experiment/finetune": ["model.weights=null", "dataset.size=32", "batch_size=16"],
    "experiment/photos": ["batch_size=16"],
    "dataset/image_folder": ["dataset.val_fraction=0.2", "batch_size=16"],
}


def yamls() -> list[str]:
    groups = (path for path in CONF.rglob("*.yaml") if CONF not in (path.parent, path.parents[2]))
    return sorted(str(path.relative_to(CONF).with_suffix("")) for path in groups)


@pytest.mark.parametrize("yaml", yamls())
def test_a_yaml_composes_checks_and_builds(yaml, idx_files, photos, monkeypatch, tmp_path) -> None:
    """Each option of each group makes a trainer whose first window takes a step."""
    if yaml == "precision/tf32" and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    if yaml == "model/timm":
        pytest.importorskip("timm")
    group, _, option = yaml.rpartition("/")
    if group == "logger" and option != "jsonl":
        pytest.importorskip(option)
        monkeypatch.chdir(tmp_path)
    words = [f"{group}={option}", *EXTRA.get(yaml, []), "threads=1", "progress=false"]
    if "mnist" in yaml or "fashion" in yaml:
        words += [f"dataset.root={idx_files}", "dataset.val_samples=20"]
    if "cifar" in yaml:
        write_cifar(tmp_path, 100 if "100" in yaml else 10, monkeypatch)
        words += [f"dataset.root={tmp_path}", "dataset.val_samples=100", "batch_size=16"]
    if yaml == "dataset/table":
        words += [f"dataset.file={grouped(tmp_path / 'listed')}", "batch_size=16"]
    if yaml in ("dataset/image_folder", "experiment/finetune", "experiment/photos"):
        words += [f"dataset.root={photos}"]
    words += [f"dataset={TARGETS[yaml]}"] if yaml in TARGETS else []
    trainer = build_trainer(compose(words, TASKS_CONF if yaml in TARGETS else CONF), tmp_path / "run")
    window = next(trainer.loaders.train(epoch=1))
    trainer.model.train()
    assert trainer.step(trainer.model, trainer.optimization.optimizer, window.batches, window.weight).updated


def test_every_yaml_is_short() -> None:
    """A yaml of a group has at most fifteen lines."""
    assert {yaml for yaml in yamls() if len((CONF / f"{yaml}.yaml").read_text().splitlines()) > 15} == set()
