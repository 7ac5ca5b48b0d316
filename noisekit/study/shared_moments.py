"""A problem that computes the moments of its per-sample gradients once for each point."""

from __future__ import annotations

from torch import Tensor

from noisekit.problems import SampledProblem


class SharedMoments:
    """``problem``, whose gradient is taken from the second-moment pass, which computes it anyway.

    An adaptive SDE needs ∇f(x), diag Σ(x) and a noise draw at each point; the first two then cost one pass.
    The moments of the last point are kept while its tensor is neither replaced nor changed in place.
    """

    def __init__(self, problem: SampledProblem) -> None:
        self.problem = problem
        self.name = problem.name
        self._point: Tensor | None = None
        self._version = -1
        self._moments: tuple[Tensor, Tensor] | None = None

    @property
    def x0(self) -> Tensor:
        return self.problem.x0

    @property
    def n_samples(self) -> int:
        return self.problem.n_samples

    def loss(self, x: Tensor) -> Tensor:
        return self.problem.loss(x)

    def gradient(self, x: Tensor) -> Tensor:
        return self.gradient_moments(x)[0]

    def gradient_moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self._moments is None or self._point is not x or self._version != x._version:
            self._moments = self.problem.gradient_moments(x)
            self._point, self._version = x, x._version
        return self._moments

    def minibatch_gradient(self, x: Tensor, index: Tensor) -> Tensor:
        return self.problem.minibatch_gradient(x, index)

    def weighted_gradient(self, x: Tensor, weights: Tensor) -> Tensor:
        return self.problem.weighted_gradient(x, weights)

    def per_sample_gradients(self, x: Tensor) -> Tensor:
        return self.problem.per_sample_gradients(x)
