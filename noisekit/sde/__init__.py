"""Optimizer SDEs and their integration."""

from noisekit.sde.solution import Solution

__all__ = ["Solution"]
