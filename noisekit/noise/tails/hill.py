"""The Hill estimator and its plot: α against the number of tail samples."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from noisekit._readable import Readable, typical
from noisekit.noise.samples import as_samples, constant_coordinates
from noisekit.noise.tails.exceedances import check_k, largest_deviations


def hill_shape(top: Tensor) -> tuple[Tensor, Tensor]:
    """Return ξ = 1/α = mean log(x_i / threshold) over the tail and its standard error ξ/√k.

    Exact for a Pareto tail; for a Student-t it is biased towards lighter or heavier with k, hence the plot.

    Args:
        top: falling deviations, (coordinate, k+1), the last of them the threshold.

    Source: Hill 1975.
    """
    shape = (top[:, :-1] / top[:, -1:]).log().mean(1)
    return shape, shape / math.sqrt(top.shape[1] - 1)


@dataclass(frozen=True, repr=False)
class HillPlot(Readable):
    """α against k; a range of k where the lines are level is what the Hill estimate needs."""

    k: Tensor
    """Numbers of tail samples, (k,)."""
    alpha: Tensor
    """(k, coordinate)."""
    interval: Tensor
    """95 % interval, (k, coordinate, 2)."""

    def __str__(self) -> str:
        shown = sorted({0, len(self.k) // 2, len(self.k) - 1})
        return "\n".join(f"k = {int(self.k[at])}: α {typical(self.alpha[at])}" for at in shown)


def hill_plot(samples: object, *, k_max: int | None = None) -> HillPlot:
    """Return the Hill estimate of |x − median| for every k from 5 to ``k_max`` (n/5 by default).

    Args:
        samples: (sample, coordinate). Constant coordinates give NaN.

    Raises:
        InputError: ``k_max`` outside 5 … n − 1, or samples that ``as_samples`` refuses.
    """
    x = as_samples(samples)
    n = len(x)
    k_max = check_k(max(5, n // 5) if k_max is None else k_max, n, "hill")
    log_top = largest_deviations(x.T, k_max).log().T
    k = torch.arange(1, k_max + 1, device=x.device)
    shape = (log_top[:-1].cumsum(0) / k[:, None] - log_top[1:])[4:]
    k = k[4:]
    alpha = torch.where(constant_coordinates(x), torch.nan, 1 / shape)
    half = (
        1.96
        / k.double().sqrt()[:, None, None]
        * torch.tensor([1.0, -1.0], dtype=torch.float64, device=x.device)
    )
    return HillPlot(k=k, alpha=alpha, interval=alpha[..., None] / (1 + half).clamp_min(1e-12))
