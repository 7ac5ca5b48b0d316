"""A positive level that moves from record to record, seen through noise: its posterior at every record."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_POINTS = 128
_PACE = (0.05, 0.1, 0.2, 0.5)
"""Standard deviations of the steps of log x, each a hypothesis beside that of a level which does not move."""
_DRIFT = (-0.15, 0.0, 0.15)
"""Means of these steps, each a hypothesis; beside a small pace a drift would be a line that nothing bends."""
_LEAST_PACE_OF_A_DRIFT = 0.1
_MOST_DRIFT = 12.0
"""How far a drift may lead over the record: in long ones it is left to the pace."""
_STEADY = 0.25
"""Prior probability of a level that does not move."""
_JUMPS, _JUMP = 0.05, 6.0
"""Share of the steps that are so many times wider: a learning rate falls, a phase ends."""
_AT_ONCE = 1 << 24
_Z = 1.959964


@dataclass(frozen=True)
class SmoothedLevel:
    """Posterior of log x at every record, (record, series)."""

    median: Tensor
    lower: Tensor
    """2.5 %."""
    upper: Tensor
    """97.5 %."""
    is_seen: Tensor
    """Whether the likelihood excludes a level of 0 at 95 %."""
    is_positive: Tensor
    """Whether some level above 0 is more likely than 0."""


def smooth_level(
    observed: Tensor,
    variance: Callable[[Tensor], Tensor],
    *,
    least: float,
    most: float,
) -> SmoothedLevel:
    """Return what noisy records y_k of a positive level x_k say about it, on a grid of log x.

    y_k ~ N(x_k, v(x_k)),   log x_{k+1} = log x_k + b + τ z_k, and a few steps are far wider. The forward and
    backward passes are exact on the grid; v, b and τ are hypotheses, weighted by their likelihood, so that
    the data choose over how many records to average, and the interval holds what that choice may hide. √x is
    flat before any data.

    Arguments: ``observed`` (record, series), unbiased, may be negative; ``variance`` v(x), (hypothesis,
    point) of the points (point,); ``least``, ``most`` ends of the grid of x. Records that are
    NaN say nothing.
    Source: Kitagawa 1987, JASA 82:1032 (non-Gaussian state-space smoothing on a grid).
    """
    n = len(observed)
    grid = torch.linspace(math.log(least), math.log(most), _POINTS, dtype=torch.float64)
    steps, prior = _transitions(grid, n)
    v = variance(grid.exp()).double()
    width = max(1, _AT_ONCE // (n * len(steps) * v.numel()))
    parts = [_smooth(part, v, grid, steps, prior) for part in observed.double().cpu().split(width, dim=1)]
    return SmoothedLevel(*(torch.cat(column, dim=1) for column in zip(*parts, strict=True)))


def _transitions(grid: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Return p(to | from), (hypothesis, from, to), and the logarithm of the prior of each, (hypothesis,)."""
    moved = grid[None, :] - grid[:, None]
    spacing = float(grid[1] - grid[0])
    moving = [
        (pace, drift)
        for pace in _PACE
        for drift in _DRIFT
        if drift == 0 or (pace >= _LEAST_PACE_OF_A_DRIFT and abs(drift) * n <= _MOST_DRIFT)
    ]
    found = [torch.eye(len(grid), dtype=torch.float64)]
    for pace, drift in moving:
        # A step below the spacing of the grid stays where it is most of the time.
        narrow = torch.exp(-0.5 * ((moved - drift) / max(pace, 0.5 * spacing)) ** 2)
        wide = torch.exp(-0.5 * ((moved - drift) / (_JUMP * pace)) ** 2)
        parts = [k / k.sum(dim=1, keepdim=True).clamp(min=1e-300) for k in (narrow, wide)]
        kernel = (1 - _JUMPS) * parts[0] + _JUMPS * parts[1]
        found.append(kernel / kernel.sum(dim=1, keepdim=True))
    prior = torch.tensor([_STEADY, *[(1 - _STEADY) / len(moving)] * len(moving)], dtype=torch.float64)
    return torch.stack(found).float(), prior.log()


def _smooth(
    y: Tensor, v: Tensor, grid: Tensor, steps: Tensor, prior: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    n, m = y.shape
    x, kinds = grid.exp(), len(v)
    log_density = -0.5 * ((y[:, None, :, None] - x) ** 2 / v[:, None] + v.log()[:, None])
    log_density = log_density.nan_to_num(nan=0.0)
    log_density = log_density.reshape(n, -1, len(grid))  # (record, hypothesis × series, grid)
    top = log_density.amax(dim=-1, keepdim=True)
    density = (log_density - top).exp().float()
    start = torch.softmax(grid / 2, dim=0).float()
    h, rows = len(steps), density.shape[1]
    forward = torch.empty(n, h, rows, len(grid))
    evidence = torch.zeros(h, rows, dtype=torch.float64)
    state = start.expand(h, rows, -1)
    for k in range(n):
        state = (state if k == 0 else state @ steps) * density[k]
        total = state.sum(dim=-1, keepdim=True).clamp(min=1e-30)
        state = state / total
        forward[k] = state
        evidence += total[..., 0].double().log() + top[k, :, 0]
    weight = (evidence + prior[:, None]).reshape(h, kinds, m)
    weight = torch.softmax(weight.reshape(-1, m), dim=0).reshape(h, rows).float()
    back = torch.ones_like(state)
    posterior = torch.empty(n, m, len(grid))
    for k in range(n - 1, -1, -1):
        both = forward[k] * back
        both = both / both.sum(dim=-1, keepdim=True).clamp(min=1e-30) * weight[..., None]
        posterior[k] = both.reshape(-1, m, len(grid)).sum(dim=0)
        back = (back * density[k]) @ steps.mT
        back = back / back.amax(dim=-1, keepdim=True).clamp(min=1e-30)
    return _read(posterior, grid)


def _read(posterior: Tensor, grid: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the quantiles of each posterior (record, series, grid), and what its likelihood says of 0."""
    posterior = posterior.double()
    posterior = posterior / posterior.sum(dim=-1, keepdim=True)
    cumulative = posterior.cumsum(dim=-1)
    quantiles = [_quantile(cumulative, grid, level) for level in (0.5, 0.025, 0.975)]
    likelihood = (posterior.clamp(min=1e-40).log() - grid / 2).movedim(-1, 0)
    best, at_zero = likelihood.amax(dim=0), likelihood[0]
    return *quantiles, best - at_zero > _Z**2 / 2, best - at_zero > 0.05  # type: ignore[return-value]


def _quantile(cumulative: Tensor, grid: Tensor, level: float) -> Tensor:
    """Return the level's quantile with log x linear between the points of the grid."""
    at = (cumulative < level).sum(dim=-1).clamp(max=len(grid) - 1)
    above = cumulative.gather(-1, at[..., None])[..., 0]
    below = torch.where(at > 0, cumulative.gather(-1, (at - 1).clamp(min=0)[..., None])[..., 0], 0.0)
    share = ((level - below) / (above - below).clamp(min=1e-300)).clamp(0, 1)
    return grid[at] + (share - 0.5) * (grid[1] - grid[0])
