"""The noise of real minibatches at the current point, from the data of a problem."""

from __future__ import annotations

import math
import weakref
from typing import Literal

import torch
from torch import Tensor

from noisekit.errors import InputError, unknown_name
from noisekit.noise.base import NoiseModel, check_batch_size, check_dimension, check_flag, check_whole
from noisekit.noise.gaussian import safe_scale
from noisekit.problems.base import SampledProblem
from noisekit.problems.network import ModelProblem

PER_SAMPLE_BUDGET = 2**26
"""Numbers of sample × coordinate up to which the per-sample gradients of a replicate are held in memory."""


class MinibatchNoise(NoiseModel):
    """Noise of a minibatch gradient with the data's own covariance at x, which moves with x.

    Σ(x) = c Σ₁(x)/B with Σ₁ = (1/N) Σ_i (∇ℓ_i − ∇f)(∇ℓ_i − ∇f)ᵀ; c = 1 with replacement and (N − B)/(N − 1)
    without. Σ(x)^{1/2} z = √c Σ_i (z_i − z̄) ∇ℓ_i(x)/√(NB): one backward pass of a randomly weighted loss.

    Two laws. ``gaussian``: Z ~ N(0, Σ(x)). ``empirical``: Z is the error of a minibatch drawn from the data;
    E[sign(g + Z)] is the mean over ``draws`` such minibatches. They are keyed by the bits of x: fresh at
    every point, and the same whenever that point comes back.

    Arguments: ``problem`` with samples; ``batch_size`` B; ``law``; ``draws``; ``replacement`` whether a
    sample can come twice in a batch. Coordinates are correlated (``independent`` is False).
    SGD needs drift and noise together: ``drift_and_noise`` gives both in ONE backward pass.
    What is computed at x is kept until another x comes (the same tensor object, not changed in place).
    Raises InputError for a problem without samples, a bad batch size or an unknown law.
    """

    independent = False

    def __init__(
        self,
        problem: SampledProblem,
        batch_size: int,
        *,
        law: Literal["gaussian", "empirical"] = "gaussian",
        draws: int = 64,
        replacement: bool = True,
    ) -> None:
        if not isinstance(problem, SampledProblem):
            raise InputError(
                f"{type(problem).__name__} has no samples, so it has no minibatches; "
                "use a ModelProblem, or give GaussianNoise a scale."
            )
        if law not in ("gaussian", "empirical"):
            raise unknown_name("law", law, ("gaussian", "empirical"))
        size = check_batch_size(batch_size)
        if size is None:
            raise InputError("MinibatchNoise needs a batch_size.")
        if not check_flag("replacement", replacement) and size > problem.n_samples:
            raise InputError(
                f"batch_size {size} exceeds the {problem.n_samples} samples; draw with replacement or fewer."
            )
        self.problem = problem
        self.batch_size: int = size
        self.law = law
        self.draws = check_whole("draws", draws)
        self.replacement = replacement
        self._n_coordinates = len(problem.x0)
        self._cache = _AtPoint()

    @property
    def correction(self) -> float:
        """The finite-population factor c."""
        n = self.problem.n_samples
        return 1.0 if self.replacement else (n - self.batch_size) / max(n - 1, 1)

    def n_normals(self, x: Tensor) -> int:
        return self.problem.n_samples

    def variance(self, x: Tensor) -> Tensor:
        return self._variance_of(*self._moments(x))

    def _variance_of(self, mean: Tensor, second: Tensor) -> Tensor:
        return (second - mean.square()).clamp_(min=0).mul_(self.correction / self.batch_size)

    def sqrt_covariance_product(self, x: Tensor, z: Tensor) -> Tensor:
        return self.problem.weighted_gradient(x, self._noise_weights(x, z))

    def drift_and_noise(self, x: Tensor, z: Tensor, drift_weight: float, noise_weight: float) -> Tensor:
        """Return drift_weight·∇f(x) + noise_weight·Σ(x)^{1/2}z from one weighted backward pass.

        For an Euler step of the SGD SDE the weights are −dt and √(η dt).
        """
        weights = self._noise_weights(x, z).mul_(noise_weight).add_(drift_weight / self.problem.n_samples)
        return self.problem.weighted_gradient(x, weights)

    def gradient_and_noise(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return ∇f(x) and Σ(x)^{1/2}z, from one forward pass where the problem can."""
        weights = self._noise_weights(x, z)
        if isinstance(self.problem, ModelProblem):
            return self.problem.gradient_and_weighted(x, weights)
        return self.problem.gradient(x), self.problem.weighted_gradient(x, weights)

    def moments_and_noise(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return ∇f(x), diag Σ(x) and Σ(x)^{1/2}z, from one pass over the data where the problem can."""
        weights = self._noise_weights(x, z)
        if isinstance(self.problem, ModelProblem):
            mean, second, draw = self.problem.moments_and_weighted(x, weights)
        else:
            (mean, second), draw = self._moments(x), self.problem.weighted_gradient(x, weights)
        return mean, self._variance_of(mean, second), draw

    def mean_gradient(self, x: Tensor) -> Tensor:
        """Return ∇f(x), from the per-sample gradients where the law needs these anyway."""
        per_sample = self._per_sample(x) if self.law == "empirical" else None
        return self.problem.gradient(x) if per_sample is None else per_sample.mean(dim=1)

    def expected_sign(self, x: Tensor, gradient: Tensor) -> Tensor:
        if self.law == "gaussian":
            return torch.erf(gradient / safe_scale(self.variance(x).sqrt()) * math.sqrt(0.5))
        generator = torch.Generator(device=x.device)
        # A generator for each row, so that no row depends on the others.
        drawn = [
            self.draw_minibatches(self.draws, generator.manual_seed(seed)).to(x.device)
            for seed in _seeds_of(x)
        ]
        per_sample = self._per_sample(x)
        if per_sample is None:
            shift = gradient - self.problem.gradient(x)
            total = torch.zeros_like(gradient)
            for index in torch.stack(drawn, dim=1):
                total += torch.sign(self.problem.minibatch_gradient(x, index) + shift)
            return total / self.draws
        result = torch.empty_like(gradient)
        for row, (samples, index) in enumerate(zip(per_sample, drawn, strict=True)):
            batches = self._counts(index, x) @ samples
            result[row] = torch.sign(batches + (gradient[row] - samples.mean(dim=0))).mean(dim=0)
        return result

    def sample(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        if self.law == "gaussian":
            shape = (x.shape[0], self.problem.n_samples)
            z = torch.randn(shape, generator=generator, dtype=x.dtype, device=x.device)
            return self.sqrt_covariance_product(x, z)
        return self.error_of(x, self.draw_minibatches(x.shape[0], generator, x.device).to(x.device))

    def error_of(self, x: Tensor, index: Tensor) -> Tensor:
        """Return the mean gradient of the samples ``index`` (replicate, batch) less ∇f(x)."""
        weights = self._counts(index, x) - 1 / self.problem.n_samples
        per_sample = self._cache.get(x, "per_sample")
        if per_sample is not None:
            return torch.einsum("rn,rnc->rc", weights, per_sample)
        return self.problem.weighted_gradient(x, weights)

    def rescale(self, batch_size: int) -> MinibatchNoise:
        """Return the noise of the same problem at another batch size, which is exact for both laws."""
        return MinibatchNoise(
            self.problem, batch_size, law=self.law, draws=self.draws, replacement=self.replacement
        )

    def _noise_weights(self, x: Tensor, z: Tensor) -> Tensor:
        check_dimension(self._n_coordinates, x, "MinibatchNoise")
        n = self.problem.n_samples
        if z.shape[-1] != n:
            raise InputError(f"z has {z.shape[-1]} normals a replicate; this noise needs one a sample, {n}.")
        return (z - z.mean(dim=-1, keepdim=True)) * math.sqrt(self.correction / (n * self.batch_size))

    def _moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        found = self._cache.get(x, "mean"), self._cache.get(x, "second")
        if found[0] is not None and found[1] is not None:
            return found[0], found[1]
        check_dimension(self._n_coordinates, x, "MinibatchNoise")
        mean, second = self.problem.gradient_moments(x)
        self._cache.put(x, mean=mean, second=second)
        return mean, second

    def _per_sample(self, x: Tensor) -> Tensor | None:
        """Return every ∇ℓ_i(x), (replicate, sample, coordinate), or None where they do not fit in memory."""
        if x.numel() * self.problem.n_samples > PER_SAMPLE_BUDGET:
            return None
        found = self._cache.get(x, "per_sample")
        if found is None:
            found = self.problem.per_sample_gradients(x)
            self._cache.put(x, per_sample=found)
        return found

    def draw_minibatches(
        self, rows: int, generator: torch.Generator | None, device: torch.device | None = None
    ) -> Tensor:
        """Return sample numbers of ``rows`` minibatches, (rows, batch), on the device of ``generator``."""
        n, device = self.problem.n_samples, device if generator is None else generator.device
        if self.replacement:
            return torch.randint(n, (rows, self.batch_size), generator=generator, device=device)
        keys = torch.rand(rows, n, generator=generator, device=device)
        return keys.topk(self.batch_size, dim=-1, sorted=False).indices

    def _counts(self, index: Tensor, x: Tensor) -> Tensor:
        """Return the weight of every sample in each minibatch, (rows, sample); a row sums to 1."""
        weights = torch.zeros(index.shape[0], self.problem.n_samples, dtype=x.dtype, device=x.device)
        share = torch.full_like(index, 1, dtype=x.dtype) / self.batch_size
        return weights.scatter_add_(1, index, share)

    def __repr__(self) -> str:
        return f"MinibatchNoise({self.problem.name}, batch_size={self.batch_size}, law={self.law!r})"


class _AtPoint:
    """What was computed at one x, recognised by the identity of the tensor and its version counter."""

    def __init__(self) -> None:
        self._point: weakref.ref[Tensor] | None = None
        self._version = -1
        self._values: dict[str, Tensor] = {}

    def get(self, x: Tensor, name: str) -> Tensor | None:
        return self._values.get(name) if self._is(x) else None

    def put(self, x: Tensor, **values: Tensor) -> None:
        if x.is_inference():
            return
        if not self._is(x):
            self._point, self._version, self._values = weakref.ref(x), x._version, {}
        self._values.update(values)

    def _is(self, x: Tensor) -> bool:
        return (
            self._point is not None
            and self._point() is x
            and not x.is_inference()
            and self._version == x._version
        )


def _seeds_of(x: Tensor) -> list[int]:
    """Return a seed for each row made of its bits: equal points share it, and any change changes it."""
    whole = {2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()]
    bits = x.detach().contiguous().view(whole).to(torch.int64)
    # An odd multiplier at each position, so that swapping coordinates changes the sum as well.
    place = torch.arange(1, 2 * x.shape[-1], 2, device=x.device)
    return [int(seed) for seed in ((bits * place).sum(dim=-1) & (2**63 - 1)).tolist()]
