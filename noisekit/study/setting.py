"""An optimizer with its hyper-parameters at a batch size, under the noise that a file holds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from noisekit._intervals import log_interval
from noisekit.errors import InputError
from noisekit.noise import fit_noise
from noisekit.study.applied import for_the_mean
from noisekit.study.stored_noise import StoredNoise
from noisekit.theory.hyperparameters import Hyperparameters
from noisekit.theory.inputs import GAUSSIAN_SLOPE
from noisekit.theory.noise_moments import student_slope

if TYPE_CHECKING:
    import xarray as xr

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Tail:
    """How heavy the tail of the noise is: ``alpha`` (or ν̂, as ``symbol`` says) with its 95 % interval."""

    value: float
    lower: float
    upper: float
    symbol: str

    @property
    def infinite_variance(self) -> bool:
        """Whether the whole interval is at most 2, where a law has no variance."""
        return self.upper <= 2


@dataclass(frozen=True)
class Setting:
    """One question: this optimizer, this batch size, this noise.

    ``slope`` is dE[sign(g + Z)]/dg at 0 of each recorded coordinate where the variance is infinite, and None
    where the Gaussian of the same variance is taken, or where nothing tells it.
    """

    hyper: Hyperparameters
    batch_size: int
    noise: StoredNoise
    infinite: bool = False
    slope: Array | None = None
    slope_parts: Array | None = None
    """The same with a fifth of the samples left out, (part, coordinate), for its error."""

    @property
    def factor(self) -> float:
        """What the optimizer is given over the mean gradient, at this batch size."""
        return self.noise.applied.factor(self.batch_size)

    @property
    def effective(self) -> Hyperparameters:
        """What ``hyper`` is for an optimizer that is given the mean gradient; every figure is from these."""
        return for_the_mean(self.hyper, self.factor)

    @property
    def rate(self) -> float:
        """The learning rate of the slow motion, η/(1 − μ) for SGD with momentum μ."""
        hyper = self.effective
        return hyper.learning_rate / (1 - hyper.momentum if hyper.optimizer == "sgd" else 1)

    def floor(self) -> tuple[float, float]:
        """Return the stationary excess loss that the noise sets, and its standard error; NaN if unknown.

        SGD (η/4) Tr Σ; RMSprop and Adam (η/4) Σ σ²/(σ + ε); SignSGD (η/4) Σ 1/slope.
        """
        factor, name = self.rate / 4, self.hyper.optimizer
        if self.infinite:
            if name != "signsgd" or self.slope is None:
                return math.nan, math.nan
            value, error = self.noise.total_of(1 / self.slope)
            error = math.hypot(error, self._error_of_fit())
        elif name == "sgd":
            value, error = self.noise.total_variance(self.batch_size)
        elif name == "signsgd":
            value, error = self.noise.total(lambda v: np.sqrt(v) / GAUSSIAN_SLOPE, self.batch_size)
        else:
            value, error = self.noise.total(self._preconditioned, self.batch_size)
        return factor * value, factor * error

    def _error_of_fit(self) -> float:
        """Return the jackknife standard error of Σ 1/slope; NaN if the samples of the fit are not kept."""
        if self.slope_parts is None:
            return math.nan
        totals = [self.noise.total_of(1 / part)[0] for part in self.slope_parts]
        return math.sqrt((len(totals) - 1) * float(np.var(totals)))

    def pull(self) -> float:
        """Return how much of a displacement one step undoes in a direction of curvature 1; NaN if unknown.

        η for SGD; η/P for RMSprop and Adam, median P = σ + ε; η times the median slope for SignSGD.
        """
        name, rate = self.hyper.optimizer, self.effective.learning_rate
        if self.infinite:
            slope = self.slope if name == "signsgd" else None
            return math.nan if slope is None else rate * float(np.median(slope))
        if name == "sgd":
            return rate
        deviation = self.noise.typical_deviation(self.batch_size)
        size = deviation / GAUSSIAN_SLOPE if name == "signsgd" else deviation + self.effective.eps
        return rate / size if size > 0 else math.nan

    def pull_interval(self) -> tuple[float, float]:
        """Return the 95 % interval of ``pull``; both ends are its value where nothing is estimated."""
        name, rate = self.hyper.optimizer, self.effective.learning_rate
        if self.infinite:
            if name != "signsgd" or self.slope is None or self.slope_parts is None:
                return math.nan, math.nan
            medians = np.median(self.slope_parts, axis=1)
            relative = math.sqrt((len(medians) - 1) * float(np.var(medians))) / float(np.median(self.slope))
            return log_interval(self.pull(), 1.96 * relative)
        if name == "sgd":
            return rate, rate
        low, high = self.noise.typical_deviation_interval(self.batch_size)
        if name == "signsgd":
            low, high = low / GAUSSIAN_SLOPE, high / GAUSSIAN_SLOPE
        else:
            low, high = low + self.effective.eps, high + self.effective.eps
        return (rate / high, rate / low) if low > 0 else (math.nan, math.nan)

    def steps_to_fall(self, curvature: float) -> float:
        """Return the steps in which the excess loss of a direction falls to 1/e; inf if it never does.

        −1/(2 ln|z|), z the larger root of z² − (1 + μ − κ)z + μ, κ = pull·λ, times 1 − β₁ for Adam.
        """
        hyper = self.hyper
        share = 1 - hyper.momentum if hyper.optimizer.startswith("adam") else 1.0
        pull = self.pull() * curvature * share
        if not pull > 0:
            return math.nan
        largest = float(np.abs(np.roots([1, -(1 + hyper.momentum - pull), hyper.momentum])).max())
        if largest >= 1:
            return math.inf
        return -1 / (2 * math.log(largest)) if largest > 0 else 0.0

    def _preconditioned(self, variance: Array) -> Array:
        deviation = np.sqrt(variance)
        size = deviation + self.effective.eps
        return np.divide(variance, size, out=np.zeros_like(variance), where=size > 0)


def tail_of(tree: xr.DataTree, noise: StoredNoise, batch_size: int) -> Tail | None:
    """Return the tail that the optimizer meets: of minibatches if the file has their fit, or the tail index.

    The index of one sample's noise is that of every minibatch, because averaging keeps it.
    """
    fit = _fit_of_minibatch(tree, batch_size)
    if fit is not None:
        df, interval = fit
        low, high = np.median(interval, axis=0)
        if high <= 2:
            return Tail(float(np.median(df)), float(low), float(high), "ν̂")
    found = noise.tail()
    return None if found is None else Tail(*found, "α̂")


def sign_slopes(tree: xr.DataTree, noise: StoredNoise, batch_size: int) -> tuple[Array, Array] | None:
    """Return ℓ_ν/s of Student-t fits of minibatches at the recorded coordinates, (coordinate,).

    And the same of each fit that leaves a fifth of them out, (part, coordinate). The minibatches are the
    file's own where they are of this size, else disjoint ones of the recorded batches; None if they are too
    few.
    """
    values = noise.minibatches(batch_size)
    node = tree["minibatch_noise"] if "minibatch_noise" in tree.children else None
    if node is not None and int(node.attrs.get("batch_size", 0)) == batch_size and "noise" in node.data_vars:
        values = node["noise"].transpose("sample", "coordinate").values.astype(float)
    if values is None or values.shape[1] != len(noise.block_of) or len(values) < 25:
        return None
    fits = [_slopes(values, batch_size)]
    fits += [_slopes(np.delete(values, slice(g, None, 5), axis=0), batch_size) for g in range(5)]
    found = [fit for fit in fits if fit is not None]
    return (found[0], np.stack(found[1:])) if len(found) == len(fits) else None


def _slopes(values: Array, batch_size: int) -> Array | None:
    try:
        found = fit_noise(torch.tensor(values), family="student_t", batch_size=batch_size)
    except InputError:
        return None
    scale, df = found.scale.double().numpy(), found.df.double().numpy()
    usable = np.isfinite(scale) & (scale > 0) & (df > 0)
    if not usable.any():
        return None
    slope = student_slope(np.where(usable, df, 1.0)) / np.where(usable, scale, 1.0)
    return np.where(usable, slope, np.median(slope[usable]))


def _fit_of_minibatch(tree: xr.DataTree, batch_size: int) -> tuple[Array, Array] | None:
    """Return ν̂ and its interval (coordinate, 2) of the file's fit, if it is of this batch size."""
    if "minibatch_noise" not in tree.children:
        return None
    data = tree["minibatch_noise"].to_dataset()
    names = ("df", "df_interval")
    if int(data.attrs.get("batch_size", 0)) != batch_size or not set(names) <= set(data.data_vars):
        return None
    interval = data["df_interval"].transpose("coordinate", "bound").values.astype(float)
    return data["df"].values.astype(float), interval
