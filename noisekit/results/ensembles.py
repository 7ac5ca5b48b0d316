"""What converters take from the replicates of a Solution: the sound ones, and their late level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from noisekit.errors import InputError, unknown_name
from noisekit.results.labelled import array

if TYPE_CHECKING:
    from noisekit.sde.solution import Solution

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Level:
    """Mean over replicates of the late part of runs, its standard error, and the share that diverged."""

    value: float
    error: float
    diverged_fraction: float


def survivors(solution: Solution) -> NDArray[np.bool_]:
    """Return which replicates did not diverge, (replicate,)."""
    good: NDArray[np.bool_] = array(solution.diverged) < 0
    return good


def curves(solution: Solution, observable: str) -> Array:
    """Return an observable of the replicates that did not diverge, (replicate, time) in float64."""
    if observable not in solution.observables:
        raise unknown_name("observable of this solution", observable, solution.observables)
    values: Array = array(solution.observables[observable]).astype(np.float64)[survivors(solution)]
    return values


def late_instants(count: int, late: float) -> int:
    """Return how many of ``count`` saved instants are in the last part ``late`` of a run, at least one."""
    if not 0 < late <= 1:
        raise InputError(f"late = {late!r} is no fraction of the run; give one above 0 and at most 1.")
    return max(1, int(np.ceil(late * count)))


def late_level(solution: Solution, observable: str, late: float) -> Level:
    """Return the level of an observable over the last part ``late`` of the saved instants.

    The standard error is over replicates of their own means; all NaN where none is left.
    """
    values = curves(solution, observable)
    diverged = 1 - float(survivors(solution).mean())
    if len(values) == 0:
        return Level(float("nan"), float("nan"), diverged)
    each = values[:, -late_instants(values.shape[1], late) :].mean(axis=1)
    error = each.std(ddof=1) / np.sqrt(len(each)) if len(each) > 1 else float("nan")
    return Level(float(each.mean()), float(error), diverged)


def steps_to(solution: Solution, observable: str, target: Any) -> float:
    """Return the first saved step at which the mean of an observable is at most ``target``; inf if never."""
    values = curves(solution, observable)
    if len(values) == 0:
        return float("inf")
    reached = np.flatnonzero(values.mean(axis=0) <= float(target))
    return float(array(solution.step)[reached[0]]) if reached.size else float("inf")
