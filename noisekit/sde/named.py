"""The SDE of an optimizer that is known by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from noisekit._typing import GradientFunction
from noisekit.errors import unknown_name
from noisekit.noise.base import NoiseModel
from noisekit.sde.adam import AdamSDE
from noisekit.sde.base import OptimizerSDE
from noisekit.sde.inputs import check_settings, settings_of
from noisekit.sde.rmsprop import RMSpropSDE
from noisekit.sde.sgd import SGDSDE
from noisekit.sde.signsgd import SignSGDSDE

_MAKERS: dict[str, tuple[Callable[..., OptimizerSDE], dict[str, str]]] = {
    "sgd": (SGDSDE, {}),
    "signsgd": (SignSGDSDE, {}),
    "rmsprop": (RMSpropSDE, {"decay": "l2"}),
    "rmspropw": (RMSpropSDE, {"decay": "decoupled"}),
    "adam": (AdamSDE, {"decay": "l2"}),
    "adamw": (AdamSDE, {"decay": "decoupled"}),
}
"""The class of each optimizer, and what its name already says."""
_GIVEN = {"gradient", "noise", "learning_rate"}


def build_sde(
    name: str, gradient: GradientFunction, noise: NoiseModel, learning_rate: float, **settings: Any
) -> OptimizerSDE:
    """Return the SDE of the optimizer called ``name``; ``settings`` are those of its class.

    Names of adaptive optimizers that end in w have decoupled weight decay, others of L2 kind.
    Raises InputError for another name, and for a setting that the class has not.
    """
    if name not in _MAKERS:
        raise unknown_name("optimizer", name, _MAKERS)
    make, fixed = _MAKERS[name]
    check_settings(name, settings, settings_of(make, besides=_GIVEN | fixed.keys()))
    return make(gradient, noise, learning_rate, **fixed, **settings)
