"""Standard normals of keyed streams, one stream a block of replicates, drawn for a whole chunk together."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from noisekit.sde.blocks import Block
from noisekit.sde.streams import Workspace, mix64, stream_key

_TOGETHER = 2**17
"""Numbers that one call of each tensor function works on: calls cost as much as a few thousand numbers."""


@dataclass(frozen=True)
class _Bits:
    """How many bits of a stream make the radius and the angle of a pair of normals."""

    radius: int
    angle: int
    smallest: Tensor
    """What keeps u² above 0."""
    half_turn: Tensor
    """Half the spacing of the angles."""

    def words(self, pairs: int) -> int:
        """Return the 64-bit words of ``pairs`` pairs."""
        return -(-pairs * (self.radius + self.angle) // 64)


def _bits(radius: int, angle: int, kind: torch.dtype) -> _Bits:
    smallest = torch.tensor(2.0 ** (-2 * radius - 2), dtype=kind)
    return _Bits(radius, angle, smallest, torch.tensor(math.pi * 2.0**-angle, dtype=kind))


# 65 536 equally spaced angles give every moment below that order exactly, and save a quarter of the bits.
_OF = {torch.float32: _bits(32, 16, torch.float32), torch.float64: _bits(64, 64, torch.float64)}
_INTEGERS = {16: np.int16, 32: np.int32, 64: np.int64}


@dataclass(frozen=True)
class _Group:
    """Views of the buffers of some levels; those of a block are numpy's, which cost less to make and fill."""

    levels: int
    radius: Tensor
    angle: Tensor
    cosine: Tensor
    words: list[tuple[int, int, int, NDArray[Any], NDArray[Any]]]
    """Of each block: its words, its pairs, where its angles begin, its radii and its angles."""
    products: list[tuple[Tensor, Tensor, Tensor]]
    """Radii, cosines or sines, and the normals that they make."""


class _Plan(threading.local):
    """The normals of a chunk and how they are made, for the buffers of one thread."""

    normals: Tensor | None = None
    groups: tuple[_Group, ...] = ()


class BlockNormals:
    """Standard normals of the blocks of a chunk, (substep, replicate, normal).

    On the CPU: words of the SFC64 generator (Doty-Humphrey 2010) through the Box–Muller map,
    z = √(−2 ln u) (cos θ, sin θ), which is faster than torch's own normals and has a key of 192 bits. Its
    tensor functions work on all blocks and several substeps at once. On other devices: a ``torch.Generator``
    seeded from the key.
    """

    def __init__(
        self, blocks: list[Block], substeps: int, n_normals: int, like: Tensor, workspace: Workspace
    ) -> None:
        self.blocks, self.n_normals, self.workspace = blocks, n_normals, workspace
        self.like = like.new_empty(0)
        self.on_cpu = like.device.type == "cpu"
        self.shape = (substeps, sum(block.used for block in blocks), n_normals)
        self.generators = [np.random.SFC64(0) for _ in blocks]
        self.state: Any = {
            "bit_generator": "SFC64",
            "state": {"state": np.zeros(4, dtype=np.uint64)},
            "has_uint32": 0,
            "uinteger": 0,
        }
        self.generator = torch.Generator(device=like.device)
        self.plan = _Plan()

    def draw(self, seed: int, step: int) -> Tensor:
        """Return the normals of ``step``; a row is the same whatever the numbers of rows and of substeps are.

        A whole block is drawn even where fewer of its rows exist.
        """
        if not self.n_normals:
            return self.like.new_empty(self.shape)
        if not self.on_cpu:
            return self._draw_by_torch(seed, step)
        plan = self.plan
        if plan.normals is None:
            plan.normals = self.workspace.take("normals", self.shape, self.like)
            plan.groups = tuple(self._groups(plan.normals))
        words, secret = self.state["state"]["state"], mix64(seed & (2**64 - 1))
        for block, bits in zip(self.blocks, self.generators, strict=True):
            words[:] = secret, step, block.index, 1
            bits.state = self.state
            # The generator mixes its key in twelve rounds; the words of those are thrown away.
            bits.random_raw(18)
        for group in plan.groups:
            self._box_muller(group)
        return plan.normals

    def _groups(self, normals: Tensor) -> Iterator[_Group]:
        """Yield the levels made together: the root of the bridge first, then 1, 2, 4, … midpoints."""
        kind = torch.float64 if normals.dtype == torch.float64 else torch.float32
        how, like, flat = _OF[kind], normals.new_empty(0, dtype=kind), normals.view(len(normals), -1)
        pairs = [-(-block.size * self.n_normals // 2) for block in self.blocks]
        at_once = max(1, min(len(flat), _TOGETHER // (2 * sum(pairs))))
        for first in range(0, len(flat), at_once):
            out = flat[first : first + at_once]
            radius, angle, cosine = (
                self.workspace.take(name, (at_once, sum(pairs)), like)[: len(out)]
                for name in ("radius", "angle", "cosine")
            )
            words, products = [], []
            start = place = 0
            for block, count in zip(self.blocks, pairs, strict=True):
                mine = slice(start, start + count)
                skip = count * how.radius // how.angle
                words.append((how.words(count), count, skip, radius.numpy()[:, mine], angle.numpy()[:, mine]))
                end = place + block.used * self.n_normals
                middle = min(place + count, end)
                for low, high, factor in ((place, middle, cosine), (middle, end, angle)):
                    chosen = slice(start, start + high - low)
                    if high > low:
                        products.append((radius[:, chosen], factor[:, chosen], out[:, low:high]))
                start, place = start + count, end
            yield _Group(len(out), radius, angle, cosine, words, products)

    def _box_muller(self, group: _Group) -> None:
        radius, angle = group.radius, group.angle
        how = _OF[radius.dtype]
        for bits, (size, count, skip, radii, angles) in zip(self.generators, group.words, strict=True):
            words = bits.random_raw(group.levels * size).reshape(group.levels, size)
            radii[:] = words.view(_INTEGERS[how.radius])[:, :count]
            angles[:] = words.view(_INTEGERS[how.angle])[:, skip : skip + count]
        # u² = (word 2^{1−bits})² + a little, in (0, 1]: fine where u is small, never 0.
        torch.addcmul(how.smallest, radius, radius, value=4.0 ** (1 - how.radius), out=radius)
        radius.log_().neg_().sqrt_()
        torch.add(how.half_turn, angle, alpha=2 * math.pi * 2.0**-how.angle, out=angle)
        torch.cos(angle, out=group.cosine)
        angle.sin_()
        for one, other, out in group.products:
            torch.mul(one, other, out=out)

    def _draw_by_torch(self, seed: int, step: int) -> Tensor:
        out = self.workspace.take("normals", self.shape, self.like)
        start = 0
        for block in self.blocks:
            self.generator.manual_seed(stream_key(seed, step, block.index))
            rows = slice(start, start + block.used)
            # Level by level: the same numbers whatever the number of levels.
            for level in out:
                if block.used == block.size:
                    level[rows].normal_(generator=self.generator)
                    continue
                whole = self.workspace.take("block", (block.size, self.n_normals), out)
                level[rows] = whole.normal_(generator=self.generator)[: block.used]
            start += block.used
        return out
