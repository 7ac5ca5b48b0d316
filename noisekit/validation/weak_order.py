"""The weak order of an SDE: how fast its gap to the optimizer shrinks with the learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from noisekit._readable import Readable
from noisekit.errors import InputError, kind_of
from noisekit.noise.base import check_flag
from noisekit.sde.solution import Solution
from noisekit.theory.inputs import as_finite
from noisekit.validation.ensembles import check_solution, common_steps, curves

_Array = NDArray[np.float64]


@dataclass(frozen=True, repr=False)
class WeakOrder(Readable):
    """Largest gaps over time, ``gap`` (learning rate,), with Monte-Carlo errors, and their log–log slope.

    ``slope_error`` is the larger of what the Monte-Carlo errors allow and what the scatter about the line
    shows. ``local_slope`` (learning rate − 1,) are the slopes between neighbours, largest rate first.
    ``resolved`` is False where some gap is within two of its errors: the slope then says little.
    """

    observable: str
    learning_rate: _Array
    gap: _Array
    gap_error: _Array
    slope: float
    slope_error: float
    local_slope: _Array

    @property
    def resolved(self) -> bool:
        """Whether every gap is at least twice its Monte-Carlo error."""
        return bool((self.gap > 2 * self.gap_error).all())

    def __str__(self) -> str:
        gaps = ", ".join(f"{g:.2g} at {r:g}" for r, g in zip(self.learning_rate, self.gap, strict=True))
        doubt = "" if self.resolved else "; some gap is within its Monte-Carlo error: take more replicates"
        slope = f"slope {self.slope:.2f} ± {self.slope_error:.2f}"
        return f"{slope} of {self.observable or 'the gap'}: {gaps}{doubt}"


def weak_order(
    prediction: Callable[[float], Solution],
    reference: Callable[[float], Solution],
    learning_rates: Sequence[float],
    *,
    observable: str = "loss",
    paired: bool = False,
) -> WeakOrder:
    """Slope of log sup_t |E φ(X_t) − E φ(x_k)| over log η, at fixed horizon and fixed ρ_i = (1 − β_i)/η.

    An SDE of weak order p has the slope p. The caller's functions set steps = T/η and β_i = 1 − ρ_iη.

    Args:
        prediction: learning rate → solution of the SDE.
        reference: learning rate → optimizer runs, saved at the same steps.
        learning_rates: at least 4, all different.
        observable: φ, its name in both solutions.
        paired: replicate i of both is driven by the same path (:func:`simulate_coupled`), so the error is
            that of the differences.

    Returns:
        A :class:`WeakOrder`.

    Raises:
        InputError: fewer than 4 learning rates, replicates that diverged, or a gap of exactly zero.

    Source: Kloeden and Platen 1992 (weak order); Li, Tai, E 2019, arXiv 1811.01558 (of optimizer SDEs).
    """
    rates = as_finite("learning_rates", learning_rates)
    if rates.ndim != 1 or len(rates) < 4 or not (rates > 0).all() or len(np.unique(rates)) < len(rates):
        raise InputError(f"learning_rates = {rates.tolist()}: at least 4 different positive ones are needed.")
    for label, function in (("prediction", prediction), ("reference", reference)):
        if not callable(function):
            raise InputError(
                f"{label} is {kind_of(function)}; a function from the learning rate to a Solution is needed."
            )
    check_flag("paired", paired)
    rates = np.sort(rates)[::-1]
    found = [_largest_gap(r, prediction(r), reference(r), observable, paired) for r in rates.tolist()]
    gap, error = (np.array(column) for column in zip(*found, strict=True))
    return fit_order(rates, gap, error, observable=observable)


def fit_order(learning_rates: _Array, gap: _Array, gap_error: _Array, *, observable: str = "") -> WeakOrder:
    """Fit log gap = slope · log η + c by least squares weighted with the Monte-Carlo errors.

    ``learning_rates``, ``gap`` and ``gap_error`` are (learning rate,). Raises InputError for other shapes,
    fewer than two different rates, and numbers that are not finite or not positive.

    >>> print(fit_order([0.1, 0.05, 0.025], [0.02, 0.01, 0.005], [1e-5, 1e-5, 1e-5]))
    slope 1.00 ± 0.01 of the gap: 0.02 at 0.1, 0.01 at 0.05, 0.005 at 0.025
    """
    columns = {"learning_rates": learning_rates, "gap": gap, "gap_error": gap_error}
    learning_rates, gap, gap_error = (as_finite(name, column) for name, column in columns.items())
    if gap.ndim != 1 or not learning_rates.shape == gap.shape == gap_error.shape:
        raise InputError(
            f"learning_rates, gap and gap_error have the shapes {learning_rates.shape}, {gap.shape} and "
            f"{gap_error.shape}; one value each for every rate is needed."
        )
    if (learning_rates <= 0).any() or len(np.unique(learning_rates)) < 2:
        raise InputError(
            f"learning_rates = {learning_rates.tolist()}: two different positive ones or more are needed."
        )
    if (gap_error < 0).any():
        raise InputError(f"gap_error has the value {gap_error.min():g}; an error is 0 or above.")
    if (gap <= 0).any():
        raise InputError(
            "A gap is zero or below: give sizes of gaps between runs that differ, or no order can be seen."
        )
    x, y = np.log(learning_rates), np.log(gap)
    # No gap counts as known better than to 1 %: higher orders of η bend the line by more than that.
    width = np.maximum(gap_error / gap, 0.01)
    weight = 1 / width**2
    centre = (weight * x).sum() / weight.sum()
    spread = (weight * (x - centre) ** 2).sum()
    slope = float((weight * (x - centre) * y).sum() / spread)
    residual = y - (weight * y).sum() / weight.sum() - slope * (x - centre)
    scatter = (weight * residual**2).sum() / max(len(x) - 2, 1)
    return WeakOrder(
        observable=observable,
        learning_rate=learning_rates,
        gap=gap,
        gap_error=gap_error,
        slope=slope,
        slope_error=float(np.sqrt(max(1.0, scatter) / spread)),
        local_slope=np.diff(y) / np.diff(x),
    )


def _largest_gap(
    rate: float, prediction: Solution, reference: Solution, observable: str, paired: bool
) -> tuple[float, float]:
    check_solution("prediction", prediction)
    check_solution("reference", reference)
    steps = common_steps(prediction, reference)
    found = []
    for solution in (prediction, reference):
        if not math.isclose(solution.learning_rate, rate, rel_tol=1e-6):
            raise InputError(
                f"A solution for the learning rate {rate:g} was made with {solution.learning_rate:g}; "
                "use the rate that the function is given."
            )
        if observable not in solution.observables:
            raise InputError(
                f"A solution has no observable {observable!r}, only {sorted(solution.observables)}; pass it "
                "as observables={...} to integrate and to the optimizer runs."
            )
        if bool((solution.diverged >= 0).any()):
            raise InputError(
                f"Replicates diverged at learning rate {solution.learning_rate:g}; a weak order needs all."
            )
        found.append(curves(solution, [observable], steps)[observable])
    p, r = found
    gap = p.mean(axis=0) - r.mean(axis=0)
    if paired:
        if p.shape != r.shape:
            raise InputError(
                f"Paired solutions have {p.shape[0]} and {r.shape[0]} replicates; make them equal."
            )
        error = (p - r).std(axis=0, ddof=1) / np.sqrt(len(p))
    else:
        error = np.sqrt(p.var(axis=0, ddof=1) / len(p) + r.var(axis=0, ddof=1) / len(r))
    worst = int(np.abs(gap).argmax())
    return float(abs(gap[worst])), float(error[worst])
