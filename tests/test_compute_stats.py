"""compute_stats.py, the program: yaml to paste, a JSON file to keep, and nothing else left behind."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml
from sklearn.datasets import load_digits

from tests.conftest import call, error_of


@pytest.fixture(scope="module")
def exact(tmp_path_factory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """`compute_stats.py split=train,test` on the digits, and the directory it was called in."""
    home = tmp_path_factory.mktemp("stats")
    done = call("compute_stats.py", "dataset=digits", "split=train,test", cwd=home)
    assert done.returncode == 0, done.stderr
    return done, home


def written(home: Path) -> dict:
    """Return what the only JSON file says."""
    (file,) = (home / "outputs" / "stats").iterdir()
    return json.loads(file.read_text())


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
    """The last line says where it is, and it is the only thing that the program leaves behind."""
    done, home = exact
    files = [path.relative_to(home) for path in home.rglob("*") if path.is_file()]
    assert done.stdout.splitlines()[-1] == f"written to {files[0]}"
    assert len(files) == 1
    assert files[0].parent == Path("outputs/stats")
    name, _, fingerprint = files[0].stem.partition("-")
    assert (name, len(fingerprint), int(fingerprint, 16) > 0) == ("digits", 12, True)


def test_in_a_pipe_there_are_no_bars(exact):
    """Nothing on stderr, no carriage return on stdout."""
    assert exact[0].stderr == ""
    assert "\r" not in exact[0].stdout


def test_a_sample_is_written_with_its_errors(tmp_path):
    """`ratio=` draws that share; the file holds the errors, and they reach the exact result."""
    done = call("compute_stats.py", "ratio=0.2", "seed=3", "output=own stats (1)", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (file,) = (tmp_path / "own stats (1)").iterdir()
    train, digits = json.loads(file.read_text())["splits"]["train ratio=0.2 seed=3"], load_digits().images / 16
    assert (train["count"], train["population"]) == (324, 1617)
    assert 0 < train["mean_standard_error"][0] < 0.01
    assert abs(train["mean"][0] - digits.mean()) < 4 * train["mean_standard_error"][0]
    assert abs(train["std"][0] - digits.std()) < 4 * train["std_standard_error"][0]


def test_a_sample_never_replaces_what_is_exact(tmp_path):
    """Exact and sampled statistics of the same data stand beside each other in the one file."""
    for words in (["split=test"], [], ["ratio=0.2"]):
        assert call("compute_stats.py", *words, "output=stats", cwd=tmp_path).returncode == 0
    (file,) = (tmp_path / "stats").iterdir()
    splits = json.loads(file.read_text())["splits"]
    assert list(splits) == ["test", "train", "train ratio=0.2 seed=0"]
    assert splits["train"]["count"] == splits["train"]["population"] == 1617


def test_an_unknown_split_is_exit_2_and_leaves_nothing(tmp_path):
    """The refusal is one line that names what was typed and the options, and no directory is made."""
    done = call("compute_stats.py", "split=val", cwd=tmp_path)
    assert done.returncode == 2
    assert error_of(done).startswith("error: split=val: ")
    assert "train, test" in error_of(done)
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_can_not_be_written_is_exit_4(tmp_path):
    """A file where the directory should be is a failure of storage, not of the config, in one line."""
    (tmp_path / "taken").write_text("")
    done = call("compute_stats.py", "output=taken", cwd=tmp_path)
    assert done.returncode == 4
    assert "taken" in error_of(done)
