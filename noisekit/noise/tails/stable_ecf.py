"""The index of a symmetric stable law from the empirical characteristic function."""

from __future__ import annotations

import torch
from torch import Tensor

_POINTS = 10


def ecf_shape(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return ξ = 1/α and its standard error, for samples of a symmetric α-stable law, 0 < α ≤ 2.

    φ(t) = E cos(t(x − m)) = exp(−|σt|^α), so log(−log φ) is a line in log t with slope α; it is fitted by
    least squares at ten points t ≤ 1/σ̂, the error follows from Cov(φ̂(s), φ̂(t)) by the delta method.

    Args:
        rows: samples, one coordinate a row, (coordinate, sample).

    Source: Koutrouvelis 1980 (JASA 75); Press 1972.
    """
    rows = rows.double()
    n = rows.shape[1]
    centred = rows - rows.median(dim=1, keepdim=True).values
    unit = centred / centred.abs().median(dim=1, keepdim=True).values.clamp_min(1e-300)
    t = torch.linspace(1 / _POINTS, 1, _POINTS, dtype=rows.dtype, device=rows.device)
    # φ̂ at all multiples of t₁ up to 2: cos((j+1)u) = 2 cos(u) cos(ju) − cos((j−1)u) needs one cosine only
    cosine = torch.cos(t[0] * unit)
    previous, current = torch.ones_like(cosine), cosine
    phi = [torch.ones(len(rows), dtype=rows.dtype, device=rows.device)]
    for _ in range(2 * _POINTS):
        phi.append(current.mean(1))
        previous, current = current, 2 * cosine * current - previous
    table = torch.stack(phi, dim=1)
    value = table[:, 1 : _POINTS + 1].clamp(1e-6, 1 - 1e-12)

    centred_log_t = t.log() - t.log().mean()
    slope_weights = centred_log_t / centred_log_t.square().sum()
    alpha = ((-value.log()).log() * slope_weights).sum(1)

    j = torch.arange(1, _POINTS + 1, device=rows.device)
    sums, differences = j[:, None] + j, (j[:, None] - j).abs()
    covariance = (0.5 * (table[:, sums] + table[:, differences]) - value[:, :, None] * value[:, None, :]) / n
    gradient = slope_weights / (value * value.log())
    variance = torch.einsum("ci,cij,cj->c", gradient, covariance, gradient)
    alpha = alpha.clamp_min(1e-3)
    return 1 / alpha, variance.clamp_min(0).sqrt() / alpha**2
