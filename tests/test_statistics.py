"""Mean and deviation are exact, whatever the chunks, in constant memory; a sample's come with honest errors."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from fractions import Fraction
from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.datasets import load_digits

from microstep.statistics import ChannelStatistics, StandardErrors, chunks

PICTURES = arrays(
    np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 4), st.integers(1, 6), st.integers(1, 6)), fill=st.nothing()
)


def streamed(pixels: np.ndarray, scale: float = 255.0, size: int = 4096) -> ChannelStatistics:
    return ChannelStatistics.streamed(chunks(pixels, size), scale)


def brightness(count: int) -> np.ndarray:
    """Return pictures of two channels, most of whose variance is that some are bright and others dark."""
    generator = np.random.default_rng(5)
    levels = generator.uniform(40, 200, (count, 2, 1, 1))
    return (levels + generator.uniform(-30, 30, (count, 2, 4, 4))).astype(np.uint8)


@given(pixels=PICTURES, scale=st.sampled_from([255.0, 16.0, 1.0]))
@settings(deadline=None, max_examples=100)
def test_it_is_numpys_mean_and_deviation(pixels, scale):
    """Per channel, over all pixels of all pictures, to the last digits of float64."""
    found, exact = streamed(pixels, scale), pixels.astype(np.float64) / scale
    np.testing.assert_allclose(found.mean, exact.mean((0, 2, 3)), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found.std, exact.std((0, 2, 3)), rtol=1e-12, atol=1e-12)
    assert found.count == len(pixels)


@given(pixels=PICTURES, data=st.data())
@settings(deadline=None, max_examples=50)
def test_the_chunks_make_no_difference(pixels, data):
    """Cut anywhere, into parts of any sizes, the result is the same to the last bit."""
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(pixels) - 1)))))
    parts = [part for part in np.split(pixels, cuts) if len(part)]
    assert ChannelStatistics.streamed(iter(parts), 255.0) == streamed(pixels)


def test_many_bright_pixels_overflow_nothing():
    """Thirty million pixels of 255 have mean exactly 1 and deviation exactly 0."""
    white = np.full((1000, 1, 100, 100), 255, np.uint8)
    found = ChannelStatistics.streamed((white for _ in range(3)), 255.0)
    assert (found.mean, found.std, found.count) == ([1.0], [0.0], 3000)


def test_a_tiny_deviation_does_not_cancel():
    """One pixel in a million that differs by one: a difference of sums of squares would lose these digits."""
    pixels = np.full((1, 1, 1000, 1000), 254, np.uint8)
    pixels[0, 0, 3, 4] = 255
    share = Fraction(1, 1_000_000)
    exact = sqrt(share * (1 - share)) / 255
    assert streamed(pixels).std[0] == pytest.approx(exact, rel=1e-9)


def test_averaging_the_deviations_of_pictures_is_another_number():
    """On the digits, the usual short cuts (the mean of each picture's, or each batch's, deviation) are too small.

    They leave out how much pictures, or batches, differ from one another.
    """
    pixels = load_digits().images.astype(np.uint8)[:, None]
    right = streamed(pixels, 16.0).std[0]
    assert right == pytest.approx(pixels.std() / 16, rel=1e-12)
    by_picture = np.mean([picture.std() for picture in pixels]) / 16
    by_batch = np.mean([batch.std() for batch in chunks(pixels, 16)]) / 16
    assert by_picture < by_batch < right
    assert right - by_picture > 0.002


def watched(pixels: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Yield copies of parts; before each, all but the one just used must have been released."""
    yielded: list[weakref.ref[np.ndarray]] = []
    for part in chunks(pixels, size):
        assert sum(earlier() is not None for earlier in yielded) <= 1
        copy = part.copy()
        yielded.append(weakref.ref(copy))
        yield copy
        del copy
    assert len(yielded) == 25


def test_a_stream_is_consumed_a_chunk_at_a_time():
    """No more than one chunk is kept while the next is fetched, however long the stream: memory is constant."""
    pixels = brightness(100)
    assert ChannelStatistics.streamed(watched(pixels, 4), 255.0) == streamed(pixels)


def test_the_errors_stream_as_well():
    """Standard errors, too, keep no picture that they are done with, and don't depend on the chunks."""
    pixels = brightness(100)
    found = StandardErrors.of(watched(pixels, 4), 255.0, streamed(pixels), 500)
    whole = StandardErrors.of([pixels], 255.0, streamed(pixels), 500)
    np.testing.assert_allclose(found.mean + found.std, whole.mean + whole.std, rtol=1e-12)


def test_the_error_of_the_mean_is_the_textbooks():
    """Each picture's mean is one observation: s / √n × √(1 − n / N), as for any sample without replacement."""
    pixels = brightness(60)
    means = pixels.mean((2, 3)) / 255
    textbook = means.std(0, ddof=1) / sqrt(60) * sqrt(1 - 60 / 240)
    np.testing.assert_allclose(StandardErrors.of([pixels], 255.0, streamed(pixels), 240).mean, textbook, rtol=1e-9)


def test_all_of_the_pictures_leave_no_error():
    """A sample that is the whole set is exact, and says so."""
    pixels = brightness(30)
    errors = StandardErrors.of([pixels], 255.0, streamed(pixels), 30)
    assert (errors.mean, errors.std) == ([0.0, 0.0], [0.0, 0.0])


def coverage(share: float) -> np.ndarray:
    """Return how often 1.96 standard errors reach the truth in 400 samples: of mean and deviation, by channel."""
    pixels = brightness(300)
    truth, hits = streamed(pixels), np.zeros((2, 2))
    for seed in range(400):
        drawn = pixels[np.random.default_rng(seed).choice(300, int(share * 300), replace=False)]
        found = streamed(drawn)
        errors = StandardErrors.of([drawn], 255.0, found, 300)
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
