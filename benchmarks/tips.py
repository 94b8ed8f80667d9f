"""Measures the claims of docs/tips.md and draws its images into docs/images.

    python benchmarks/tips.py [1|2|3|4|5]

Measures one tip or all: mixed precision, progress bars, accumulation, classification report, mean and standard
deviation. The contestants alternate in one process with one thread. Prints medians, and medians of the ratios of pairs.
Tip 5 reads Fashion-MNIST from the root in conf/dataset/fashion_mnist.yaml.
"""

from __future__ import annotations

import sys

import torch
from five_tips import accumulation, bars, deviation, precision, reports

TIPS = (precision, bars, accumulation, reports, deviation)


def main() -> None:
    torch.set_num_threads(1)
    chosen = [int(word) for word in sys.argv[1:]] or range(1, len(TIPS) + 1)
    for number in chosen:
        TIPS[number - 1].main()


if __name__ == "__main__":
    main()
