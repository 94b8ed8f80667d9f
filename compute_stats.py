"""Compute a data set's exact statistics, and report on its health: as text, as JSON, and as a page of pictures.

python compute_stats.py dataset=fashion_mnist                    the official training split
python compute_stats.py dataset=fashion_mnist split=train,test   each, both together, and leaks between them
python compute_stats.py dataset=fashion_mnist ratio=0.01 seed=1  a random sample, with standard errors

Mean and deviation per channel are printed as yaml for the data set's config. The report names files that can't be
read, exact duplicates (within a split, across splits, with different labels), pictures of one colour, and classes
with too few pictures; a bad file is no failure here. Pictures are decoded by num_workers processes.
"""

import hydra
from omegaconf import DictConfig

from microstep import cli, jobs


@hydra.main(version_base="1.3", config_path="conf", config_name="compute_stats")
@jobs.job
def compute_stats(config: DictConfig) -> None:
    """Compute the statistics of one data set."""
    from pathlib import Path

    import torch

    from microstep.build import build_dataset
    from microstep.logger import Bars, emit, show_notices
    from microstep.stats.report import report

    show_notices()
    dataset = build_dataset(config, torch.device("cpu"), num_workers=config.num_workers)
    bar = Bars(config.progress).pictures
    emit(report(dataset, jobs.choice("dataset"), config.split, config.ratio, config.seed, Path(config.output), bar))


if __name__ == "__main__":
    cli.launch(compute_stats, "compute_stats")
