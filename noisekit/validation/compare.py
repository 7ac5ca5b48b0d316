"""Compare a predicted ensemble with a reference ensemble, with every error that limits the comparison."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from noisekit._typing import Observable
from noisekit.errors import InputError, kind_of
from noisekit.noise.base import check_flag
from noisekit.sde.solution import Solution
from noisekit.theory.inputs import as_number, as_real
from noisekit.validation.comparison import Comparison, ObservableComparison, Verdict, distance_moved
from noisekit.validation.ensembles import (
    check_solution,
    common_names,
    common_steps,
    curves,
    finite_pairs,
    to_numpy,
)

_Array = NDArray[np.float64]


def compare(
    prediction: Solution,
    reference: Solution,
    *,
    observables: Sequence[str] | Mapping[str, Observable] | None = None,
    refined: Solution | None = None,
    tolerance: float = 0.05,
    change: float = 0.25,
    spread: float = 1.3,
    paired: bool = False,
) -> Comparison:
    """Set ``prediction`` (an SDE) beside ``reference`` (real runs) at the steps that both saved.

    Three numbers stand together: the gap of the means, its Monte-Carlo error √(s_p²/n_p + s_r²/n_r), and,
    if ``refined`` is given, the discretisation error |mean(dt) − mean(dt/2)|; and the gap in units of the
    reference's own standard deviation, because an average can be right where the spread is wrong.

    Verdict: "held" if the mean gap is at most ``tolerance`` of the mean and, where the mean moves by more
    than twice the reference's standard deviation, at most ``change`` of how far it moves, because a loss that
    hardly falls is easy to predict within 5 %; or if the gap cannot be told from zero with an error below
    these limits; "unclear" if the error is above them and the gap is not resolved; else "missed".
    It judges the mean over time; where a single instant is further off than ``tolerance``, the text says so.
    Without noise at all the mean loss can be right, so the standard deviation is judged too, by the geometric
    mean over time of its ratio: "missed" if it is wrong by more than a factor ``spread`` and two errors
    beyond that, "unclear" if it is that wrong and two errors from right.

    Args:
        prediction: SDE paths, observables (replicate, time).
        reference: optimizer runs; other replicates, other seed.
        observables: names found in both; or functions of x (replicate, coordinate) where both kept states;
            None takes every common name.
        refined: the prediction at half its step size.
        tolerance: largest mean relative gap that still counts as agreement.
        change: largest mean gap, over the mean of |reference mean − its first value|, that does.
        spread: largest factor between the standard deviations that still counts as agreement.
        paired: whether replicate i of both sides started from one state, independent afterwards or driven by
            one path; the error is then that of the mean difference, which is smaller.

    Returns:
        A :class:`Comparison`; its arrays are numpy float64 (time,).

    Raises:
        InputError: no common step, different learning rates, an unknown observable, fewer than two replicates
            that did not diverge, or limits out of range.

    Source: Monte-Carlo and discretisation error beside each other as in Kloeden and Platen 1992; verdicts and
        their limits chosen here.
    """
    limits = _Limits.checked(tolerance, change, spread)
    check_solution("prediction", prediction)
    check_solution("reference", reference)
    if refined is not None:
        check_solution("refined", refined)
    if observables is not None and not isinstance(observables, Sequence | Mapping):
        raise InputError(
            f"observables is {kind_of(observables)}; give names, or a dict from names to functions."
        )
    check_flag("paired", paired)
    steps = common_steps(prediction, reference, refined)
    keep = finite_pairs(prediction, reference) if paired else None
    predicted, observed = (curves(s, observables, steps, keep) for s in (prediction, reference))
    finer = curves(refined, observables, steps) if refined is not None else None
    names = common_names(predicted, observed, observables)
    if finer is not None and (missing := [name for name in names if name not in finer]):
        raise InputError(f"The refined solution has no observable {missing[0]!r}; pass it the same ones.")
    return Comparison(
        optimizer=reference.optimizer,
        prediction_kind=prediction.kind,
        reference_kind=reference.kind,
        substeps=prediction.substeps,
        step=steps,
        time=to_numpy(reference.time)[np.searchsorted(to_numpy(reference.step), steps)],
        observables={
            name: compare_curves(
                name,
                predicted[name],
                observed[name],
                finer[name] if finer is not None else None,
                tolerance=limits.tolerance,
                change=limits.change,
                spread=limits.spread,
                paired=paired,
            )
            for name in names
        },
        n_prediction=int(prediction.diverged.numel()),
        n_reference=int(reference.diverged.numel()),
        n_diverged_prediction=int((prediction.diverged >= 0).sum()),
        n_diverged_reference=int((reference.diverged >= 0).sum()),
        paired=paired,
    )


def compare_curves(
    name: str,
    prediction: _Array,
    reference: _Array,
    refined: _Array | None = None,
    *,
    tolerance: float = 0.05,
    change: float = 0.25,
    spread: float = 1.3,
    paired: bool = False,
) -> ObservableComparison:
    """Compare one observable given as (replicate, time) arrays of both ensembles; see :func:`compare`.

    ``refined`` has any number of replicates. Raises InputError for other shapes, and for what
    :func:`compare` refuses.
    """
    limits = _Limits.checked(tolerance, change, spread)
    check_flag("paired", paired)
    prediction = as_real(f"prediction of {name}", prediction)
    reference = as_real(f"reference of {name}", reference)
    refined = None if refined is None else as_real(f"refined {name}", refined)
    for values in (prediction, reference, *([] if refined is None else [refined])):
        if values.ndim != 2 or values.shape[1:] != prediction.shape[1:]:
            raise InputError(
                f"Curves of {name!r} have the shapes {prediction.shape} and {values.shape}; "
                "(replicate, time) with the same instants is needed."
            )
    for values in (prediction, reference):
        if values.shape[0] < 2:
            raise InputError(
                f"Observable {name!r} has {values.shape[0]} usable replicate(s); at least 2 are needed to "
                "know an error. Run more replicates, or find out why they diverged."
            )
    if paired and len(prediction) != len(reference):
        raise InputError(
            f"{name!r} has {len(prediction)} predicted and {len(reference)} reference replicates; "
            "paired=True needs replicate i of both to start from one state."
        )
    mean_p, std_p, kurtosis_p = _moments(prediction)
    mean_r, std_r, kurtosis_r = _moments(reference)
    n_p, n_r = prediction.shape[0], reference.shape[0]
    gap = mean_p - mean_r
    error = np.sqrt(std_p**2 / n_p + std_r**2 / n_r)
    if paired:
        with np.errstate(invalid="ignore"):  # ∞ − ∞
            error = (prediction - reference).std(axis=0, ddof=1) / np.sqrt(n_p)
    finer = np.full_like(gap, np.nan) if refined is None else mean_p - refined.mean(axis=0)
    size = np.abs(mean_r)
    ratio = _divide(std_p, std_r)
    # Var log s ≈ (κ − 1)/(4n): the fourth moment decides how well a standard deviation is known.
    log_error = np.sqrt((kurtosis_p - 1) / (4 * n_p) + (kurtosis_r - 1) / (4 * n_r))
    verdict, text = _judge(name, gap, error, finer, mean_r, std_r, limits)
    of_spread, sentence = _judge_spread(ratio, log_error, limits.spread)
    if verdict == "held" != of_spread:
        verdict = of_spread
        word = "did not" if of_spread == "missed" else "may not have; run more replicates"
        text = f"The mean held and the spread {word}. {text}"
    return ObservableComparison(
        name=name,
        prediction_mean=mean_p,
        prediction_std=std_p,
        reference_mean=mean_r,
        reference_std=std_r,
        gap=gap,
        standard_error=error,
        discretisation_error=finer,
        relative_gap=_divide(gap, size),
        relative_gap_error=_divide(error, size),
        gap_in_std=_divide(gap, std_r),
        std_ratio=ratio,
        std_ratio_error=ratio * log_error,
        prediction_kurtosis=kurtosis_p,
        reference_kurtosis=kurtosis_r,
        verdict=verdict,
        verdict_text=text + sentence,
    )


@dataclass(frozen=True)
class _Limits:
    """How far apart the ensembles may be and still agree; see :func:`compare`."""

    tolerance: float
    change: float
    spread: float

    @classmethod
    def checked(cls, tolerance: float, change: float, spread: float) -> _Limits:
        limits = cls(
            as_number("tolerance", tolerance), as_number("change", change), as_number("spread", spread)
        )
        if not 0 < limits.tolerance < 1:
            raise InputError(
                f"tolerance = {tolerance}: a relative gap between 0 and 1 is needed, such as 0.05."
            )
        if not limits.change > 0:
            raise InputError(
                f"change = {change}: a positive share of how far the mean moves is needed, such as 0.25; "
                "math.inf leaves it out."
            )
        if not limits.spread > 1:
            raise InputError(f"spread = {spread}: a factor above 1 is needed, such as 1.3.")
        return limits


def _judge(
    name: str,
    gap: _Array,
    error: _Array,
    finer: _Array,
    reference: _Array,
    deviation: _Array,
    limits: _Limits,
) -> tuple[Verdict, str]:
    bad = ~(np.isfinite(gap) & np.isfinite(error))
    if bad.any():
        where = f"at {int(bad.sum())} of {len(bad)} instants"
        return "unclear", f"{name} is infinite or NaN in some replicate {where}, where no gap exists."
    size = float(np.abs(reference).mean())
    if size == 0:
        return "unclear", f"The reference of {name} is zero throughout, so no relative gap exists."
    share = float(np.abs(gap).mean()) / size
    noise = float(error.mean()) / size
    moved = distance_moved(reference, deviation) / size
    most = min(limits.tolerance, limits.change * moved)
    limit = f"{100 * limits.tolerance:g} %"
    if most < limits.tolerance:
        limit = f"{100 * limits.change:g} % of how far it moves"
    resolved = share > 2 * noise
    figures = f"mean gap of {name} {100 * share:.2g} % (Monte-Carlo error {100 * noise:.2g} %"
    if moved < math.inf:
        figures += f", {100 * share / moved:.2g} % of how far it moves"
    if np.isfinite(finer).all():
        step = float(np.abs(finer).mean()) / size
        figures += f", discretisation error {100 * step:.2g} %"
        if resolved and step > share / 2:
            figures += ", so much of the gap may be the step size"
    figures += ")"
    worst = _worst_sentence(gap, error, reference, limits.tolerance)
    if not resolved and noise > most:
        return "unclear", f"Cannot tell: {figures}; run more replicates.{worst}"
    if not resolved:
        return "held", f"Held within the Monte-Carlo error: {figures}.{worst}"
    if share <= most:
        return "held", f"Held within {limit}: {figures}.{worst}"
    if share - 2 * noise <= most:
        return "unclear", f"On the edge of {limit}: {figures}; run more replicates.{worst}"
    return "missed", f"Missed {limit}: {figures}.{worst}"


def _worst_sentence(gap: _Array, error: _Array, reference: _Array, tolerance: float) -> str:
    """Say the largest gap beyond ``tolerance`` of the reference there, which an average over time hides.

    Only gaps of three errors count, as the largest of many is picked; of an observable that changes sign
    the gap is taken over its mean size, as it would be infinite at zero.
    """
    size = np.abs(reference)
    if not ((reference > 0).all() or (reference < 0).all()):
        size = np.full_like(size, size.mean())
    share = np.where(np.abs(gap) > 3 * error, np.abs(gap) / size, 0)
    worst = int(share.argmax())
    if share[worst] <= tolerance:
        return ""
    return (
        f" At instant {worst} of {len(gap) - 1} the gap is largest: {100 * share[worst]:.2g} ± "
        f"{100 * error[worst] / size[worst]:.1g} % of its value there."
    )


def _judge_spread(ratio: _Array, log_error: _Array, most: float) -> tuple[Verdict, str]:
    """Judge the standard deviation by the geometric mean of its ratio; the mean error bounds that of it."""
    if np.isfinite(ratio).any() and (ratio[np.isfinite(ratio)] == 0).all():
        return "missed", " It does not spread at all, where the reference does."
    known = np.isfinite(ratio) & np.isfinite(log_error) & (ratio > 0)
    if not known.any():
        return "held", ""
    mean, noise = float(np.log(ratio[known]).mean()), float(log_error[known].mean())
    if abs(mean) <= max(0.1, 2 * noise):
        return "held", ""
    off = abs(mean) - math.log(most)
    verdict: Verdict = "missed" if off > 2 * noise else "unclear" if off > 0 else "held"
    word, size = "too small" if mean < 0 else "too large", math.exp(mean)
    return (
        verdict,
        f" Its standard deviation is {word}: {size:.2f} ± {size * noise:.2f} of the reference's.",
    )


def _moments(values: _Array) -> tuple[_Array, _Array, _Array]:
    mean = values.mean(axis=0)
    with np.errstate(invalid="ignore"):  # ∞ − ∞, of which the verdict speaks
        centred = values - mean
        variance = (centred**2).mean(axis=0)
        kurtosis = _divide((centred**4).mean(axis=0), variance**2)
        return mean, values.std(axis=0, ddof=1), kurtosis


def _divide(numerator: _Array, denominator: _Array) -> _Array:
    """Return the quotient, NaN where the denominator is zero (at t = 0 all replicates are equal)."""
    result = np.full(np.broadcast(numerator, denominator).shape, np.nan)
    with np.errstate(invalid="ignore"):  # ∞/∞
        return np.divide(numerator, denominator, out=result, where=denominator > 0)
