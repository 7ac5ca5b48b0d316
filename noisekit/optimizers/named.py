"""The torch optimizer that is known by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from noisekit._typing import OptimizerFactory
from noisekit.errors import unknown_name
from noisekit.optimizers.rmspropw import RMSpropW
from noisekit.optimizers.signsgd import SignSGD
from noisekit.sde.inputs import check_settings, settings_of

_MAKERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "signsgd": SignSGD,
    "rmsprop": torch.optim.RMSprop,
    "rmspropw": RMSpropW,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


def build_optimizer(name: str, learning_rate: float, **settings: Any) -> OptimizerFactory:
    """Return the function that makes the torch optimizer called ``name``; ``settings`` as of its SDE.

    Raises InputError for another name, and for a setting that the optimizer has not.
    """
    if name not in _MAKERS:
        raise unknown_name("optimizer", name, _MAKERS)
    known = settings_of(_MAKERS[name], besides={"params"})
    check_settings(name, settings, known | {"beta"} if "alpha" in known else known)
    # AdamW decays by default in torch, and RMSprop calls its β alpha.
    options = {"lr": learning_rate, "weight_decay": 0.0} | settings
    if "beta" in options:
        options["alpha"] = options.pop("beta")
    return lambda parameters: _MAKERS[name](parameters, **options)
