"""Compute a data set's exact per-channel mean and standard deviation, and print them as yaml for its config.

python compute_stats.py dataset=fashion_mnist                    the official training split
python compute_stats.py dataset=fashion_mnist split=train,test   each, and both together
python compute_stats.py dataset=fashion_mnist ratio=0.01 seed=1  a random sample, with standard errors
"""

import hydra
from omegaconf import DictConfig

from microstep import cli


@hydra.main(version_base="1.3", config_path="conf", config_name="compute_stats")
@cli.job
def compute_stats(config: DictConfig) -> None:
    """Compute the statistics of one data set."""
    from pathlib import Path

    import torch

    from microstep.build import build_dataset
    from microstep.files import storing, write_json
    from microstep.logger import Bars, emit, show_notices, table
    from microstep.measure import known, measure, plain, rows, snippet

    show_notices()
    bars = Bars(config.progress)
    dataset = build_dataset(config, torch.device("cpu"))
    measured = measure(dataset, config.split.split(","), config.ratio, config.seed, bars.pictures)
    name = cli.choice("dataset")
    file = Path(config.output) / f"{name}-{dataset.fingerprint[:12]}.json"
    with storing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, {"dataset": name, "splits": known(file) | plain(measured, config.ratio, config.seed)})
    emit(
        "\n".join(
            [table(rows(measured)), "", f"# for conf/dataset/{name}.yaml", snippet(measured), "", f"written to {file}"]
        )
    )


if __name__ == "__main__":
    cli.launch(compute_stats, "compute_stats")
