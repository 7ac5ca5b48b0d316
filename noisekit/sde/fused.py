"""Many optimizer steps in one GPU kernel, for SDEs whose coordinates do not see each other.

It needs an NVIDIA GPU and Triton. The kernels have run in Triton's interpreter only, never on a GPU, and are
off unless ``integrate`` is called with ``fused=True``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from noisekit._typing import State
from noisekit.noise.gaussian import GaussianNoise
from noisekit.sde.adam import AdamSDE
from noisekit.sde.base import OptimizerSDE
from noisekit.sde.constants import diagonal_hessian
from noisekit.sde.philox import has_kernels, signed_key
from noisekit.sde.preconditioned import PreconditionedSDE
from noisekit.sde.rmsprop import RMSpropSDE
from noisekit.sde.sgd import SGDSDE
from noisekit.sde.signsgd import SignSGDSDE
from noisekit.sde.solvers import EulerMaruyama, Solver

MOST_SUBSTEPS = 8
RULES: dict[type[OptimizerSDE], str] = {
    SGDSDE: "sgd",
    SignSGDSDE: "signsgd",
    RMSpropSDE: "rmsprop",
    AdamSDE: "adam",
}
"""What the kernel calls the equations that it knows."""


@dataclass(frozen=True)
class FusedSteps:
    """Advances a state of (replicate, coordinate) in place with the normals of ``PhiloxNormals``."""

    sde: OptimizerSDE
    curvature: Tensor
    """λ of the quadratic loss, plus θ where the decay of RMSprop or Adam is L2, (coordinate,)."""
    scale: Tensor
    """σ of the noise, for SignSGD 1/(√2 σ), (coordinate,)."""
    decay: float
    """Weight decay θ beside the gradient; for SGD it is the same as in it."""
    substeps: int
    seed: int
    lead: float = 0.0
    """By what part of a step V runs ahead of the optimizer's, as in ``Substep``."""

    @classmethod
    def of(
        cls, sde: OptimizerSDE, solver: Solver, x: Tensor, substeps: int, seed: int, lead: float = 0.0
    ) -> FusedSteps | None:
        """Return the kernel's setting for ``sde``; None for an equation or a machine that it is not for."""
        return cls.of_equation(sde, solver, x, substeps, seed, lead) if has_kernels(x) else None

    @classmethod
    def of_equation(
        cls, sde: OptimizerSDE, solver: Solver, x: Tensor, substeps: int, seed: int, lead: float = 0.0
    ) -> FusedSteps | None:
        """Return the kernel's setting for ``sde`` on a diagonal quadratic with diagonal Gaussian noise."""
        hessian, noise = diagonal_hessian(sde.gradient_function), sde.noise
        momentum = isinstance(sde, SGDSDE) and sde.momentum
        if type(sde) not in RULES or sde.order != 1 or momentum or substeps > MOST_SUBSTEPS:
            return None
        if not (isinstance(noise, GaussianNoise) and noise.independent and isinstance(solver, EulerMaruyama)):
            return None
        if hessian is None or x.dtype != torch.float32:
            return None
        variance = noise.variance(x[:1])[0].to(x).clamp(min=1e-30)
        curvature = hessian.to(x)
        if isinstance(sde, PreconditionedSDE):
            decay = sde.decoupled
            curvature = curvature + (sde.weight_decay if sde.decay == "l2" else 0.0)
        else:
            assert isinstance(sde, (SGDSDE, SignSGDSDE))
            decay = sde.weight_decay
        scale = (2 * variance).rsqrt() if isinstance(sde, SignSGDSDE) else variance.sqrt()
        return cls(sde, curvature.contiguous(), scale.contiguous(), decay, substeps, seed, lead)

    def advance(self, state: State, first_replicate: int, first: int, last: int) -> Tensor:
        """Take optimizer steps ``first`` to ``last``; return after how many x was finite, (replicate,)."""
        from noisekit.sde import triton_kernels as kernels
        from noisekit.sde.triton_normals import BLOCK

        x, eta, sde = state["x"], self.sde.learning_rate, self.sde
        finite = torch.empty(x.shape, dtype=torch.int32, device=x.device)
        table = self.table(first, last, x)
        average = sde if isinstance(sde, PreconditionedSDE) else None
        programs = (-(-x.numel() // BLOCK),)
        with torch.cuda.device_of(x):  # Triton launches on the current device
            kernels.advance[programs](
                x,
                state.get("m", x),
                state.get("v", x),
                self.curvature,
                self.scale,
                x if table is None else table,
                finite,
                x.numel(),
                x.shape[1],
                first_replicate,
                signed_key(self.seed),
                first,
                last - first,
                eta / self.substeps,
                eta / math.sqrt(self.substeps),
                self.decay,
                average.eps if average else 0.0,
                1 - sde.beta1 if isinstance(sde, AdamSDE) else 0.0,
                average.one_minus_beta2 if average else 0.0,
                SUBSTEPS=self.substeps,
                RULE=RULES[type(sde)],
                VARIANT=average.variant if average else "",
                TABLE=table is not None,
                SIZE=BLOCK,
            )
        return finite.amin(dim=1).long()

    def table(self, first: int, last: int, x: Tensor) -> Tensor | None:
        """Return the factor on the learning rate, √ι₂/ι₁ and ε√ι₂ of each substep, (step · substep, 3).

        None where none of them changes from step to step.
        """
        sde = self.sde
        if sde.schedule is None and not isinstance(sde, AdamSDE):
            return None
        rows: list[tuple[float, float, float]] = []
        for step in range(first, last):
            factor = sde.factor(step)
            if isinstance(sde, AdamSDE):
                rows += [(factor, *self._corrections(sde, step, index)) for index in range(self.substeps)]
            else:
                rows += [(factor, 1.0, getattr(sde, "eps", 0.0))] * self.substeps
        values = torch.tensor(rows, dtype=x.dtype)
        # From pinned memory a copy does not wait for the device.
        return values.pin_memory().to(x.device, non_blocking=True) if x.device.type == "cuda" else values

    def _corrections(self, sde: AdamSDE, step: int, index: int) -> tuple[float, float]:
        """Return √ι₂/ι₁ and ε√ι₂ of a substep, as ``AdamSDE.euler_step`` takes them."""
        taken = step + index / self.substeps + 1
        age = step + (index + 1) / self.substeps + self.lead if sde.fused else taken
        ratio, root = sde._corrections(taken, age)
        return ratio, sde.eps * root
