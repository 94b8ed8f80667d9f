"""Train an image classifier, and leave a run directory with everything about it.

python train.py                                            digits, small CNN, fp32: under a minute on 2 cores
python train.py precision=amp accum=2                      mixed precision, two micro-batches an optimizer step
python train.py -m precision=fp32,amp accum=1,2,4 sweep=S  six runs, and a summary; the same command goes on with them
python train.py -m effective_batch_size=64 accum=1,2,4     the same batch, cut differently
python train.py dataset=fashion_mnist model=resnet18 model.norm=group
python train.py resume=RUN_DIR                             go on with a run that was interrupted, bit for bit
python train.py check=accumulation accum=4 batch_size=16   is the cut batch the same batch? if not, why not
python train.py check=precision                            what fp32, bf16 and fp16 cost and lose here, with this model
python train.py check=drift accum=4                        how far rounding takes two cuts apart, beside two seeds
"""

import sys

import hydra
from omegaconf import DictConfig

from microstep import cli, jobs


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
@jobs.job
def train(config: DictConfig) -> None:
    """Run one job; or look at what it would do."""
    if config.check is not None:
        from microstep.examination import examine

        sys.exit(examine(config, jobs.run_directory()))
    from microstep.build import build_trainer  # torch is imported here, once the config is known to be right
    from microstep.resuming import resume_trainer

    resumed = jobs.resumed(config)
    if resumed is None:
        build_trainer(config, jobs.run_directory()).fit()
    elif resumed.finished:
        print(jobs.finished_already(resumed.directory))
    else:
        resume_trainer(resumed).fit()


if __name__ == "__main__":
    cli.launch(train, "train")
