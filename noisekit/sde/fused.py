"""Many optimizer steps in one GPU kernel, for SDEs whose coordinates do not see each other.

It needs an NVIDIA GPU and Triton. The kernels have run in Triton's interpreter only, never on a GPU, and are
off unless ``integrate`` is called with ``fused=True``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from noisekit.noise.gaussian import GaussianNoise
from noisekit.sde.base import OptimizerSDE
from noisekit.sde.constants import diagonal_hessian
from noisekit.sde.philox import has_kernels, signed_key
from noisekit.sde.sgd import SGDSDE
from noisekit.sde.signsgd import SignSGDSDE
from noisekit.sde.solvers import EulerMaruyama, Solver

MOST_SUBSTEPS = 8


@dataclass(frozen=True)
class FusedSteps:
    """Advances x (replicate, coordinate) in place with the normals of ``PhiloxNormals``."""

    sde: OptimizerSDE
    name: str
    curvature: Tensor
    """λ of the quadratic loss, (coordinate,)."""
    scale: Tensor
    """σ of the noise, for SignSGD 1/(√2 σ), (coordinate,)."""
    decay: float
    """Weight decay θ."""
    substeps: int
    seed: int

    @classmethod
    def of(cls, sde: OptimizerSDE, solver: Solver, x: Tensor, substeps: int, seed: int) -> FusedSteps | None:
        """Return the kernel's setting for ``sde``; None for an equation or a machine that it is not for."""
        return cls.of_equation(sde, solver, x, substeps, seed) if has_kernels(x) else None

    @classmethod
    def of_equation(
        cls, sde: OptimizerSDE, solver: Solver, x: Tensor, substeps: int, seed: int
    ) -> FusedSteps | None:
        """Return the kernel's setting for SGD or SignSGD on a diagonal quadratic with Gaussian noise."""
        hessian = diagonal_hessian(sde.gradient_function)
        kind = type(sde)
        plain = kind is SignSGDSDE or (kind is SGDSDE and sde.state_names == ("x",) and sde.order == 1)
        noise = sde.noise
        if not (plain and isinstance(noise, GaussianNoise) and noise.independent):
            return None
        if hessian is None or x.dtype != torch.float32 or substeps > MOST_SUBSTEPS:
            return None
        if not isinstance(solver, EulerMaruyama):
            return None
        variance = noise.variance(x[:1])[0].to(x)
        scale = variance.sqrt() if kind is SGDSDE else (2 * variance.clamp(min=1e-30)).rsqrt()
        assert isinstance(sde, (SGDSDE, SignSGDSDE))
        return cls(
            sde, sde.name, hessian.to(x).contiguous(), scale.contiguous(), sde.weight_decay, substeps, seed
        )

    def advance(self, x: Tensor, first_replicate: int, first: int, last: int) -> Tensor:
        """Take optimizer steps ``first`` to ``last``; return after how many x was finite, (replicate,)."""
        from noisekit.sde import triton_kernels as kernels

        eta, steps = self.sde.learning_rate, last - first
        finite = torch.empty(x.shape, dtype=torch.int32, device=x.device)
        factors = self._factors(first, last, x)
        n = x.numel()
        programs = (-(-n // kernels.BLOCK),)
        kernels.advance[programs](
            x,
            self.curvature,
            self.scale,
            x if factors is None else factors,
            finite,
            n,
            x.shape[1],
            first_replicate,
            signed_key(self.seed),
            first,
            steps,
            eta / self.substeps,
            eta / math.sqrt(self.substeps),
            self.decay,
            SUBSTEPS=self.substeps,
            MOVE=kernels.MOVES[self.name],
            SCHEDULE=factors is not None,
            SIZE=kernels.BLOCK,
        )
        return finite.amin(dim=1).long()

    def _factors(self, first: int, last: int, x: Tensor) -> Tensor | None:
        """Return the factors of the learning-rate schedule, (step,), None where there is no schedule."""
        if self.sde.schedule is None:
            return None
        values: Any = torch.tensor([self.sde.factor(step) for step in range(first, last)], dtype=x.dtype)
        # From pinned memory a copy does not wait for the device.
        return values.pin_memory().to(x.device, non_blocking=True) if x.device.type == "cuda" else values
