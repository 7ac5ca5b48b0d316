"""Fisher scoring of the Student-t likelihood in (μ, log σ, κ) for many rows at once."""

from __future__ import annotations

import torch
from torch import Tensor

from noisekit.noise.student_t_likelihood import fisher_information, log_likelihood_and_score

KAPPA_BOUND = 1e-4  # a row that ends here is Gaussian (ν > 10,000)
KAPPA_LARGEST = 4.0  # ν = 1/4, far heavier than anything with a finite mean
_MAX_ITERATIONS = 100


def fisher_scoring(y: Tensor, start: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
    """Return the maximum (3, row) in (μ, log σ, κ) and the log-likelihood there (row,).

    θ ← θ + (n I)⁻¹ score, halved while the likelihood falls. Steps shrink by a constant factor of about 1/√n,
    so what the next step would still change is known, and a row is done when that is below ``tolerance``
    standard errors. Rows that need longer are gathered and go on alone.

    Args:
        y: samples, one coordinate a row, (row, sample), centred well enough for their dtype.
        start: (3, row), float64.
    """
    n = y.shape[1]
    result, result_value = start.clone(), torch.full_like(start[0], -torch.inf)
    rows = torch.arange(len(y), device=y.device)
    current = accepted = start
    accepted_value = torch.full_like(start[0], -torch.inf)
    step = torch.zeros_like(start)
    size_before = torch.zeros_like(start[0])
    for _ in range(_MAX_ITERATIONS):
        value, *score = log_likelihood_and_score(y, current[0], current[1], current[2])
        worse = ~(value >= accepted_value - 1e-6 * n)
        proposal, size = _scoring_step(current, torch.stack(score), n)
        accepted = torch.where(worse, accepted, current)
        accepted_value = torch.where(worse, accepted_value, value)
        step = torch.where(worse, 0.5 * step, proposal)
        left = size * (size / size_before.clamp_min(1e-300)).clamp_max(1)
        done = ((left < tolerance**2) & ~worse) | (step.abs().amax(0) < 1e-12)
        size_before = torch.where(worse, size_before, size)
        current = accepted + step
        result[:, rows] = current
        result_value[rows] = torch.where(worse, accepted_value, accepted_value + 0.5 * size)
        unfinished = int((~done).sum())
        if unfinished == 0:
            break
        if unfinished < 0.5 * len(rows):
            go_on = (~done).nonzero().squeeze(1)
            y, rows = y[go_on], rows[go_on]
            current, accepted, step = current[:, go_on], accepted[:, go_on], step[:, go_on]
            accepted_value, size_before = accepted_value[go_on], size_before[go_on]
    return result, result_value


def _scoring_step(current: Tensor, score: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Return the scoring step (3, row) within the bounds of κ, and its squared size in standard errors."""
    _, log_scale, kappa = current
    s_location, s_scale, s_kappa = score
    i_location, i_scale, i_cross, i_kappa = fisher_information(kappa)
    scale = log_scale.exp()
    d_location = (s_location * scale / (n * i_location)).clamp(-1, 1) * scale
    free = (i_scale * s_kappa - i_cross * s_scale) / (n * (i_scale * i_kappa - i_cross**2))
    # at most a factor of three in κ at once, except down to the Gaussian
    d_kappa = torch.minimum(torch.maximum(free, KAPPA_BOUND - kappa), 2 * kappa + 0.05)
    d_kappa = torch.minimum(d_kappa, KAPPA_LARGEST - kappa)
    d_scale = ((s_scale / n - i_cross * d_kappa) / i_scale).clamp(-1.0, 1.0)
    size = d_location * s_location + d_scale * s_scale + d_kappa * s_kappa
    return torch.stack([d_location, d_scale, d_kappa]), size.abs()
