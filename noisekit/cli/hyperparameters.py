"""The options that name an optimizer and its hyper-parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from noisekit.errors import InputError, unknown_name

_OPTIONS = {
    "sgd": ("momentum", "weight_decay"),
    "signsgd": ("weight_decay",),
    "rmsprop": ("beta", "eps", "weight_decay"),
    "adam": ("betas", "eps", "weight_decay"),
}
_OPTIMIZERS = ("sgd", "signsgd", "rmsprop", "rmspropw", "adam", "adamw")
_DEFAULTS: dict[str, Any] = {"betas": (0.9, 0.999), "beta": 0.99, "eps": 1e-8}


@dataclass(frozen=True, kw_only=True)
class OptimizerOptions:
    """An optimizer and its hyper-parameters."""

    optimizer: str
    """sgd, signsgd, rmsprop, rmspropw, adam or adamw."""
    learning_rate: float
    """Learning rate; --lr for short."""
    batch_size: int | None = None
    """Samples in a minibatch; as many as were recorded if not given."""
    betas: Annotated[
        tuple[float, float] | None, tyro.conf.arg(metavar="FLOAT FLOAT", help_behavior_hint="")
    ] = None
    """Averaging factors of adam and adamw; 0.9 0.999 if not given."""
    beta: float | None = None
    """Averaging factor of rmsprop, which torch calls alpha; 0.99 if not given."""
    eps: float | None = None
    """What rmsprop and adam add to the root of the second moment; 1e-8 if not given."""
    weight_decay: float | None = None
    """Weight decay; none if not given."""
    momentum: float | None = None
    """Momentum of sgd; none if not given."""

    def given(self) -> dict[str, Any]:
        """Return what was given besides optimizer, learning rate and batch size.

        Raises:
            InputError: if the optimizer is unknown or has no such hyper-parameter.
        """
        if self.optimizer not in _OPTIMIZERS:
            raise unknown_name("optimizer", self.optimizer, _OPTIMIZERS)
        own = _OPTIONS[self.optimizer.rstrip("w")]
        names = ("betas", "beta", "eps", "weight_decay", "momentum")
        values = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        for name in values:
            if name not in own:
                has = ", ".join(f"--{option.replace('_', '-')}" for option in own)
                raise InputError(
                    f"{self.optimizer} has no --{name.replace('_', '-')}; leave it out. It has {has}."
                )
        return values

    def in_torch_names(self, **more: int | None) -> dict[str, Any]:
        """Return all hyper-parameters of the optimizer as torch calls them, with torch's defaults."""
        values = self.given()
        own = _OPTIONS[self.optimizer.rstrip("w")]
        result: dict[str, Any] = {"lr": self.learning_rate}
        for name in ("momentum", "betas", "beta", "eps", "weight_decay"):
            if name in own and (name in values or name in _DEFAULTS):
                result["alpha" if name == "beta" else name] = values.get(name, _DEFAULTS.get(name))
        return result | {name: value for name, value in more.items() if value is not None}
