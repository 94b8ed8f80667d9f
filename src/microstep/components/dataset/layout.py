"""Finds the folders of splits and classes in a directory of images, and warns of images that are not used."""

import logging
import shlex
from collections.abc import Sequence
from pathlib import Path
from unicodedata import normalize

from microstep.components.dataset.decoding import IMAGE_SUFFIXES
from microstep.errors import DataError, escape_unprintable, truncate
from microstep.utils.terminal import called
from microstep.utils.text import display_path

log = logging.getLogger("microstep.notice")
SPLIT_FOLDERS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
IGNORED_FOLDERS = ("@eaDir", "__MACOSX")  #: of network drives and archives
LAYOUT_REMEDY = "make it train/CLASS/*.jpg (val/ and test/ beside it, or none), or CLASS/*.jpg"
MAX_NAMES_LENGTH = 300  #: characters of a list of folders in a warning


def find_split_folders(root: Path) -> dict[str, Path]:
    """Return the folder of each split that has one; `train` is `root` itself if that holds the class folders.

    Raise DataError if two folders have names of the same split, or only the training folder is missing.
    """
    if not root.is_dir():
        raise DataError(f"dataset.root={root}", "no such directory", "give the one that holds the images")
    named = {name: [f for f in list_folders(root) if f.name.lower() in names] for name, names in SPLIT_FOLDERS.items()}
    folders = {name: only_folder(root, name, found) for name, found in named.items() if found}
    others = [folder for folder in list_folders(root) if folder not in folders.values() and holds_images(folder)]
    if [*folders] == ["train"] and others and lacks_class_folders(folders["train"]):
        reason = "is a class, because it holds images and no folders; a training split is train/CLASS/*.jpg"
        warn(root, f"{escape_unprintable(folders.pop('train').name)}/ {reason}")
    if not folders:
        warn_unused(root, [], [root])
        return {"train": root}
    if "train" not in folders:
        first = next(iter(folders.values())).name
        raise DataError(f"dataset.root={root}", f"there is {first}/ but no train/", LAYOUT_REMEDY)
    labeled = {name: f for name, f in folders.items() if name == "train" or not lacks_class_folders(f)}
    warn_unlabeled(root, [folder for name, folder in folders.items() if name not in labeled])
    warn_unused(root, others, [root, *labeled.values()])
    return labeled


def only_folder(root: Path, split: str, folders: Sequence[Path]) -> Path:
    if len(folders) > 1:
        reason = f"both {' and '.join(f'{folder.name}/' for folder in folders)} are named as the {split} split"
        raise DataError(f"dataset.root={root}", reason, "rename one, or move it away")
    return folders[0]


def find_class_names(root: Path, folder: Path) -> tuple[str, ...]:
    """Return the names of the class folders; raise DataError if there are fewer than two, or one is not UTF-8."""
    classes = sorted(path.name for path in list_folders(folder))
    if len(classes) < 2:
        reason = f"{folder} holds {'one class only: ' + classes[0] if classes else 'no folders of classes'}"
        raise DataError(f"dataset.root={root}", reason, LAYOUT_REMEDY)
    for name in classes:
        if name != name.encode(errors="replace").decode():  # it could be in no report
            path = escape_unprintable(str((folder / name).relative_to(root)))
            raise DataError(f"dataset.root={root}", f"the name of {path}/ is not UTF-8", "rename it, as convmv does")
    return tuple(classes)


def check_is_class(root: Path, folder: Path, class_names: Sequence[str]) -> None:
    """Raise DataError if a folder in that of validation or test is named like no class."""
    for name in (path.name for path in list_folders(folder) if path.name not in class_names):
        reason, remedy = f"{folder.name}/{escape_unprintable(name)} is no class of the training folder", LAYOUT_REMEDY
        for twin in (known for known in class_names if normalize("NFC", known) == normalize("NFC", name)):
            reason = f"{f'{folder.name}/{name}'!a} is no class of the training folder, but {twin!a} is"
            remedy = "rename one of the two, which look the same"
        raise DataError(f"dataset.root={root}", reason, remedy)


def list_folders(folder: Path) -> list[Path]:
    """Return the folders in a folder, sorted, except hidden ones and those that other programs make."""
    visible = (path for path in sorted(folder.iterdir()) if not path.name.startswith("."))
    return [path for path in visible if path.is_dir() and path.name not in IGNORED_FOLDERS]


def count_loose_images(folder: Path) -> int:
    return sum(path.suffix.lower() in IMAGE_SUFFIXES and path.is_file() for path in folder.glob("[!.]*"))


def lacks_class_folders(folder: Path) -> bool:
    return not list_folders(folder) and count_loose_images(folder) > 0


def holds_images(folder: Path) -> bool:
    return any(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.rglob("*"))


def warn(root: Path, text: str) -> None:
    log.warning("%s: %s", escape_unprintable(f"dataset.root={root}"), text)


def warn_unlabeled(root: Path, folders: Sequence[Path]) -> None:
    for folder in folders:
        command = f"{called('evaluate')} run=RUN input={shlex.quote(display_path(folder))}"
        reason = f"{folder.name}/ has no class folders, so its images have no labels"
        warn(root, f"{reason}: the split is taken from the training images, and {command} classifies them")


def warn_unused(root: Path, others: Sequence[Path], parents: Sequence[Path]) -> None:
    """Warn of folders that are no splits, and of images in `parents` that lie beside the folders there."""
    if others:
        names = ", ".join(escape_unprintable(f"{folder.name}/") for folder in others)
        warn(root, f"not used: {truncate(names, MAX_NAMES_LENGTH)}; rename the folder of a split to train, val or test")
    counts = {folder: count for folder in parents if (count := count_loose_images(folder))}
    if counts:
        found = ", ".join(f"{count:,} in {escape_unprintable(str(folder))}" for folder, count in counts.items())
        warn(root, f"images are not used if they lie beside the class folders: {found}; move them into one")
