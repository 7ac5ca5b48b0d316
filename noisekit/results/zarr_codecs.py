"""Zarr stores may name codecs that run code when data is read (pickle); those are refused before opening."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from noisekit.errors import FileFormatError

METADATA = {".zarray", ".zgroup", ".zmetadata", "zarr.json"}
"""Names of the files that describe a store or a part of it."""
_UNSAFE = {"pickle", "numcodecs.pickle"}


def refuse_unsafe_codecs(store: Path) -> None:
    """Raise FileFormatError if any metadata file of ``store`` names a codec that can execute code."""
    for path in sorted(store.rglob("*")):
        if path.name not in METADATA:
            continue
        try:
            names = set(_codec_names(json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError) as error:
            raise FileFormatError(f"{store} is damaged: {path.relative_to(store)} is not JSON.") from error
        if names & _UNSAFE:
            raise FileFormatError(f"{store} holds pickled objects, which could run code; it is not opened.")


def _codec_names(node: Any) -> Iterator[str]:
    """Yield every ``id`` and ``name`` in nested JSON."""
    if isinstance(node, dict):
        yield from (str(node[key]).lower() for key in ("id", "name") if key in node)
        for value in node.values():
            yield from _codec_names(value)
    elif isinstance(node, list):
        for value in node:
            yield from _codec_names(value)
