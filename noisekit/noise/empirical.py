"""Noise drawn again from recorded samples, with no law assumed."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from noisekit.errors import InputError
from noisekit.noise.base import NoiseModel, check_batch_size, check_dimension, squared_in_range
from noisekit.noise.samples import as_samples


class EmpiricalNoise(NoiseModel):
    """Noise of a mean of ``average`` recorded samples, drawn with replacement.

    Z = (1/A) Σ_a (Z_{i_a} − Z̄), i_a uniform over the n samples:  Σ = (1/nA) Σ_i (Z_i − Z̄)(Z_i − Z̄)ᵀ.
    E[sign(g + Z)] is exact for A = 1 (the empirical distribution function) and a mean over ``draws``
    resampled averages otherwise, drawn once with ``seed``.

    Arguments: ``samples`` (sample, coordinate), recorded together, in units of the gradient; ``average`` A;
    ``batch_size`` B of one recorded sample, if known (1 for per-sample gradients); the model then speaks of
    the batch size A·B. Resampling knows nothing beyond the recorded extremes: keep A well below n.
    Raises InputError for samples of wrong shape or dtype, NonFiniteError for NaN or infinite ones.

    >>> noise = EmpiricalNoise(torch.arange(8.0)[:, None])
    >>> noise.expected_sign(torch.zeros(1, 1), torch.ones(1, 1))
    tensor([[0.2500]])
    """

    independent = False

    def __init__(
        self,
        samples: Tensor,
        *,
        average: int = 1,
        batch_size: int | None = None,
        draws: int = 1024,
        seed: int = 0,
    ) -> None:
        samples = as_samples(samples)
        self.samples = samples - samples.mean(dim=0)
        if average < 1 or average != int(average) or draws < 1:
            raise InputError(f"average is {average} and draws {draws}; both are whole numbers of at least 1.")
        self.average = int(average)
        self.sample_batch_size = check_batch_size(batch_size)
        self.batch_size = None if self.sample_batch_size is None else self.average * self.sample_batch_size
        self.draws, self.seed = draws, seed
        self._cache: dict[tuple[torch.dtype, torch.device], tuple[Tensor, Tensor, Tensor]] = {}

    def n_normals(self, x: Tensor) -> int:
        return self.samples.shape[0]

    def _on(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return samples, sorted values of Z (coordinate, draw) and the variance in the dtype of ``x``."""
        check_dimension(self.samples.shape[1], x, "EmpiricalNoise")
        key = (x.dtype, x.device)
        if key not in self._cache:
            samples = self.samples.to(x)
            values = samples
            if self.average > 1:
                generator = torch.Generator(device=x.device).manual_seed(self.seed)
                values = self._draw(samples, self.draws, generator)
            unit = samples.abs().amax(dim=0).clamp(min=torch.finfo(x.dtype).tiny)
            scale = (samples / unit).square().mean(dim=0).sqrt() * unit
            variance = squared_in_range(scale, "these samples") / self.average
            self._cache[key] = (samples, values.sort(dim=0).values.T.contiguous(), variance)
        return self._cache[key]

    def _draw(self, samples: Tensor, rows: int, generator: torch.Generator | None) -> Tensor:
        device = samples.device if generator is None else generator.device
        total = torch.zeros(rows, samples.shape[1], dtype=samples.dtype, device=samples.device)
        for _ in range(self.average):
            index = torch.randint(samples.shape[0], (rows,), generator=generator, device=device)
            total += samples[index.to(samples.device)]
        return total / self.average

    def variance(self, x: Tensor) -> Tensor:
        return self._on(x)[2].expand(x.shape)

    def sqrt_covariance_product(self, x: Tensor, z: Tensor) -> Tensor:
        # The samples are centred, so any z gives a combination with covariance exactly Σ.
        return z @ self._on(x)[0] / math.sqrt(self.samples.shape[0] * self.average)

    def expected_sign(self, x: Tensor, gradient: Tensor) -> Tensor:
        values = self._on(x)[1]
        points = -gradient.T.contiguous()
        n = values.shape[1]
        below = torch.searchsorted(values, points)
        above = n - torch.searchsorted(values, points, right=True)
        return ((above - below) / n).T.to(x.dtype)

    def cdf(self, value: Tensor) -> Tensor:
        values = self._on(value)[1]
        points = value.reshape(-1, value.shape[-1]).T.contiguous()
        rank = torch.searchsorted(values, points, right=True).T / values.shape[1]
        return rank.reshape(value.shape).to(value.dtype)

    def sample(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self._draw(self._on(x)[0], x.shape[0], generator)

    def rescale(self, batch_size: int) -> EmpiricalNoise:
        """Return the noise at another batch size: the average of batch_size/B recorded samples."""
        if self.sample_batch_size is None:
            raise InputError("This EmpiricalNoise does not know its batch size; build it with batch_size=B.")
        average, rest = divmod(check_batch_size(batch_size) or 1, self.sample_batch_size)
        if rest or average < 1:
            raise InputError(
                f"Samples recorded at B = {self.sample_batch_size} can be averaged to its multiples only, "
                f"not to {batch_size}; record at a smaller batch size."
            )
        return EmpiricalNoise(
            self.samples,
            average=average,
            batch_size=self.sample_batch_size,
            draws=self.draws,
            seed=self.seed,
        )

    def __repr__(self) -> str:
        n, d = self.samples.shape
        return f"EmpiricalNoise(samples={n}, coordinates={d}, average={self.average})"
