"""What is asked of the per-sample gradients of one parameter, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from noisekit.gradients.sketch import ParameterSketch


class Workspace:
    """Memory for the rows of one parameter after the other: fresh pages cost as much as the products."""

    def __init__(self) -> None:
        self._memory: dict[torch.dtype, Tensor] = {}

    def rows(self, n: int, d: int, like: Tensor) -> Tensor:
        """Return uninitialised memory (n, d) that is valid until the next call."""
        memory = self._memory.get(like.dtype)
        if memory is None or memory.numel() < n * d or memory.device != like.device:
            memory = self._memory[like.dtype] = like.new_empty(n * d)
        return memory[: n * d].view(n, d)


@dataclass(frozen=True)
class Request:
    """The statistics wanted of one parameter; whatever is off costs nothing."""

    second_moment: bool = True
    squared_norms: bool = True
    gram: bool = False
    total: bool = False
    weights: Tensor | None = None
    """(weighting, sample)."""
    index: Tensor | None = None
    """Flat positions within the parameter, (coordinate,)."""
    sketch: ParameterSketch | None = None
    workspace: Workspace | None = None

    @property
    def only_norms(self) -> bool:
        """Whether nothing but |c_i|² is wanted."""
        return self.only_moments and not (self.second_moment or self.total or self.weights is not None)

    @property
    def only_moments(self) -> bool:
        """Whether sums over the samples and |c_i|² are all that is wanted."""
        return not (self.gram or self.index is not None or self.sketch is not None)


@dataclass
class Measured:
    """Statistics of the contributions c_i (sample, *parameter) of one parameter."""

    total: Tensor | None = None
    """Σ_i c_i, shaped like the parameter."""
    weighted: Tensor | None = None
    """Σ_i w_ki c_i, (weighting, *parameter)."""
    second_moment: Tensor | None = None
    """Σ_i c_i², shaped like the parameter."""
    squared_norms: Tensor | None = None
    """|c_i|², (sample,)."""
    gram: Tensor | None = None
    """c_i·c_j, (sample, sample)."""
    values: Tensor | None = None
    """c_i at the asked positions, (sample, coordinate)."""
    sketch: Tensor | None = None
    """(sample, projection)."""
    spectrum: Tensor | None = None
    """A sketch as its real Fourier transform, (sample, projection // 2 + 1)."""

    def shaped(self, shape: torch.Size) -> Measured:
        """Return the same with sums over the samples in the ``shape`` of the parameter."""

        def reshaped(sums: Tensor | None, *leading: int) -> Tensor | None:
            return None if sums is None else sums.reshape(*leading, *shape)

        return replace(
            self,
            total=reshaped(self.total),
            weighted=reshaped(self.weighted, -1),
            second_moment=reshaped(self.second_moment),
        )


class RowMeasurer:
    """Takes explicit per-sample gradients a few samples at a time and accumulates what is asked of them.

    ``whole`` is None, or where all rows are kept for the Gram matrix: (sample, d). Rows are overwritten: the
    signs of the sketch are multiplied in place, which squares and the Gram matrix do not see.
    """

    def __init__(self, request: Request, n_samples: int, shape: torch.Size, *, keep: bool):
        self.request, self.n_samples, self.shape = request, n_samples, shape
        self._keep = keep
        self.whole: Tensor | None = None
        """All rows, where the Gram matrix needs them."""
        self._scratch: Tensor | None = None
        self._total: Tensor | None = None
        self._weighted: Tensor | None = None
        self._taken = 0
        self._second: Tensor | None = None
        self._norms: list[Tensor] = []
        self._values: list[Tensor] = []
        self._sketches: list[Tensor] = []

    def room(self, samples: slice) -> Tensor | None:
        """Return memory to write the rows of ``samples`` to, once the first rows have been taken."""
        if self.whole is not None:
            return self.whole[samples]
        return None if self._scratch is None else self._scratch[: samples.stop - samples.start]

    def kept(self, samples: slice, rows: Tensor) -> Tensor:
        """Return ``rows``, copied to the place where those of ``samples`` are kept if they are."""
        if not self._keep:
            self._scratch = rows
            return rows
        if self.whole is None:
            if len(rows) == self.n_samples:
                self.whole = rows
                return rows
            workspace = self.request.workspace or Workspace()
            self.whole = workspace.rows(self.n_samples, self.shape.numel(), rows)
        return self.whole[samples].copy_(rows)

    def take(self, rows: Tensor) -> None:
        """Measure ``rows`` (len(samples), d), in the order of the samples."""
        request = self.request
        if request.total:
            sums = rows.sum(0) if len(rows) > 1 or self._total is None else rows[0]
            self._total = sums if self._total is None else self._total.add_(sums)
        if request.weights is not None:
            weights = request.weights[:, self._taken : self._taken + len(rows)].to(rows.dtype)
            self._weighted = (
                weights @ rows if self._weighted is None else self._weighted.addmm_(weights, rows)
            )
            self._taken += len(rows)
        if not self._keep:
            self._read(rows)
        norms = request.squared_norms and not request.gram
        if len(rows) == 1:
            row = rows[0]
            if request.second_moment:
                if self._second is None:
                    self._second = torch.zeros_like(row)
                self._second.addcmul_(row, row)
            if norms:
                self._norms.append(torch.dot(row, row).unsqueeze(0))
        elif request.second_moment or norms:
            squares = rows.square() if self._keep else rows.square_()
            if request.second_moment:
                self._second = squares.sum(0) if self._second is None else self._second.add_(squares.sum(0))
            if norms:
                self._norms.append(squares.sum(1))

    def _read(self, rows: Tensor) -> None:
        """Read the coordinates and the sketch off ``rows``, which are left with the signs of the sketch."""
        if self.request.index is not None:
            self._values.append(rows.index_select(1, self.request.index))
        if self.request.sketch is not None:
            self._sketches.append(self.request.sketch.apply_in_place(rows))

    def result(self) -> Measured:
        """Return the statistics of all rows taken."""
        if self.whole is not None:
            self._read(self.whole)
        result = Measured(values=_joined(self._values), sketch=_joined(self._sketches))
        if self.request.gram and self.whole is not None:
            result.gram = self.whole @ self.whole.T
            result.squared_norms = result.gram.diagonal()
        elif self._norms:
            result.squared_norms = _joined(self._norms)
        if self._total is not None:
            result.total = self._total.reshape(self.shape)
        if self._weighted is not None:
            result.weighted = self._weighted.reshape(-1, *self.shape)
        if self._second is not None:
            result.second_moment = self._second.reshape(self.shape)
        return result


def _joined(parts: list[Tensor]) -> Tensor | None:
    return parts[0] if len(parts) == 1 else torch.cat(parts) if parts else None


def measure_rows(rows: Tensor, request: Request) -> Measured:
    """Return the statistics of explicit gradients ``rows`` (sample, *parameter), which are overwritten."""
    measurer = RowMeasurer(request, rows.shape[0], rows.shape[1:], keep=request.gram)
    flat = rows.reshape(rows.shape[0], -1)
    if request.gram:
        measurer.whole = flat
    measurer.take(flat)
    return measurer.result()
