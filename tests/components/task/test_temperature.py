"""Tests of temperature scaling (Guo et al., ICML 2017)."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load, save
from torch import Tensor

from microstep.components.task import Classification
from microstep.components.task.classification.probabilities import fit_temperature
from microstep.config.allowlist import ALLOW_ALL
from microstep.evaluation.evaluate import evaluate_run, load_run
from microstep.evaluation.predict import predict_input
from microstep.run.weights import SavedWeights, read_fitted, serialize_weights
from microstep.training.evaluation_loop import iter_outputs
from microstep.utils.progress_bar import ProgressBars
from tests.conftest import fit

OLD = Path(__file__).parents[2] / "old_runs" / "finished"
BARS = ProgressBars(False)


def drawn(samples: int = 400, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    """Return logits that are `scale` times those that the labels are drawn from."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(samples, 5, generator=generator, dtype=torch.float64)
    return scale * logits, torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A finished run whose best epoch is its last."""
    directory = tmp_path_factory.mktemp("calibrated") / "run"
    fit(["epochs=1"], directory)
    return directory


@pytest.mark.parametrize("scale", [0.25, 1, 3])
def test_the_temperature_undoes_a_scale(scale):
    """Logits that are a multiple of calibrated ones are divided by about that multiple."""
    assert fit_temperature(*drawn(4000, scale)) == pytest.approx(scale, rel=0.1)


def test_no_other_temperature_is_better():
    """The likelihood at the temperature is that of the best of a fine grid, or better."""
    logits, targets = drawn()
    grid = [F.cross_entropy(logits / t, targets).item() for t in np.geomspace(0.05, 20, 2000)]
    assert F.cross_entropy(logits / fit_temperature(logits, targets), targets).item() <= min(grid) + 1e-9


def test_the_order_of_the_samples_does_not_matter():
    """A permutation of the samples gives the same temperature up to rounding."""
    logits, targets = drawn()
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(1))
    assert fit_temperature(logits[order], targets[order]) == pytest.approx(fit_temperature(logits, targets), rel=1e-9)


def test_it_is_bounded():
    """Logits without any information are divided by at most 20, almost perfect ones by at least 0.05."""
    targets = torch.arange(1000) % 2
    wrong = F.one_hot(1 - targets, 2).double()
    assert fit_temperature(wrong, targets) == pytest.approx(20, rel=1e-2)
    tiny = torch.cat([1e-3 * F.one_hot(targets, 2).double(), 1e-9 * wrong[:1]])
    assert fit_temperature(tiny, torch.cat([targets, targets[:1]])) == pytest.approx(0.05, rel=1e-2)


def test_what_is_all_right_has_no_temperature():
    """A likelihood that only grows has no best temperature, and outputs that are not finite don't count."""
    targets = torch.arange(6) % 3
    right = F.one_hot(targets, 3).double()
    right[0] = torch.nan
    assert fit_temperature(right, targets) is None
    assert fit_temperature(right[:1], targets[:1]) is None


def task_at(*temperature: float) -> Classification:
    return Classification("abcde", torch.arange(5), torch.device("cpu"), fitted={"temperature": temperature})


def test_no_decision_changes():
    """The classes and their order are the same at any temperature."""
    logits = drawn()[0] / 10
    names = [[cell for cell in answer.cells.values() if cell in "abcde"] for answer in task_at(1.0).answer(logits)]
    for temperature in (0.05, 0.4, 20.0):
        found = task_at(temperature).answer(logits)
        assert [[cell for cell in answer.cells.values() if cell in "abcde"] for answer in found] == names


def read_temperature(run: Path, epoch: int) -> float | None:
    """Return the temperature that weights of an epoch get, if their own metadata have none."""
    return task_at(*read_fitted(SavedWeights(run, {}, epoch, {}), run).get("temperature", ())).temperature


def test_it_is_that_of_the_validation_outputs(run):
    """A finished run's weights hold the temperature of the validation split at the best epoch, and of no other."""
    components, epoch = load_run(run, ALLOW_ALL, None, "best")
    fitted = {}
    for split in ("val", "test"):
        pairs = list(iter_outputs(components.model, components.loaders.evaluation(split), components.precision))
        targets = torch.cat([batch.targets for batch, _ in pairs])
        fitted[split] = fit_temperature(torch.cat([outputs for _, outputs in pairs]), targets)
    stored = read_temperature(run, epoch)
    assert stored == pytest.approx(fitted["val"], rel=1e-9)
    assert stored != pytest.approx(fitted["test"], rel=1e-3)
    assert read_temperature(run, epoch + 1) is None


def confidences(file: Path, column: str) -> list[float]:
    with file.open() as stream:
        return [float(row[column]) for row in csv.DictReader(stream)]


def test_reports_keep_raw_confidences_and_show_both_errors(run):
    """predictions.csv is uncalibrated; the printed report has both errors, the calibrated one is smaller on val."""
    before = {file: file.read_bytes() for file in sorted((run / "reports" / "val").iterdir())}
    done = evaluate_run(run, "val", "best", ALLOW_ALL, None, BARS)
    assert before == {file: file.read_bytes() for file in sorted((run / "reports" / "val").iterdir())}
    numbers = re.search(r"calibration error (\S+), (\S+) at temperature (\S+)", done.result.report.text)
    raw, calibrated, temperature = map(float, numbers.groups())
    assert temperature == pytest.approx(read_temperature(run, done.epoch), abs=5e-4)
    assert calibrated < raw
    p = np.array(confidences(done.directory / "predictions.csv", "confidence"))
    accuracy = float(re.search(r"accuracy +(\S+)", done.result.report.text)[1])
    assert abs(p.mean() - accuracy) == pytest.approx(raw, abs=0.02)


def test_predictions_are_calibrated(run, tmp_path, photos):
    """Confidences of `input=` are at the temperature; without it, they are the model's, of the same classes."""
    shutil.copytree(run, copy := tmp_path / "run")
    images = str(next((photos / "test").iterdir()))
    calibrated = predict_input(copy, images, "best", ALLOW_ALL, None, BARS).classified
    state, about = load((copy / "model.safetensors").read_bytes()), metadata(copy)
    (temperature,) = json.loads(about.pop("fitted"))["temperature"]
    (copy / "model.safetensors").write_bytes(serialize_weights(state, about))
    raw = predict_input(copy, images, "model.safetensors", ALLOW_ALL, None, BARS).classified
    for row, answer in calibrated.answers.items():
        one, other = answer.cells, raw.answers[row].cells
        assert (one["class_1"], one["class_2"]) == (other["class_1"], other["class_2"])
        ratios = [math.log(float(cells["confidence_1"]) / float(cells["confidence_2"])) for cells in (one, other)]
        assert ratios[0] == pytest.approx(ratios[1] / temperature, rel=1e-2)


def metadata(directory: Path) -> dict[str, str]:
    with safe_open(directory / "model.safetensors", "pt") as file:
        return dict(file.metadata())


@pytest.mark.parametrize("value", ["[0.0]", "[-1.0]", "[NaN]", "[Infinity]", "[1e-300]", '"no"', "[]", "1.0"])
def test_a_temperature_that_is_none_is_ignored(run, tmp_path, value):
    """Anyone may have written the file: a number out of bounds is no temperature."""
    state, about = (
        load((run / "model.safetensors").read_bytes()),
        metadata(run) | {"fitted": f'{{"temperature": {value}}}'},
    )
    (tmp_path / "model.safetensors").write_bytes(serialize_weights(state, about))
    assert read_temperature(tmp_path, 1) is None


def test_weights_without_metadata_leave_those_of_the_checkpoint(tmp_path):
    """A model.safetensors that another program wrote has no metadata, and is ignored."""
    (tmp_path / "model.safetensors").write_bytes(save({"weight": torch.zeros(1)}))
    weights = SavedWeights(tmp_path, {}, 1, {"fitted": '{"temperature": [2.0]}'})
    assert read_fitted(weights, tmp_path) == {"temperature": [2.0]}


def test_an_older_run_is_reported_as_before(tmp_path):
    """A run whose weights hold no temperature has the report that it had."""
    shutil.copytree(OLD, run := tmp_path / "run")
    done = evaluate_run(run, "val", "best", ALLOW_ALL, None, BARS)
    assert "calibration error" not in done.result.report.text
