"""Starts a model from the weights of another run, as far as they fit."""

import logging
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from microstep.components.model.metadata import MeanAndStd, parse_normalization
from microstep.components.model.torchvision_models import unwrap
from microstep.components.model.weights import format_shape, read_weights_file, strip_wrapper_prefixes
from microstep.errors import DataError, truncate

log = logging.getLogger("microstep.notice")


def load_initial_weights(model: nn.Module, file: Path, init: str) -> MeanAndStd | None:
    """Copy the tensors of a file that fit into a model, by name and shape. Log those that do not, one line per reason.

    Return the mean and standard deviation of their images, if known. Raise DataError if no tensor can be read and fits.
    """
    subject = f"init={init}"
    if not file.is_file():
        remedy = "give the directory of a finished run, a model.safetensors or a checkpoint"
        raise DataError(subject, f"there is no file {file.absolute()}", remedy)
    content, metadata = read_weights_file(file, subject)
    state = strip_wrapper_prefixes(unwrap(model).state_dict())
    fitting = [name for name in state if name in content and state[name].shape == content[name].shape]
    if not any(state[name].dim() for name in fitting):
        raise DataError(subject, "none of its tensors fits the model", "choose the model that it was trained with")
    for name in fitting:
        state[name].copy_(content[name])  # shares memory with the model
    for reason, names in find_misfits(state, content).items():
        log.warning("%s: %s: %s", subject, reason, truncate(", ".join(names), 1000))
    return parse_normalization(metadata)


def find_misfits(state: Mapping[str, Tensor], content: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """Return the names of tensors that are not loaded, by reason."""
    both = [(name, *map(format_shape, (content[name], state[name]))) for name in state if name in content]
    misfits = {
        "other shapes, so initialized anew": [f"{n} ({one}, not {other})" for n, one, other in both if one != other],
        "not in the file, so initialized anew": [name for name in state if name not in content],
        "not in the model, so left out": [name for name in content if name not in state],
    }
    return {reason: names for reason, names in misfits.items() if names}
