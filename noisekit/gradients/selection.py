"""Which coordinates are kept, and how each parameter is sketched: drawn once, the same at every step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from noisekit.errors import InputError
from noisekit.gradients.measure import Request, Workspace
from noisekit.gradients.plan import Plan
from noisekit.gradients.sketch import ParameterSketch

DEFAULT_SKETCH = 256
SMALL = 1024
"""Up to how many numbers a parameter has whose per-sample gradients are simply held."""


class Selection:
    """The request to make of each covered parameter; ``index`` are flat positions in their concatenation."""

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        *,
        coordinates: int | Sequence[int] | Tensor,
        sketch: int,
        gram: bool,
        seed: int,
        second_moment: bool = True,
    ):
        self.sizes = {name: p.numel() for name, p in parameters.items()}
        self.shapes = {name: p.shape for name, p in parameters.items()}
        self.total = sum(self.sizes.values())
        self.gram = gram
        self.second_moment = second_moment
        self.index = _positions(coordinates, self.total, seed)
        self.checked = False
        """Whether samples have been seen to add up to the gradient, parameter by parameter."""
        self.sketch = _projections(sketch, self.total)
        self.columns: dict[str, slice] = {}
        self.small: dict[str, slice] = {}
        """Where in their concatenation the parameters are that are so small as to be measured together."""
        self._local: dict[str, Tensor] = {}
        self._sketches: dict[str, ParameterSketch] = {}
        offset, taken, packed = 0, 0, 0
        in_small: list[Tensor] = []
        for position, (name, p) in enumerate(parameters.items()):
            if self.index is not None:
                inside = (self.index >= offset) & (self.index < offset + p.numel())
                count = int(inside.sum())
                if count:
                    local = self.index[inside] - offset
                    self._local[name] = local.to(p.device)
                    self.columns[name] = slice(taken, taken + count)
                    taken += count
                    if p.numel() <= SMALL:
                        in_small.append(local + packed)
            if p.numel() <= SMALL:
                self.small[name] = slice(packed, packed + p.numel())
                packed += p.numel()
            elif self.sketch:
                self._sketches[name] = self._new_sketch(p.shape, position, seed, p)
            offset += p.numel()
        if packed and self.sketch:
            like = parameters[next(iter(self.small))]
            self._sketches[""] = self._new_sketch(torch.Size((packed,)), len(self.sizes), seed, like)
        if in_small:
            self._local[""] = torch.cat(in_small).to(next(iter(parameters.values())).device)

    @classmethod
    def of(cls, plan: Plan, parameters: Mapping[str, Tensor], **wanted: Any) -> Selection:
        """Return the selection for what is wanted, drawn once for each ``plan``."""
        if not isinstance(wanted["coordinates"], int):
            return cls(parameters, **wanted)
        key = tuple(sorted(wanted.items()))
        if key not in plan.selections:
            plan.selections[key] = cls(parameters, **wanted)
        return plan.selections[key]

    def _new_sketch(self, shape: torch.Size, position: int, seed: int, like: Tensor) -> ParameterSketch:
        dtype = torch.float32 if like.dtype in (torch.float16, torch.bfloat16) else like.dtype
        return ParameterSketch(shape, self.sketch, (seed * 100_003 + position) % 2**62, like.device, dtype)

    def request(self, name: str, workspace: Workspace | None = None, *, total: bool = False) -> Request:
        """Return what to ask of the parameter ``name``; "" is the concatenation of the small ones."""
        return Request(
            second_moment=self.second_moment,
            squared_norms=True,
            gram=self.gram,
            total=total,
            index=self._local.get(name),
            sketch=self._sketches.get(name),
            workspace=workspace,
        )

    @property
    def only_moments(self) -> bool:
        """Whether neither coordinates nor a sketch nor a Gram matrix is kept."""
        return self.index is None and not self.sketch and not self.gram

    def positions(self, name: str) -> Tensor:
        """Return the kept coordinates of the parameter ``name``, as positions within it."""
        return self._local[name]

    def blocks(self) -> list[str]:
        """Return the parameter of each kept coordinate."""
        return [name for name, part in self.columns.items() for _ in range(part.stop - part.start)]


def _positions(coordinates: int | Sequence[int] | Tensor, total: int, seed: int) -> Tensor | None:
    if isinstance(coordinates, int):
        if coordinates < 0:
            raise InputError(
                f"coordinates is {coordinates}: give how many to keep (0 for none) or their positions."
            )
        if coordinates == 0:
            return None
        generator = torch.Generator().manual_seed(seed)
        if coordinates >= total:
            return torch.arange(total)
        if coordinates * 20 > total:
            return torch.randperm(total, generator=generator)[:coordinates].sort().values
        drawn = torch.randint(total, (2 * coordinates,), generator=generator)
        distinct = drawn.unique()
        while len(distinct) < coordinates:
            drawn = torch.cat([drawn, torch.randint(total, (coordinates,), generator=generator)])
            distinct = drawn.unique()
        keep = torch.randperm(len(distinct), generator=generator)[:coordinates]
        return distinct[keep].sort().values
    index = torch.as_tensor(coordinates).cpu().flatten()
    if index.is_floating_point() and len(index):
        raise InputError(f"coordinates is {coordinates!r}: give a whole number of them, or their positions.")
    index = index.long()
    if len(index) == 0:
        return None
    if int(index.min()) < 0 or int(index.max()) >= total:
        raise InputError(
            f"coordinates holds {int(index.min())}..{int(index.max())}, and the covered parameters have "
            f"positions 0..{total - 1}."
        )
    if bool((index[1:] <= index[:-1]).any()):
        raise InputError("coordinates must be given in increasing order, each once: sort them.")
    return index


def _projections(sketch: int, total: int) -> int:
    if not isinstance(sketch, int) or sketch < 0:
        raise InputError(f"sketch is {sketch!r}: give how many numbers a sample (0 for none).")
    if sketch > total:
        if sketch == DEFAULT_SKETCH:
            return total
        raise InputError(
            f"sketch={sketch} is larger than the model, which has {total} covered parameters: keep the "
            f"gradients themselves with coordinates={total} and sketch=0."
        )
    return sketch
