"""The per-sample gradients of one use of one parameter, kept in the cheapest form that is exact."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from noisekit.gradients.measure import Measured, Request, RowMeasurer
from noisekit.gradients.squares import Squares

MOST_ELEMENTS = 2**26
"""How many numbers of explicit per-sample gradients of one parameter may exist at once."""
CACHED_ELEMENTS = 2**15
"""How many of them are computed at a time on a CPU, so that they are measured while they are in its cache."""


class Contribution(ABC):
    """What one use of a parameter adds to the gradient of each sample, c_i (sample, *parameter)."""

    n_samples: int
    shape: torch.Size
    device: torch.device
    factored = False
    """Whether the moments are had without explicit rows, or share their squares with those of another use."""

    @abstractmethod
    def rows(self, samples: slice) -> Tensor:
        """Return c_i for ``samples``, (len(samples), *shape); the caller may overwrite it."""

    def write(self, samples: slice, out: Tensor) -> None:
        """Write c_i for ``samples`` to ``out`` (len(samples), *shape)."""
        out.copy_(self.rows(samples))

    @property
    def cached_samples(self) -> int:
        """For how many samples rows are best computed at a time on a CPU."""
        return max(1, CACHED_ELEMENTS // max(self.shape.numel(), 1))

    def measure(self, request: Request) -> Measured:
        """Return the statistics asked for."""
        return measure_chunks([self], request)


def chunks(n_samples: int, size: int, limit: int = MOST_ELEMENTS) -> Iterator[slice]:
    """Yield slices of the samples so that ``size`` numbers a sample stay under ``limit``."""
    step = max(1, limit // max(size, 1))
    for start in range(0, n_samples, step):
        yield slice(start, min(start + step, n_samples))


def measure_chunks(uses: Sequence[Contribution], request: Request) -> Measured:
    """Return the statistics of Σ_uses c_i, computed a few samples at a time.

    The Gram matrix needs all samples at once; where they are too many for the memory, chunks are paired.
    """
    n, shape = uses[0].n_samples, uses[0].shape
    too_many = n * shape.numel() > MOST_ELEMENTS
    most = max(1, MOST_ELEMENTS // max(shape.numel(), 1))
    step = min(most, *(use.cached_samples for use in uses)) if uses[0].device.type == "cpu" else most
    measurer = RowMeasurer(request, n, shape, keep=request.gram and not too_many)
    for start in range(0, n, step):
        measurer.take(_sum_of_rows(uses, slice(start, min(start + step, n)), measurer))
    result = measurer.result()
    if request.gram and too_many:
        result.gram = _paired_gram(uses, list(chunks(n, shape.numel(), MOST_ELEMENTS)))
        result.squared_norms = result.gram.diagonal()
    return result


def _sum_of_rows(uses: Sequence[Contribution], part: slice, measurer: RowMeasurer | None = None) -> Tensor:
    """Return Σ_uses c_i for ``part`` as (len(part), d), in the measurer's room if it has one."""
    count = part.stop - part.start
    room = measurer.room(part) if len(uses) == 1 and measurer is not None else None
    if room is not None:
        uses[0].write(part, room.view(count, *uses[0].shape))
        return room
    total = uses[0].rows(part)
    for use in uses[1:]:
        total += use.rows(part)
    total = total.reshape(count, -1)
    return total if measurer is None else measurer.kept(part, total)


def _paired_gram(uses: Sequence[Contribution], parts: list[slice]) -> Tensor:
    n = uses[0].n_samples
    gram: Tensor | None = None
    for k, part in enumerate(parts):
        here = _sum_of_rows(uses, part)
        if gram is None:
            gram = here.new_empty(n, n)
        for other in parts[:k]:
            block = here @ _sum_of_rows(uses, other).T
            gram[part, other], gram[other, part] = block, block.T
        gram[part, part] = here @ here.T
    assert gram is not None
    return gram


class Explicit(Contribution):
    """Per-sample gradients that are small enough to be held as they are (biases, normalisation weights)."""

    def __init__(self, gradients: Tensor, squares: Squares | None = None):
        self.n_samples = gradients.shape[0]
        self.shape = gradients.shape[1:]
        self.device = gradients.device
        self.gradients = gradients
        self.factored = squares is not None
        self._squares = squares

    def rows(self, samples: slice) -> Tensor:
        return self.gradients[samples].clone()

    def write(self, samples: slice, out: Tensor) -> None:
        out.copy_(self.gradients[samples])

    def measure(self, request: Request) -> Measured:
        if self._squares is None or not request.only_moments:
            return super().measure(request)
        return Measured(
            total=self.gradients.sum(0) if request.total else None,
            weighted=None if request.weights is None else weighted_sums(request.weights, self.gradients),
            second_moment=self._squares.rows.sum(0) if request.second_moment else None,
            squared_norms=self._squares.norms if request.squared_norms else None,
        )


def weighted_sums(weights: Tensor, rows: Tensor) -> Tensor:
    """Return Σ_i w_ki r_i for ``weights`` (weighting, sample) and ``rows`` (sample, …)."""
    return (weights.to(rows.dtype) @ rows.flatten(1)).reshape(-1, *rows.shape[1:])


class Computed(Contribution):
    """Per-sample gradients that a function computes for a slice of the samples."""

    def __init__(
        self,
        n_samples: int,
        shape: torch.Size,
        device: torch.device,
        compute: Callable[[slice], Tensor],
        cached_samples: int,
    ):
        self.n_samples = n_samples
        self.shape = shape
        self.device = device
        self._compute = compute
        self._cached_samples = cached_samples

    @property
    def cached_samples(self) -> int:
        return self._cached_samples

    def rows(self, samples: slice) -> Tensor:
        return self._compute(samples)


class Joined(Contribution):
    """The samples of several passes in a row, each with its own uses of the parameter."""

    def __init__(self, passes: Sequence[Sequence[Contribution]]):
        self.n_samples = sum(uses[0].n_samples for uses in passes)
        self.shape = passes[0][0].shape
        self.device = passes[0][0].device
        self._passes = passes

    def rows(self, samples: slice) -> Tensor:
        parts, start = [], 0
        for uses in self._passes:
            n = uses[0].n_samples
            first, last = max(samples.start - start, 0), min(samples.stop - start, n)
            if first < last:
                parts.append(_sum_of_rows(uses, slice(first, last)))
            start += n
        return torch.cat(parts).reshape(-1, *self.shape)


def measure(uses: Sequence[Contribution], request: Request) -> Measured:
    """Return the statistics of Σ_uses c_i: the contributions of all uses are summed, then squared."""
    return uses[0].measure(request) if len(uses) == 1 else measure_chunks(uses, request)
