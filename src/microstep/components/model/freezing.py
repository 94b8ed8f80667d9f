"""Freezes the parameters that a pattern matches."""

import re

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from microstep.errors import ConfigError


def freeze_parameters(model: nn.Module, pattern: str) -> None:
    """Freeze the parameters whose names contain a match of a regular expression.

    BatchNorm layers whose parameters are all frozen stay in evaluation mode, so they do not depend on the micro-batch.
    Raise ConfigError if the expression is not valid or matches no name.
    """
    subject, parameters = f"model.freeze={pattern}", dict(model.named_parameters())
    try:
        frozen = [name for name in parameters if re.search(pattern, name)]
    except re.error as error:
        raise ConfigError(subject, f"it is no regular expression: {error}", "correct it") from None
    if not frozen:
        first = ", ".join(dict.fromkeys(name.partition(".")[0] for name in parameters))
        raise ConfigError(subject, "no parameter has such a name", f"the names begin with {first}")
    for name in frozen:
        parameters[name].requires_grad_(False)
    for module in model.modules():
        own = [p.requires_grad for p in module.parameters()]
        if isinstance(module, _BatchNorm) and own and not any(own):
            keep_in_evaluation_mode(module)


def keep_in_evaluation_mode(module: nn.Module) -> None:
    """Let `train` have no effect on a module. A wrapper would change the names in its state dict."""
    kind = type(module)
    module.__class__ = type(kind.__name__, (kind,), {"train": lambda self, mode=True: kind.train(self, False)})
    module.eval()
