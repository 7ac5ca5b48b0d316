"""Mean and second moment of per-sample gradients at any parameter values, for ensembles of models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from noisekit.gradients.batch import Batch, as_batch, count_samples, select, trainable
from noisekit.gradients.contributions import Contribution, measure
from noisekit.gradients.engine import MissedUseError, run_pass
from noisekit.gradients.measure import Request


def diagonal_moments(
    model: nn.Module,
    loss_fn: Any,
    inputs: Batch,
    targets: Batch,
    parameters: Mapping[str, Tensor] | None = None,
    *,
    chunk: int | None = None,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return (1/N) Σ g_i and (1/N) Σ g_i² over all samples, by parameter name, at given parameter values.

    Arguments: ``parameters`` values by name that stand in for the model's own (all or some of them);
    ``chunk`` how many samples go through the model at once (all of them if None).
    Returns two dicts of tensors shaped like the parameters. Costs about one and a half forward and backward
    passes.
    """
    found = moments_and_sums(model, loss_fn, inputs, targets, parameters, chunk=chunk)
    return found.mean, found.second


@dataclass(frozen=True)
class MomentsAndSums:
    """What one pass over the data gives, by parameter name."""

    mean: dict[str, Tensor] = field(default_factory=dict)
    """(1/N) Σ g_i."""
    second: dict[str, Tensor] = field(default_factory=dict)
    """(1/N) Σ g_i²."""
    weighted: dict[str, Tensor] = field(default_factory=dict)
    """Σ_i w_i g_i."""


def moments_and_sums(
    model: nn.Module,
    loss_fn: Any,
    inputs: Batch,
    targets: Batch,
    parameters: Mapping[str, Tensor] | None = None,
    *,
    weights: Tensor | None = None,
    chunk: int | None = None,
) -> MomentsAndSums:
    """Return (1/N) Σ g_i, (1/N) Σ g_i² and, for ``weights`` (sample,), Σ_i w_i g_i from one pass.

    The other arguments are those of ``diagonal_moments``. Once the samples of a model were seen to add up to
    its gradient, autograd is not asked for that any more: the samples give it beside their squares.
    """
    inputs, targets = as_batch(inputs), as_batch(targets)
    n = count_samples(inputs)
    found = MomentsAndSums()
    for start in range(0, n, chunk or n):
        part = slice(start, min(start + (chunk or n), n))
        whole = part.start == 0 and part.stop == n
        xs, ys = (inputs, targets) if whole else (select(inputs, part, n), select(targets, part, n))
        here = _Chunk(part.stop - part.start, None if weights is None else weights[part])
        scale = here.take(model, loss_fn, xs, ys, parameters)
        # g_i = scale × contribution.
        for name, square in here.second.items():
            _add(found.second, name, square * (scale**2 / n))
            _add(found.mean, name, here.total[name] * (scale / n))
            if weights is not None:
                _add(found.weighted, name, here.weighted[name] * scale)
    return found


class _Chunk:
    """Sums of the contributions of the samples in one forward pass."""

    def __init__(self, n_samples: int, weights: Tensor | None):
        self._n_samples, self._weights = n_samples, weights
        self._request: Request | None = None
        self._missed: list[Tensor] = []
        """Whether the samples of a parameter do not add up to its gradient, on its device."""
        self.total: dict[str, Tensor] = {}
        self.second: dict[str, Tensor] = {}
        self.weighted: dict[str, Tensor] = {}

    def take(
        self,
        model: nn.Module,
        loss_fn: Any,
        inputs: Batch,
        targets: Batch,
        given: Mapping[str, Tensor] | None,
    ) -> float:
        """Take a forward and a backward pass; return what turns contributions into per-sample gradients."""
        try:
            run = run_pass(
                model, loss_fn, inputs, targets, self._compare, tensors=given, by_samples=self._measure
            )
        except MissedUseError:
            run = run_pass(model, loss_fn, inputs, targets, self._compare, tensors=given)
        # Sums in half precision agree to two digits only, which is not worth waiting for the device.
        if not (run.by_samples or run.half_precision or self._misses()):
            run.trust()
        for name, parameter in trainable(model).items():
            if name not in run.plan.unused and name not in self.second:  # left out in this pass
                zeros = torch.zeros_like(parameter)
                self.total[name] = self.second[name] = self.weighted[name] = zeros
        return run.scale

    def _measure(self, name: str, uses: Sequence[Contribution]) -> None:
        if self._request is None:
            like = uses[0].rows(slice(0, 1))
            rows = like.new_ones(1 if self._weights is None else 2, self._n_samples)
            if self._weights is not None:
                rows[1] = self._weights
            self._request = Request(squared_norms=False, weights=rows)
        found = measure(uses, self._request)
        assert found.second_moment is not None
        assert found.weighted is not None
        self.total[name], self.second[name] = found.weighted[0], found.second_moment
        self.weighted[name] = found.weighted[-1]

    def _compare(self, name: str, uses: Sequence[Contribution], gradient: Tensor) -> None:
        """Measure, and note whether the samples add up to ``gradient``, which counts where they do not."""
        self._measure(name, uses)
        gradient = gradient.to_dense()
        gap, size = (self.total[name] - gradient).norm(), self.second[name].sum().sqrt()
        limit = torch.finfo(gradient.dtype).eps ** 0.5 * size * self._n_samples**0.5
        self._missed.append(gap > limit)
        self.total[name] = gradient

    def _misses(self) -> bool:
        """Whether the samples of any parameter do not add up to its gradient; waits for the device, once."""
        return bool(self._missed) and bool(torch.stack(self._missed).any())


def _add(totals: dict[str, Tensor], name: str, value: Tensor) -> None:
    totals[name] = totals[name] + value if name in totals else value
