"""Noise of many coordinates on one scale: each coordinate is divided by its own scale before pooling.

Pooled Gaussian coordinates of unequal scale look heavy-tailed, so each is brought to its own scale: that of
its fit, or its standard deviation where the file has no fit. The deviation of the same n values bounds them
by (n−1)/√n, which would cut off the tails. The law of the pool is the mean of its coordinates' laws.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import xarray as xr
from scipy import stats

from noisekit.errors import InputError, unknown_name
from noisekit.plots.fits import FIT_GROUP, VALUE_GROUP, check_noise_of
from noisekit.plots.groups import at_step, dataset, has_group, step_values
from noisekit.results.validate import reading

Law: TypeAlias = Callable[..., Any]
_MOST = 2**21
"""Largest number of values that are pooled; of more, evenly spread coordinates are taken."""


@dataclass(frozen=True)
class PooledNoise:
    """Scaled noise of one recorded step with, for every coordinate, its Gaussian and its chosen fit."""

    of: str
    """Whose gradient the noise is of, in words."""
    step: int | None
    values: np.ndarray
    """(sample · coordinate,), each coordinate centred and in units of its scale."""
    n_coordinates: int
    n_silent: int
    """Coordinates left out, because their noise is zero, not finite or has no smooth law."""
    n_samples: int
    deviation: np.ndarray
    """Standard deviation of the scaled values, (coordinate,): the Gaussian fit."""
    df: np.ndarray
    """Degrees of freedom of the fits, (coordinate,), inf for a Gaussian; empty where the file has no fits."""

    @property
    def has_fit(self) -> bool:
        """Whether the file holds fits of these coordinates."""
        return self.df.size > 0

    @property
    def where(self) -> str:
        """At which step, for a title."""
        return "where training ended" if self.step is None else f"at step {self.step}"

    @property
    def unit(self) -> str:
        """What the values are measured in, for an axis."""
        return "fitted scale" if self.has_fit else "standard deviation"

    def density(self, z: np.ndarray, law: str) -> np.ndarray:
        """Return the mean over coordinates of the densities at ``z``; ``law`` is "gaussian" or "fitted"."""
        if law == "gaussian":
            return np.mean(stats.norm.pdf(z[:, None] / self.deviation) / self.deviation, axis=1)
        return np.mean(_by_df(z, self.df, stats.norm.pdf, stats.t.pdf), axis=1)

    def cumulative(self, z: np.ndarray, law: str) -> np.ndarray:
        """Return the mean over coordinates of the distribution functions at ``z``; see ``density``."""
        if law == "gaussian":
            return np.mean(stats.norm.cdf(z[:, None] / self.deviation), axis=1)
        return np.mean(_by_df(z, self.df, stats.norm.cdf, stats.t.cdf), axis=1)

    def quantile(self, probability: np.ndarray, law: str) -> np.ndarray:
        """Return quantiles of the pool, from ``cumulative``; inf beyond 10⁴ times the largest value."""
        reach = 1e4 * max(8.0, float(np.abs(self.values).max()))
        grid = reach * np.sinh(np.linspace(-20, 20, 1201)) / np.sinh(20)
        cumulative = self.cumulative(grid, law)
        keep = np.concatenate([[True], np.diff(cumulative) > 0])
        return np.interp(probability, cumulative[keep], grid[keep], left=-np.inf, right=np.inf)


def pooled_noise(
    tree: xr.DataTree, step: int | None = None, block: str | None = None, of: str = "sample"
) -> PooledNoise:
    """Return the scaled noise of ``step`` (default: the last) and ``block`` (default: all).

    ``of`` is "sample" for the noise of one sample's gradient, or "minibatch" (where training ended). Of files
    with more than two million values a step, evenly spread coordinates are read.
    """
    check_noise_of(of)
    data = dataset(tree, VALUE_GROUP[of], "noise")
    places = np.arange(data.sizes["coordinate"])
    if block is not None:
        blocks = data["coordinate_block"].values.astype(str)
        places = places[blocks == block]
        if not places.size:
            raise unknown_name("block with recorded coordinates", block, set(blocks))
    most = max(1, _MOST // max(1, data.sizes["sample"]))
    if places.size > most:
        places = places[np.linspace(0, places.size - 1, most).round().astype(int)]
    with reading(f"/{VALUE_GROUP[of]}"):
        samples = at_step(data[["noise"]].isel(coordinate=places), step)
    noise = samples["noise"].transpose("sample", "coordinate").values.astype(float)
    number = int(samples["step"]) if "step" in samples.coords else None
    with np.errstate(invalid="ignore"):
        deviation = noise.std(axis=0, ddof=1) if noise.shape[0] > 1 else np.zeros(noise.shape[1])
    location, scale, df = _fits(tree, of, number, places, noise.mean(axis=0), deviation)
    with np.errstate(invalid="ignore"):
        used = np.isfinite(deviation) & (deviation > 0) & np.isfinite(location) & (scale > 0)
    if not used.any():
        raise InputError(
            "No recorded coordinate has noise that can be drawn: all are zero, not finite or set aside."
        )
    return PooledNoise(
        of=f"a minibatch of {samples.attrs.get('batch_size', '?')}" if of == "minibatch" else "one sample",
        step=number,
        values=((noise[:, used] - location[used]) / scale[used]).ravel(),
        n_coordinates=int(used.sum()),
        n_silent=int((~used).sum()),
        n_samples=noise.shape[0],
        deviation=deviation[used] / scale[used],
        df=df[used] if df.size else df,
    )


def _fits(
    tree: xr.DataTree, of: str, step: int | None, places: np.ndarray, mean: np.ndarray, deviation: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return location, scale and df of each coordinate; moments and no df where the file has no fits."""
    moments = (mean, deviation, np.empty(0))
    if not has_group(tree, FIT_GROUP[of]):
        return moments
    model = dataset(tree, FIT_GROUP[of])
    recorded = dataset(tree, VALUE_GROUP[of]).sizes["coordinate"]
    if not {"location", "scale", "df"} <= set(model) or model.sizes["coordinate"] != recorded:
        return moments
    model = model.isel(coordinate=places)
    if "step" in model.dims:
        where = np.flatnonzero(step_values(model) == step)
        if where.size == 0:
            return moments
        model = model.isel(step=int(where[0]))
    location, scale, df = (model[name].values.astype(float) for name in ("location", "scale", "df"))
    usable = np.isfinite(scale) & (df > 0)
    if "is_set_aside" in model:
        usable &= model["is_set_aside"].values != 1
    return location, np.where(usable, scale, 0.0), df


def _by_df(z: np.ndarray, df: np.ndarray, normal: Law, student: Law) -> np.ndarray:
    """Return a function of the standard law of each df, (z, coordinate)."""
    out = np.empty((z.size, df.size))
    gaussian = ~np.isfinite(df) | (df > 1e6)
    out[:, gaussian] = normal(z[:, None])
    out[:, ~gaussian] = student(z[:, None], df[~gaussian])
    return out
