"""compute_stats.py, the program: yaml to paste, a JSON file and a page of pictures to keep, nothing else left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from sklearn.datasets import load_digits

from tests.conftest import ROOT, call, error_of
from tests.dataset_report.folders import picture, sick_folder


@pytest.fixture(scope="module")
def exact(tmp_path_factory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """`compute_stats.py split=train,test` on the digits, and the directory it was called in."""
    home = tmp_path_factory.mktemp("stats")
    done = call("compute_stats.py", "dataset=digits", "split=train,test", cwd=home)
    assert done.returncode == 0, done.stderr
    return done, home


def written(home: Path) -> dict:
    """Return what the only JSON file says."""
    return json.loads(json_of(home / "outputs" / "stats").read_text())


def json_of(output: Path) -> Path:
    """Return the only JSON file of a directory that holds nothing else but its page of pictures."""
    file, page = sorted(output.iterdir(), key=lambda file: file.suffix)
    assert (file.suffix, page.name) == (".json", f"{file.stem}.png")
    return file


def test_it_prints_yaml_that_can_be_pasted(exact):
    """Under a comment that names the config file stands yaml: a mean and a deviation a channel."""
    done, home = exact
    after = done.stdout.split("# for conf/dataset/digits.yaml\n")[1]
    pasted = yaml.safe_load(after.split("\n\n")[0])
    train = written(home)["splits"]["train"]
    assert pasted == {"mean": [round(train["mean"][0], 4)], "std": [round(train["std"][0], 4)]}


def test_the_splits_are_measured_each_and_together(exact):
    """The file holds both splits and their union; the union's numbers are NumPy's over all 1797 digits."""
    found = written(exact[1])
    assert found["dataset"] == "digits"
    assert {name: part["count"] for name, part in found["splits"].items()} == {
        "train": 1617,
        "test": 180,
        "train+test": 1797,
    }
    both, digits = found["splits"]["train+test"], load_digits().images / 16
    np.testing.assert_allclose([both["mean"][0], both["std"][0]], [digits.mean(), digits.std()], rtol=1e-12)


def test_the_file_is_named_after_data_set_and_fingerprint(exact):
    """The last lines say where they are, and the two are the only things that the program leaves behind."""
    done, home = exact
    files = sorted(path.relative_to(home) for path in home.rglob("*") if path.is_file())
    assert done.stdout.splitlines()[-2:] == [f"written to {files[1]}", f"written to {files[0]}"]
    assert [file.suffix for file in files] == [".json", ".png"]
    assert {file.parent for file in files} == {Path("outputs/stats")}
    name, _, fingerprint = files[0].stem.partition("-")
    assert (name, len(fingerprint), int(fingerprint, 16) > 0) == ("digits", 12, True)


def test_in_a_pipe_there_are_no_bars(exact):
    """Nothing on stderr, no carriage return on stdout."""
    assert exact[0].stderr == ""
    assert "\r" not in exact[0].stdout


def test_a_sample_is_written_with_its_errors(zygote, tmp_path):
    """`ratio=` draws that share; the file holds the errors, and they reach the exact result."""
    done = zygote.call("compute_stats.py", "ratio=0.2", "seed=3", "output=own stats (1)", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    file = json_of(tmp_path / "own stats (1)")
    train, digits = json.loads(file.read_text())["splits"]["train ratio=0.2 seed=3"], load_digits().images / 16
    assert (train["count"], train["population"]) == (324, 1617)
    assert 0 < train["mean_standard_error"][0] < 0.01
    assert abs(train["mean"][0] - digits.mean()) < 4 * train["mean_standard_error"][0]
    assert abs(train["std"][0] - digits.std()) < 4 * train["std_standard_error"][0]


def test_a_sample_never_replaces_what_is_exact(zygote, tmp_path):
    """Exact and sampled statistics of the same data stand beside each other in the one file."""
    for words in (["split=test"], [], ["ratio=0.2"]):
        assert zygote.call("compute_stats.py", *words, "output=stats", cwd=tmp_path).returncode == 0
    found = json.loads(json_of(tmp_path / "stats").read_text())
    splits = found["splits"]
    assert list(splits) == ["test", "train", "train ratio=0.2 seed=0"]
    assert splits["train"]["count"] == splits["train"]["population"] == 1617
    assert list(found["health"]) == list(splits)


def test_an_unknown_split_is_exit_2_and_leaves_nothing(zygote, tmp_path):
    """The refusal is one line that names what was typed and the options, and no directory is made."""
    done = zygote.call("compute_stats.py", "split=val", cwd=tmp_path)
    assert done.returncode == 2
    assert error_of(done).startswith("error: split=val: ")
    assert "train, test" in error_of(done)
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_can_not_be_written_is_exit_4(zygote, tmp_path):
    """A file where the directory should be is a failure of storage, not of the config, in one line."""
    (tmp_path / "taken").write_text("")
    done = zygote.call("compute_stats.py", "output=taken", cwd=tmp_path)
    assert done.returncode == 4
    assert "taken" in error_of(done)
    assert (tmp_path / "taken").read_text() == ""


@pytest.fixture(scope="module")
def sick(zygote, tmp_path_factory) -> tuple[Path, str, dict]:
    """`compute_stats.py` on a folder of pictures with much wrong, decoded by two processes; text and JSON."""
    home = tmp_path_factory.mktemp("sick")
    sick_folder(home / "data")
    words = ["dataset=image_folder", "dataset.root=data", "dataset.size=16", "split=train,test", "num_workers=2"]
    done = zygote.call("compute_stats.py", *words, "output=stats", cwd=home, XDG_CACHE_HOME=str(home / "cache"))
    assert (done.returncode, done.stderr) == (0, "")
    return home, done.stdout, json.loads(json_of(home / "stats").read_text())


def test_a_sick_data_set_is_no_failure(sick):
    """The program ends well, counts what can be read, and names each bad file with what is wrong with it."""
    _, text, found = sick
    assert (found["splits"]["train"]["count"], found["splits"]["train"]["population"]) == (27, 29)
    assert "(27 of 29 images, exact, 2 unreadable)" in text
    assert "\n      train: train/cat/cut.jpg: it can't be read as an image: image file is truncated" in text
    assert "\n      train: train/dog/text.png: it is none of JPEG, PNG" in text


def test_a_class_too_small_to_train_on_is_reported(zygote, tmp_path):
    """Measuring splits nothing: a class that is too small, and a fraction that training refuses, do not matter."""
    for name, count in (("cat", 12), ("dog", 1)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(count):
            picture(100 * count + number).save(tmp_path / "data" / name / f"{number}.png")
    words = ("dataset=image_folder", f"dataset.root={tmp_path / 'data'}", "num_workers=0", "dataset.val_fraction=0")
    done = zygote.call("compute_stats.py", *words, cwd=tmp_path)
    assert (done.returncode, "warning" in done.stderr) == (0, False), done.stderr
    assert "\n      dog: 1\n" in done.stdout
    refused = zygote.call("train.py", *words, "model=mlp", cwd=tmp_path)
    assert (refused.returncode, "dataset.val_fraction=0: " in error_of(refused)) == (2, True)


def test_everything_wrong_is_named_in_text_and_json(sick):
    """Leaks, duplicates, labels that differ, pictures of one colour, small and absent classes: all there, counted."""
    _, text, found = sick
    health = found["health"]["train+test"]
    assert health["duplicate_groups"] == {"within": {"train": 1, "test": 0}, "across": 1, "conflicting": 1}
    assert "\n    unreadable: 2\n" in text
    kinds = "1 within train, 1 across splits, which are leaks, 1 with different labels"
    assert f"\n    groups of duplicates, the same pixels at this size: 2 ({kinds})\n" in text
    assert "train: train/cat/00.png = test: test/dog/leak.png (labels differ: cat, dog)\n" in text
    assert "train: train/cat/01.png = train: train/cat/again.png\n" in text
    assert [one["name"] for one in health["constant"]] == ["train/dog/flat.png"]
    assert (health["few"], health["absent"]) == ({"$fox 狐": 3}, {"val": ["$fox 狐"], "test": ["$fox 狐"]})
    assert "images of one color: 1\n      train: train/dog/flat.png\n" in text
    assert "      $fox 狐: 3\n" in text
    assert "to find leaks between splits: split=train,val,test\n" in text


def test_the_classes_and_sizes_are_told(sick):
    """The table has a row a class, counted by split; sizes are those of the files, not of the pictures decoded."""
    _, text, found = sick
    train = found["splits"]["train"]
    assert {name: one["count"] for name, one in train["classes"].items()} == {"$fox 狐": 3, "cat": 12, "dog": 12}
    assert {(one["width"], one["height"]): one["count"] for one in train["sizes"]} == {(16, 16): 26, (40, 20): 1}
    assert "    train  16 × 16 to 40 × 20, 2 different; most often 16 × 16 (26), 40 × 20 (1)\n" in text


def test_the_images_that_are_cut_most_are_listed(sick):
    """An image of which the crop shows a part only is named with its size and the share of its area that is lost."""
    _, text, found = sick
    assert "      train: train/cat/wide.png: 40 × 20, 50 % cut off\n" in text
    wide = {"split": "train", "name": "train/cat/wide.png", "label": "cat", "reason": "40 × 20, 50 % cut off"}
    assert found["health"]["train+test"]["cropped"] == [wide]


def test_the_page_is_a_picture(sick):
    """A PNG that opens, wide enough to be read; it says nothing of the program that drew it."""
    (page,) = (sick[0] / "stats").glob("*.png")
    with Image.open(page) as image:
        assert image.format == "PNG"
        assert image.width > 1000
        assert "Software" not in image.info


def test_a_healthy_report_is_short(exact):
    """A report without findings is one line."""
    text = exact[0].stdout
    assert (
        "\n  health of train, test\n    no unreadable files, no duplicates, no images of one color, "
        "no class with fewer than 10 training images\n\n"
    ) in text


def test_a_report_on_one_split_says_how_to_find_leaks(zygote, tmp_path):
    """Only what was asked for is looked at; the text names the splits to add, and that a sample is not the whole."""
    done = zygote.call("compute_stats.py", "ratio=0.1", cwd=tmp_path)
    assert "health of train: 162 of 1,617 images\n" in done.stdout
    assert "to find leaks between splits: split=train,test\n" in done.stdout
    assert "only a sample was checked" in done.stdout


def test_nothing_readable_is_exit_2_and_leaves_nothing(zygote, tmp_path):
    """A split without one good file is a failure of the data, told in one line."""
    for name in ("train/a/1.png", "train/b/2.png", "val/a/3.png", "test/a/4.png"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_text("no picture")
    words = ["dataset=image_folder", "dataset.root=data", "num_workers=0"]
    done = zygote.call("compute_stats.py", *words, cwd=tmp_path, XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert done.returncode == 2
    assert error_of(done).startswith("error: split=train: none of 2 images can be read (train/a/1.png: ")
    assert not (tmp_path / "outputs").exists()


def test_an_interrupted_program_leaves_nothing(tmp_path):
    """Ctrl-C before the end: no file, no directory, no process of its own that lives on."""
    sick_folder(tmp_path / "data", many=3000)
    words = ["dataset=image_folder", "dataset.root=data", "dataset.size=128", "num_workers=1"]
    command = [sys.executable, str(ROOT / "compute_stats.py"), *words]
    env = os.environ | {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    with subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.PIPE, start_new_session=True) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        while not (workers := children.read_text().split()):
            assert process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) == 130
    assert not (tmp_path / "outputs").exists()
    deadline = time.monotonic() + 10
    while any(map(alive, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alive(process: str) -> bool:
    """Say whether a process runs: one that has ended may wait to be collected."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
