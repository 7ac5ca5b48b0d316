"""Attributes that netCDF and zarr can both hold: text, numbers and lists of numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np


def storable(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``attributes`` in types that every format can hold.

    Truth values become 0 and 1, None becomes the empty text, mappings and lists become JSON, and integers of
    more than 64 bits text.

    >>> storable({"a": True, "b": None, "c": {"k": 1}})
    {'a': 1, 'b': '', 'c': '{"k": 1}'}
    """
    return {str(name): _storable(value) for name, value in attributes.items()}


def to_json(value: Any) -> str:
    """Return ``value`` as JSON with sorted keys; what JSON does not know is written as text."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=_plain)


def _storable(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, bool | np.bool_):
        return int(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return str(value)
    if isinstance(value, int | float):
        return value
    if isinstance(value, Mapping | list | tuple | set):
        return _text(to_json(sorted(value) if isinstance(value, set) else value))
    return _text(str(value))


def _text(value: str) -> str:
    """Return ``value`` with what no file holds, zero bytes and halves of characters, replaced by a mark."""
    return value.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    return str(value)
