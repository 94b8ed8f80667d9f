"""Training loops that `benchmarks/trainers.py` compares: the same experiment, each in the style of its documentation.

Each module has a function `train(workload, clock, **options)`. It trains the workload's model, evaluates it on the
validation split after each epoch, saves a checkpoint, and then calls `clock.lap(accuracy)`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["BASELINE", "CONTESTANTS", "WORKLOADS", "Contestant"]


@dataclass(frozen=True)
class Contestant:
    """Row of the table. Runs `module.train` with these options; without a module, `train.py` with them as overrides."""

    label: str
    module: str | None = None
    requires: tuple[str, ...] = ()  #: packages that may be missing
    options: Mapping[str, Any] = field(default_factory=dict)


BASELINE = "by_hand"  #: that the ratios refer to
CONTESTANTS = {
    "microstep": Contestant("**microstep**", options={"precision": "fp32"}),
    "microstep_default_allocator": Contestant(
        "microstep, `allocator=default`", options={"precision": "fp32", "allocator": "default"}
    ),
    "microstep_amp": Contestant("**microstep, `precision=amp`**", options={"precision": "amp"}),
    "by_hand": Contestant("loop written by hand", "by_hand"),
    "by_hand_keeps_memory": Contestant("the same, glibc keeps its memory", "by_hand", options={"keep_memory": True}),
    "by_hand_channels_last": Contestant(
        "the same, also channels-last", "by_hand", options={"keep_memory": True, "channels_last": True}
    ),
    "tutorial": Contestant("loop of the tutorials", "tutorial"),
    "lightning": Contestant("Lightning", "with_lightning", ("lightning",)),
    "lightning_bf16": Contestant(
        "Lightning, bf16-mixed", "with_lightning", ("lightning",), {"precision": "bf16-mixed"}
    ),
    "accelerate": Contestant("Accelerate", "with_accelerate", ("accelerate",)),
    "accelerate_bf16": Contestant("Accelerate, bf16", "with_accelerate", ("accelerate",), {"mixed_precision": "bf16"}),
    "skorch": Contestant("skorch", "with_skorch", ("skorch",)),
    "skorch_bf16": Contestant("skorch, bf16", "with_skorch", ("skorch", "accelerate"), {"mixed_precision": "bf16"}),
}
#: Overrides of `train.py`. The other contestants take the data, the model and the number of epochs from them.
WORKLOADS = {
    "digits": "dataset=digits epochs=20",
    "fashion": "dataset=fashion_mnist dataset.val_samples=1000 augment=crop_flip epochs=2"
    " model._target_=benchmarks.contestants.workload.cnn",
    "resnet18": "dataset=synthetic dataset.samples=256 dataset.val_samples=64 dataset.test_samples=64 model=resnet18"
    " epochs=2",
}
