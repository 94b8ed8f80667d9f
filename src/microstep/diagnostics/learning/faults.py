"""Names what keeps an experiment from learning, from measurements alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite

from microstep.diagnostics.learning.layers import iter_layers
from microstep.diagnostics.learning.short_training import RELATED, ShortTraining
from microstep.diagnostics.learning.start import Start
from microstep.diagnostics.learning.trials import OneBatch

MOST_DEAD = 0.6  #: share of a layer's units
LARGE_LOSS = 5.0  #: first loss, in units of that by chance
LARGE_INPUTS, SMALL_INPUTS = 6.0, 0.02  #: root mean square of normalized inputs
VANISHED, EXPLODED = 1e-5, 1e4  #: gradient of a layer ÷ that of the last one
FEWEST = 20  #: samples of a split from which a relation can be seen
MOSTLY = 0.5  #: share of samples
SAME, OTHER_NORMALIZATION = 1e-6, 0.3  #: change of an input over samples; distance from another mean or std, in std
Faults = Iterator[tuple[str, str]]  #: names and sentences


@dataclass(frozen=True)
class Measurements:
    """The measurements of an experiment."""

    start: Start
    one_batch: OneBatch
    short: ShortTraining
    remedy: tuple[str, OneBatch] | None  #: a setting with which the batch is learned

    @property
    def learns(self) -> bool:
        """Whether the short training has learned something; if val is too small to tell, one batch decides."""
        return self.short.has_learned if self.short.samples["val"] >= FEWEST else self.one_batch.is_learned

    @property
    def is_constant(self) -> bool:
        """Whether outputs are the same for all samples, before and after the short training."""
        return self.start.is_constant and self.short.is_constant


def find_faults(m: Measurements) -> dict[str, str]:
    """Return a sentence for each fault that is found, by its name. The first is the most likely cause."""
    finders = find_data_faults, find_structure_faults, find_gradient_faults, find_training_faults
    return {name: text for find in finders for name, text in find(m)}


def find_data_faults(m: Measurements) -> Faults:
    start, size = m.start, f"their root mean square is {m.start.input_rms:.3g}"
    if start.distinct_targets < 2:
        yield "constant targets", "all training samples have the same target"
    if not isfinite(start.input_rms):
        yield "inputs", "some inputs are not finite: look for corrupt images, and for a standard deviation of 0"
    elif start.input_change <= SAME:
        yield "inputs", "all inputs are the same: look at the images, and at the augmentation"
    elif not SMALL_INPUTS < start.input_rms < LARGE_INPUTS:
        yield "inputs", f"the inputs are not normalized ({size}): look at dataset.mean and dataset.std"
    if start.normalization is not None and max(start.normalization) > OTHER_NORMALIZATION:
        reason = "the images are not normalized as those that the pretrained weights were trained with"
        yield "pretrained normalization", f"{reason}: leave out dataset.mean and dataset.std"


def find_structure_faults(m: Measurements) -> Faults:
    start, one, loss = m.start, m.one_batch, m.one_batch.loss
    if not isfinite(one.losses[0]):
        yield "not finite", "the first loss is not finite: look for log(0), a division by 0, or an overflow of fp16"
    if start.are_probabilities and m.short.are_probabilities and not loss.takes_probabilities:
        reason = "the outputs of the model are probabilities already, and the loss makes probabilities of them again"
        yield "softmax twice", f"{reason}: remove the model's softmax or sigmoid"
    if start.frozen:
        reason = f"{format_parameters(start.frozen)} ask for no gradient, although no model.freeze is typed"
        yield "frozen", f"{reason}: set requires_grad"
    if start.not_optimized:
        yield "not optimized", f"the optimizer was not given {format_parameters(start.not_optimized)}"
    if m.short.cut:
        reason = f"the outputs depend on {format_parameters(m.short.cut)}, and no gradient reaches them"
        yield "cut graph", f"{reason}: look for detach, no_grad, .data, or a conversion to NumPy or integers"
    if loss.is_unbounded:
        yield (
            "loss",
            "the loss has no lower bound: larger outputs always lower it; look at its sign, and at its softmax",
        )
    elif loss.least < loss.chance and loss.right < MOSTLY:
        reason = (
            f"the outputs with the least loss decide for the right class in {100 * loss.right:.0f} % of the samples"
        )
        yield "loss", f"{reason}: look at the sign of the loss, and at its classes"
    if isfinite(one.losses[0]) and one.losses[0] >= LARGE_LOSS * loss.chance > 0:
        reason = f"the first loss is {one.losses[0] / loss.chance:.3g} times that by chance ({loss.chance:.3g})"
        yield "initial weights", f"{reason}: the initial weights are too large"


def find_gradient_faults(m: Measurements) -> Faults:
    norms = {name: record.gradient for name, record in iter_layers(m.short.layers) if record.gradient > 0}
    if norms and not m.learns:
        least, most, last = min(norms, key=norms.__getitem__), max(norms, key=norms.__getitem__), list(norms)[-1]
        if norms[least] < VANISHED * norms[last]:
            reason = f"in layer {least} it is {norms[last] / norms[least]:.0e} times smaller than in the last one"
            yield "gradient", f"the gradient vanishes, {reason}: use normalization, residual connections or ReLU"
        elif norms[most] > EXPLODED * norms[last]:
            reason = f"in layer {most} it is {norms[most] / norms[last]:.0e} times larger than in the last one"
            yield "gradient", f"the gradient explodes, {reason}: use normalization or smaller initial weights"
    dead = {name: record.dead for name, record in list(iter_layers(m.short.layers))[:-1] if record.dead > MOST_DEAD}
    layer, is_activation = m.start.constant_layer or ("", False)
    if dead and (is_activation or not m.is_constant):
        name = list(dead)[-1]  # the units before it may have no gradient because of it
        reason = f"{100 * dead[name]:.0f} % of the units of layer {name} are dead: they never have a gradient"
        yield "dead units", f"{reason}; look at its initial weights and bias, and at the activation"
    if m.start.is_random:
        yield "random", "evaluation mode is random: look for dropout that does not ask for `self.training`"
    elif m.start.mixes_samples:
        reason = "the outputs of a sample depend on the other samples of its batch, in evaluation mode"
        yield "mixed samples", f"{reason}: look for a softmax, mean, permute or reshape over dimension 0"
    if m.is_constant:
        place = f" from layer {layer} on" if layer else ""
        yield "constant outputs", f"the outputs do not depend on the inputs: they are the same for all samples{place}"


def find_training_faults(m: Measurements) -> Faults:
    short, one, neighbors = m.short, m.one_batch, m.short.neighbors
    if m.remedy is not None:
        reason = f"after {len(one.losses)} steps on one batch {format_left(one)} is left"
        yield "setting", f"{reason}; type {m.remedy[0]}, with which {format_left(m.remedy[1])} is left"
    elif m.short.is_constant and not m.start.is_constant:
        reason = "the outputs become the same for all samples during training, because units die"
        yield "collapse", f"{reason}: lower optimizer.lr, or use normalization"
    gained, lost = short.constant_loss - short.train_loss, short.eval_loss - short.train_loss
    if short.related["train mode"] > RELATED and gained > 0.1 * short.constant_loss and lost > 0.5 * gained:
        losses = f"the loss of the same images is {short.train_loss:.3g} and {short.eval_loss:.3g}"
        remedy = "BatchNorm needs larger micro-batches and a usual momentum; or choose GroupNorm"
        yield "modes", f"training and evaluation mode differ, {losses}: {remedy}"
    unknown = [name for name in ("train", "val") if neighbors[name] < RELATED]
    is_unrelated = short.samples["val"] >= FEWEST and short.related["val"] < RELATED
    if is_unrelated and unknown:
        reason = (
            f"neither the short training nor nearest neighbors see what the targets of {unknown[0]} have to do with"
        )
        yield "targets", f"{reason} the images: they may be shuffled"
    elif is_unrelated and neighbors["val in train"] < RELATED:
        yield "targets", "what holds for train is wrong for val: compare the numbers of their classes, and their images"


def describe_outputs(start: Start) -> str:
    reason = f"the model returns {start.outputs} numbers a sample, and the task has {start.expected_outputs}"
    return f"{reason}: build it with num_classes"


def format_left(one: OneBatch) -> str:
    if not isfinite(one.left):
        return "no finite loss"
    return f"{100 * one.left:.0f} % of its loss" if one.left < 0.995 else "all of its loss"


def format_parameters(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more parameters" if len(names) > 3 else "")
