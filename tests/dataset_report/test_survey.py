"""The result of a survey does not depend on processes and chunks, and unreadable files affect no other file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from microstep.components.dataset import ImageDataset, Images, image_folder
from microstep.components.dataset import images as chunking
from microstep.components.dataset.decoding import Decoder
from microstep.components.dataset.folder import find_splits
from microstep.components.dataset.statistics import ChannelStatistics
from microstep.dataset_report.health import HealthReport
from microstep.dataset_report.sampling import Stratum, compute_moments, compute_standard_errors
from microstep.dataset_report.statistics import measure_surveys, survey_splits
from microstep.dataset_report.survey import SplitSurvey
from tests.dataset_report.folders import sick_folder

CPU = torch.device("cpu")


def unseen(parts, label, total):
    return iter(parts)


def folder(root: Path, count: int) -> ImageDataset:
    return image_folder(CPU, str(root), size=16, num_workers=count)


def look(root: Path, count: int, ratio: float | None = None) -> list[SplitSurvey]:
    return survey_splits(folder(root, count), ["train", "test"], ratio, 0, unseen)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("sick")
    sick_folder(root)
    return root


def published(surveys: list[SplitSurvey]) -> dict:
    return {one.split: one.source for one in surveys}


@pytest.mark.parametrize("size", [1, 3, 10**6])
def test_decoding_in_other_processes_changes_nothing(root, monkeypatch, size):
    """Figures, sample and health are equal to the last bit, with 0, 1 and 2 processes, in chunks of any size."""
    monkeypatch.setattr(chunking, "CHUNK_BYTES", size * 3 * 16 * 16)
    for ratio in (None, 0.7):
        alone = look(root, 0, ratio)
        for count in (1, 2):
            found = look(root, count, ratio)
            assert measure_surveys(found) == measure_surveys(alone)
            assert HealthReport.from_surveys(found, published(found)) == HealthReport.from_surveys(
                alone, published(alone)
            )


@pytest.mark.parametrize("size", [1, 3])
def test_chunks_change_nothing(root, monkeypatch, size):
    """A bad file affects no other file of its chunk: statistics and facts are those of one chunk, by row."""
    whole = look(root, 0)
    monkeypatch.setattr(chunking, "CHUNK_BYTES", size * 3 * 16 * 16)
    cut = look(root, 0)
    assert measure_surveys(cut) == measure_surveys(whole)
    for one, other in zip(cut, whole, strict=True):
        for name in ("rows", "digests", "constant"):
            np.testing.assert_array_equal(getattr(one.facts, name), getattr(other.facts, name))


def test_the_figures_are_those_of_the_good_files(root):
    """The statistics are those of all readable files, decoded and measured in one go."""
    (train, _) = look(root, 0)
    good = [row for row in range(29) if row not in train.unreadable]
    assert (len(good), train.facts.rows.tolist()) == (27, good)
    pixels = train.source.read(good)
    assert measure_surveys([train])["train"].statistics == ChannelStatistics.from_stream([pixels], 255.0)
    labels = train.source.labels[good]
    exact = [pixels[labels == label].astype(np.int64).sum((0, 2, 3)) / (255 * 256) for label in range(3)]
    classes = measure_surveys([train])["train"].classes
    assert classes.counts == np.bincount(labels).tolist()
    np.testing.assert_allclose(np.array(classes.means) * np.array(classes.counts)[:, None], exact, rtol=1e-13)


def test_a_file_that_goes_away_is_named(root, tmp_path):
    """A missing file counts as unreadable."""
    sick_folder(tmp_path / "data")
    dataset = folder(tmp_path / "data", 0)
    (tmp_path / "data" / "test" / "cat" / "02.png").unlink()
    (survey,) = survey_splits(dataset, ["test"], None, 0, unseen)
    assert {survey.source.get_name(row): why for row, why in survey.unreadable.items()} == {
        "test/cat/02.png": "it can't be read as an image: No such file or directory"
    }


def test_a_sample_with_a_bad_file_has_the_errors_of_what_was_read(root):
    """The population includes unreadable files; the number of images drawn does not."""
    found = measure_surveys(survey_splits(folder(root, 0), ["train"], 1.0, 0, unseen))["train"]
    assert (found.statistics.count, found.population, found.unreadable) == (27, 29, 2)
    assert found.errors is not None
    assert found.errors.mean[0] > 0


def test_duplicates_of_different_length_are_all_found():
    """Every image is in the group of its pixels and in no other, in the order of splits and rows."""
    generator = np.random.default_rng(3)
    kinds = generator.integers(0, 40, 100)
    pixels = generator.integers(0, 256, (40, 2, 3, 3), dtype=np.uint8)[kinds]
    parts = {"train": slice(0, 60), "val": slice(60, 70), "test": slice(70, 100)}
    splits = {name: Images(pixels[part], kinds[part] % 2, ("a", "b")) for name, part in parts.items()}
    surveys = survey_splits(ImageDataset(splits, dict, CPU), list(parts), None, 0, unseen)
    expected = [np.flatnonzero(kinds == kind).tolist() for kind in dict.fromkeys(kinds.tolist())]
    starts = {"train": 0, "val": 60, "test": 70}
    found = HealthReport.from_surveys(surveys, published(surveys)).duplicates
    groups = [[starts[one.split] + int(one.name.removeprefix("#")) for one in group.members] for group in found]
    assert groups == [group for group in expected if len(group) > 1]
    assert not any(group.is_conflicting for group in found)
    assert [group.is_leak for group in found] == [len({one.split for one in group.members}) > 1 for group in found]
    assert {group.is_leak for group in found} == {True, False}


def test_a_color_is_constant_and_a_line_is_not():
    """An image is constant if each of its channels is the same everywhere, whatever the color."""
    pixels = np.full((4, 3, 5, 4), 7, np.uint8)
    pixels[1] = np.array([1, 2, 3], np.uint8)[:, None, None]
    pixels[2, 2, 4, 3] = 8
    pixels[3, 0, :, 0] = 8
    images = Images(pixels, np.zeros(4, np.int64), ("a", "b"))
    (survey,) = survey_splits(ImageDataset({"train": images}, dict, CPU), ["train"], None, 0, unseen)
    assert survey.facts.constant.tolist() == [True, True, False, False]


def test_errors_from_moments_are_those_from_pixels():
    """Two numbers an image give the same errors as a second pass over all pixels."""
    pixels = (
        np.random.default_rng(0).integers(0, 256, (50, 3, 4, 5), dtype=np.uint8)
        // np.arange(1, 51, dtype=np.uint8)[:, None, None, None]
    )
    statistics = ChannelStatistics.from_stream([pixels], 255.0)
    mean, std = np.array(statistics.mean), np.array(statistics.std)
    centred = pixels / 255.0 - mean[:, None, None]
    pulls = np.stack([centred.mean((2, 3)), ((centred**2).mean((2, 3)) - std**2) / (2 * std)])
    exact = pulls.std(1, ddof=1) * np.sqrt((1 - 50 / 200) / 50)
    found = compute_standard_errors([Stratum(compute_moments(pixels, 255.0), 200)], statistics)
    np.testing.assert_allclose([found.mean, found.std], exact, rtol=1e-9)


def test_of_one_image_no_error_is_known(tmp_path):
    """A sample with only one readable image has standard errors of NaN."""
    for name in ("a/1.png", "b/2.png"):
        (tmp_path / "train" / name).parent.mkdir(parents=True)
        (tmp_path / "train" / name).write_text("")
    Image.new("L", (4, 4)).save(tmp_path / "train" / "a" / "1.png")
    (survey,) = survey_splits(folder_of_train(tmp_path), ["train"], 1.0, 0, unseen)
    errors = measure_surveys([survey])["train"].errors
    assert errors is not None
    assert np.isnan(errors.mean).all()


def folder_of_train(root: Path) -> ImageDataset:
    """Return a data set with a training split only."""
    return ImageDataset(
        {n: replace(f, decoder=Decoder(4, 4, 3)) for n, f in find_splits(root).items()}, dict, CPU, num_workers=0
    )
