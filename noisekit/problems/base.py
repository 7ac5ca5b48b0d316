"""What noisekit asks of a training problem: a loss and its gradient for many replicates at once."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Problem(Protocol):
    """A loss f over parameters x, evaluated for all replicates at once.

    ``x`` always has shape (replicate, coordinate). A problem owns its data, dtype and device.
    """

    name: str

    @property
    def x0(self) -> Tensor:
        """The starting point, (coordinate,)."""
        ...

    def loss(self, x: Tensor) -> Tensor:
        """Return f(x), (replicate,)."""
        ...

    def gradient(self, x: Tensor) -> Tensor:
        """Return ∇f(x), (replicate, coordinate)."""
        ...


@runtime_checkable
class SampledProblem(Problem, Protocol):
    """A problem whose loss is a mean over N samples, f = (1/N) Σ ℓ_i, so that it has minibatches."""

    @property
    def n_samples(self) -> int:
        """N, the number of training samples."""
        ...

    def minibatch_gradient(self, x: Tensor, index: Tensor) -> Tensor:
        """Return the mean gradient over the samples ``index`` (replicate, batch): (replicate, coordinate)."""
        ...

    def weighted_gradient(self, x: Tensor, weights: Tensor) -> Tensor:
        """Return Σ_i w_i ∇ℓ_i(x) for ``weights`` (replicate, sample), as (replicate, coordinate)."""
        ...

    def gradient_moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return (1/N) Σ ∇ℓ_i and (1/N) Σ (∇ℓ_i)², both (replicate, coordinate)."""
        ...

    def per_sample_gradients(self, x: Tensor) -> Tensor:
        """Return every ∇ℓ_i(x), (replicate, sample, coordinate): for small problems only."""
        ...
