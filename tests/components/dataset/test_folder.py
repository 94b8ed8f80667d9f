"""Image folders: three layouts, classes by name, missing splits held out, and errors that name the cause."""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from microstep.components.dataset import ResidentSplit, StreamingSplit
from microstep.components.dataset.cropping import compute_cut_shares, describe_crop
from microstep.components.dataset.decoding import FITS, Decoder
from microstep.components.dataset.normalization import CHECK_SAMPLES
from microstep.config.choices import CHOICES
from microstep.config.compose import compose
from microstep.config.experiment import extract_experiment
from microstep.errors import ConfigError, DataError
from tests.components.dataset.folders import filled, names, opened, painted, sizes
from tests.conftest import error_of

COUNTS = {"ant": 20, "bee": 30, "cat": 40}


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "data"


def refusal(root: Path, **keys) -> str:
    """Return why a data set is refused: one line that begins with what the user typed."""
    with pytest.raises(DataError) as caught:
        _ = opened(root, **keys).image_sources
    assert caught.value.exit_code == 2
    return str(caught.value)


def labelled(dataset, split: str) -> dict[str, str]:
    """Return the class of each file."""
    pictures = dataset.image_sources[split]
    return {
        name: pictures.class_names[label] for name, label in zip(names(dataset, split), pictures.labels, strict=True)
    }


def test_three_folders_are_three_splits(root):
    """No split is held out if all are given; every file has the class of its folder."""
    for name, count in (("train", 9), ("val", 3), ("test", 2)):
        filled(root / name, dict.fromkeys(COUNTS, count))
    dataset = opened(root)
    assert sizes(dataset) == {"train": 27, "val": 9, "test": 6}
    for split in dataset.image_sources:
        assert all(name.split("/")[:2] == [split, label] for name, label in labelled(dataset, split).items())


@pytest.mark.parametrize("inner", ["train", "."], ids=["train alone", "one folder"])
def test_what_is_not_given_is_carved(root, inner):
    """Shares of the training images, a class at a time; every file is in exactly one split."""
    filled(root / inner, COUNTS)
    dataset = opened(root, val_fraction=0.1, test_fraction=0.2)
    assert sizes(dataset) == {"train": 63, "val": 9, "test": 18}
    assert Counter(labelled(dataset, "val").values()) == {"ant": 2, "bee": 3, "cat": 4}
    assert Counter(labelled(dataset, "test").values()) == {"ant": 4, "bee": 6, "cat": 8}
    every = [name for split in dataset.image_sources for name in names(dataset, split)]
    assert sorted(every) == sorted(str(file.relative_to(root)) for file in root.rglob("*.png"))


def test_one_folder_that_is_missing_is_carved_from_the_training_pictures(root):
    """If there is a test folder, only validation is held out."""
    filled(root / "train", COUNTS)
    filled(root / "test", dict.fromkeys(COUNTS, 2))
    dataset = opened(root)
    assert sizes(dataset) == {"train": 81, "val": 9, "test": 6}
    assert all(name.startswith("train/") for name in names(dataset, "val"))


def test_the_cut_is_split_seeds_alone(root):
    """The same seed cuts the same way again, another one differently."""
    filled(root, COUNTS)
    first, again, other = (opened(root, split_seed=seed) for seed in (0, 0, 1))
    assert [names(first, split) for split in first.image_sources] == [
        names(again, split) for split in again.image_sources
    ]
    assert first.fingerprint == again.fingerprint
    assert set(names(first, "val")) != set(names(other, "val"))


@pytest.mark.parametrize(
    "given", [("training", "validation", "testing"), ("Train", "VAL", "Test"), ("train", "valid", "test")]
)
def test_folders_may_be_called_otherwise(root, given):
    """Other names of the three splits, and capitals, are recognized; they are not classes."""
    for name, count in zip(given, (5, 3, 2), strict=True):
        filled(root / name, {"ant": count, "bee": count})
    assert sizes(opened(root)) == {"train": 10, "val": 6, "test": 4}


def test_classes_are_the_training_folders(root):
    """A class that validation lacks keeps its number: labels mean the same in every split."""
    filled(root / "train", COUNTS)
    filled(root / "val", {"cat": 2})
    filled(root / "test", {"bee": 1, "ant": 1})
    dataset = opened(root)
    assert dataset.facts["class_names"] == ("ant", "bee", "cat")
    assert dataset.image_sources["val"].labels.tolist() == [2, 2]
    assert dataset.image_sources["test"].labels.tolist() == [0, 1]


def test_a_class_that_training_lacks_is_refused(root):
    """A class that the training folder lacks is an error that names its folder."""
    filled(root / "train", COUNTS)
    filled(root / "test", {"ant": 1, "dog": 1})
    assert refusal(root).startswith(f"dataset.root={root}: test/dog is no class of the training folder")


def test_one_class_is_none(root):
    """A single class is an error; usually the root is a wrong level of the tree."""
    filled(root / "train", {"ant": 5})
    assert f"dataset.root={root}: {root}/train holds one class only: ant" in refusal(root)


def test_no_pictures_no_folders_no_directory(root):
    """Each is told from the others, and each line says how to lay the images out or what to give."""
    assert refusal(root) == f"dataset.root={root}: no such directory; give the one that holds the images"
    root.mkdir()
    assert f"dataset.root={root}: {root} holds no folders of classes; make it train/CLASS/" in refusal(root)
    for name in ("ant", "bee"):
        (root / name).mkdir()
        (root / name / "notes.txt").touch()
    assert f"dataset.root={root}: {root} holds no images (.apng, .avif, " in refusal(root)


def test_a_test_folder_without_a_training_folder_is_refused(root):
    """A test folder without a training folder is an error, not a class called test."""
    filled(root / "test", COUNTS)
    filled(root / "extra", COUNTS)
    assert f"dataset.root={root}: there is test/ but no train/; make it train/CLASS/" in refusal(root)


def test_an_empty_class_is_named(root):
    """An empty class folder in training is an error."""
    filled(root / "train", COUNTS)
    (root / "train" / "dog").mkdir()
    assert refusal(root) == (f"dataset.root={root}: class dog has no images to train on; add some, or remove the class")


def test_hidden_and_other_files_are_passed_over(root):
    """Files and folders left by editors, archives and file managers are neither classes nor images."""
    filled(root, COUNTS)
    before = opened(root)
    others = (".cache/x.png", "ant/.trash/x.png", "ant/._000.png", "ant/Thumbs.db", "ant/labels.csv")
    for name in (*others, "ant/desktop.ini", "ant/@eaDir/000.png/SYNOFILE_THUMB_M.png", "ant/__MACOSX/000.png"):
        painted(root / name, 0)
    (root / "README.md").touch()
    after = opened(root)
    assert names(after, "train") == names(before, "train")
    assert after.fingerprint == before.fingerprint


def test_folders_in_folders_and_capital_suffixes_count(root):
    """Images are found at any depth, even in a folder whose name ends like that of an image."""
    filled(root, {"ant": 10, "bee": 10})
    for name in ("ant/2024/05/x.png", "ant/roll.jpg/x.png", "bee/IMG_1.PNG"):
        painted(root / name, 0)
    counts = Counter(opened(root).official_splits["train"].labels.tolist())
    assert counts == {0: 12, 1: 11}


def test_files_that_are_not_read_are_counted_in_one_line(root, caplog):
    """Files of other formats in the folders of all splits are counted by suffix, the most frequent first."""
    filled(root / "train", COUNTS)
    filled(root / "test", COUNTS)
    for name in ("train/ant/a.heic", "train/bee/b.HEIC", "test/ant/c.heic", "test/bee/LICENSE", "train/ant/d.txt"):
        (root / name).write_text("no image")
    assert sizes(opened(root))["test"] == 90
    (line,) = caplog.messages
    assert line == f"dataset.root={root}: not read: 3 .heic, 1 .txt, 1 without a suffix"


def test_a_folder_of_nothing_but_images_needs_no_line(root, caplog):
    """Thumbnails and settings of operating systems, archives and network drives are not counted."""
    filled(root, COUNTS)
    for name in ("ant/Thumbs.db", "ant/Desktop.ini", "ant/.DS_Store", "bee/@eaDir/x.txt", "bee/__MACOSX/y.txt"):
        painted(root / name, 0)
    opened(root)
    assert not caplog.messages


def test_an_image_without_a_suffix_is_one(root, caplog):
    """Its content decides if a file has no suffix."""
    filled(root, COUNTS)
    (root / "ant" / "000.png").rename(root / "ant" / "n01440764_10026")
    assert "ant/n01440764_10026" in opened(root).official_splits["train"].files
    assert not caplog.messages


def test_the_line_stays_short_and_on_its_line(root, caplog):
    """If every file has a suffix of its own, the first are named; a line break in one is escaped."""
    filled(root, COUNTS)
    for number in range(99):
        (root / "ant" / f"frame.{number:02}\n").touch()
    opened(root)
    (line,) = caplog.messages
    assert r"1 .06\n, 1 .07\n, " in line
    assert line.endswith("…")


def test_links_are_followed_but_never_in_circles(root, tmp_path):
    """A linked folder of images counts; links back up, several of them, neither hang nor count anything twice."""
    filled(root, {"ant": 10, "bee": 10})
    filled(tmp_path / "elsewhere", {"more": 5})
    (root / "bee" / "linked").symlink_to(tmp_path / "elsewhere")
    for name in ("ant/up", "ant/here", "ant/again", "bee/linked/back"):
        (root / name).symlink_to((root / name).parent)
    train = opened(root).official_splits["train"]
    assert np.bincount(train.labels).tolist() == [10, 15]
    assert len(set(train.files.tolist())) == 25


@pytest.mark.parametrize(("budget", "kind"), [(2.0, ResidentSplit), (1e-6, StreamingSplit)])
def test_pictures_are_resident_where_they_fit(root, budget, kind):
    """`auto` decides by what all splits need in memory, and the summary says by how much."""
    filled(root, COUNTS)
    dataset = opened(root, budget_gib=budget, mean=[0.3] * 3, std=[0.2] * 3)
    assert all(isinstance(split, kind) for split in dataset.splits.values())
    assert f" (0.00 of at most {budget:g} GiB)" in dataset.summary
    exact = 90 * 3 * 8 * 8 / 2**30
    assert opened(root, budget_gib=exact).resident
    assert not opened(root, budget_gib=exact * 0.99).resident
    assert opened(root, budget_gib=1e-9, resident=True).resident


def stretched(root: Path, sizes: dict[str, tuple[int, int]]) -> None:
    """Replace images by others of these widths and heights."""
    for name, size in sizes.items():
        with Image.open(root / name) as image:
            image.resize(size).save(root / name)


def test_the_summary_tells_how_much_a_crop_cuts_off(root):
    """It gives the share of the area that is shown, and how many images lose more than half; padded ones lose none."""
    filled(root / "train", {"ant": 2, "bee": 2})
    filled(root / "val", {"ant": 1, "bee": 1})
    filled(root / "test", {"ant": 1, "bee": 1})
    assert "crop" not in opened(root).summary
    stretched(root / "train", {"ant/000.png": (40, 10), "bee/000.png": (10, 40), "bee/001.png": (16, 32)})
    said = "; dataset.fit=crop shows 50 % of the images' area on average, 2 of 4 lose more than half"
    assert opened(root).summary.endswith(said)
    assert not any("area" in opened(root, fit=fit).summary for fit in ("pad", "squash"))


def test_many_images_are_sampled_for_the_summary(root):
    """Of more than 512 files the sizes of 512 are read, and one that can't be read is passed over."""
    filled(root, {"ant": 300, "bee": 300})
    stretched(root, {f"{name}/{number:03}.png": (32, 8) for name in ("ant", "bee") for number in range(0, 300, 2)})
    (root / "ant" / "000.png").write_text("no image")
    said = describe_crop(opened(root).official_splits["train"])
    assert re.fullmatch(r"; dataset.fit=crop shows 6\d % .*, 25\d of a sample of 512 lose more than half", said)


@pytest.mark.parametrize("fit", FITS)
def test_both_backends_fit_alike(root, fit):
    """A batch has the same bits whether its images are resident or read when they are needed."""
    filled(root, {"ant": 20, "bee": 20})
    stretched(root, {"ant/000.png": (40, 10), "bee/000.png": (3, 90)})
    rows = torch.arange(32)
    keys = {"fit": fit, "mean": [0.3] * 3, "std": [0.2] * 3}
    first, second = (opened(root, resident=kind, **keys).splits["train"].fetch(rows, rows) for kind in (True, False))
    assert torch.equal(first.inputs, second.inputs)


def test_the_fit_is_part_of_the_fingerprint(root):
    """Images that are fitted otherwise are other data, so that nothing cached of one is taken for the other."""
    filled(root, {"ant": 20, "bee": 20})
    assert len({opened(root, fit=fit).fingerprint for fit in FITS}) == 3
    assert opened(root, fit="crop").fingerprint == opened(root).fingerprint


def test_what_a_crop_cuts_off_depends_on_the_size_that_it_makes(root):
    """A wide image is not cut if the images made are as wide, and a square one is."""
    filled(root, COUNTS)
    source = opened(root).official_splits["train"]
    wide = replace(source, decoder=Decoder(10, 20, 3))
    assert compute_cut_shares(wide, np.array([[40, 20], [10, 10]])).tolist() == [0, 0.5]


def test_fit_is_one_of_its_options(root, zygote):
    """Another one is a line with the options, before anything is read; it is a key of its own for an old run."""
    filled(root, COUNTS)
    said = "dataset.fit=zoom: no such option; the options are crop, pad, squash"
    with pytest.raises(ConfigError, match=f"^{said}$"):
        opened(root, fit="zoom")
    done = zygote.call("train.py", "dataset=image_folder", f"dataset.root={root}", "dataset.fit=zoom", cwd=root.parent)
    assert (done.returncode, error_of(done)) == (2, f"error: {said}")
    assert CHOICES["dataset.fit"] == tuple(FITS)
    node = compose(["dataset=image_folder", f"dataset.root={root}"])
    assert "fit" not in extract_experiment(node)["dataset"]
    node.dataset.fit = "pad"
    assert extract_experiment(node)["dataset"]["fit"] == "pad"


def test_resident_is_true_false_or_auto(root):
    """Anything else is refused with the options."""
    filled(root, COUNTS)
    with pytest.raises(ConfigError, match=r"^dataset.resident=yes: no such option; the options are auto, true, false$"):
        opened(root, resident="yes")


def test_grey_is_one_channel(root):
    """With grey=true, images have one channel, and so have mean and standard deviation."""
    filled(root, COUNTS)
    dataset = opened(root, grey=True)
    assert dataset.facts["input_shape"] == (1, 8, 8)
    assert len(dataset.normalization.mean) == 1


@pytest.mark.parametrize("resident", [True, False])
def test_a_pipe_among_the_pictures_is_refused_at_once(root, resident):
    """A pipe in place of a file blocks neither hashing nor decoding."""
    filled(root, COUNTS)
    os.mkfifo(root / "ant" / "y.jpg")

    def hung(*_):
        raise TimeoutError

    signal.signal(signal.SIGALRM, hung)
    signal.alarm(20)
    with pytest.raises(DataError, match=f"^{root}/ant/y.jpg: it is no regular file; remove it$"):
        assert opened(root, resident=resident).splits
    with pytest.raises(DataError, match="it is no regular file"):
        assert opened(root, resident=resident).fingerprint
    signal.alarm(0)


def test_any_name_of_a_file_or_class_will_do(root):
    """Line breaks and bytes that are no UTF-8, in both backends."""
    filled(root, COUNTS)
    for name in (b"ant/a\nb.png", b"ant/\xff\xfe.png", b"bee/\xe5\x9b\xbe.png"):
        painted(root / os.fsdecode(name), 100)
    streaming, resident = (opened(root, resident=kind) for kind in (False, True))
    assert streaming.fingerprint == resident.fingerprint
    for name, split in streaming.splits.items():
        rows = torch.arange(len(split))
        assert torch.equal(split.fetch(rows, rows).inputs, resident.splits[name].fetch(rows, rows).inputs)


WORDS = ("model=small_cnn", "model.width=4", "dataset.size=16", "epochs=1", "batch_size=16", "threads=1")


def test_a_run_on_a_folder_of_an_awkward_name(zygote, tmp_path):
    """Spaces, commas, equals signs and Chinese characters, quoted as Hydra wants it."""
    root = filled(tmp_path / "my pictures, a=b 图片", COUNTS)
    words = ("dataset=image_folder", f"dataset.root='{root}'", "dataset.resident=false", "num_workers=1")
    done = zygote.call("train.py", *words, *WORDS, "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "72 train / 9 val / 9 test; 3 × 16 × 16, streaming, 1 workers" in done.stdout
    assert (tmp_path / "run" / "reports" / "test" / "classification_report.txt").read_text().split()[4] == "ant"


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_turns_out_bad_during_training_is_named(zygote, tmp_path, workers):
    """If no file is read before training, a damaged file ends the run in its epoch with exit code 2 and one line."""
    root = filled(tmp_path / "data", {"ant": 400, "bee": 400})
    train = opened(root).image_sources["train"]
    looked_at = np.unique(np.linspace(0, len(train) - 1, CHECK_SAMPLES).astype(int))
    row = next(row for row in range(40, len(train)) if row not in looked_at)
    file = root / train.get_name(row)
    file.write_bytes(file.read_bytes()[:90])
    given = ("dataset.mean=[0.2,0.2,0.2]", "dataset.std=[0.2,0.2,0.2]", "dataset.resident=false")
    words = ("dataset=image_folder", f"dataset.root={root}", *given, f"num_workers={workers}", "dataset.size=16")
    done = zygote.call("train.py", *words, *WORDS, "hydra.run.dir=run", "progress=false", cwd=tmp_path)
    assert done.returncode == 2, done
    *before, last = done.stderr.splitlines()
    assert last.startswith(f"error: {file}: it ")
    assert not any("error" in line.lower() for line in before), done.stderr
