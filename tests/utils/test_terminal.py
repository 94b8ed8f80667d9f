"""What reaches the terminal."""

from __future__ import annotations

import warnings

import pytest

from tests.conftest import fit


def warned(input_shape, num_classes, width):
    """A model of the user's whose module warns in two lines, and that lets a library warn."""
    from torch import nn

    warnings.warn("of my\nown", stacklevel=1)
    nn.Linear(0, 1)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))


WORDS = ("model._target_=tests.utils.test_terminal.warned", "epochs=1", "scheduler=constant", "hydra.run.dir=run")


def test_a_warning_of_the_user_s_own_is_one_line_and_a_library_s_is_in_the_log(zygote, tmp_path):
    """In a program, stderr has the first, after `warning:`; train.log has both."""
    done = zygote.call("train.py", *WORDS, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("warning: UserWarning: of my own (")
    log = (tmp_path / "run" / "train.log").read_text()
    assert "UserWarning: of my own" in log and "Initializing zero-element tensors" in log


def test_more_loader_processes_than_cores_are_no_warning(zygote, photos, tmp_path):
    """The key was typed, so nothing but the run's own lines is shown."""
    data = ("dataset=image_folder", f"dataset.root={photos}", "dataset.size=8", "dataset.resident=false")
    done = zygote.call("train.py", *data, *WORDS[1:], "batch_size=27", "num_workers=9", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_library_leaves_warnings_to_the_application(tmp_path):
    """`build_trainer` and `fit` change neither the filters nor where warnings go."""
    before = warnings.showwarning, list(warnings.filters)
    with pytest.warns(UserWarning, match="of my"), pytest.warns(UserWarning, match="zero-element"):
        fit(WORDS[:-1], tmp_path / "run")
    assert (warnings.showwarning, list(warnings.filters)) == before
