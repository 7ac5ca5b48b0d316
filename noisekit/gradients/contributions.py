"""The per-sample gradients of one use of one parameter, kept in the cheapest form that is exact."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from noisekit.gradients.measure import Measured, Request, measure_rows

CHUNK_ELEMENTS = 2**24
"""How many numbers of explicit per-sample gradients may exist at once."""


class Contribution(ABC):
    """What one use of a parameter adds to the gradient of each sample, c_i (sample, *parameter)."""

    n_samples: int
    shape: torch.Size

    @abstractmethod
    def rows(self, samples: slice) -> Tensor:
        """Return c_i for ``samples``, (len(samples), *shape); the caller may overwrite it."""

    def measure(self, request: Request) -> Measured:
        """Return the statistics asked for."""
        return measure_chunks(self.n_samples, self.shape, self.rows, request)


def chunks(n_samples: int, size: int, limit: int = CHUNK_ELEMENTS) -> Iterator[slice]:
    """Yield slices of the samples so that ``size`` numbers a sample stay under ``limit``."""
    step = max(1, limit // max(size, 1))
    for start in range(0, n_samples, step):
        yield slice(start, min(start + step, n_samples))


def measure_chunks(
    n_samples: int, shape: torch.Size, rows: Callable[[slice], Tensor], request: Request
) -> Measured:
    """Return the statistics of c_i computed chunk by chunk; the Gram matrix pairs the chunks."""
    parts = list(chunks(n_samples, shape.numel()))
    if len(parts) == 1:
        return measure_rows(rows(parts[0]), request)
    once = Request(request.second_moment, request.squared_norms, False, request.index, request.sketch)
    pieces = [measure_rows(rows(part), once) for part in parts]
    total = Measured()
    if request.second_moment:
        total.second_moment = torch.stack(
            [p.second_moment for p in pieces if p.second_moment is not None]
        ).sum(0)
    total.squared_norms = _joined([p.squared_norms for p in pieces])
    total.values = _joined([p.values for p in pieces])
    total.sketch = _joined([p.sketch for p in pieces])
    if request.gram:
        total.gram = _paired_gram(parts, rows, n_samples)
    return total


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    present = [part for part in parts if part is not None]
    return torch.cat(present) if present else None


def _paired_gram(parts: list[slice], rows: Callable[[slice], Tensor], n_samples: int) -> Tensor:
    blocks: list[list[Tensor]] = []
    for k, part in enumerate(parts):
        here = rows(part).flatten(1)
        blocks.append([here @ rows(other).flatten(1).T for other in parts[:k]] + [here @ here.T])
    gram = blocks[0][0].new_empty(n_samples, n_samples)
    for k, row in enumerate(blocks):
        for j, block in enumerate(row):
            gram[parts[k], parts[j]] = block
            gram[parts[j], parts[k]] = block.T
    return gram


class Explicit(Contribution):
    """Per-sample gradients that are small enough to be held as they are (biases, normalisation weights)."""

    def __init__(self, gradients: Tensor):
        self.n_samples = gradients.shape[0]
        self.shape = gradients.shape[1:]
        self._gradients = gradients

    def rows(self, samples: slice) -> Tensor:
        return self._gradients[samples].clone()


class Computed(Contribution):
    """Per-sample gradients that a function computes for a slice of the samples."""

    def __init__(self, n_samples: int, shape: torch.Size, compute: Callable[[slice], Tensor]):
        self.n_samples = n_samples
        self.shape = shape
        self._compute = compute

    def rows(self, samples: slice) -> Tensor:
        return self._compute(samples)


class Joined(Contribution):
    """The samples of several passes in a row, each with its own uses of the parameter."""

    def __init__(self, passes: Sequence[Sequence[Contribution]]):
        self.n_samples = sum(uses[0].n_samples for uses in passes)
        self.shape = passes[0][0].shape
        self._passes = passes

    def rows(self, samples: slice) -> Tensor:
        parts, start = [], 0
        for uses in self._passes:
            n = uses[0].n_samples
            first, last = max(samples.start - start, 0), min(samples.stop - start, n)
            if first < last:
                inside = slice(first, last)
                parts.append(torch.stack([use.rows(inside) for use in uses]).sum(0))
            start += n
        return torch.cat(parts)


def measure(uses: Sequence[Contribution], request: Request) -> Measured:
    """Return the statistics of Σ_uses c_i: the contributions of all uses are summed, then squared."""
    if len(uses) == 1:
        return uses[0].measure(request)

    def rows(samples: slice) -> Tensor:
        total = uses[0].rows(samples)
        for use in uses[1:]:
            total += use.rows(samples)
        return total

    return measure_chunks(uses[0].n_samples, uses[0].shape, rows, request)
