"""The outcome of setting a predicted ensemble beside a reference ensemble."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from noisekit._readable import Readable

Verdict = Literal["held", "unclear", "missed"]


@dataclass(frozen=True, repr=False)
class ObservableComparison(Readable):
    """One observable of both ensembles over time; every array is (time,).

    ``gap`` = prediction mean − reference mean; ``standard_error`` its Monte-Carlo error,
    √(s_p²/n_p + s_r²/n_r), or that of the mean difference of pairs; ``gap_in_std`` the gap over the
    reference's own standard deviation; ``std_ratio`` the prediction's standard deviation over the
    reference's, with ``std_ratio_error``;
    ``discretisation_error`` mean(dt) − mean(dt/2) of the prediction, NaN if no refined run was given.
    """

    name: str
    prediction_mean: NDArray[np.float64]
    prediction_std: NDArray[np.float64]
    reference_mean: NDArray[np.float64]
    reference_std: NDArray[np.float64]
    gap: NDArray[np.float64]
    standard_error: NDArray[np.float64]
    discretisation_error: NDArray[np.float64]
    relative_gap: NDArray[np.float64]
    relative_gap_error: NDArray[np.float64]
    gap_in_std: NDArray[np.float64]
    std_ratio: NDArray[np.float64]
    std_ratio_error: NDArray[np.float64]
    prediction_kurtosis: NDArray[np.float64]
    reference_kurtosis: NDArray[np.float64]
    verdict: Verdict
    verdict_text: str

    def __str__(self) -> str:
        return (
            f"{self.verdict_text}\n  {self.name} at the end: {self.prediction_mean[-1]:.4g} ± "
            f"{self.prediction_std[-1]:.2g} predicted, {self.reference_mean[-1]:.4g} ± "
            f"{self.reference_std[-1]:.2g} in the reference (± is one standard deviation)"
        )

    @property
    def _size(self) -> float:
        size = float(np.abs(self.reference_mean).mean())
        return size if size > 0 else float("nan")

    @property
    def mean_relative_gap(self) -> float:
        """Mean over time of |gap| over the mean over time of |reference mean|."""
        return float(np.abs(self.gap).mean()) / self._size

    @property
    def mean_gap_in_change(self) -> float:
        """Mean over time of |gap| over how far the reference moves; NaN where it rests.

        See :func:`distance_moved`.
        """
        moved = distance_moved(self.reference_mean, self.reference_std)
        return float(np.abs(self.gap).mean()) / moved if moved < float("inf") else float("nan")

    @property
    def max_relative_gap(self) -> float:
        """Largest |gap| over time, over the mean over time of |reference mean|."""
        return float(np.abs(self.gap).max()) / self._size

    @property
    def mean_standard_error(self) -> float:
        """Mean over time of the gap's Monte-Carlo error, in the units of ``mean_relative_gap``."""
        return float(self.standard_error.mean()) / self._size

    @property
    def mean_discretisation_error(self) -> float:
        """Mean over time of |mean(dt) − mean(dt/2)|, in the units of ``mean_relative_gap``."""
        return float(np.abs(self.discretisation_error).mean()) / self._size

    @property
    def mean_gap_in_std(self) -> float:
        """Mean over time of |gap| in standard deviations of the reference, where it has any."""
        return _mean_of_finite(np.abs(self.gap_in_std))

    @property
    def mean_std_ratio(self) -> float:
        """Geometric mean over time of the ratio of the standard deviations, where both have any.

        0 where the reference spreads and the prediction never does.
        """
        known = self.std_ratio[np.isfinite(self.std_ratio)]
        ratio = known[known > 0]
        if not ratio.size:
            return 0.0 if known.size else float("nan")
        return float(np.exp(np.log(ratio).mean()))


@dataclass(frozen=True, repr=False)
class Comparison(Readable):
    """A prediction beside a reference: the observables, who ran, and a verdict in plain words.

    ``step`` and ``time`` = η·step are (time,), the saved instants that both have. Replicates that diverged
    are left out of the means and counted in ``n_diverged_prediction`` and ``n_diverged_reference``.
    ``paired`` says whether replicate i of both sides started from one state, so that the errors are those of
    mean differences.
    """

    optimizer: str
    prediction_kind: str
    reference_kind: str
    substeps: int
    step: NDArray[np.int64]
    time: NDArray[np.float64]
    observables: dict[str, ObservableComparison]
    n_prediction: int
    n_reference: int
    n_diverged_prediction: int
    n_diverged_reference: int
    paired: bool = False

    def __str__(self) -> str:
        return "\n".join(
            [
                f"{self.verdict}, {self.optimizer}: {self.n_prediction} {self.prediction_kind} paths beside "
                f"{self.n_reference} {self.reference_kind} runs{', pair by pair,' if self.paired else ''} at "
                f"{len(self.step)} instants up to step {self.step[-1]}",
                *(f"  {line}" for line in self._sentences),
            ]
        )

    def __getitem__(self, name: str) -> ObservableComparison:
        return self.observables[name]

    @cached_property
    def verdict(self) -> Verdict:
        """The worst verdict of the observables; "missed" if one side diverged clearly more than the other."""
        if self._divergence_differs:
            return "missed"
        order: tuple[Verdict, ...] = ("missed", "unclear", "held")
        return next(word for word in order if any(o.verdict == word for o in self.observables.values()))

    @property
    def verdict_text(self) -> str:
        """The verdicts of all observables, and what to know about the two ensembles."""
        return " ".join(self._sentences)

    @property
    def _sentences(self) -> list[str]:
        lines = [o.verdict_text for o in self.observables.values()]
        if self.prediction_kind == "surrogate":
            lines.append(
                "The prediction took one step per optimizer step: a surrogate of the optimizer, not its SDE."
            )
        if self.n_diverged_prediction or self.n_diverged_reference:
            lines.append(
                f"{self.n_diverged_prediction} of {self.n_prediction} predicted paths and "
                f"{self.n_diverged_reference} of {self.n_reference} reference runs diverged; "
                "means are over the others."
            )
        return lines

    @property
    def _divergence_differs(self) -> bool:
        share_p = self.n_diverged_prediction / self.n_prediction
        share_r = self.n_diverged_reference / self.n_reference
        pooled = (self.n_diverged_prediction + self.n_diverged_reference) / (
            self.n_prediction + self.n_reference
        )
        error = np.sqrt(pooled * (1 - pooled) * (1 / self.n_prediction + 1 / self.n_reference))
        return bool(abs(share_p - share_r) > 3 * error)

    def table(self) -> list[dict[str, Any]]:
        """Return one row an observable: gaps, their errors and the verdict, ready for a DataFrame."""
        return [
            {
                "observable": o.name,
                "mean_relative_gap": o.mean_relative_gap,
                "mean_gap_in_change": o.mean_gap_in_change,
                "max_relative_gap": o.max_relative_gap,
                "standard_error": o.mean_standard_error,
                "discretisation_error": o.mean_discretisation_error,
                "gap_in_std": o.mean_gap_in_std,
                "std_ratio": o.mean_std_ratio,
                "verdict": o.verdict,
                "verdict_text": o.verdict_text,
            }
            for o in self.observables.values()
        ]


def distance_moved(mean: NDArray[np.float64], deviation: NDArray[np.float64]) -> float:
    """Return the mean over time of |mean − its first value|, ∞ unless above twice the mean ``deviation``.

    Of an ensemble that rests, only its law can be predicted, not where it goes.
    """
    distance = float(np.abs(mean - mean[0]).mean())
    return distance if distance > 2 * float(deviation.mean()) else float("inf")


def _mean_of_finite(values: NDArray[np.float64]) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")
