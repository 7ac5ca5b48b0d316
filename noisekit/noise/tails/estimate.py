"""Tail index of gradient noise: one value a coordinate, a sample, or pooled, each with an interval."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from noisekit._readable import Readable, interval_95, typical
from noisekit.errors import InputError, unknown_name
from noisekit.noise.samples import as_samples, constant_coordinates, coordinates_with_atoms
from noisekit.noise.tails.block_sum import block_sum_shape
from noisekit.noise.tails.exceedances import alpha_from_shape, check_k, default_k, largest_deviations
from noisekit.noise.tails.gpd import gpd_shape
from noisekit.noise.tails.hill import hill_shape
from noisekit.noise.tails.moment import moment_shape
from noisekit.noise.tails.stable_ecf import ecf_shape

Estimator = Literal["gpd", "moment", "hill", "ecf", "block_sum"]
Over = Literal["samples", "coordinates"]

ASSUMPTIONS = {
    "gpd": "the largest deviations follow a generalised Pareto law; α = inf means lighter than any power",
    "moment": "the tail is regularly varying or lighter; α = inf means lighter than any power",
    "hill": "the tail beyond the threshold is a power law; beyond ν = 5 it reads too heavy (a Gaussian 7 to "
    "11) and its interval misses; look at hill_plot",
    "ecf": "the samples are symmetric α-stable; any law with a variance reads near 2",
    "block_sum": "the samples are independent, symmetric α-stable; any law with a variance tends to 2",
}
_Z = 1.959964
_RELIABLE = 10_000  # samples below which tail estimates carry a warning
_JACKKNIFE_GROUPS = 20
_CHUNK_ELEMENTS = 1 << 22
# Tails of Student-t laws are not Pareto at the threshold: gpd and moment read ξ too small by up to 1/√k, Hill
# too large. The interval is longer by this much /√k (above ξ, below ξ), which covers ν from 1 to 5 and nearly
# 10.
_BIAS_ALLOWANCE = {"gpd": (0.75, 0.0), "moment": (0.75, 0.0), "hill": (0.0, 0.5)}


@dataclass(frozen=True, repr=False)
class TailIndex(Readable):
    """Tail index α: P(|x| > y) falls like y^{−α}; moments of order α and above do not exist."""

    alpha: Tensor
    """(coordinate,), (sample,) over coordinates, (1,) pooled, the middle of the coordinates; inf: lighter
    than any power; NaN: set aside."""
    interval: Tensor
    """95 % interval, (…, 2)."""
    k: int
    """Largest deviations used (gpd, moment, hill; pooled: of each coordinate), points of the characteristic
    function, or block length."""
    n: int
    """Numbers behind each value of α."""
    estimator: str
    assumes: str
    """What must hold for α to be a tail index."""
    over: str
    pooled: bool
    is_set_aside: Tensor
    """Coordinates left out because they are constant or repeat one exact value, (coordinate,)."""
    warnings: tuple[str, ...]

    def __str__(self) -> str:
        low, high = self.interval.nanmedian(dim=0).values.tolist()
        of_what = "pooled" if self.pooled else f"one for each of {len(self.alpha)}"
        which = "" if len(self.alpha) == 1 else " (medians of the ends)"
        lines = [
            f"α {typical(self.alpha)}, {interval_95(low, high)}{which}",
            f"{self.estimator} over {self.over}, {of_what}; n = {self.n}, k = {self.k}",
            f"assumes: {self.assumes}",
        ]
        return "\n".join([*lines, *self.warnings])


def tail_index(
    samples: object,
    *,
    estimator: Estimator = "gpd",
    k: int | None = None,
    over: Over = "samples",
    pooled: bool = False,
    standardise: bool = True,
) -> TailIndex:
    """Estimate the tail index of gradient noise, with a 95 % interval.

    Two different questions. ``over="samples"`` (iterations, draws): how heavy is the noise of one parameter?
    One α a coordinate. ``over="coordinates"`` (parameters): how unequal are the entries of one noise vector?
    One α a sample. ``pooled=True`` gives one number for all coordinates: 1/α is the mean of the middle half
    of their own 1/α̂, each from its own largest deviations, so that no coordinate's scale matters, and one
    that is small most of the time (a rare token, a sparse embedding) counts as one coordinate, not as the
    tail of the others. Entries of unequal scale make Gaussian noise look heavy-tailed when they are mixed:
    ``over="coordinates"`` divides each coordinate by its own median absolute deviation first.
    ``standardise=False`` mixes raw entries, pooled too.

    Args:
        samples: (sample, coordinate), at least 20 samples; use 10,000 or more.
        estimator: ``"gpd"``, ``"moment"``, ``"hill"`` read the largest deviations from the median; ``"ecf"``
            and ``"block_sum"`` assume symmetric stable laws and never exceed 2.
        k: largest deviations to use (default min(n/5, 3√n), √n for hill), of each coordinate where they are
            pooled; block length for block_sum (default √n).

    Returns:
        TailIndex. Coordinates of one sample depend on each other, so the interval of the pooled estimate
            comes from a jackknife over groups of samples. Student-t tails are no power laws at the threshold:
            intervals of gpd and moment therefore reach .75/√k further up in 1/α, those of hill .5/√k further
            down; pooled, with k/2 for k. So lengthened they hold α in 89 to 98 % of Student-t samples with ν
            from 1 to 10 (n = 1,000 to 100,000; hill: 93 % or more for ν from 1 to 5), ecf and block_sum in 93
            to 99 % of stable ones (n = 2,000, α from 1 to 2). Pooled gpd held ν = 1, 1.5, 3 and 5 in all of
            12 to 30 samples each (n = 64 to 2,000, 60 coordinates of scales over eight decades).

    Raises:
        InputError: unknown estimator, unusable k, wrong axes, nothing left to estimate. NonFiniteError: NaN
            or inf.

    Source: Zhang, Stephens 2009; Dekkers, Einmahl, de Haan 1989; Hill 1975; Koutrouvelis 1980; Simsekli et
    al. 2019.

    >>> x = torch.distributions.StudentT(2.0).sample((20_000, 1))
    >>> low, high = tail_index(x).interval[0].tolist()
    >>> low < high
    True
    """
    if estimator not in ASSUMPTIONS:
        raise unknown_name("tail-index estimator", estimator, ASSUMPTIONS)
    if over not in ("samples", "coordinates"):
        raise unknown_name("axis (over)", over, ["samples", "coordinates"])
    x = as_samples(samples, minimum=20)
    aside = constant_coordinates(x) | coordinates_with_atoms(x)
    if aside.all():
        raise InputError(
            "Every coordinate is constant or repeats one exact value; there is no tail to estimate."
        )

    live = x[:, ~aside]
    mixed = pooled or over == "coordinates"
    if pooled:
        n = live.numel()
        if not standardise:
            k = default_k(len(live), estimator) * live.shape[1] if k is None else k
            # Samples vary fastest, so that a block of block_sum holds one coordinate and not a mixture.
            live = live.T.reshape(-1, 1)
        k = _check_parameter(k, len(live), estimator)
        shape, error = _pooled_shape(live, estimator, k)
    else:
        if mixed and standardise:
            centred = live - live.median(dim=0).values
            live = centred / centred.abs().median(dim=0).values
        rows = live.T if over == "samples" else live
        n = rows.shape[1]
        if n < 20:
            raise InputError(f"over={over!r} leaves {n} numbers for each tail index; at least 20 are needed.")
        k = _check_parameter(k, n, estimator)
        shape, error = _shape(rows, estimator, k)

    # 20 jackknife groups understate the error where few samples make the tail, so pooling counts half of them
    independent = 0.5 * k if pooled else k
    alpha, interval = _alpha_and_interval(shape, error, estimator, independent)
    if not mixed and aside.any():
        alpha = _scatter(alpha, ~aside)
        interval = _scatter(interval, ~aside)
    return TailIndex(
        alpha=alpha,
        interval=interval,
        k=k,
        n=n,
        estimator=estimator,
        assumes=ASSUMPTIONS[estimator],
        over=over,
        pooled=pooled,
        is_set_aside=aside,
        warnings=_warnings(x, n, int(aside.sum()), over, pooled, mixed and not standardise),
    )


def _check_parameter(k: int | None, n: int, estimator: str) -> int:
    if estimator == "ecf":
        return 10
    if estimator == "block_sum":
        k = math.isqrt(n) if k is None else k
        if not isinstance(k, int) or not 2 <= k <= n // 4:
            raise InputError(
                f"k is {k!r}; the block length must leave at least 4 blocks of 2, so 2 to {n // 4} of {n}."
            )
        return k
    return check_k(k, n, estimator)


def _shape(rows: Tensor, estimator: str, k: int) -> tuple[Tensor, Tensor]:
    """Return ξ = 1/α and its standard error for each row."""
    from_top: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
        "gpd": gpd_shape,
        "moment": moment_shape,
        "hill": hill_shape,
    }
    parts = []
    for chunk in rows.split(max(1, _CHUNK_ELEMENTS // rows.shape[1])):
        chunk = chunk.contiguous()
        if estimator == "ecf":
            parts.append(ecf_shape(chunk))
        elif estimator == "block_sum":
            parts.append(block_sum_shape(chunk, k))
        else:
            parts.append(from_top[estimator](largest_deviations(chunk, k)))
    return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])


def _pooled_shape(live: Tensor, estimator: str, k: int) -> tuple[Tensor, Tensor]:
    """Return the middle of the shapes of all coordinates and its error, (1,) each.

    The error is that of a jackknife over groups of samples, never below that of independent coordinates.
    """
    shape, error = _shape(live.T, estimator, k)
    groups = min(_JACKKNIFE_GROUPS, len(live))
    group = torch.arange(len(live), device=live.device) * groups // len(live)
    without = []
    for g in range(groups):
        rest = live[group != g]
        rest_k = k if estimator in ("block_sum", "ecf") else max(5, round(k * len(rest) / len(live)))
        without.append(_middle(_shape(rest.T, estimator, rest_k)[0]))
    spread = torch.stack(without)
    jackknife = ((groups - 1) / groups * (spread - spread.mean(0)).square().sum(0)).sqrt()
    alone = error.square().mean().sqrt() / math.sqrt(len(error))
    return _middle(shape)[None], torch.maximum(alone, jackknife)[None]


def _middle(values: Tensor) -> Tensor:
    """Return the mean of the middle half: robust like the median, and smooth as a jackknife needs it."""
    ordered = values.sort().values
    cut = len(ordered) // 4
    return ordered[cut : len(ordered) - cut].mean()


def _alpha_and_interval(shape: Tensor, error: Tensor, estimator: str, k: float) -> tuple[Tensor, Tensor]:
    alpha = alpha_from_shape(shape)
    above, below = _BIAS_ALLOWANCE.get(estimator, (0.0, 0.0))
    high = shape + _Z * error + above / math.sqrt(k)
    low = shape - _Z * error - below / math.sqrt(k)
    interval = torch.stack([alpha_from_shape(high), alpha_from_shape(low)], dim=-1)
    if estimator in ("ecf", "block_sum"):
        alpha, interval = alpha.clamp_max(2), interval.clamp_max(2)
    return alpha, interval


def _scatter(values: Tensor, where: Tensor) -> Tensor:
    full = torch.full((len(where), *values.shape[1:]), torch.nan, dtype=values.dtype, device=values.device)
    full[where] = values
    return full


def _warnings(x: Tensor, n: int, n_aside: int, over: str, pooled: bool, raw: bool) -> tuple[str, ...]:
    warnings = []
    if n < _RELIABLE:
        warnings.append(
            f"{n} numbers behind each tail index; below {_RELIABLE:,} it says little about the tail."
        )
    if n_aside:
        warnings.append(
            f"{n_aside} of {x.shape[1]} coordinates are constant or repeat one value and were set aside."
        )
    if over == "coordinates" and not pooled:
        warnings.append(
            "Over coordinates, α tells how unequal parameters are, not how heavy the noise of one is."
        )
    if raw:
        warnings.append(
            "Entries of unequal scale were mixed (standardise=False); even Gaussian noise looks heavy so."
        )
    if (pooled or over == "coordinates") and not raw and len(x) < 100:
        warnings.append(
            f"Scales estimated from {len(x)} samples add tails of their own when entries are mixed."
        )
    return tuple(warnings)
