"""The block-sum estimator used by Simsekli et al. for the tail index of gradient noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def block_sum_shape(rows: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Return ξ = 1/α and its standard error, **if** the samples are independent, exactly symmetric α-stable.

    1/α = (mean log|block sums| − mean log|x|) / log(block length), because a sum of K stable variables is
    K^{1/α} times one of them. For any other law it answers how sums grow, not how the tail falls: it tends to
    2 for every law with a variance, and coordinates of unequal scale pooled in order push it anywhere.

    Args:
        rows: samples, one coordinate a row, (coordinate, sample); exact zeros are left out of the means.
        block: samples in a block.

    Source: Mohammadi, Mohammadpour, Ogata 2015 (Metrika 78); Simsekli, Sagun, Gurbuzbalaban 2019, arXiv
    1901.06053.
    """
    rows = rows.double()
    blocks = rows.shape[1] // block
    centred = rows - rows.median(dim=1, keepdim=True).values
    largest = centred.abs().amax(dim=1, keepdim=True).clamp_min(1e-300)
    x = (centred / largest)[:, : blocks * block].unflatten(1, (blocks, block))
    size = x.abs()
    inner = torch.where(size > 0, size, 1.0).log().sum(2) / (size > 0).sum(2).clamp_min(1)
    outer = x.sum(2).abs().clamp_min(1e-300).log()
    growth = (outer - inner) / math.log(block)
    deviation, mean = torch.std_mean(growth, dim=1)
    return mean, deviation / math.sqrt(blocks)
