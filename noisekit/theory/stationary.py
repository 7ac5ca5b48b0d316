"""The law in which an optimizer with a constant learning rate settles on a quadratic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from noisekit._readable import Readable
from noisekit.errors import InputError, unknown_name
from noisekit.theory.fluctuations import fluctuation
from noisekit.theory.hyperparameters import Hyperparameters, check_hyperparameters, check_variant
from noisekit.theory.inputs import Array, as_finite, as_symmetric
from noisekit.theory.linearise import LinearSystem, linear_system, require_stable, second_moment
from noisekit.theory.noise_moments import NoiseMoments, noise_moments
from noisekit.theory.published import published_covariance

Source = Literal["discrete", "sde", "published"]


@dataclass(frozen=True, repr=False)
class StationaryLaw(Readable):
    """Mean and covariance of x∞, and what they cost.

    ``mean`` (d,), ``covariance`` (d, d), ``excess_loss`` = ½ Tr(H Cov) + ½ (mean − x*)ᵀH(mean − x*) in units
    of the loss; ``second_moment`` (d,) is V∞, empty where the optimizer has none; ``relaxation_steps`` is the
    number of optimizer steps in which the slowest direction forgets a factor e of its start.
    ``published_covariance`` (d, d) is the closed form of the literature, and ``published_gap`` the relative
    difference of its ½ Tr(H Cov) from this law's; both NaN where nothing is published.
    """

    optimizer: str
    source: str
    variant: str
    mean: Array
    covariance: Array
    excess_loss: float
    second_moment: Array
    relaxation_steps: float
    published_covariance: Array
    published_gap: float

    def __str__(self) -> str:
        spread = np.sqrt(np.diag(self.covariance))
        source = f"{self.source} {self.variant}".rstrip()
        gap = "" if np.isnan(self.published_gap) else f"; published form {self.published_gap:+.1%}"
        return (
            f"{self.optimizer} ({source}), {spread.size} coordinates: excess loss {self.excess_loss:.4g}, "
            f"standard deviation {spread.min():.3g} to {spread.max():.3g}, "
            f"relaxes in {self.relaxation_steps:.3g} steps{gap}"
        )


def stationary_law(
    optimizer: str,
    hessian: Any,
    noise: Any,
    learning_rate: float,
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    beta: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    source: Source = "discrete",
    variant: str | None = None,
    order: int = 1,
    minimum: Any = None,
    at: Any = None,
) -> StationaryLaw:
    """Stationary law of an optimizer on f(x) = ½ (x − x*)ᵀH(x − x*) with constant gradient noise.

    ``discrete``: the exact covariance of the linearised update, C = A C Aᵀ + Q. ``sde``: of the linearised
    SDE, A C + C Aᵀ = −Q. Both for any H ≻ 0 and any Σ, commuting or not, with V at its stationary mean
    diag Σ + E(∇f)² (found by iteration). Of Gaussian noise the sign is averaged over x exactly, and
    ``discrete`` counts that v fluctuates with the gradient it divides; ``sde`` holds V constant.
    ``published``: the closed form of :func:`published_covariance`.

    Args:
        optimizer: "sgd", "signsgd", "rmsprop", "rmspropw", "adam" or "adamw"; weight decay is L2 in "sgd",
            "rmsprop" and "adam", decoupled in the others, as in torch.
        hessian: H, its diagonal (d,) or the matrix (d, d).
        noise: of the minibatch gradient: a noise model, Σ (d, d), or the variances (d,).
        learning_rate: η.
        betas: (β₁, β₂) of Adam. beta: β of RMSprop. momentum: of SGD.
        source: where the law comes from.
        variant: of the SDE: "consistent" (default), "published" or "malladi", and of SGD with momentum
            "midpoint" (default), "kinetic" or "consistent"; of the published form of AdamW and Adam: "lag"
            adds the lag of the momentum.
        order: 1, or 2 for the law of the SDE of weak order 2, of "sgd".
        minimum: x* (d,), 0 if not given; it matters with weight decay.
        at: the point (d,) at which a state-dependent noise model is read.

    Returns:
        A :class:`StationaryLaw`.

    Where it ends: with Student-t noise v is held constant, which makes RMSprop (β = .99) 1.5 %, 7 % and 20 %
    too wide at ν = 5, 3 and 2.5. Weight decay and a minimum off 0 leave a mean gradient; where that is not
    small beside the noise the covariance is off by some percent (SignSGD 8 %, RMSpropW 4 % at θ = 1).
    SignSGD without decay moves by ±η: where ηλℓ/σ nears 1 its law depends on where x₀ lies between two
    multiples of η, and what is given here is about the mean over such places.

    Raises:
        InputError: no stationary law (H not positive definite, learning rate too large), shapes that differ.
        InfiniteVarianceError: infinite noise variance and not SignSGD.

    Source: Compagnoni et al. 2025, arXiv 2411.15958; Malladi et al. 2022, arXiv 2205.10287.

    >>> law = stationary_law("sgd", [1.0], [1.0], 0.1)
    >>> round(float(law.covariance[0, 0]), 6)  # ησ²/(λ(2 − ηλ))
    0.052632
    """
    if source not in ("discrete", "sde", "published"):
        raise unknown_name("source of a stationary law", source, ("discrete", "sde", "published"))
    hyper = check_hyperparameters(
        optimizer,
        learning_rate,
        betas=betas,
        beta=beta,
        eps=eps,
        weight_decay=weight_decay,
        momentum=momentum,
    )
    matrix = as_symmetric("hessian", as_finite("hessian", hessian))
    d = len(matrix)
    moments = noise_moments(noise, d, at)
    if hyper.optimizer == "signsgd":
        moments.known_sign_slope()
    if hyper.optimizer != "sgd" and (moments.variance == 0).any():
        raise InputError(
            f"noise is zero in {int((moments.variance == 0).sum())} coordinates, where {hyper.optimizer} "
            "has no linearisation; leave them out."
        )
    centre = np.zeros(d) if minimum is None else as_finite("minimum", minimum).reshape(-1)
    if centre.size != d:
        raise InputError(f"minimum has {centre.size} coordinates, the Hessian {d}; make them equal.")
    if order not in (1, 2) or (order == 2 and (source != "sde" or hyper.optimizer != "sgd")):
        raise InputError(f"order = {order!r}: 1 is needed, or 2 with source='sde' of 'sgd'.")
    chosen = _check_variant(hyper, source, variant, order)
    system, v, covariance = _solve(
        hyper,
        matrix,
        moments,
        centre,
        discrete=source != "sde",
        variant=chosen if source == "sde" else "consistent",
        order=order,
    )
    published = _published(hyper, matrix, moments, lag=chosen == "lag")
    mean = system.stationary_mean()[:d]
    cost = float(np.trace(matrix @ covariance))
    gap = float("nan")
    if published is not None and cost > 0:
        gap = float(np.trace(matrix @ published)) / cost - 1
    if source == "published":
        if published is None:
            raise InputError(f"No closed form is published for {hyper.optimizer} with momentum.")
        covariance = published
    off = mean - centre
    return StationaryLaw(
        optimizer=hyper.optimizer,
        source=source,
        variant=chosen,
        mean=mean,
        covariance=covariance,
        excess_loss=float(np.trace(matrix @ covariance) / 2 + off @ matrix @ off / 2),
        second_moment=v,
        relaxation_steps=1 / (system.decay_rate * (1.0 if system.discrete else hyper.learning_rate)),
        published_covariance=np.full((d, d), np.nan) if published is None else published,
        published_gap=gap,
    )


def _check_variant(hyper: Hyperparameters, source: str, variant: str | None, order: int) -> str:
    if source == "sde":
        return check_variant(hyper, variant, order)
    if variant is None:
        return ""
    if source == "published" and variant == "lag" and hyper.optimizer.startswith("adam"):
        return variant
    raise InputError(
        f"source={source!r} of {hyper.optimizer} has no variant {variant!r}; variants belong to "
        "source='sde', and 'lag' to source='published' of adam and adamw."
    )


def _published(hyper: Hyperparameters, hessian: Array, noise: NoiseMoments, *, lag: bool) -> Array | None:
    if hyper.optimizer == "sgd" and hyper.momentum:
        return None
    return published_covariance(hyper, hessian, noise, lag=lag)


def _solve(
    hyper: Hyperparameters,
    hessian: Array,
    noise: NoiseMoments,
    minimum: Array,
    *,
    discrete: bool,
    variant: str,
    order: int,
) -> tuple[LinearSystem, Array, Array]:
    """Iterate V and the covariance of x to their common fixed point."""
    d = len(hessian)
    covariance, mean = np.zeros((d, d)), minimum
    moves = None
    if discrete and hyper.is_adaptive and noise.gaussian:
        moves = fluctuation(hyper, np.sqrt(noise.variance))
    for _ in range(200):
        v = np.zeros(0)
        if hyper.is_adaptive:
            gradient = hessian @ (mean - minimum) + hyper.coupled_decay * mean
            v = second_moment(hyper, hessian, noise, gradient, covariance, variant)
        system = linear_system(
            hyper,
            hessian,
            noise,
            minimum,
            v,
            covariance,
            discrete=discrete,
            variant=variant,
            order=order,
            fluctuation=moves,
        )
        require_stable(system, hyper, hessian)
        before, covariance = covariance, system.stationary_covariance()[:d, :d]
        mean = system.stationary_mean()[:d]
        if (
            not np.isfinite(covariance).all()
            or np.abs(covariance - before).max() <= 1e-12 * np.abs(covariance).max()
        ):
            break
    return system, v, covariance
