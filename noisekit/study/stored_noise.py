"""What a result file knows about the noise where its record ends."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from noisekit._intervals import log_interval
from noisekit.errors import InputError
from noisekit.noise import NoiseScale, tail_index
from noisekit.noise.record_noise_scale import noise_scale_at_end
from noisekit.results.level import level_at_end
from noisekit.results.seeds import require_one_run
from noisekit.study.applied import Applied, stored_applied

if TYPE_CHECKING:
    import xarray as xr

DEVIATION = "deviation_sum"
"""Name in a file of Σσ over the coordinates of a block, of one sample's gradient."""
Array = NDArray[np.float64]
_MOST_STEPS = 8
_GROUPS = 10


@dataclass(frozen=True)
class StoredNoise:
    """The last recorded steps of a file; every number is of one sample's gradient (B = 1)."""

    step: NDArray[np.int64]
    """Recorded steps that are read: the last quarter, at most 8."""
    batch_size: int
    """Samples of a recorded batch."""
    block_size: Array
    """(block,)"""
    trace: Array
    """tr Σ₁, (step, block)."""
    deviation: Array | None
    """Σσ over the coordinates of a block, (step, block)."""
    trace_over_time: Array
    """Of all recorded steps and all blocks together."""
    noise: Array | None
    """g_i − ḡ, (step, sample, coordinate)."""
    block_of: NDArray[np.int64]
    """Number of the block of each coordinate."""
    scale: NoiseScale
    """Gradient noise scale at the last recorded step."""
    loss: float
    """Training loss where the record ends."""
    loss_interval: tuple[float, float]
    """95 %."""
    coverage: float
    step_over_time: Array
    """All recorded steps, (step,)."""
    applied: Applied = field(default_factory=Applied)
    """What the optimizer was given, beside the mean gradient."""

    def total_variance(self, batch_size: int) -> tuple[float, float]:
        """Return Tr Σ of a minibatch and its standard error."""
        total = self.trace.sum(axis=1) / batch_size
        jackknife = self._jackknife(lambda variance: self._plain(variance / batch_size))
        return float(total.mean()), _error(total, jackknife)

    def total(self, weight: Callable[[Array], Array], batch_size: int) -> tuple[float, float]:
        """Return Σ_i weight(σ_i²) over all parameters, σ_i² the variance in a minibatch, and its error.

        ``weight`` is close to proportional to σ. Each block is n·mean(weight) over its recorded coordinates;
        where the file has Σσ of the block, Σσ·mean(weight)/mean(σ), which leaves next to no error of the
        choice of coordinates. The other part of the error is that of the samples. NaN for both if the file
        keeps no coordinates.
        """
        if self.noise is None:
            return math.nan, math.nan
        variance = self.noise.var(axis=1, ddof=1) / batch_size
        rows = [self._total(weight(v), np.sqrt(v), k, batch_size) for k, v in enumerate(variance)]
        value = np.array([row[0] for row in rows])
        choice = float(np.mean([row[1] for row in rows]))
        jackknife = self._jackknife(lambda v: self._plain(weight(v / batch_size)))
        return float(value.mean()), float(np.hypot(choice, _error(value, jackknife)))

    def total_of(self, weights: Array) -> tuple[float, float]:
        """Return Σ_i weights_i over all parameters, from those of the recorded coordinates, and its error.

        The error is that of having recorded some coordinates only.
        """
        error = sum(
            n**2 * float(weights[mine].var(ddof=1)) / mine.sum() * max(1 - mine.sum() / n, 0)
            for b, n in enumerate(self.block_size)
            if (mine := self.block_of == b).sum() > 1
        )
        return self._plain(weights), math.sqrt(error)

    def typical_deviation(self, batch_size: int) -> float:
        """Return the median over coordinates of the standard deviation in a minibatch."""
        if self.noise is None:
            size = self.trace.mean(axis=0).sum() / max(self.block_size.sum(), 1)
            return float(np.sqrt(size / batch_size))
        return _live_median(np.sqrt(self.coordinate_variance(batch_size)))

    def typical_deviation_interval(self, batch_size: int) -> tuple[float, float]:
        """Return the 95 % interval of ``typical_deviation``: the choice of coordinates, samples and steps.

        Order statistics around the median, narrower by the share of coordinates that is recorded, and the
        larger of the scatter over steps and the jackknife over samples.
        """
        value = self.typical_deviation(batch_size)
        if self.noise is None:
            total = self.trace.sum(axis=1)
            error = _error(total, np.zeros(0)) / (2 * float(total.mean())) if total.all() else math.nan
            return log_interval(value, 1.96 * error)
        deviation = np.sqrt(np.sort(self.coordinate_variance(batch_size)))
        deviation = deviation[deviation > 0]
        m = len(deviation)
        if m == 0:
            return math.nan, math.nan
        away = 0.98 * math.sqrt(m * max(1 - m / max(self.block_size.sum(), 1), 0))
        first, last = max(math.floor(m / 2 - away), 0), min(math.ceil(m / 2 + away), m - 1)
        if away == 0:
            first = last = m // 2
        per_step = np.array([_live_median(np.sqrt(v)) for v in self.noise.var(axis=1, ddof=1)])
        jackknife = self._jackknife(lambda variance: _live_median(np.sqrt(variance)))
        error = _error(per_step, jackknife) / float(per_step.mean()) if per_step.all() else math.nan
        below = math.log(value / min(deviation[first], value))
        above = math.log(max(deviation[last], value) / value)
        return log_interval(value, math.hypot(1.96 * error, below), math.hypot(1.96 * error, above))

    def coordinate_variance(self, batch_size: int) -> Array:
        """Return diag Σ of a minibatch at the recorded coordinates, (coordinate,), a mean over the steps."""
        assert self.noise is not None
        return np.asarray(self.noise.var(axis=1, ddof=1).mean(axis=0) / batch_size)

    def tail(self) -> tuple[float, float, float] | None:
        """Return the tail index of all coordinates, standardised and pooled, and its 95 % interval.

        Averaging samples keeps it, so it holds for any batch. None where no tail can be seen. Blocks whose
        laws differ in shape can look heavy together although none is: below 2 some block has to agree, or
        the heaviest of the blocks speaks.
        """
        if self.noise is None or self.noise.shape[1] < 20:
            return None
        last = torch.tensor(self.noise[-1])
        pooled = _tail(last)
        if pooled is None or pooled[2] > 2:
            return pooled
        blocks = [_tail(last[:, torch.tensor(self.block_of == b)]) for b in np.unique(self.block_of)]
        known = [tail for tail in blocks if tail is not None]
        if not known or any(upper <= 2 for _, _, upper in known):
            return pooled
        return min(known, key=lambda tail: tail[1])

    def minibatches(self, batch_size: int) -> Array | None:
        """Return the noise of disjoint minibatches of the read steps, (minibatch, coordinate), if 20 or more.

        Disjoint, because resampling a batch makes its noise look better known than it is.
        """
        if self.noise is None:
            return None
        n = self.noise.shape[1] // batch_size
        if n * len(self.noise) < 20:
            return None
        means = self.noise[:, : n * batch_size].reshape(len(self.noise), n, batch_size, -1).mean(axis=2)
        return means.reshape(-1, means.shape[-1])

    def _total(self, weights: Array, deviation: Array, row: int, batch_size: int) -> tuple[float, float]:
        """Return the sum over all parameters at one step and the error of having recorded some of them."""
        total, error, shapes = 0.0, 0.0, []
        unseen: list[float] = []
        trace = self.trace[row] / batch_size
        known = None if self.deviation is None else self.deviation[row] / math.sqrt(batch_size)
        for b, n in enumerate(self.block_size):
            mine = self.block_of == b
            m, size = int(mine.sum()), math.sqrt(n * max(trace[b], 0))  # n times the root mean square of σ
            if m < 2 or not deviation[mine].any():
                unseen.append(size)
                continue
            mean, residual, factor = float(weights[mine].mean()), weights[mine], float(n)
            if known is not None and known[b] > 0:
                share = mean / float(deviation[mine].mean())
                residual, factor = (
                    residual - share * deviation[mine],
                    float(known[b] / deviation[mine].mean()),
                )
            total += factor * mean
            shapes.append(n * mean / size)
            error += factor**2 * float(residual.var(ddof=1)) / m * max(1 - m / n, 0)
        typical = float(np.mean(shapes)) if shapes else 1.0
        spread = float(np.std(shapes)) if len(shapes) > 1 else 0.5 * typical
        total += typical * sum(unseen)
        error += spread**2 * sum(size**2 for size in unseen)
        return total, math.sqrt(error)

    def _plain(self, weights: Array) -> float:
        """Return n·mean(weight) summed over the blocks that have recorded coordinates."""
        return float(
            sum(
                n * weights[self.block_of == b].mean()
                for b, n in enumerate(self.block_size)
                if (self.block_of == b).any()
            )
        )

    def _jackknife(self, value: Callable[[Array], float]) -> Array:
        """Return, for each step, the relative standard error over samples, by leaving out tenths of them."""
        if self.noise is None:
            return np.zeros(0)
        errors = []
        for noise in self.noise:
            n = len(noise)
            if n < 2 * _GROUPS or not (whole := value(noise.var(axis=0, ddof=1))) > 0:
                continue
            parts = [
                value(np.delete(noise, slice(g, None, _GROUPS), axis=0).var(axis=0, ddof=1))
                for g in range(_GROUPS)
            ]
            errors.append(math.sqrt((_GROUPS - 1) * float(np.var(parts))) / whole)
        return np.array(errors)


def _tail(noise: torch.Tensor) -> tuple[float, float, float] | None:
    try:
        found = tail_index(noise, estimator="gpd", pooled=True)
    except InputError:
        return None
    low, high = found.interval.reshape(2).tolist()
    return found.alpha.item(), low, high


def stored_noise(tree: xr.DataTree) -> StoredNoise | None:
    """Return what ``tree`` knows about the noise at the end of its record; None if it has no record.

    Raises InputError where ``tree`` joins several runs.
    """
    require_one_run(tree)
    if "gradient_noise" not in tree.children or "trace" not in tree["gradient_noise"].data_vars:
        return None
    data = tree["gradient_noise"].to_dataset()
    trace = data["trace"].transpose("step", "block").values.astype(float)
    n = len(trace)
    if n == 0 or not np.isfinite(trace).all():
        return None
    batch = int(data.attrs.get("batch_size", 0) or tree.attrs.get("batch_size", 0) or 0)
    read = slice(-max(1, min(_MOST_STEPS, -(-n // 4))), None)
    block = [str(b) for b in data["block"].values]
    sizes = data["block_size"].values if "block_size" in data else np.ones(len(block))
    noise, block_of = _samples(tree, block, read)
    if batch < 1:
        batch = 0 if noise is None else noise.shape[1]
    loss, least, most = _loss(tree, batch)
    return StoredNoise(
        step=data["step"].values[read].astype(np.int64),
        batch_size=batch,
        block_size=np.asarray(sizes, dtype=float),
        trace=trace[read],
        deviation=_deviation(data, read),
        trace_over_time=trace.sum(axis=1),
        noise=noise,
        block_of=block_of,
        scale=_noise_scale(data, trace, batch),
        loss=loss,
        loss_interval=(least, most),
        coverage=float(data.attrs.get("coverage", math.nan)),
        step_over_time=data["step"].values.astype(float),
        applied=stored_applied(tree, batch, -read.start),
    )


def _deviation(data: xr.Dataset, read: slice) -> Array | None:
    if DEVIATION not in data or set(data[DEVIATION].dims) != {"step", "block"}:
        return None
    return np.asarray(data[DEVIATION].transpose("step", "block").values[read], dtype=float)


def _samples(tree: xr.DataTree, block: list[str], read: slice) -> tuple[Array | None, NDArray[np.int64]]:
    nothing = None, np.zeros(0, dtype=np.int64)
    children = tree["gradient_noise"].children
    if "samples" not in children or "noise" not in children["samples"].data_vars:
        return nothing
    data = children["samples"].to_dataset()
    if "coordinate_block" not in data.variables:
        return nothing
    noise = data["noise"].transpose("step", "sample", "coordinate").isel(step=read).values.astype(float)
    number = {name: i for i, name in enumerate(block)}
    block_of = np.array([number.get(str(b), -1) for b in data["coordinate_block"].values], dtype=np.int64)
    return (noise, block_of) if noise.shape[1] > 1 and np.isfinite(noise).all() else nothing


def _noise_scale(data: xr.Dataset, trace: Array, batch: int) -> NoiseScale:
    total = torch.tensor(trace.sum(axis=1))
    if "mean_squared_norm" not in data or batch < 1:
        nan = math.nan
        return NoiseScale(nan, (nan, nan), float(total[-1]), nan, nan, nan, False, 0)
    squared = torch.tensor(data["mean_squared_norm"].transpose("step", "block").values.astype(float))
    signal = squared.sum(dim=1) - total / batch
    return noise_scale_at_end(torch.tensor(data["step"].values), total, signal, batch)


def _loss(tree: xr.DataTree, batch: int) -> tuple[float, float, float]:
    """Return the mean loss of a sample where the record ends, and its 95 % interval."""
    if "training" not in tree.children or not {"loss", "step"} <= set(tree["training"].variables):
        return math.nan, math.nan, math.nan
    data = tree["training"].to_dataset()
    samples = batch if data.attrs.get("loss_reduction") == "sum" and batch > 0 else 1
    return level_at_end(data["step"].values, data["loss"].values / samples)


def _live_median(deviation: Array) -> float:
    """Return the median of those that are not 0; 0 if all are."""
    live = deviation[deviation > 0]
    return float(np.median(live)) if live.size else 0.0


def _error(per_step: Array, jackknife: Array) -> float:
    """Return the standard error of the mean over steps: their scatter, or the samples' own if larger."""
    n, mean = len(per_step), float(per_step.mean())
    scatter = float(per_step.std(ddof=1)) / math.sqrt(n) if n > 1 else 0.0
    own = mean * float(np.sqrt((jackknife**2).sum())) / n if len(jackknife) else 0.0
    return max(scatter, own) if max(scatter, own) > 0 else math.nan
