"""The equations of SGD with momentum: how torch's buffer and the gradient move x."""

from __future__ import annotations

from dataclasses import dataclass

from noisekit.errors import InputError, unknown_name

MOMENTUM_VARIANTS = ("midpoint", "kinetic", "consistent")


@dataclass(frozen=True)
class MomentumEquation:
    """dX = −(``carried``·B dt + ``direct``·g), dB = η⁻¹ ``kick`` (g − (1 − μ)B dt).

    g is ∇f(X + ``back``·ηB) dt + √η Σ^{1/2} dW. Where B has come to rest, dX is −g/(1 − μ) in every variant.
    """

    carried: float
    direct: float
    kick: float
    back: float
    ahead: float
    """X + (``back`` + ``ahead``)ηB moves by −B dt alone, and g is read at ``ahead``·ηB from there."""


def momentum_variant(variant: str | None, momentum: float, *, nesterov: bool = False, order: int = 1) -> str:
    """Return the variant of SGD's SDE, "consistent" without momentum, where all are that of plain SGD.

    Not given, it is "midpoint", or at order 2 "consistent", of which that one is the next order.
    Raises InputError for another name, and for what a variant has not.
    """
    if variant is not None and variant not in MOMENTUM_VARIANTS:
        raise unknown_name("variant of SGD's SDE", variant, MOMENTUM_VARIANTS)
    if order == 2 and variant not in (None, "consistent"):
        raise InputError(
            f"The order-2 SDE of SGD extends the 'consistent' variant, not {variant!r}; leave one out."
        )
    if variant == "kinetic" and nesterov:
        raise InputError("The 'kinetic' variant is that of heavy ball; use 'midpoint' with nesterov.")
    if not momentum or order == 2:
        return "consistent"
    return variant or "midpoint"


def momentum_equation(variant: str, momentum: float, nesterov: bool = False) -> MomentumEquation:
    """Return the coefficients of ``variant`` at μ = ``momentum``.

    ``consistent`` takes a step's difference for the drift; ``kinetic`` is Newton's law, friction (1 − μ)/η.
    ``midpoint`` reads X at the steps and B half a step before them, as the optimizer's leapfrog has them; its
    friction is 2(1 − μ)/(1 + μ)/η = −ln μ/η to a twelfth of (1 − μ)².
    """
    mu = momentum
    if variant == "kinetic":
        return MomentumEquation(1.0, 0.0, 1.0, 0.0, 0.0)
    if variant == "consistent":
        return MomentumEquation(mu * mu if nesterov else mu, 1 + mu if nesterov else 1.0, 1.0, 0.0, 0.0)
    carried, direct = (2 * mu * mu, 1 + 2 * mu) if nesterov else (2 * mu, 1.0)
    middle = 1 + mu
    return MomentumEquation(carried / middle, direct / middle, 2 / middle, 0.5, mu if nesterov else 0.0)
