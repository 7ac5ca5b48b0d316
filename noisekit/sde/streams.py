"""Streams of random numbers named by keys, not by the order in which they are asked for."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
import torch
from torch import Tensor

_MASK32 = 2**32 - 1
_MASK64 = 2**64 - 1
_SMALLEST = {torch.float32: 66, torch.float64: 130}

PURPOSES = {"brownian": 0, "sample": 1, "minibatch": 2}
"""What a stream is for, so that no two uses share one."""


def mix64(value: int) -> int:
    """Return the SplitMix64 hash of an integer (Steele, Lea, Flood 2014)."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK64
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK64
    return value ^ (value >> 31)


def stream_key(seed: int, step: int, block: int, purpose: str = "brownian", part: int = 0) -> int:
    """Return the 32-bit seed of one stream; torch's CPU generator reads no more than 32 bits.

    Within one (seed, purpose, part) the map from (step, block) is one-to-one up to 65 536 steps or blocks:
    (step, block) is paired into one integer (Szudzik 2006) and passed through a permutation of the 32-bit
    integers.
    """
    secret = mix64(mix64(seed & _MASK64) ^ (PURPOSES[purpose] << 32 | part))
    paired = block * block + step if step < block else step * step + step + block
    value = (paired ^ (paired >> 32) ^ secret) & _MASK32
    value = ((value ^ (value >> 16)) * 0x85EBCA6B) & _MASK32
    value = ((value ^ (value >> 13)) * 0xC2B2AE35) & _MASK32
    return (value ^ (value >> 16)) ^ (secret >> 32)


class Workspace(threading.local):
    """Buffers that all chunks of a run reuse, one set a thread."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, tuple[int, ...], torch.dtype], Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Return an uninitialised tensor of ``shape``, valid until name and shape are taken again."""
        key = (name, shape, like.dtype)
        held = self._buffers.get(key)
        if held is None:
            held = self._buffers[key] = like.new_empty(shape)
        return held


class NormalSource:
    """Standard normals of a keyed stream, in pieces.

    On the CPU: words of the SFC64 generator (Doty-Humphrey 2010) through the Box–Muller map,
    z = √(−2 ln u) (cos θ, sin θ), which is faster than torch's own normals and has a key of 192 bits. On
    other devices: a ``torch.Generator`` seeded from the key.
    """

    def __init__(self, like: Tensor, workspace: Workspace) -> None:
        self.workspace = workspace
        self.on_cpu = like.device.type == "cpu"
        self.bits = np.random.SFC64(0)
        self.state: Any = {
            "bit_generator": "SFC64",
            "state": {"state": np.zeros(4, dtype=np.uint64)},
            "has_uint32": 0,
            "uinteger": 0,
        }
        self.generator = torch.Generator(device=like.device)
        self.smallest = {kind: torch.tensor(2.0**-power, dtype=kind) for kind, power in _SMALLEST.items()}

    def start(self, seed: int, step: int, block: int) -> None:
        """Begin the stream of (seed, step, block)."""
        if not self.on_cpu:
            self.generator.manual_seed(stream_key(seed, step, block))
            return
        words = self.state["state"]["state"]
        words[:] = mix64(seed & _MASK64), step, block, 1
        self.bits.state = self.state
        # The generator mixes its key in twelve rounds; the words of those are thrown away.
        self.bits.random_raw(18)

    def fill(self, out: Tensor) -> None:
        """Fill the contiguous tensor ``out`` with the next normals of the stream."""
        if not self.on_cpu:
            out.normal_(generator=self.generator)
        elif out.dtype in (torch.float32, torch.float64) and out.numel() % 2 == 0:
            self._box_muller(out.view(-1))
        else:
            wide = torch.float64 if out.dtype == torch.float64 else torch.float32
            flat = torch.empty(out.numel() + out.numel() % 2, dtype=wide)
            self._box_muller(flat)
            out.view(-1).copy_(flat[: out.numel()])

    def _box_muller(self, out: Tensor) -> None:
        half = out.numel() // 2
        single = out.dtype == torch.float32
        n_bits, kind = (32, np.int32) if single else (64, np.int64)
        words = torch.from_numpy(self.bits.random_raw(half if single else 2 * half).view(kind))
        radius, angle = out[:half], out[half:]
        # u² = (word 2^{1−bits})² + a little, in (0, 1]: fine where u is small, never 0.
        radius.copy_(words[:half])
        torch.addcmul(self.smallest[out.dtype], radius, radius, value=4.0 ** (1 - n_bits), out=radius)
        radius.log_().neg_().sqrt_()
        angle.copy_(words[half:]).mul_(2 * math.pi * 2.0**-n_bits)
        cosine = torch.cos(angle, out=self.workspace.take("cosine", (half,), out))
        angle.sin_().mul_(radius)
        radius.mul_(cosine)
