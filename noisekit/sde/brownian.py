"""Keyed Brownian increments: (seed, block of replicates, optimizer step) names the noise of one step.

Inside a step of length η the increments of length dt = η/2^j come from a Brownian bridge: the first normal
is the increment of the whole step, every further level splits each interval in two. Runs at dt and dt/2 thus
share their path, and a path does not depend on how many replicates run, on threads, or on where it resumed.
Sources: the bridge, Lévy 1948; the pairing function, Szudzik 2006; the mixer, Steele, Lea, Flood 2014.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from noisekit.noise.base import NoiseModel

_MASK32 = 2**32 - 1
_MASK64 = 2**64 - 1
_BLOCK_ELEMENTS = 2**15
_FIRST_BLOCK_ELEMENTS = 2**12

PURPOSES = {"brownian": 0, "sample": 1, "minibatch": 2}
"""What a stream of random numbers is for, so that no two uses share one."""


def mix64(value: int) -> int:
    """Return the SplitMix64 hash of an integer."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK64
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK64
    return value ^ (value >> 31)


def stream_key(seed: int, step: int, block: int, purpose: str = "brownian", part: int = 0) -> int:
    """Return the 32-bit seed of one stream; torch's CPU generator reads no more than 32 bits.

    Within one (seed, purpose, part) the map from (step, block) is one-to-one up to 65 536 steps or blocks:
    (step, block) is paired into one integer and passed through a permutation of the 32-bit integers.
    """
    secret = mix64(mix64(seed & _MASK64) ^ (PURPOSES[purpose] << 32 | part))
    paired = block * block + step if step < block else step * step + step + block
    value = (paired ^ (paired >> 32) ^ secret) & _MASK32
    value = ((value ^ (value >> 16)) * 0x85EBCA6B) & _MASK32
    value = ((value ^ (value >> 13)) * 0xC2B2AE35) & _MASK32
    return (value ^ (value >> 16)) ^ (secret >> 32)


@dataclass(frozen=True)
class Block:
    """Replicates that share one stream: rows ``start`` to ``start + size``, of which ``used`` exist."""

    index: int
    start: int
    size: int
    used: int

    @property
    def stop(self) -> int:
        """The row after the last one in use."""
        return self.start + self.used


def replicate_blocks(replicates: int, dimension: int) -> list[Block]:
    """Return the blocks of the replicates; their borders depend on the dimension alone.

    Blocks double from a few rows up to about 32 768 numbers, so that few replicates waste few draws.
    """
    largest = max(1, _BLOCK_ELEMENTS // dimension)
    size = max(1, min(16, largest, _FIRST_BLOCK_ELEMENTS // dimension))
    blocks: list[Block] = []
    start = 0
    while start < replicates:
        blocks.append(Block(len(blocks), start, size, min(size, replicates - start)))
        start += size
        size = min(start, largest)
    return blocks


def group_blocks(blocks: list[Block], dimension: int, *, together: bool) -> list[list[Block]]:
    """Group consecutive blocks into chunks that are stepped together: all of them, or what a cache holds."""
    if together:
        return [blocks]
    chunks: list[list[Block]] = [[]]
    for block in blocks:
        rows = sum(b.used for b in chunks[-1]) + block.used
        if chunks[-1] and rows * dimension > _BLOCK_ELEMENTS:
            chunks.append([])
        chunks[-1].append(block)
    return chunks


def bridge_matrix(substeps: int) -> Tensor:
    """Return the orthonormal matrix that turns level-ordered normals into ``substeps`` normalised increments.

    Row i of the matrix for 2S is (row i//2 of the matrix for S, ±e_{i//2}) / √2: the Haar basis.
    """
    matrix = torch.ones(1, 1, dtype=torch.float64)
    while matrix.shape[0] < substeps:
        identity = torch.eye(matrix.shape[0], dtype=torch.float64)
        halves = torch.stack([torch.cat([matrix, identity], 1), torch.cat([matrix, -identity], 1)], 1)
        matrix = halves.flatten(0, 1) * math.sqrt(0.5)
    return matrix


class Draws:
    """The random numbers of one chunk of replicates, step by step.

    ``normals(step)`` returns standard normals (substep, replicate, normal); times √dt they are increments.
    ``sample(noise, x, step, substep)`` draws Z of a noise model for every replicate of the chunk.
    """

    def __init__(self, seed: int, blocks: list[Block], n_normals: int, substeps: int, like: Tensor) -> None:
        self.seed, self.blocks, self.like = seed, blocks, like
        self.origin = blocks[0].start
        self.generator = torch.Generator(device=like.device)
        self.n_normals = n_normals
        rows = blocks[-1].stop - self.origin
        self.raw = like.new_empty(substeps if n_normals else 0, rows, n_normals)
        self.bridged = torch.empty_like(self.raw) if substeps > 1 else self.raw
        self.bridge = bridge_matrix(substeps).to(like)
        last = blocks[-1]
        self.padding = like.new_empty(last.size, n_normals) if last.used < last.size else None

    def normals(self, step: int) -> Tensor:
        if not self.n_normals:
            return self.raw
        for block in self.blocks:
            self.generator.manual_seed(stream_key(self.seed, step, block.index))
            begin, end = block.start - self.origin, block.stop - self.origin
            for level in self.raw:
                if block.used == block.size:
                    level[begin:end].normal_(generator=self.generator)
                elif self.padding is not None:
                    # A whole block is drawn even where fewer rows exist: the numbers of a row stay the same.
                    level[begin:end] = self.padding.normal_(generator=self.generator)[: block.used]
        if self.raw.shape[0] > 1:
            torch.mm(self.bridge, self.raw.flatten(1), out=self.bridged.view(self.raw.shape[0], -1))
        return self.bridged

    def sample(self, noise: NoiseModel, x: Tensor, step: int, substep: int = 0) -> Tensor:
        parts = []
        for block in self.blocks:
            key = stream_key(self.seed, step, block.index, "sample", substep)
            self.generator.manual_seed(key)
            # The same tensor where it can be: noise models recognise a point by its tensor.
            whole = block.used == len(x)
            rows = x if whole else x[block.start - self.origin : block.stop - self.origin]
            if block.used < block.size:
                rows = torch.cat([rows, rows[-1:].expand(block.size - block.used, -1)])
            parts.append(noise.sample(rows, self.generator)[: block.used])
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def minibatch(self, n_samples: int, batch_size: int, step: int, *, replacement: bool) -> Tensor:
        """Return sample indices (replicate, batch), drawn for every replicate on its own."""
        parts = []
        for block in self.blocks:
            self.generator.manual_seed(stream_key(self.seed, step, block.index, "minibatch"))
            device = self.like.device
            if replacement:
                shape = (block.size, batch_size)
                index = torch.randint(n_samples, shape, generator=self.generator, device=device)
            else:
                order = torch.rand(block.size, n_samples, generator=self.generator, device=device)
                index = order.argsort(dim=1)[:, :batch_size]
            parts.append(index[: block.used])
        return torch.cat(parts)
