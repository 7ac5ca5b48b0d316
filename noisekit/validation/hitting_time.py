"""When each replicate first reaches a level: a whole law to compare, not only a mean curve."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from noisekit._readable import Readable
from noisekit.errors import InputError, unknown_name
from noisekit.sde.solution import Solution
from noisekit.theory.inputs import as_number
from noisekit.validation.ensembles import check_solution


@dataclass(frozen=True, repr=False)
class HittingTimeComparison(Readable):
    """Hitting times of both ensembles, in optimizer steps, (replicate,), inf where never within the run.

    ``distance`` is the largest difference of the two distribution functions (Kolmogorov–Smirnov) and
    ``p_value`` its probability if both ensembles had one law; medians are inf if most never arrive.
    """

    level: float
    prediction: NDArray[np.float64]
    reference: NDArray[np.float64]
    prediction_median: float
    reference_median: float
    distance: float
    p_value: float

    def __str__(self) -> str:
        return (
            f"level {self.level:g}: median step {self.prediction_median:g} predicted, "
            f"{self.reference_median:g} in the reference; distance of the laws {self.distance:.3g}, "
            f"p = {self.p_value:.2g}"
        )


def hitting_times(solution: Solution, level: float, *, observable: str = "loss") -> NDArray[np.float64]:
    """Return the first saved step with the observable at most ``level``, (replicate,); inf if never.

    Raises InputError for an observable that is not there and a level that is no finite number.
    """
    check_solution("solution", solution)
    height = as_number("level", level)
    if not math.isfinite(height):
        raise InputError(f"level = {level!r}: a finite number is needed, in units of the observable.")
    if observable not in solution.observables:
        raise unknown_name("observable in the solution", observable, solution.observables)
    below = (solution.observables[observable] <= height).cpu().numpy()
    steps = solution.step.cpu().numpy().astype(np.float64)
    return np.where(below.any(axis=1), steps[below.argmax(axis=1)], np.inf)


def compare_hitting_times(
    prediction: Solution, reference: Solution, level: float, *, observable: str = "loss"
) -> HittingTimeComparison:
    """Compare when two ensembles first reach ``level``, by the Kolmogorov–Smirnov distance of their laws.

    Both must be saved at the same steps: a coarser grid sees later times.

    Raises:
        InputError: different saved steps, an observable that is not there, a level that is no number.

    Source: two-sample test of Smirnov 1948.
    """
    check_solution("prediction", prediction)
    check_solution("reference", reference)
    if prediction.step.shape != reference.step.shape or bool((prediction.step != reference.step).any()):
        raise InputError(
            "Hitting times need the same saved steps in both; use the same steps and save_every."
        )
    p, r = (hitting_times(s, level, observable=observable) for s in (prediction, reference))
    # A finite stand-in for "never" keeps the order, which is all the test uses.
    last = float(prediction.step[-1]) + 1
    test = ks_2samp(np.minimum(p, last), np.minimum(r, last))
    return HittingTimeComparison(
        level=float(level),
        prediction=p,
        reference=r,
        prediction_median=float(np.quantile(p, 0.5, method="higher")),
        reference_median=float(np.quantile(r, 0.5, method="higher")),
        distance=float(test.statistic),
        p_value=float(test.pvalue),
    )
