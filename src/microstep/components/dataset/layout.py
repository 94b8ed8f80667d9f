"""Finds the folders of splits and classes in a directory of images, and warns of images that are not used."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from unicodedata import normalize

from microstep.components.dataset.listing import is_ignored, is_image
from microstep.errors import DataError
from microstep.utils.terminal import called
from microstep.utils.text import format_names

log = logging.getLogger("microstep.notice")
SPLIT_FOLDERS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
LAYOUT_REMEDY = "make it train/CLASS/*.jpg (val/ and test/ beside it, or none), or CLASS/*.jpg"


def find_layout(root: Path) -> tuple[dict[str, Path], tuple[str, ...]]:
    """Return the folder of each split that has one, and the names of the classes; warn of images that are not used."""
    folders = find_split_folders(root)
    classes = find_class_names(root, folders["train"])
    for folder in folders.values():
        check_class_folders(root, folder, classes)
    warn_unused(root, folders)
    return {name: folder for name, folder in folders.items() if not lacks_class_folders(folder)}, classes


def find_split_folders(root: Path) -> dict[str, Path]:
    """Return the folder of each split that has one; `train` is `root` itself if that holds the class folders.

    Raise DataError if two folders have names of the same split, or only the training folder is missing.
    """
    if not root.is_dir():
        raise DataError(f"dataset.root={root}", "no such directory", "give the one that holds the images")
    inner = list_folders(root)
    folders: dict[str, Path] = {}
    for split, names in SPLIT_FOLDERS.items():
        for folder in (folder for folder in inner if folder.name.lower() in names):
            if split in folders:
                reason = f"both {folders[split].name}/ and {folder.name}/ are named as the {split} split"
                raise DataError(f"dataset.root={root}", reason, "rename one, or move it away")
            folders[split] = folder
    if [*folders] == ["train"] and lacks_class_folders(folders["train"]):
        reason = "is a class, because it holds images and no folders; a training split is train/CLASS/*.jpg"
        log.warning("dataset.root=%s: %s/ %s", root, folders.pop("train").name, reason)
    if folders and "train" not in folders:
        first = next(iter(folders.values())).name
        raise DataError(f"dataset.root={root}", f"there is {first}/ but no train/", LAYOUT_REMEDY)
    return folders or {"train": root}


def find_class_names(root: Path, folder: Path) -> tuple[str, ...]:
    """Return the names of the class folders; raise DataError if there are fewer than two, or one is not UTF-8."""
    classes = sorted(path.name for path in list_folders(folder))
    if len(classes) < 2:
        reason = f"{folder} holds {'one class only: ' + classes[0] if classes else 'no folders of classes'}"
        raise DataError(f"dataset.root={root}", reason, LAYOUT_REMEDY)
    for name in classes:
        if name != name.encode(errors="replace").decode():  # no report could hold it
            reason = f"the name of {folder / name} is not UTF-8"
            raise DataError(f"dataset.root={root}", reason, "rename it, for example with convmv")
    return tuple(classes)


def check_class_folders(root: Path, folder: Path, class_names: Sequence[str]) -> None:
    """Raise DataError if a folder in that of validation or test is named like no class."""
    twins = {normalize("NFC", name): name for name in class_names}
    for name in (path.name for path in list_folders(folder) if path.name not in class_names):
        if twin := twins.get(normalize("NFC", name)):
            reason = f"{f'{folder.name}/{name}'!a} is no class of the training folder, but {twin!a} is"
            raise DataError(f"dataset.root={root}", reason, "rename one of the two, which look the same")
        reason = f"{folder.name}/{name} is no class of the training folder"
        raise DataError(f"dataset.root={root}", reason, LAYOUT_REMEDY)


def list_folders(folder: Path) -> list[Path]:
    """Return the folders in a folder, sorted, except hidden ones and those that other programs make."""
    return [path for path in sorted(folder.iterdir()) if path.is_dir() and not is_ignored(path.name)]


def count_loose_images(folder: Path) -> int:
    return sum(is_image(path) and path.is_file() for path in folder.glob("[!.]*"))


def lacks_class_folders(folder: Path) -> bool:
    return not list_folders(folder) and count_loose_images(folder) > 0


def warn_unused(root: Path, folders: Mapping[str, Path]) -> None:
    """Warn of folders that are no splits, and of images that lie in no class folder."""
    used = dict.fromkeys([root, *folders.values()])
    others = [] if folders["train"] == root else [folder for folder in list_folders(root) if folder not in used]
    if names := [f"{folder.name}/" for folder in others if any(map(is_image, folder.rglob("*")))]:
        remedy = "rename the folder of a split to train, val or test"
        log.warning("dataset.root=%s: not used: %s; %s", root, format_names(names), remedy)
    if loose := [f"{count:,} in {folder}" for folder in used if (count := count_loose_images(folder))]:
        found = f"because images in no class folder have no labels: {format_names(loose)}"
        remedy = f"{called('evaluate')} run=RUN input=FOLDER classifies them"
        log.warning("dataset.root=%s: not used, %s; %s", root, found, remedy)
