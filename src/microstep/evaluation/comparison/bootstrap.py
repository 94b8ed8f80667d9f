"""Paired bootstrap over samples.

Both groups and all seeds are scored on the same resampled samples, so that the difficulty of the samples cancels out.
Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 8 and 13.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from microstep.evaluation.comparison.paired import Array, ClassScores, PairedPredictions

BOOTSTRAP_SEED = 0  #: the same for every bootstrap, so that the same predictions give the same interval
MAX_NUMBERS_HELD = 2**22  #: approximate limit of numbers in memory


@dataclass(frozen=True)
class UniqueSamples:
    """Samples without duplicates: those with the same label and predictions become one with a weight.

    Drawing N of N samples with replacement equals drawing the count of each unique sample from a multinomial
    distribution. 10,000 samples give a few hundred unique ones, and none is copied.
    """

    labels: Array  #: C
    run: Array  #: S × C
    baseline: Array  #: S × C
    weights: Array  #: C
    classes: int

    @classmethod
    def from_predictions(cls, paired: PairedPredictions) -> "UniqueSamples":
        rows = np.vstack([paired.labels[None], paired.run, paired.baseline])
        distinct, weights = np.unique(rows, axis=1, return_counts=True)
        run, baseline = distinct[1 : 1 + paired.seeds], distinct[1 + paired.seeds :]
        return cls(distinct[0], run, baseline, weights.astype(float), paired.classes)

    def add_pseudo_samples(self) -> "UniqueSamples":
        """Return the samples with one more that only the run gets right, and one that only the baseline does.

        A small number of samples may show no disagreement although there is some: Bonett and Price, Adjusted Wald
        Confidence Interval for a Difference of Binomial Proportions Based on Paired Data (Journal of Educational and
        Behavioral Statistics 37, 2012). Both are distributed over the classes like the samples. Their wrong prediction
        is the most frequent other class.
        """
        present = np.bincount(self.labels, self.weights, self.classes)
        known = np.flatnonzero(present)
        first, second = np.append(np.argsort(-present, kind="stable"), self.classes)[:2]
        others = np.where(known == first, second, first)
        right, wrong = (np.broadcast_to(one, (len(self.run), len(known))) for one in (known, others))
        share = present[known] / present.sum()
        labels, weights = np.concatenate([self.labels, known, known]), np.concatenate([self.weights, share, share])
        run, baseline = np.hstack([self.run, right, wrong]), np.hstack([self.baseline, wrong, right])
        return UniqueSamples(labels, run, baseline, weights, self.classes)

    def iter_resamples(self, samples: int, resamples: int) -> Iterator[Array]:
        """Yield the counts of the unique samples (B × C) in chunks that fit in memory, `resamples` rows in total."""
        generator = np.random.default_rng(BOOTSTRAP_SEED)
        chunk = max(1, MAX_NUMBERS_HELD // max(len(self.labels), self.classes))
        for start in range(0, resamples, chunk):
            yield generator.multinomial(samples, self.weights / self.weights.sum(), min(chunk, resamples - start))


def bootstrap_means(differences: Array, unit: float, resamples: int) -> Array:
    """Return the means of resamples of N differences and, like pseudo samples of predictions, of ± `unit`."""
    generator, values = np.random.default_rng(BOOTSTRAP_SEED), np.append(differences, [unit, -unit])
    chunk = max(1, MAX_NUMBERS_HELD // len(values))
    sizes = (min(chunk, resamples - start) for start in range(0, resamples, chunk))
    return np.concatenate([generator.choice(values, (size, len(differences))).mean(1) for size in sizes])


def bootstrap_differences(unique: UniqueSamples, samples: int, resamples: int) -> tuple[Array, Array]:
    """Return the differences in accuracy and in macro F1 on B resamples, each of `samples` samples: B × S each."""
    chunks = [compute_score_differences(counts, unique) for counts in unique.iter_resamples(samples, resamples)]
    accuracy, macro_f1 = (np.concatenate(column) for column in zip(*chunks, strict=True))
    return accuracy, macro_f1


def compute_score_differences(counts: Array, unique: UniqueSamples) -> tuple[Array, Array]:
    accuracy, macro_f1 = [], []
    for pair in zip(unique.run, unique.baseline, strict=True):
        run, baseline = (ClassScores.from_counts(counts, unique.labels, side, unique.classes) for side in pair)
        accuracy.append(run.accuracy - baseline.accuracy)
        macro_f1.append(run.macro_f1 - baseline.macro_f1)
    return np.stack(accuracy, 1), np.stack(macro_f1, 1)
