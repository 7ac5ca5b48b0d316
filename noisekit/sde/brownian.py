"""Keyed Brownian increments: (seed, block of replicates, optimizer step) names the noise of one step.

Inside a step of length η the increments of length dt = η/2^j come from a Brownian bridge (Lévy 1948): the
first normal is the increment of the whole step, every further level splits each interval in two. Runs at dt
and dt/2 thus share their path, and a path does not depend on how many replicates run, on threads, or on where
it resumed.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from noisekit.noise.base import NoiseModel
from noisekit.sde.blocks import Block
from noisekit.sde.constants import Constants
from noisekit.sde.normals import BlockNormals
from noisekit.sde.philox import PhiloxNormals
from noisekit.sde.precision import full_precision
from noisekit.sde.streams import Workspace, stream_key


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

    def __init__(
        self,
        seed: int,
        blocks: list[Block],
        n_normals: int,
        substeps: int,
        like: Tensor,
        workspace: Workspace | None = None,
    ) -> None:
        self.seed, self.blocks, self.like = seed, blocks, like
        self.n_normals, self.substeps = n_normals, substeps
        self.origin = blocks[0].start
        self.rows = blocks[-1].stop - self.origin
        self.workspace = workspace or Workspace()
        self.generator = torch.Generator(device=like.device)
        self.held: dict[str, Tensor] = {}
        """What an equation keeps from the first substep of a step to the last."""
        self.buffers: dict[str, Tensor] = {}
        """Buffers in the shape of the chunk's x, of the thread that steps it at the moment."""
        self.constants: Constants | None = None
        """What an equation knows of the chunk beforehand."""
        self.source: BlockNormals | PhiloxNormals = BlockNormals(
            blocks, substeps, n_normals, like, self.workspace
        )
        self.bridge = bridge_matrix(substeps).to(like)

    def normals(self, step: int) -> Tensor:
        """Return the normals of optimizer step ``step``; valid until the next call on this workspace."""
        raw = self.source.draw(self.seed, step)
        if self.substeps == 1 or not self.n_normals:
            return raw
        bridged = self.workspace.take("bridged", tuple(raw.shape), self.like)
        with full_precision(raw):
            torch.mm(self.bridge, raw.flatten(1), out=bridged.view(self.substeps, -1))
        return bridged

    def sample(self, noise: NoiseModel, x: Tensor, step: int, substep: int = 0) -> Tensor:
        """Return one draw of Z a replicate, named by (seed, block, step, substep)."""
        if getattr(noise, "law", None) == "empirical":
            return self._minibatch_error(noise, x, step, substep)
        parts = []
        for block in self.blocks:
            self.generator.manual_seed(stream_key(self.seed, step, block.index, "sample", substep))
            # The same tensor where it can be: noise models recognise a point by its tensor.
            whole = block.used == len(x)
            rows = x if whole else x[block.start - self.origin : block.stop - self.origin]
            if block.used < block.size:
                rows = torch.cat([rows, rows[-1:].expand(block.size - block.used, -1)])
            parts.append(noise.sample(rows, self.generator)[: block.used])
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _minibatch_error(self, noise: Any, x: Tensor, step: int, substep: int) -> Tensor:
        """Return the errors of drawn minibatches: whole blocks are drawn, but only ``x`` is evaluated."""
        parts = []
        for block in self.blocks:
            self.generator.manual_seed(stream_key(self.seed, step, block.index, "sample", substep))
            parts.append(noise.draw_minibatches(block.size, self.generator)[: block.used])
        return noise.error_of(x, torch.cat(parts))

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
                index = order.topk(batch_size, dim=1, sorted=False).indices
            parts.append(index[: block.used])
        return torch.cat(parts)
