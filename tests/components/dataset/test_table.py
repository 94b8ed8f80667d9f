"""A table of files becomes targets, splits and groups, whatever the order of its rows; a wrong cell is one line."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from microstep.components.dataset import splitting
from microstep.config.compose import compose
from microstep.errors import ConfigError, DataError
from tests.components.dataset.folders import names
from tests.components.dataset.tables import CLASSES, grouped, listed, opened_table

PAIR = [("a.png", "ant"), ("b.png", "bee")]


def groups_of(dataset) -> dict[str, set[str]]:
    return {name: set(source.groups.tolist()) for name, source in dataset.image_sources.items()}


def is_divided(dataset) -> bool:
    """Return whether some group is in two splits."""
    found = groups_of(dataset).values()
    return sum(map(len, found)) > len(set().union(*found))


def test_classes_are_the_sorted_names(tmp_path):
    """Numbers are names, too, so that their order is that of text."""
    rows = [(f"{n}.png", label) for n, label in enumerate(["10", "2", "10", "2", "cat", "cat"])]
    train = opened_table(listed(tmp_path, "path,label", rows)).official_splits["train"]
    assert train.class_names == ("10", "2", "cat")
    assert (train.labels.tolist(), train.labels.dtype) == ([0, 1, 0, 1, 2, 2], np.int64)


def test_labels_are_columns_of_one_zero_and_unknown(tmp_path):
    """An empty cell is no label; a question mark leaves a label open."""
    rows = [("a.png", "cat|dog"), ("b.png", ""), ("c.png", "?cat | eel")]
    train = opened_table(listed(tmp_path, "path,labels", rows)).official_splits["train"]
    assert (train.class_names, train.labels.dtype) == (("cat", "dog", "eel"), np.float32)
    np.testing.assert_array_equal(train.labels, [[1, 1, 0], [0, 0, 0], [np.nan, 0, 1]])


def test_targets_are_numbers(tmp_path):
    """They are float32, and have no names."""
    train = opened_table(listed(tmp_path, "path,target", [("a.png", 1.5), ("b.png", "-2e1")])).official_splits["train"]
    assert (train.labels.tolist(), train.labels.dtype, train.class_names) == ([1.5, -20.0], np.float32, ())


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_csv_file_may_be_of_any_program(tmp_path, delimiter):
    """The delimiter is found, a byte order mark, spaces, empty lines and other columns are passed over."""
    file = listed(tmp_path, "path,label", PAIR)
    text = '\ufeffpath,label ,note\n"a.png", ant,"x, y; z\nw"\n\nb.png,bee,\n'
    file.write_text(text.replace(",", delimiter).replace(f"x{delimiter} y", "x, y"), "utf-8")
    train = opened_table(file).official_splits["train"]
    assert (train.files.tolist(), train.class_names) == (["a.png", "b.png"], ("ant", "bee"))


def test_a_parquet_file_is_read_like_a_csv_file(tmp_path):
    """Text, numbers and lists of labels have the same targets."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    file = listed(tmp_path, "path,labels", [("a.png", "cat|dog"), ("b.png", "")])
    columns = {"path": ["a.png", "b.png"], "labels": [["cat", "dog"], None]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    one, other = (opened_table(found).official_splits["train"] for found in (file, tmp_path / "t.parquet"))
    assert (one.class_names, one.labels.tolist()) == (other.class_names, other.labels.tolist())


def test_the_order_of_the_rows_does_not_matter(tmp_path, monkeypatch):
    """Splits and fingerprint are the same; without sorting they are not."""
    file = grouped(tmp_path)
    header, *rows = file.read_text().splitlines()
    random.Random(0).shuffle(rows)
    other = tmp_path / "shuffled.csv"
    other.write_text("\n".join([header, *rows]))
    before = opened_table(file)
    assert opened_table(other).fingerprint == before.fingerprint
    assert names(before, "train") == sorted(names(before, "train"))


@pytest.mark.parametrize("keys", [{}, {"folds": 5, "fold": 2}, {"val_fraction": 0.3}])
def test_a_group_is_in_one_split(tmp_path, monkeypatch, keys):
    """So the images of a patient never tell what was asked about them; stratification alone would divide them."""
    file = grouped(tmp_path)
    dataset = opened_table(file, **keys)
    assert not is_divided(dataset)
    assert all(set(source.labels.tolist()) == {0, 1, 2} for source in dataset.image_sources.values())
    plain = splitting.StratifiedKFold
    monkeypatch.setattr(splitting, "StratifiedGroupKFold", plain)
    assert is_divided(opened_table(file, **keys))


def test_splits_may_be_given(tmp_path):
    """The names of folders name splits, too; a split that the table lacks is held out of the training images."""
    rows = [(f"{n:02}.png", CLASSES[n % 3], "Validation" if n < 6 else "train") for n in range(60)]
    dataset = opened_table(listed(tmp_path, "path,label,split", rows))
    assert names(dataset, "val") == [f"{n:02}.png" for n in range(6)]
    assert {name: len(source) for name, source in dataset.image_sources.items()} == {"train": 49, "val": 6, "test": 5}


def test_a_moved_table_is_the_same_data(tmp_path):
    """The fingerprint holds images and targets, and not where they lie; another label is other data."""
    file = grouped(tmp_path / "one")
    before = opened_table(file).fingerprint
    (tmp_path / "one").rename(tmp_path / "two")
    moved = (tmp_path / "two" / "labels.csv").rename(tmp_path / "labels.csv")
    assert opened_table(moved, root=str(tmp_path / "two")).fingerprint == before
    moved.write_text(moved.read_text().replace("000.png,ant", "000.png,bee"))
    assert opened_table(moved, root=str(tmp_path / "two")).fingerprint != before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("path,label\na.png,ant\nno.png,bee\nnor.png,bee", "line 3: 2 of 3 files are missing, the first is "),
        ("path,label\na.png,ant\n./a.png,bee", "line 3: a.png is in line 2, too; "),
        ("path,label\na.png,", "line 2: its label is empty; "),
        ("path,label,target\na.png,ant,1", "it takes one of label, labels, target, and has label and target; "),
        ("path,breed\na.png,ant", "it takes one of label, labels, target, and has none; "),
        ("file,label\na.png,ant", "has no such column; did you mean one of file, label?"),
        ("path,target\na.png,1e99", "line 2: its target is 1e99; give a finite number"),
        ("path,target\na.png,nan", "line 2: its target is nan; "),
        ("path,label,split\na.png,ant,dev", "line 2: dev is no split; the options are train, val, test"),
        ("path,label,split,group\na.png,ant,train,x\nb.png,bee,val,x", "line 2: group x is in val, too; "),
        ("path,label\na.png,ant,x", "line 2 has not one cell for each column"),
        ("path,path\na.png,ant", "two columns have one name"),
        ("path,label\n", "there are no rows"),
        ('path,label\na.png,"ant', "it holds no table"),
        ("path,label,split\na.png,ant,train\nb.png,bee,test", "class bee has no images to train on; "),
        ("path,label\na.png,ant\nb.png,ant", "ant is the only class; "),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, text, said):
    """It names the file, the line, and what to do."""
    file = listed(tmp_path, "path,label", PAIR)
    file.write_text(text)
    with pytest.raises(DataError) as caught:
        _ = opened_table(file, test_fraction=0).image_sources
    assert said in str(caught.value)


def test_a_column_may_have_any_name(tmp_path):
    """A key names it; a misspelt name is refused with the nearest one."""
    file = listed(tmp_path, "file,breed,target", [("a.png", "ant", 1), ("b.png", "bee", 2)])
    assert opened_table(file, path="file", label="breed").official_splits["train"].class_names == ("ant", "bee")
    numbered = listed(tmp_path, "path,0,1", [("a.png", "ant", 1), ("b.png", "bee", 2)], "numbered.csv")
    assert opened_table(numbered, label=0).official_splits["train"].class_names == ("ant", "bee")
    with pytest.raises(DataError, match=r"dataset.label=bred: .* has no such column; did you mean breed\?"):
        opened_table(file, path="file", label="bred")
    with pytest.raises(DataError, match=r"dataset.target=\['x', 'y'\]: .* has no such column; did you mean one of "):
        opened_table(file, path="file", target=["x", "y"])


@pytest.mark.parametrize("labels", ["cat", "cat|?dog"])
def test_the_images_of_training_are_of_every_label(tmp_path, labels):
    """A label that only validation images are known to have is refused."""
    rows = [("a.png", labels, "train"), ("b.png", "dog", "val")]
    with pytest.raises(DataError, match="class dog has no images to train on"):
        _ = opened_table(listed(tmp_path, "path,labels,split", rows), test_fraction=0).image_sources


def test_pyarrow_is_asked_for(tmp_path, monkeypatch):
    """Without it, a Parquet file is refused with the command that installs it."""
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(ConfigError, match=r"pip install 'microstep\[table\]'$"):
        opened_table(tmp_path / "t.parquet")


@pytest.mark.parametrize("words", [["dataset.folds=5"], ["dataset.fold=0"], ["dataset.folds=5", "dataset.fold=5"]])
def test_a_fold_is_a_number_below_that_of_folds(words):
    """Both are given, or none."""
    with pytest.raises(ConfigError, match=r"give both: dataset\.folds=5 dataset\.fold=0"):
        compose(["dataset=table", "dataset.file=x.csv", *words])


@pytest.mark.parametrize("has_val", [False, True])
def test_folds_share_out_all_but_the_test_images(tmp_path, has_val):
    """Each image is for validation in one fold, and for training in the others; the test split is always the same."""
    split = ",split" if has_val else ""
    rows = [(f"{n:02}.png", CLASSES[n % 3], *(["val" if n < 9 else "train"] if has_val else [])) for n in range(60)]
    file = listed(tmp_path, f"path,label{split}", rows)
    assert "val" not in opened_table(file, folds=5, fold=0).official_splits
    folds = [opened_table(file, folds=5, fold=fold) for fold in range(5)]
    parts = [names(fold, "val") for fold in folds]
    (test,) = {tuple(names(fold, "test")) for fold in folds}
    assert sorted(path for part in parts for path in part) == sorted({path for path, *_ in rows} - {*test})
    for fold, part in zip(folds, parts, strict=True):
        assert sorted([*names(fold, "train"), *part, *test]) == [path for path, *_ in rows]
        assert np.bincount(fold.image_sources["val"].labels).min() >= 3


def test_a_list_of_files_is_a_data_set(tmp_path):
    """A user's own list has the splits, the decoder and the workers of the others."""
    from microstep import ImageFiles, file_dataset

    file = grouped(tmp_path, 30)
    paths = sorted(path.name for path in tmp_path.glob("*.png"))
    mine = ImageFiles(tmp_path, np.array(paths), np.arange(30) % 3, CLASSES)
    dataset = file_dataset({"train": mine}, opened_table(file).device, size=8, num_workers=2, resident=False)
    assert dataset.file_decoder.shape == (3, 8, 8)
    theirs = replace(opened_table(file).official_splits["train"], groups=None)
    np.testing.assert_array_equal(dataset.splits["train"].targets, theirs.labels[dataset.splits["train"].indices])
    dataset.workers.close()
