"""Tests of the reliability diagram and the expected calibration error (Guo et al., ICML 2017)."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageColor

from microstep.components.task.classification.plots import (
    NUM_BINS,
    Bins,
    bin_confidences,
    draw_reliability,
    expected_calibration_error,
)
from microstep.utils.plotting import BLUE


def bins_of(confidence: list[float], right: list[int]) -> Bins:
    return bin_confidences(torch.tensor(confidence, dtype=torch.float64), torch.tensor(right).bool())


def test_the_error_is_the_one_computed_by_hand():
    """Six samples: 2 of 4 right at 0.9, and 1 of 2 right at 0.65 and 0.62, give 4/6 · 0.4 + 2/6 · |0.5 − 0.635|."""
    bins = bins_of([0.9, 0.9, 0.9, 0.9, 0.65, 0.62], [1, 1, 0, 0, 1, 0])
    assert (bins["count"].tolist(), bins["accuracy"].tolist()) == ([2, 4], [0.5, 0.5])
    assert expected_calibration_error(bins) == pytest.approx(4 / 6 * 0.4 + 2 / 6 * 0.135, abs=1e-12)


def test_a_calibrated_predictor_has_no_error():
    """The error is 0 if the accuracy at each confidence equals that confidence."""
    shares = [0.05, 0.35, 0.55, 0.75, 0.95]
    confidence = [share for share in shares for _ in range(1000)]
    right = [int(n < round(1000 * share)) for share in shares for n in range(1000)]
    assert expected_calibration_error(bins_of(confidence, right)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_drawn_calibrated_predictor_is_near_it(seed):
    """The error is within sampling noise of the true one, 0 for calibrated and 0.25 for overconfident predictions."""
    confidence = torch.rand(200_000, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    right = torch.rand(200_000, generator=torch.Generator().manual_seed(seed + 100)) < confidence
    assert expected_calibration_error(bin_confidences(confidence, right)) < 0.006
    overconfident = bin_confidences(0.5 + confidence / 2, right)
    assert expected_calibration_error(overconfident) == pytest.approx(0.25, abs=0.006)


def test_a_bound_belongs_to_the_bin_below_it():
    """As in the paper, (m − 1)/15 < confidence ≤ m/15; 0 is in the first."""
    bins = bins_of([0.0, 1 / 15, 1 / 15 + 1e-9, 1.0], [0, 1, 0, 1])
    assert (bins["above"] * NUM_BINS).round().tolist() == [0, 1, 14]
    assert (bins["up_to"] * NUM_BINS).round().tolist() == [1, 2, 15]
    assert bins["count"].tolist() == [2, 1, 1]


def test_few_samples_have_wide_intervals():
    """One of one right is 21 % to 100 %, a hundred of a hundred 96 % to 100 % (Wilson, 1927)."""
    bins = [bins_of([0.99] * n, [1] * n) for n in (1, 100)]
    one, many = ((b["accuracy_low"][0], b["accuracy_high"][0]) for b in bins)
    assert one == pytest.approx((0.2065, 1.0), abs=1e-4)
    assert many == pytest.approx((0.9630, 1.0), abs=1e-4)


@pytest.mark.parametrize("split", ["val", "test"])
def test_the_table_is_of_the_predictions_beside_it(trained, split):
    """Counts, means and accuracies in calibration.csv agree with predictions.csv and cover every sample."""
    files = [trained / "reports" / split / name for name in ("calibration.csv", "predictions.csv")]
    table, predictions = (list(csv.DictReader(file.read_text().splitlines())) for file in files)
    confidence = np.array([float(row["confidence"]) for row in predictions])
    right = np.array([row["label"] == row["prediction"] for row in predictions])
    assert sum(int(row["count"]) for row in table) == len(predictions) == 180
    for row in table:
        inside = (confidence > float(row["above"])) & (confidence <= float(row["up_to"]))
        assert int(row["count"]) == inside.sum()
        assert float(row["confidence"]) == pytest.approx(confidence[inside].mean(), abs=2e-6)
        assert float(row["accuracy"]) == pytest.approx(right[inside].mean(), abs=1e-6)
        assert float(row["accuracy_low"]) <= float(row["accuracy"]) <= float(row["accuracy_high"])


def test_the_diagram_shows_where_the_model_is_too_sure(tmp_path: Path):
    """Accuracy 0.5 at confidence 0.9 is drawn at half the height, below the diagonal."""
    (tmp_path / "test").mkdir()
    draw_reliability(bins_of([0.9] * 1000, [1, 0] * 500), tmp_path / "test" / "reliability.png")
    pixels = np.asarray(Image.open(tmp_path / "test" / "reliability.png").convert("RGB")).astype(int)
    assert pixels.shape == (660, 660, 3)
    dark = np.abs(pixels[34:454, 72:642] - ImageColor.getrgb(BLUE)).sum(2) < 30
    rows, columns = dark.nonzero()
    assert (rows.mean() / 420, columns.mean() / 570) == (pytest.approx(0.5, abs=0.02), pytest.approx(0.9, abs=0.02))
