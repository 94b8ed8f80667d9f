"""microstep: image classification experiments whose result depends on what you described, not on how it was executed.

    from microstep import build_trainer, compose
    results = build_trainer(compose(["precision=amp", "accum=2"]), "outputs/notebook").fit()
    results.test["accuracy"]

Names are imported when they are first used, so that a config can be composed and checked without torch.
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from microstep.config.compose import compose
    from microstep.training.build import build_trainer
    from microstep.training.resume import resume
    from microstep.types.events import Results

logging.getLogger(__name__).addHandler(logging.NullHandler())  # the program decides where logs go

NAMES = {
    "Results": "microstep.types.events",
    "build_trainer": "microstep.training.build",
    "compose": "microstep.config.compose",
    "resume": "microstep.training.resume",
}
__all__ = ["Results", "build_trainer", "compose", "resume"]


def __getattr__(name: str) -> Any:
    if name not in NAMES:
        raise AttributeError(f"module 'microstep' has no attribute {name!r}")
    return getattr(import_module(NAMES[name]), name)
