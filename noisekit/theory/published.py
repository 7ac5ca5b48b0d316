"""Stationary covariances as published, beside which the linear systems stand."""

from __future__ import annotations

import numpy as np

from noisekit.errors import InputError
from noisekit.theory.hyperparameters import Hyperparameters
from noisekit.theory.inputs import Array
from noisekit.theory.noise_moments import NoiseMoments


def published_covariance(
    hyper: Hyperparameters, hessian: Array, noise: NoiseMoments, *, lag: bool = False
) -> Array:
    """Return Cov∞ (d, d) from the closed forms for commuting (diagonal) H and Σ; D = (diag Σ)^{1/2}.

    - SGD (η/2)(H + θ)⁻¹Σ, C25 Lemma 3.8;
    - SignSGD (η/2)(K + (η/2)K²)⁻¹, K = diag(ℓ/σ)H, C25 Lemma 3.7; Student-t with ℓ_ν/s (derived);
    - RMSprop, Adam (η/2) D H⁻¹, C25 Lemma C.52; with L2 (η/2) D (H + θ)⁻¹ (derived);
    - RMSpropW (η/2)(D⁻¹H + θ)⁻¹; AdamW the same, C25 Lemma C.57, which leaves out the momentum's lag;
      ``lag`` adds it: (η/2)(M + θM/ρ₁)⁻¹, M = D⁻¹H + θ, ρ₁ = (1 − β₁)/η (derived).

    For matrices that do not commute the formula is evaluated as it stands and symmetrised; its distance from
    the stationary law is then the error of that assumption.

    Source: Compagnoni et al. 2025, arXiv 2411.15958 (C25).
    """
    rate, identity = hyper.learning_rate, np.eye(len(hessian))
    if hyper.momentum and hyper.optimizer == "sgd":
        raise InputError("No closed form of SGD with momentum is published; use source='discrete' or 'sde'.")
    if hyper.optimizer == "signsgd":
        pull = noise.sign_slope[:, None] * hessian + hyper.decoupled_decay * identity
        result = np.linalg.inv(pull + rate / 2 * pull @ pull)
    elif hyper.optimizer == "sgd":
        covariance = noise.finite_covariance("sgd")
        result = np.linalg.solve(hessian + hyper.coupled_decay * identity, covariance)
    else:
        deviation = np.sqrt(noise.finite_variance(hyper.optimizer))
        pull = (hessian + hyper.coupled_decay * identity) / deviation[:, None]
        pull = pull + hyper.decoupled_decay * identity
        if lag:
            pull = pull @ (identity * (1 + hyper.decoupled_decay * rate / (1 - hyper.momentum)))
        result = np.linalg.inv(pull)
    return rate / 4 * (result + result.T)
