"""Statistics are exact, whatever the chunks, in constant memory; a sample's come with honest errors."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from fractions import Fraction
from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.datasets import load_digits

from microstep.components.dataset.statistics import PIECE_PIXELS, ChannelStatistics, iter_chunks
from microstep.dataset_report.sampling import (
    ClassStatistics,
    StandardErrors,
    Stratum,
    compute_moments,
    compute_standard_errors,
    count_labels,
    sum_by_class,
)

SHAPES = st.tuples(st.integers(1, 12), st.integers(1, 4), st.integers(1, 6), st.integers(1, 6))
PICTURES = arrays(np.uint8, SHAPES, fill=st.nothing())


def streamed(pixels: np.ndarray, scale: float = 255.0, size: int = 4096) -> ChannelStatistics:
    return ChannelStatistics.from_stream(iter_chunks(pixels, size), scale)


def cut(pixels: np.ndarray, data: st.DataObject) -> list[np.ndarray]:
    """Return the pixels in parts of any sizes, empty ones too."""
    return np.split(pixels, sorted(data.draw(st.lists(st.integers(0, len(pixels)), max_size=6))))


def errors_of(parts, found: ChannelStatistics, population: int) -> StandardErrors:
    """Return the errors of what was found in these images, drawn from so many, as the survey keeps their moments."""
    kept = np.concatenate([compute_moments(part, 255.0) for part in parts])
    return compute_standard_errors([Stratum(kept, population)], found)


def brightness(count: int) -> np.ndarray:
    """Return images of two channels, most of whose variance is that some are bright and others dark."""
    generator = np.random.default_rng(5)
    levels = generator.uniform(40, 200, (count, 2, 1, 1))
    return (levels + generator.uniform(-30, 30, (count, 2, 4, 4))).astype(np.uint8)


@given(pixels=PICTURES, scale=st.sampled_from([255.0, 16.0, 1.0]))
@settings(deadline=None, max_examples=100)
def test_it_is_numpys_mean_and_deviation(pixels, scale):
    """Per channel, over all pixels of all images, to the last digits of float64; the range, too, is over `scale`."""
    found, exact = streamed(pixels, scale), pixels.astype(np.float64) / scale
    np.testing.assert_allclose(found.mean, exact.mean((0, 2, 3)), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found.std, exact.std((0, 2, 3)), rtol=1e-12, atol=1e-12)
    assert found.minimum == exact.min((0, 2, 3)).tolist()
    assert found.maximum == exact.max((0, 2, 3)).tolist()
    assert found.count == len(pixels)


@given(pixels=PICTURES)
@settings(deadline=None, max_examples=50)
def test_it_is_the_integers_fraction(pixels):
    """The mean of bytes is a quotient of integers, rounded once, not a sum of rounded terms."""
    found = streamed(pixels, 1.0)
    for channel, mean in enumerate(found.mean):
        values = pixels[:, channel].reshape(-1).tolist()
        assert mean == float(Fraction(sum(values), len(values)))


@given(pixels=PICTURES, data=st.data())
@settings(deadline=None, max_examples=50)
def test_the_chunks_make_no_difference(pixels, data):
    """The result is the same to the last bit for any division into parts."""
    assert ChannelStatistics.from_stream(iter(cut(pixels, data)), 255.0) == streamed(pixels)


def test_parts_larger_than_a_piece_are_the_same():
    """The piece size does not change the result: a part of several pieces is summed to the last bit as well."""
    pixels = np.random.default_rng(3).integers(0, 256, (5, 2, 700, 500), dtype=np.uint8)
    assert pixels[:, 0].size > 2 * PIECE_PIXELS
    found, flat = streamed(pixels, 1.0), np.moveaxis(pixels, 1, 0).reshape(2, -1).astype(np.int64)
    squares, size = (flat**2).sum(1), flat.shape[1]
    assert found.mean == (flat.sum(1) / size).tolist()
    variances = [
        Fraction(int(s), size) - Fraction(int(t), size) ** 2 for s, t in zip(squares, flat.sum(1), strict=True)
    ]
    assert found.std == [sqrt(variance) for variance in variances]
    assert found == streamed(pixels, 1.0, 1)


@pytest.mark.parametrize("view", ["read-only", "channels-last", "backwards", "every other"])
@pytest.mark.parametrize("channels", [1, 2])
def test_any_layout_will_do(view, channels):
    """Arrays from a file's buffer, transposed or sliced ones: none is written to, and none warns."""
    pixels = np.ascontiguousarray(brightness(12)[:, :channels])
    layouts = {
        "read-only": np.frombuffer(pixels.tobytes(), np.uint8).reshape(pixels.shape),
        "channels-last": np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
        "backwards": np.ascontiguousarray(pixels[::-1, :, ::-1])[::-1, :, ::-1],
        "every other": np.repeat(pixels, 2, 0)[::2],
    }
    assert streamed(layouts[view]) == streamed(pixels)


def test_many_bright_pixels_overflow_nothing():
    """Thirty million pixels of 255 have mean exactly 1 and standard deviation exactly 0."""
    white = np.full((1000, 1, 100, 100), 255, np.uint8)
    found = ChannelStatistics.from_stream((white for _ in range(3)), 255.0)
    assert (found.mean, found.std, found.count) == ([1.0], [0.0], 3000)


def test_a_tiny_deviation_does_not_cancel():
    """One pixel in a million that differs by one: a difference of sums of squares would lose these digits."""
    pixels = np.full((1, 1, 1000, 1000), 254, np.uint8)
    pixels[0, 0, 3, 4] = 255
    share = Fraction(1, 1_000_000)
    exact = sqrt(share * (1 - share)) / 255
    assert streamed(pixels).std[0] == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("parts", [[], [brightness(0)], [np.zeros((3, 1, 0, 4), np.uint8)]])
def test_an_empty_stream_is_refused(parts):
    """A stream without parts, images or pixels is an error; no NaN is returned."""
    with pytest.raises(ValueError, match="the stream has no pixels"):
        ChannelStatistics.from_stream(parts, 255.0)


def test_parts_that_dont_fit_together_are_refused():
    """A change of the number of channels within a stream is an error, and so are images that are not uint8."""
    with pytest.raises(ValueError, match="shorter"):
        ChannelStatistics.from_stream([brightness(2), brightness(2)[:, :1]], 255.0)
    for parts in ([brightness(2) / 255], [brightness(2), brightness(2) / 255], [brightness(2) / 255, brightness(2)]):
        with pytest.raises(TypeError, match="the images are float64, and should be uint8"):
            ChannelStatistics.from_stream(parts, 1.0)


def test_averaging_the_deviations_of_pictures_is_another_number():
    """On the digits, the usual short cuts (the mean of each image's, or each batch's, deviation) are too small.

    They leave out how much images, or batches, differ from one another.
    """
    pixels = load_digits().images.astype(np.uint8)[:, None]
    right = streamed(pixels, 16.0).std[0]
    assert right == pytest.approx(pixels.std() / 16, rel=1e-12)
    by_picture = np.mean([picture.std() for picture in pixels]) / 16
    by_batch = np.mean([batch.std() for batch in iter_chunks(pixels, 16)]) / 16
    assert by_picture < by_batch < right
    assert right - by_picture > 0.002


def watched(pixels: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Yield copies of parts; before each, all but the one just used must have been released."""
    yielded: list[weakref.ref[np.ndarray]] = []
    for part in iter_chunks(pixels, size):
        assert sum(earlier() is not None for earlier in yielded) <= 1
        copy = part.copy()
        yielded.append(weakref.ref(copy))
        yield copy
        del copy
    assert len(yielded) == 25


def test_a_stream_is_consumed_a_chunk_at_a_time():
    """No more than one chunk is kept while the next is fetched, however long the stream: memory is constant."""
    pixels = brightness(100)
    assert ChannelStatistics.from_stream(watched(pixels, 4), 255.0) == streamed(pixels)


def test_the_errors_stream_as_well():
    """Standard errors keep no image in memory either, and do not depend on the chunks."""
    pixels = brightness(100)
    found = errors_of(watched(pixels, 4), streamed(pixels), 500)
    whole = errors_of([pixels], streamed(pixels), 500)
    np.testing.assert_allclose(found.mean + found.std, whole.mean + whole.std, rtol=1e-12)


def test_the_error_of_the_mean_is_the_textbooks():
    """Each image's mean is one observation: s / √n × √(1 − n / N), as for any sample without replacement."""
    pixels = brightness(60)
    means = pixels.mean((2, 3)) / 255
    textbook = means.std(0, ddof=1) / sqrt(60) * sqrt(1 - 60 / 240)
    np.testing.assert_allclose(errors_of([pixels], streamed(pixels), 240).mean, textbook, rtol=1e-9)


def test_all_of_the_pictures_leave_no_error():
    """The standard error of a sample that is the whole set is zero."""
    pixels = brightness(30)
    errors = errors_of([pixels], streamed(pixels), 30)
    assert (errors.mean, errors.std) == ([0.0, 0.0], [0.0, 0.0])


def coverage(share: float) -> np.ndarray:
    """Return how often 1.96 standard errors reach the truth in 400 samples: of mean and deviation, by channel."""
    pixels = brightness(300)
    truth, hits = streamed(pixels), np.zeros((2, 2))
    for seed in range(400):
        drawn = pixels[np.random.default_rng(seed).choice(300, int(share * 300), replace=False)]
        found = streamed(drawn)
        errors = errors_of([drawn], found, 300)
        for row, (value, error, exact) in enumerate(
            [(found.mean, errors.mean, truth.mean), (found.std, errors.std, truth.std)]
        ):
            hits[row] += np.abs(np.subtract(value, exact)) <= 1.96 * np.array(error)
    return hits / 400


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_the_errors_cover_the_truth_as_often_as_they_should(share):
    """Of 400 samples about 95 % lie within 1.96 errors of the truth, in every channel, mean and deviation alike.

    Pixels taken for independent would cover far less; without the finite population correction it would be more.
    """
    covered = coverage(share)
    assert covered.min() > 0.91
    assert covered.max() < 0.98


def labelled(pixels: np.ndarray, labels: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    return zip(iter_chunks(pixels, size), iter_chunks(labels, size), strict=True)


def class_statistics(parts: Iterable[tuple[np.ndarray, np.ndarray]], classes: int, scale: float) -> ClassStatistics:
    """Return the statistics from sums over parts."""
    counts, areas, totals = 0, 0, 0
    for pixels, labels in parts:
        added = count_labels(labels, len(pixels), classes)
        counts, areas = counts + added, areas + added * pixels[0, 0].size
        totals = totals + sum_by_class(pixels, labels, classes)
    return ClassStatistics.of(counts, areas, totals, scale)


@given(pixels=PICTURES, size=st.integers(1, 12), data=st.data())
@settings(deadline=None, max_examples=50)
def test_each_class_has_its_own_mean(pixels, size, data):
    """The mean of a class is that of its pixels alone, as one fraction, however the stream is cut."""
    labels = data.draw(arrays(np.int64, len(pixels), elements=st.integers(0, 3)))
    found = class_statistics(labelled(pixels, labels, size), 5, 255.0)
    for label, (count, mean) in enumerate(zip(found.counts, found.means, strict=True)):
        own = pixels[labels == label]
        assert count == len(own)
        assert mean == (streamed(own).mean if count else None)


def test_a_class_without_pictures_has_no_mean():
    """A class without images has a count of 0 and no mean."""
    found = class_statistics([(brightness(3), np.array([2, 0, 2]))], 4, 1.0)
    assert found.counts == [1, 0, 2, 0]
    assert [mean is None for mean in found.means] == [False, True, False, True]


def test_classes_of_other_numbers_have_means_too():
    """Floats are summed in float64, not in their own few digits; integers of any width exactly."""
    labels = np.arange(400) % 3
    pixels = (10_000 + np.random.default_rng(4).normal(0, 1, (400, 2, 8, 8))).astype(np.float32)
    found = class_statistics(labelled(pixels, labels, 70), 3, 2.0)
    exact = [pixels[labels == label].astype(np.float64).mean((0, 2, 3)) / 2 for label in range(3)]
    np.testing.assert_allclose(found.means, exact, rtol=1e-13)
    bright = np.full((400, 1, 8, 8), 65_535, np.uint16)
    assert class_statistics(labelled(bright, labels, 70), 3, 65_535.0).means == [[1.0]] * 3


@pytest.mark.parametrize(
    ("labels", "message"), [([0, 3], "from 0 to 3"), ([-1, 0], "from -1 to 0"), ([0], "for 2 images")]
)
def test_a_label_that_is_no_class_is_refused(labels, message):
    """A label that is negative or too large, or missing, is never counted as another's."""
    with pytest.raises(ValueError, match=message):
        class_statistics([(brightness(2), np.array(labels))], 3, 255.0)
