"""Image classification experiments whose results depend on their description, not on their execution.

    from microstep import build_trainer, compose
    results = build_trainer(compose(["precision=amp", "accum=2"]), "outputs/notebook").fit()
    results.test["accuracy"]

The way from a command line to a result::

    conf/ + command line → config → training.build → training.trainer → run directory → evaluation

Names are imported on first use, so that a config can be composed and checked without torch.
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from microstep.components.augment.pipeline import Pipeline as Pipeline
    from microstep.components.dataset.file_dataset import file_dataset as file_dataset
    from microstep.components.dataset.files import ImageFiles as ImageFiles
    from microstep.components.dataset.image_dataset import image_dataset as image_dataset
    from microstep.components.dataset.images import Images as Images
    from microstep.components.step.standard import accumulate_gradient as accumulate_gradient
    from microstep.config.compose import compose as compose
    from microstep.sweep.summary.write import write_summary as write_summary
    from microstep.training.build import build_trainer as build_trainer
    from microstep.training.resume import resume as resume
    from microstep.types.data import Report as Report
    from microstep.types.data import StepResult as StepResult
    from microstep.types.events import Results as Results

logging.getLogger(__name__).addHandler(logging.NullHandler())  # the application configures logging

MODULES = {
    "ImageFiles": "microstep.components.dataset.files",
    "Images": "microstep.components.dataset.images",
    "Pipeline": "microstep.components.augment.pipeline",
    "Report": "microstep.types.data",
    "Results": "microstep.types.events",
    "StepResult": "microstep.types.data",
    "accumulate_gradient": "microstep.components.step.standard",
    "build_trainer": "microstep.training.build",
    "compose": "microstep.config.compose",
    "file_dataset": "microstep.components.dataset.file_dataset",
    "image_dataset": "microstep.components.dataset.image_dataset",
    "resume": "microstep.training.resume",
    "write_summary": "microstep.sweep.summary.write",
}
__all__ = list(MODULES)


def __getattr__(name: str) -> Any:
    if name not in MODULES:
        raise AttributeError(f"module 'microstep' has no attribute {name!r}")
    return getattr(import_module(MODULES[name]), name)
