"""compute_stats.py measures official splits: all of their images, or a random sample."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import ceil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from microstep.components.dataset import ImageDataset, Images, digits, image_dataset, mnist
from microstep.components.dataset.images import CHUNK_BYTES
from microstep.config.compose import compose
from microstep.dataset_report.statistics import SplitStatistics, draw_rows, measure_surveys, survey_splits
from microstep.dataset_report.survey import ImageChunk
from microstep.dataset_report.text import format_statistics_row, format_yaml_snippet
from microstep.errors import ConfigError

CPU = torch.device("cpu")
SIZES = {"train": 5700, "test": 300}
PUBLISHED = {  # by those who made them known; where the files are
    "FashionMNIST": ("/usr/share/datasets/fashion-mnist", "fashion_mnist", [0.2860, 0.3530]),
    "MNIST": ("data", "mnist", [0.1307, 0.3081]),
}


def measure_dataset(*request) -> dict[str, SplitStatistics]:
    return measure_surveys(survey_splits(*request))


def of(train: Images, test: Images) -> ImageDataset:
    return image_dataset(train, test, CPU, 100, 0, None, None)


def numbered() -> ImageDataset:
    """Return a data set of 6000 images of two pixels each, which encode the number of the image."""
    numbers = np.arange(sum(SIZES.values()))
    pixels = np.stack([numbers // 256, numbers % 256], 1).astype(np.uint8)[:, None, None]
    labels = numbers % 2
    train, test = (slice(0, SIZES["train"]), slice(SIZES["train"], None))
    return of(*(Images(pixels[part], labels[part], ("even", "odd")) for part in (train, test)))


class Seen:
    """A progress bar that records the images it gets."""

    def __init__(self) -> None:
        self.parts: dict[str, list[np.ndarray]] = {}
        self.totals: dict[str, int] = {}

    def __call__(self, parts: Iterable[ImageChunk], label: str, total: int) -> Iterator[ImageChunk]:
        self.totals[label] = total
        for part in parts:
            self.parts.setdefault(label, []).append(part.pixels)
            yield part

    def numbers(self, label: str) -> list[int]:
        """Return the numbers of a label's images."""
        pairs = np.concatenate([part.reshape(-1, 2) for part in self.parts[label]]).astype(int)
        return (256 * pairs[:, 0] + pairs[:, 1]).tolist()


def test_the_official_training_split_is_train_and_validation():
    """Images carved off for validation are measured with the rest, so the way of carving makes no difference."""
    seen = Seen()
    found = measure_dataset(numbered(), ["train"], None, 0, seen)
    assert list(found) == ["train"]
    assert seen.numbers("train") == list(range(5700))
    assert (found["train"].statistics.count, found["train"].population, found["train"].errors) == (5700, 5700, None)


def test_several_splits_are_measured_each_and_together():
    """`train,test` gives three results; the one for both is that of all their images. Each image is read once."""
    seen = Seen()
    found = measure_dataset(numbered(), ["train", "test"], None, 0, seen)
    assert list(found) == ["train", "test", "train+test"]
    assert list(seen.parts) == ["train", "test"]
    assert seen.numbers("test") == list(range(5700, 6000))
    pixels = np.concatenate(seen.parts["train"] + seen.parts["test"]).astype(np.float64) / 255
    both = found["train+test"].statistics
    assert (both.mean[0], both.std[0]) == (pytest.approx(pixels.mean()), pytest.approx(pixels.std()))
    assert (both.minimum, both.maximum, both.count) == ([0.0], [1.0], 6000)


def test_classes_are_counted_and_measured():
    """Each class has its number of images and the mean of their pixels; a class without images has none."""
    pixels = np.array([[10, 30], [20, 40], [200, 250]], np.uint8)[:, None, None]
    images = Images(pixels, np.array([2, 2, 0]), ("a", "b", "c"), scale=10.0)
    plain = measure_dataset(ImageDataset({"train": images}, dict, CPU), ["train"], None, 0, Seen())["train"].to_dict()
    assert plain["classes"] == {
        "a": {"count": 1, "mean": [22.5]},
        "b": {"count": 0, "mean": None},
        "c": {"count": 2, "mean": [2.5]},
    }
    assert (plain["min"], plain["max"]) == ([1.0], [25.0])
    assert plain["sizes"] == [{"width": 2, "height": 1, "count": 3}]


@pytest.mark.parametrize(("ratio", "count"), [(0.1, 570), (0.0101, 58), (1.0, 5700)])
def test_a_sample_is_drawn_without_replacement(ratio, count):
    """The requested share, rounded up, of different images is drawn from all parts of the official split."""
    seen = Seen()
    found = measure_dataset(numbered(), ["train"], ratio, 0, seen)["train"]
    drawn = seen.numbers("train")
    assert (len(drawn), len(set(drawn)), found.statistics.count) == (count, count, count)
    assert count == ceil(ratio * 5700)
    assert min(drawn) < 1000
    assert max(drawn) >= 5000
    assert set(drawn) <= set(range(5700))


@pytest.mark.parametrize("population", [100, 300, 700])
def test_a_sample_is_the_share_as_typed(population):
    """`ratio=0.07` of 100 images is 7, though 0.07 · 100 is more than 7 in binary; so for every hundredth."""
    drawn = [len(draw_rows(population, percent / 100, 0)) for percent in range(2, 101)]
    assert drawn == [percent * population // 100 for percent in range(2, 101)]


def test_a_sample_is_reproducible_by_its_seed():
    """The same seed draws the same images; another seed draws others."""
    first, again, other = (Seen() for _ in range(3))
    for seen, seed in ((first, 1), (again, 1), (other, 2)):
        measure_dataset(numbered(), ["train"], 0.05, seed, seen)
    assert first.numbers("train") == again.numbers("train")
    assert first.numbers("train") != other.numbers("train")


def test_every_image_is_as_likely_to_be_drawn():
    """Over 400 seeds each of 60 groups of images is drawn about as often as any other."""
    counts = np.zeros(60)
    dataset = numbered()
    for seed in range(400):
        seen = Seen()
        measure_dataset(dataset, ["train", "test"], 0.01, seed, seen)
        counts += np.bincount(np.array(seen.numbers("train") + seen.numbers("test")) // 100, minlength=60)
    assert counts.sum() == 400 * 60
    assert ((counts - 400) ** 2 / 400).sum() < 110  # chi-square with 59 degrees of freedom: p = 6e-5


def test_a_sample_comes_with_errors_that_shrink_to_nothing():
    """Standard errors fall as more is drawn, and are zero, with the exact result, when all of it is."""
    dataset = digits(CPU)
    found = {ratio: measure_dataset(dataset, ["train"], ratio, 0, Seen())["train"] for ratio in (0.05, 0.5, 1.0)}
    errors = {ratio: one.errors for ratio, one in found.items() if one.errors}
    assert errors[0.05].mean[0] > errors[0.5].mean[0] > errors[1.0].mean[0] == 0
    assert errors[0.05].std[0] > errors[0.5].std[0] > errors[1.0].std[0] == 0
    assert found[1.0].statistics == measure_dataset(dataset, ["train"], None, 0, Seen())["train"].statistics


def test_errors_of_both_splits_are_those_of_both_draws():
    """Over 300 seeds the mean of both is as far from the exact one as its standard error says."""
    dataset = numbered()
    exact = measure_dataset(dataset, ["train", "test"], None, 0, Seen())["train+test"].statistics
    drawn = [measure_dataset(dataset, ["train", "test"], 0.05, seed, Seen())["train+test"] for seed in range(300)]
    for name in ("mean", "std"):
        off = [getattr(one.statistics, name)[0] - getattr(exact, name)[0] for one in drawn]
        said = [getattr(one.errors, name)[0] for one in drawn]
        assert np.sqrt(np.mean(np.square(off))) == pytest.approx(np.mean(said), rel=0.15)


def test_images_are_read_a_few_megabytes_at_a_time():
    """No part of the stream is larger than a chunk, and the bar is told the total beforehand."""
    seen, size = Seen(), CHUNK_BYTES // 4
    pixels = np.zeros((9, 1, 1, size), np.uint8)
    images = Images(pixels, np.arange(9) % 2, ("even", "odd"))
    measure_dataset(ImageDataset({"train": images}, dict, CPU), ["train"], None, 0, seen)
    assert [len(part) for part in seen.parts["train"]] == [4, 4, 1]
    assert seen.totals == {"train": 9}


@pytest.mark.parametrize("name", ["val", "tset", " test", ""])
def test_another_split_is_refused_with_the_options(name):
    """A carved validation split is not official; the error lists the official ones."""
    with pytest.raises(ConfigError, match=f"^split={name}: .*the options are train, test, or both: train,test"):
        measure_dataset(numbered(), ["train", name], None, 0, Seen())


def test_a_sample_of_one_is_refused():
    """One image has no standard error."""
    with pytest.raises(ConfigError, match=r"^ratio=0\.0001: that is 1 of 5700 images; draw at least two"):
        measure_dataset(numbered(), ["train"], 0.0001, 0, Seen())


def test_a_split_named_twice_is_not_counted_twice():
    """`train,train` is refused, or is just `train`: no union contains an image twice."""
    try:
        found = measure_dataset(numbered(), ["train", "train"], None, 0, Seen())
    except ConfigError:
        return
    assert max(one.statistics.count for one in found.values()) == 5700


def test_the_snippet_is_yaml_for_the_config():
    """It contains a mean and a standard deviation by channel, of the training split if it was measured."""
    dataset = digits(CPU)
    both = measure_dataset(dataset, ["test", "train"], None, 0, Seen())
    found = both["train"].statistics
    assert yaml.safe_load(format_yaml_snippet(both)) == {
        "mean": [round(found.mean[0], 4)],
        "std": [round(found.std[0], 4)],
    }
    alone = measure_dataset(dataset, ["test"], None, 0, Seen())
    assert yaml.safe_load(format_yaml_snippet(alone))["mean"] == [round(both["test"].statistics.mean[0], 4)]


def test_the_rows_say_whether_they_are_exact():
    """An exact result is marked as such; a sampled one shows its errors and the number of images drawn."""
    exact = format_statistics_row(measure_dataset(numbered(), ["test"], None, 0, Seen())["test"])
    sampled = format_statistics_row(measure_dataset(numbered(), ["test"], 0.1, 0, Seen())["test"])
    assert exact.endswith("(300 images, exact)")
    assert "±" not in exact
    assert sampled.endswith("(30 of 300 images)")
    assert sampled.count("±") == 2


@pytest.mark.parametrize("kind", PUBLISHED)
def test_published_files_have_the_published_figures(kind):
    """Over all 60,000 training images, the statistics are the published ones, which the config contains."""
    root, name, figures = PUBLISHED[kind]
    if not list(Path(root).rglob("train-images*")):
        pytest.skip(f"{kind} is not in {root}")
    found = measure_dataset(mnist(CPU, kind, root), ["train"], None, 0, Seen())["train"].statistics
    assert found.count == 60_000
    assert [round(found.mean[0], 4), round(found.std[0], 4)] == figures
    configured = compose([f"dataset={name}"]).dataset
    assert [*configured.mean, *configured.std] == figures
