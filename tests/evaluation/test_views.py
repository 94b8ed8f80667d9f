"""Tests of test-time augmentation: `evaluate.py tta=`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from microstep.components.task import Classification
from microstep.config.allowlist import ALLOW_ALL
from microstep.config.choices import CHOICES
from microstep.errors import ConfigError
from microstep.evaluation.evaluate import evaluate_run, load_run
from microstep.evaluation.views import VIEWS, ViewAverage
from microstep.training.evaluation_loop import iter_outputs
from microstep.utils.progress_bar import ProgressBars
from tests.conftest import error_of, fit

CPU = torch.device("cpu")
TASK = Classification(("a", "b", "c"), torch.arange(3), CPU)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("viewed") / "run"
    fit(["epochs=1", "precision=fp64", "model.width=4"], directory)
    return directory


def test_probabilities_are_averaged():
    """The outputs for an image are logits of the mean of the probabilities for it and its mirror image."""
    model, images = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).double(), torch.randn(5, 1, 3, 4).double()
    expected = (model(images).softmax(1) + model(images.flip(3)).softmax(1)) / 2
    torch.testing.assert_close(ViewAverage(model, TASK, "flip")(images).softmax(1), expected, rtol=1e-12, atol=1e-12)


def test_equal_views_change_nothing():
    """An image that is its own mirror image has the outputs of the model."""
    model, half = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).double(), torch.randn(5, 1, 3, 2).double()
    images = torch.cat([half, half.flip(3)], 3)
    torch.testing.assert_close(ViewAverage(model, TASK, "flip")(images), model(images), rtol=1e-12, atol=1e-12)


def test_half_precision_is_averaged_in_fp32():
    """Outputs in bf16 are averaged in fp32, those in fp64 in fp64."""
    for dtype, expected in ((torch.bfloat16, torch.float32), (torch.float64, torch.float64)):
        assert TASK.average_views(torch.zeros(2, 4, 3, dtype=dtype)).dtype == expected


def test_the_size_of_evaluation_batches_does_not_matter(run):
    """In fp64 batches of 256 and of 37 give the same outputs up to rounding."""
    components, _ = load_run(run, ALLOW_ALL, None, "best")
    model, found = ViewAverage(components.model, components.task, "flip"), []
    for size in (256, 37):
        batches = replace(components.loaders, eval_batch_size=size).evaluation("test")
        found.append(torch.cat([outputs for _, outputs in iter_outputs(model, batches, components.precision)]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("checkpoint", ["best", "last", "model.safetensors"])
def test_the_plain_report_stays(run, checkpoint):
    """The report has a directory of its own, and the plain one keeps its bytes."""
    before = {file: file.read_bytes() for file in sorted((run / "reports" / "test").iterdir())}
    done = evaluate_run(run, "test", checkpoint, ALLOW_ALL, None, ProgressBars(False), tta="flip")
    weights = {"best": "", "last": "-last", "model.safetensors": "-model"}[checkpoint]
    assert done.directory == run / "reports" / f"test{weights}-tta-flip"
    assert {file.name for file in done.directory.iterdir()} == {file.name for file in before}
    assert before == {file: file.read_bytes() for file in before}
    assert (done.directory / "predictions.csv").read_bytes() != before[run / "reports" / "test" / "predictions.csv"]


def test_streamed_images_have_the_same_views(photos, tmp_path):
    """A report on images that are read by worker processes is that on resident ones."""
    words = ["dataset=image_folder", f"dataset.root={photos}", "dataset.size=12", "model=mlp", "epochs=1"]
    fit([*words, "batch_size=8"], tmp_path / "run")
    found = []
    for resident in (True, False):
        overrides = {"dataset.resident": resident, "num_workers": 0 if resident else 2}
        done = evaluate_run(
            tmp_path / "run", "test", "best", ALLOW_ALL, None, ProgressBars(False), overrides, tta="flip"
        )
        found.append((done.directory / "predictions.csv").read_bytes())
    assert found[0] == found[1]


@pytest.mark.parametrize(("task", "shape"), [(TASK, (4, 12)), (object(), (4, 1, 3, 4))])
def test_what_has_no_views_is_refused(task, shape):
    """Samples that are no images, and a task that averages nothing, are refused with one line."""
    with pytest.raises(ConfigError, match=r"^tta=flip: .* has no views to average, .*; leave it out$"):
        ViewAverage(nn.Identity(), task, "flip")(torch.zeros(shape))


def test_the_options_are_the_views():
    """The names that a command may use are those of the views."""
    assert set(CHOICES["tta"]) == set(VIEWS)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["tta=flop"], "tta=flop: no such option; the options are flip"),
        (["tta=flip", "input=."], "tta=flip: it makes the report of a split; leave out input= and baseline="),
        (["tta=flip", "baseline=B"], "tta=flip: it makes the report of a split; leave out input= and baseline="),
    ],
)
def test_a_wrong_word_is_refused_at_once(zygote, tmp_path, words, error):
    """The exit code is 2, and the line has the options."""
    done = zygote.call("evaluate.py", "run=RUN", *words, cwd=tmp_path)
    assert (done.returncode, error_of(done)) == (2, f"error: {error}")
