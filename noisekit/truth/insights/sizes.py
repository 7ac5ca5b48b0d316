"""How large an experiment is: two presets, or sizes given by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeVar

from noisekit.errors import unknown_name

Preset = Literal["quick", "full"]
S = TypeVar("S")


def sizes_of(preset: Preset | S, table: Mapping[str, S]) -> S:
    """Return the sizes called ``preset``, or ``preset`` itself where it is sizes already."""
    if not isinstance(preset, str):
        return preset
    if preset not in table:
        raise unknown_name("preset", preset, table)
    return table[preset]
