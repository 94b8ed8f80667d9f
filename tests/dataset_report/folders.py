"""A folder of images with one problem of each kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int, width: int = 16, height: int = 16) -> Image.Image:
    """Return noise that differs by seed."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def sick_folder(root: Path, many: int = 0) -> None:
    """Make train/, val/ and test/ of cats, dogs and three foxes, of whom all are in train/.

    A duplicate in train/cat, a cat that is a dog in test/, a JPEG cut short, a text file with a picture's name, a
    picture of one colour, one of another size.

    Args:
        many: more dogs.
    """
    for split, number in (("train", 10), ("val", 2), ("test", 4)):
        for label, name in enumerate(("cat", "dog")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for place in range(number + (many if (split, name) == ("train", "dog") else 0)):
                picture(place + 10_000 * label + 1000 * len(split)).save(folder / f"{place:02}.png")
    (root / "train" / "$fox 狐").mkdir()
    for place in range(3):
        picture(50_000 + place).save(root / "train" / "$fox 狐" / f"{place}.png")
    spoil(root)


def spoil(root: Path) -> None:
    """Put what is wrong among the cats and dogs."""
    cats, dogs = root / "train" / "cat", root / "train" / "dog"
    with Image.open(cats / "00.png") as leak, Image.open(cats / "01.png") as again:
        leak.save(root / "test" / "dog" / "leak.png", compress_level=0)  # the same pixels in other bytes
        again.save(cats / "again.png")
    picture(60_000, 64, 64).save(cats / "cut.jpg")
    (cats / "cut.jpg").write_bytes((cats / "cut.jpg").read_bytes()[:-500])
    picture(60_001, 40, 20).save(cats / "wide.png")
    (dogs / "text.png").write_text("no picture at all")
    Image.new("RGB", (16, 16), (9, 99, 199)).save(dogs / "flat.png")
    picture(60_002).save(dogs / "more.png")
