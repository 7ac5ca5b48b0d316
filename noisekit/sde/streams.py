"""Streams of random numbers named by keys, not by the order in which they are asked for."""

from __future__ import annotations

import threading

import torch
from torch import Tensor

_MASK32 = 2**32 - 1
_MASK64 = 2**64 - 1

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
