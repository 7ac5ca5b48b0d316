"""The hyper-parameters of one optimizer, checked once, in the form that the linearisation wants."""

from __future__ import annotations

from dataclasses import dataclass

from noisekit.errors import InputError
from noisekit.sde.momentum import MOMENTUM_VARIANTS, momentum_variant
from noisekit.theory.inputs import DECOUPLED, check_beta, check_betas, check_optimizer, check_positive

VARIANTS = {
    "sgd": MOMENTUM_VARIANTS,
    "adam": ("consistent", "published", "malladi"),
    "rmsprop": ("consistent", "published", "malladi"),
}


@dataclass(frozen=True)
class Hyperparameters:
    """η, β₁ (momentum), β₂ (second moment), ε and θ of a named optimizer.

    ``momentum`` is torch's SGD momentum μ, or β₁ of Adam; ``beta`` is β of RMSprop or β₂ of Adam.
    ``coupled_decay`` is θ added to the gradient (L2), ``decoupled_decay`` θ beside it; one of them is 0.
    """

    optimizer: str
    learning_rate: float
    momentum: float
    beta: float
    eps: float
    coupled_decay: float
    decoupled_decay: float

    @property
    def has_momentum(self) -> bool:
        """Whether the state holds m beside x."""
        return self.optimizer.startswith("adam") or self.momentum > 0

    @property
    def is_adaptive(self) -> bool:
        """Whether the step is divided by the root of a second moment."""
        return self.optimizer.startswith(("adam", "rmsprop"))


def check_hyperparameters(
    optimizer: str,
    learning_rate: float,
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    beta: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
) -> Hyperparameters:
    """Check what belongs to ``optimizer`` and return it; what belongs to others is ignored."""
    name = check_optimizer(optimizer)
    decay = check_positive("weight_decay", weight_decay, zero=True)
    if name.startswith("adam"):
        first, second = check_betas(betas)
    else:
        first = check_beta("momentum", momentum) if name == "sgd" else 0.0
        second = check_beta("β", beta)
    decoupled = name in DECOUPLED
    return Hyperparameters(
        optimizer=name,
        learning_rate=check_positive("learning_rate", learning_rate),
        momentum=first,
        beta=second,
        eps=check_positive("eps", eps, zero=True),
        coupled_decay=0.0 if decoupled else decay,
        decoupled_decay=decay if decoupled else 0.0,
    )


def check_variant(hyper: Hyperparameters, variant: str | None, order: int = 1) -> str:
    """Return the variant of the SDE, that of its class if none is given; SignSGD has one SDE only."""
    known = VARIANTS.get(hyper.optimizer.rstrip("w"), ("consistent",))
    if variant is not None and variant not in known:
        raise InputError(
            f"The SDE of {hyper.optimizer} has no variant {variant!r}. Known: {', '.join(known)}."
        )
    if hyper.optimizer == "sgd":
        return momentum_variant(variant, hyper.momentum, order=order)
    return variant or "consistent"
