"""Every yaml under conf/ composes, checks and builds."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from microstep import build_trainer, compose
from tests.conftest import ROOT

CONF = ROOT / "conf"
EXTRA = {"model/resnet18": ["model.norm=group"]}


def yamls() -> list[str]:
    groups = (path for path in CONF.rglob("*.yaml") if path.parent not in (CONF, CONF / "hydra" / "job_logging"))
    return sorted(str(path.relative_to(CONF).with_suffix("")) for path in groups)


@pytest.fixture(scope="session")
def idx_files(tmp_path_factory) -> Path:
    """Return a directory of small Fashion-MNIST files, gzipped."""
    root = tmp_path_factory.mktemp("fashion mnist, (small)")
    generator = np.random.default_rng(0)
    for prefix, count in (("train", 100), ("t10k", 20)):
        images = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes()
            (root / f"{prefix}-{name}-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes()))
    return root


@pytest.mark.parametrize("yaml", yamls())
def test_a_yaml_composes_checks_and_builds(yaml, idx_files, tmp_path) -> None:
    """Each option of each group makes a trainer whose first window takes a step."""
    group, _, option = yaml.rpartition("/")
    words = [f"{group}={option}", *EXTRA.get(yaml, []), "threads=1", "progress=false"]
    if "fashion" in yaml:
        words += [f"dataset.root={idx_files}", "dataset.val_samples=20"]
    if yaml == "model/torchvision":
        words += ["batch_size=2"]
    trainer = build_trainer(compose(words), tmp_path)
    window = next(trainer.loaders.train(epoch=1))
    trainer.model.train()
    assert trainer.step(trainer.model, trainer.optimizer, window.batches, window.weight).updated


def test_every_yaml_is_short() -> None:
    """A yaml of a group has at most ten lines."""
    assert {yaml for yaml in yamls() if len((CONF / f"{yaml}.yaml").read_text().splitlines()) > 10} == set()
