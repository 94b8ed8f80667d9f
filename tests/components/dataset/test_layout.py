"""Layouts of image folders: nothing is left out in silence, and no folder is taken for another."""

from __future__ import annotations

import logging
from pathlib import Path
from unicodedata import normalize

import pytest

from microstep.errors import DataError
from tests.components.dataset.folders import filled, names, opened, painted, sizes

COUNTS = {"ant": 10, "bee": 10}


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "data"


def notices(caplog, root: Path) -> list[str]:
    """Return the warnings about a folder, without its path."""
    warned = [one for one in caplog.records if (one.name, one.levelno) == ("microstep.notice", logging.WARNING)]
    return [record.getMessage().replace(str(root), "ROOT") for record in warned]


def refusal(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        opened(root)
    return str(caught.value).replace(str(root), "ROOT")


def test_a_folder_beside_the_splits_is_named(root, caplog):
    """Folders of images that are no split are listed in one warning; folders without images are not."""
    for name in ("train", "dev", "extra"):
        filled(root / name, COUNTS)
    (root / "labels").mkdir()
    (root / "labels" / "ant.txt").touch()
    assert sizes(opened(root)) == {"train": 16, "val": 2, "test": 2}
    assert notices(caplog, root) == [
        "dataset.root=ROOT: not used: dev/, extra/; rename the folder of a split to train, val or test"
    ]


@pytest.mark.parametrize("twin", ["validation", "VAL"])
def test_two_folders_of_one_split_are_refused(root, twin):
    """If two folders have a name of the same split, the error names both."""
    for name in ("train", "val", twin):
        filled(root / name, COUNTS)
    one, two = sorted(["val", twin])
    named = f"both {one}/ and {two}/ are named as the val split"
    assert refusal(root) == f"dataset.root=ROOT: {named}; rename one, or move it away"


@pytest.mark.parametrize("folders", [["."], [".", "train"], ["train", "test"]], ids=" ".join)
def test_images_beside_class_folders_are_counted(root, caplog, folders):
    """Images outside the class folders are in no split, and one warning says how many, where, and what to do."""
    for folder in folders:
        filled(root / folder, {} if folder == "." and len(folders) > 1 else COUNTS)
        painted(root / folder / "loose.png", 0)
    dataset = opened(root)
    assert not [name for split in dataset.image_sources for name in names(dataset, split) if "loose" in name]
    (warning,) = notices(caplog, root)
    found = ", ".join(f"1 in {Path('ROOT', folder)}" for folder in folders)
    assert warning.startswith(
        f"dataset.root=ROOT: not used, because images in no class folder have no labels: {found}; "
    )
    assert warning.endswith(" run=RUN input=FOLDER classifies them")


def test_train_may_be_the_name_of_a_class(root, caplog):
    """A folder called train that holds images only, beside other classes, is a class, and a warning says so."""
    filled(root, {"bus": 10, "car": 20, "train": 30})
    dataset = opened(root)
    assert dataset.facts["class_names"] == ("bus", "car", "train")
    assert sum(sizes(dataset).values()) == 60
    reason = "train/ is a class, because it holds images and no folders; a training split is train/CLASS/*.jpg"
    assert notices(caplog, root) == [f"dataset.root=ROOT: {reason}"]


@pytest.mark.parametrize(
    ("beside", "reason"),
    [(None, "ROOT holds one class only: train"), ("test", "ROOT/train holds no folders of classes")],
)
def test_images_without_labels_are_no_classes(root, beside, reason):
    """A folder called train that holds images only is refused if no other class lies beside it."""
    for name in filter(None, ("train", beside)):
        painted(root / name / "0.png", 0)
    assert refusal(root).startswith(f"dataset.root=ROOT: {reason}; make it train/CLASS/")


def test_a_test_folder_without_labels_is_not_the_test_split(root, caplog):
    """If test images lie in no class folders, the split is carved, and a warning says that they have no labels."""
    filled(root / "train", COUNTS)
    painted(root / "test" / "0.png", 0)
    assert sizes(opened(root)) == {"train": 16, "val": 2, "test": 2}
    (warning,) = notices(caplog, root)
    assert warning.startswith(
        "dataset.root=ROOT: not used, because images in no class folder have no labels: 1 in ROOT/test; "
    )


@pytest.mark.parametrize("name", ["@eaDir", "__MACOSX"])
def test_folders_of_a_file_server_or_an_archive_are_no_classes(root, caplog, name):
    """What network drives and archives leave behind is neither a class nor a folder that is not used."""
    filled(root / "train", COUNTS)
    for folder in (root, root / "train"):
        painted(folder / name / "._0.png", 0)
    assert opened(root).facts["class_names"] == ("ant", "bee")
    assert notices(caplog, root) == []


def test_a_usual_layout_gives_no_warning(root, caplog):
    """Nothing is said about folders of which everything is used."""
    for name in ("train", "val", "test"):
        filled(root / name, COUNTS)
    (root / "README.md").touch()
    _ = opened(root).image_sources, opened(root / "train").image_sources
    assert notices(caplog, root) == []


def test_a_class_that_is_not_utf8_is_refused(root):
    """A class name of bytes that are not UTF-8 is refused before training, and the error names its folder."""
    filled(root / "train", COUNTS | {"caf\udce9": 10})
    assert refusal(root).startswith(r"dataset.root=ROOT: the name of ROOT/train/caf\udce9 is not UTF-8; rename it")


def test_names_that_look_alike_are_told_apart(root, caplog):
    """Two spellings of one name, composed and decomposed, are shown by their code points."""
    composed, decomposed = normalize("NFC", "café"), normalize("NFD", "café")
    filled(root / "train", COUNTS | {composed: 10})
    filled(root / "test", {"ant": 2, decomposed: 2})
    assert refusal(root).startswith(
        r"dataset.root=ROOT: 'test/cafe\u0301' is no class of the training folder, but 'caf\xe9' is; rename one"
    )


def test_train_and_compute_stats_warn_once(zygote, tmp_path):
    """Both programs show a warning about folders once, also if worker processes read the images."""
    filled(tmp_path / "train", COUNTS)
    filled(tmp_path / "dev", COUNTS)
    words = ("dataset=image_folder", f"dataset.root={tmp_path}", "dataset.size=8", "num_workers=1")
    run = ("dataset.resident=false", "model=mlp", "epochs=1", "batch_size=8", "threads=1", "hydra.run.dir=run")
    for program, more in (("train.py", run), ("compute_stats.py", ())):
        done = zygote.call(program, *words, *more, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert (
            done.stderr.count("not used") == done.stderr.count(f"warning: dataset.root={tmp_path}: not used: dev/") == 1
        )
