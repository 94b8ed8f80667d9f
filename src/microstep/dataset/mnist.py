"""MNIST and its kin, in idx files: 28×28, grey, 60,000 training and 10,000 test pictures in ten classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torchvision

from microstep.dataset.download import fetch
from microstep.dataset.idx import read_idx_split
from microstep.dataset.images import Images
from microstep.dataset.picture_dataset import PictureDataset, picture_dataset

KINDS = {
    "MNIST": torchvision.datasets.MNIST,  # LeCun, Cortes and Burges, 1998
    "FashionMNIST": torchvision.datasets.FashionMNIST,  # Xiao, Rasul and Vollgraf, 2017
    "KMNIST": torchvision.datasets.KMNIST,  # Clanuwat et al., 2018
}
FILES = "its four idx files (train-images-idx3-ubyte, …), gzipped or not,"
HELP = "put the four idx files there, gzipped or not, or add dataset.download=true"
DEBIAN = "; Debian and Ubuntu have Fashion-MNIST: apt install dataset-fashion-mnist"


def mnist(
    device: torch.device,
    kind: str,
    root: str,
    download: bool = False,
    val_samples: int = 5000,
    split_seed: int = 0,
    resident: bool = True,
    num_workers: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> PictureDataset:
    """Return MNIST, FashionMNIST or KMNIST from `root`, or from where torchvision puts it: `root`/<kind>/raw.

    Raises:
        ValueError: for another kind.
        DataError: naming the file that is missing or damaged, and how to get it.
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind} is unknown: the options are {', '.join(KINDS)}")
    raw = f"{kind}/raw"
    if download and not any(map(filled, (Path(root), Path(root, raw)))):
        fetch(KINDS[kind], Path(root), raw, FILES)
    remedy = HELP + (DEBIAN if kind == "FashionMNIST" else "")
    classes = tuple(KINDS[kind].classes)
    place = located(Path(root), raw)
    train, test = (Images(*read_idx_split(place, prefix, remedy), classes) for prefix in ("train", "t10k"))
    return picture_dataset(train, test, device, val_samples, split_seed, mean, std, resident, num_workers)


def located(root: Path, raw: str) -> Path:
    """Return the directory that holds the files: `root`, or torchvision's below it."""
    return root / raw if filled(root / raw) and not filled(root) else root


def filled(directory: Path) -> bool:
    """Whether a directory holds some idx files."""
    return any(directory.glob("*-ubyte*"))
