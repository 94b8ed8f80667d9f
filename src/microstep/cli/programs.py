"""The three programs. The docstrings of their tasks introduce the texts of `--help`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from microstep.cli.evaluation import run_evaluate
from microstep.cli.job import format_already_finished
from microstep.cli.launch import join_world, prepare_sweep
from microstep.cli.main import Program
from microstep.config.hydra_job import get_choices, get_run_directory
from microstep.utils.imports import imports_without_gc
from microstep.utils.progress_bar import ProgressBars
from microstep.utils.terminal import install_notice_handler, print_above_bars

if TYPE_CHECKING:
    from microstep.run.pruning import MedianRule
    from microstep.run.resume import ResumePlan

# Functions import modules that need torch: it is imported only after the config has been checked.


def run_train(config: DictConfig, resumed: ResumePlan | None = None, prune: MedianRule | None = None) -> int | None:
    """Train an image classifier and write a run directory.

    python train.py                                            digits, small CNN, fp32: under a minute on 2 cores
    python train.py precision=amp accum=2                      mixed precision, two micro-batches per optimizer step
    python train.py -m precision=fp32,amp accum=1,2,4 sweep=S  six runs and a summary; repeat it to resume
    python train.py -m effective_batch_size=64 accum=1,2,4     the same optimizer step in 1, 2 or 4 parts
    python train.py dataset=fashion_mnist model=resnet18 model.norm=group
    python train.py resume=RUN_DIR                             resume an interrupted run, bit for bit
    python train.py check=accumulation accum=4 batch_size=16   is accumulation exact? if not, why not
    python train.py check=precision                            speed and error of fp32, bf16 and fp16
    python train.py check=drift accum=4                        effect of rounding, compared with another seed
    python train.py check=learning                             does it learn? if not, why not?
    python train.py check=lr                                   which learning rate lowers the loss fastest?
    python train.py check=resume                               does a resume restore every component?
    python train.py replay=RUN_DIR window=1234                 repeat one optimizer step, and show what made it
    """
    with imports_without_gc():
        from microstep.training.build import build_trainer
        from microstep.training.compiler import skip_compiler_in_optimizers
        from microstep.training.resume import resume_trainer

    skip_compiler_in_optimizers()
    if config.check is not None:
        from microstep.diagnostics import run_check

        return run_check(config, get_run_directory())
    if resumed is not None and config.replay is not None:
        from microstep.diagnostics.replay.check import run_replay

        return run_replay(resumed, config.window, get_run_directory())
    if resumed is not None and resumed.finished:
        print(format_already_finished(resumed))
        return None
    trainer = build_trainer(config, get_run_directory()) if resumed is None else resume_trainer(resumed)
    trainer.prune = prune or trainer.prune
    trainer.fit()
    return None


def run_compute_stats(config: DictConfig) -> None:
    """Compute a data set's exact statistics and check its health. The report is text, JSON and a page of images.

    python compute_stats.py dataset=fashion_mnist                    the official training split
    python compute_stats.py dataset=fashion_mnist split=train,test   each, both together, and leaks between them
    python compute_stats.py dataset=fashion_mnist ratio=0.01 seed=1  a random sample, with standard errors

    Mean and standard deviation per channel are printed as yaml for the data set's config. The report names unreadable
    files, exact duplicates (within a split, across splits, with different labels), images of one color, and classes
    with too few images. An unreadable file is no failure here. Images are decoded by num_workers processes.
    """
    with imports_without_gc():
        import torch

        from microstep.dataset_report.report import write_dataset_report
        from microstep.training.builders import build_dataset

    install_notice_handler()
    dataset = build_dataset(config, torch.device("cpu"), num_workers=config.num_workers)
    name, bar = get_choices()["dataset"], ProgressBars(config.progress).images
    report = write_dataset_report(dataset, name, config.split, config.ratio, config.seed, Path(config.output), bar)
    print_above_bars(report)


train = Program("train", run_train, prepare_sweep, join_world)
evaluate = Program("evaluate", run_evaluate)
compute_stats = Program("compute_stats", run_compute_stats)
