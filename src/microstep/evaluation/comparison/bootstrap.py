"""The paired bootstrap over samples: what the scores would have been on other samples of the same kind.

Both settings and all seeds are scored on the same resampled samples, so that what is hard for all of them cancels.
Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 8 and 13.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from microstep.evaluation.comparison.paired import Array, ClassScores, PairedPredictions

BOOTSTRAP_SEED = 0  #: of every bootstrap: the same predictions give the same interval, digit by digit
MAX_NUMBERS_HELD = 2**22  #: numbers at once, about


@dataclass(frozen=True)
class UniqueSamples:
    """The distinct samples: those with the same label and the same predictions are one cell with a weight.

    To draw N of N samples with replacement is to draw how often each cell is met, from a multinomial distribution:
    10,000 samples are a few hundred cells, and no sample is ever copied.
    """

    labels: Array  #: C
    run: Array  #: S × C
    baseline: Array  #: S × C
    weights: Array  #: C
    classes: int

    @classmethod
    def of(cls, paired: PairedPredictions) -> UniqueSamples:
        """Return the cells of some samples."""
        rows = np.vstack([paired.labels[None], paired.run, paired.baseline])
        distinct, weights = np.unique(rows, axis=1, return_counts=True)
        run, baseline = distinct[1 : 1 + paired.seeds], distinct[1 + paired.seeds :]
        return cls(distinct[0], run, baseline, weights.astype(float), paired.classes)

    def smoothed(self) -> UniqueSamples:
        """Return the cells with one sample more that only the run gets right, and one that only the baseline does.

        They are spread over the classes as the samples are; their wrong answer is the most frequent other class. Few
        samples may show no disagreement at all, which doesn't mean that there is none. Bonett and Price, Adjusted Wald
        Confidence Interval for a Difference of Binomial Proportions Based on Paired Data (Journal of Educational and
        Behavioral Statistics 37, 2012).
        """
        present = np.bincount(self.labels, self.weights, self.classes)
        known = np.flatnonzero(present)
        first, second = np.append(np.argsort(-present, kind="stable"), self.classes)[:2]
        others = np.where(known == first, second, first)
        right, wrong = (np.broadcast_to(one, (len(self.run), len(known))) for one in (known, others))
        share = present[known] / present.sum()
        return UniqueSamples(
            np.concatenate([self.labels, known, known]),
            np.hstack([self.run, right, wrong]),
            np.hstack([self.baseline, wrong, right]),
            np.concatenate([self.weights, share, share]),
            self.classes,
        )

    def draws(self, samples: int, resamples: int) -> Iterator[Array]:
        """Yield how often each cell is met (B × C), in parts that fit in memory, `resamples` rows in all."""
        generator = np.random.default_rng(BOOTSTRAP_SEED)
        part = max(1, MAX_NUMBERS_HELD // max(len(self.labels), self.classes))
        for start in range(0, resamples, part):
            yield generator.multinomial(samples, self.weights / self.weights.sum(), min(part, resamples - start))


def bootstrap_differences(unique: UniqueSamples, samples: int, resamples: int) -> tuple[Array, Array]:
    """Return the differences in accuracy and in macro F1 on resampled samples: B × S each."""
    parts = [compute_score_differences(counts, unique) for counts in unique.draws(samples, resamples)]
    accuracy, macro_f1 = (np.concatenate(column) for column in zip(*parts, strict=True))
    return accuracy, macro_f1


def compute_score_differences(counts: Array, unique: UniqueSamples) -> tuple[Array, Array]:
    """Return the differences in accuracy and in macro F1 of some weightings: B × S each."""
    found = [compute_seed_differences(counts, unique, *pair) for pair in zip(unique.run, unique.baseline, strict=True)]
    accuracy, macro_f1 = (np.stack(column, 1) for column in zip(*found, strict=True))
    return accuracy, macro_f1


def compute_seed_differences(counts: Array, unique: UniqueSamples, run: Array, baseline: Array) -> tuple[Array, Array]:
    """Return one seed's differences: B each."""
    one, other = (ClassScores.of(counts, unique.labels, answers, unique.classes) for answers in (run, baseline))
    return one.accuracy - other.accuracy, one.macro_f1 - other.macro_f1
