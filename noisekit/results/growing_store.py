"""A zarr store that grows along the axis ``step`` and holds whole steps at every moment, also after a kill.

Values go into the store first and the shapes of its arrays last, all at once: readers take them from the one
file ``.zmetadata``, which is replaced in one rename. A writer that dies in between leaves values that no
reader sees, and the next writer cuts them off.
"""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from noisekit.errors import FileFormatError, InputError, NoisekitError
from noisekit.results.io import open_tree, remove, replace, writable, write_zarr

if TYPE_CHECKING:
    import zarr

AXIS = "step"
_CONSOLIDATED = ".zmetadata"
_SMALL, _LARGE = 2**16, 2**23
"""Bytes of a chunk of small steps, and of the largest chunk."""
_MOST_ROWS = 256


class GrowingStore:
    """A zarr store of a tree; ``length`` is the number of its complete steps."""

    def __init__(self, path: Path):
        """Open the store at ``path`` for writing, and cut off what a writer before left unfinished."""
        import zarr

        self.path = path
        self._metadata = _read_metadata(path)
        for litter in path.rglob("*.partial"):
            litter.unlink(missing_ok=True)
        root = zarr.open_group(path, mode="r+", use_consolidated=False)
        self._arrays: dict[str, zarr.Array[Any]] = {}
        for key, value in self._metadata.items():
            name = key.removesuffix("/.zarray")
            if name != key and _dims(self._metadata, name)[:1] == [AXIS]:
                array = root[name]
                if not isinstance(array, zarr.Array):
                    raise FileFormatError(f"{path} cannot be continued: {name} is no array.")
                self._arrays[name] = array
                if array.shape != tuple(value["shape"]):
                    array.resize(tuple(value["shape"]))

    @classmethod
    def create(cls, path: Path, tree: xr.DataTree, *, overwrite: bool = False) -> GrowingStore:
        """Write ``tree`` as the first steps of a store at ``path``, all at once."""
        partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
        tree = writable(tree)
        encoding = {node.path: _chunks(node) for node in tree.subtree if node.variables}
        try:
            write_zarr(tree, partial, encoding)
            if path.exists() and not overwrite:
                raise InputError(f"{path} exists; choose another name or allow overwriting.")
            replace(partial, path)
        except OSError as error:
            raise NoisekitError(f"{path} could not be written: {error.strerror or error}.") from error
        finally:
            remove(partial)
        return cls(path)

    @property
    def length(self) -> int:
        """Number of complete steps."""
        return int(self._metadata[f"{next(iter(self._arrays))}/.zarray"]["shape"][0])

    def steps(self) -> np.ndarray:
        """Return the optimizer steps that are stored, of the first group that names them."""
        name = next(name for name in self._arrays if name.rsplit("/", 1)[-1] == AXIS)
        return np.asarray(self._arrays[name][: self.length])

    def read(self) -> xr.DataTree:
        """Return what is stored, read when used."""
        return open_tree(self.path)

    def append(self, tree: xr.DataTree) -> None:
        """Add the steps of ``tree``, which must have the arrays of the store."""
        rows = {
            f"{node.path.strip('/')}/{name}": variable.values
            for node in writable(tree).subtree
            for name, variable in node.to_dataset(inherit=False).variables.items()
            if variable.dims[:1] == (AXIS,)
        }
        self._check(rows)
        n, count = self.length, len(next(iter(rows.values())))
        try:
            for name, values in rows.items():
                self._arrays[name].resize((n + count, *values.shape[1:]))
                self._arrays[name][n:] = values
            self._finish(n + count)
        except OSError as error:
            raise NoisekitError(
                f"{self.path} could not be written: {error.strerror or error}; its first {n} steps are whole."
            ) from error

    def truncate(self, length: int) -> None:
        """Forget all steps after the first ``length``."""
        self._finish(length)
        for array in self._arrays.values():
            array.resize((length, *array.shape[1:]))

    def set_attributes(self, group: str, attributes: dict[str, Any]) -> None:
        """Change attributes of a group ("" is the root), where they differ."""
        key = f"{group}/.zattrs" if group else ".zattrs"
        known = self._metadata.setdefault(key, {})
        if known.items() >= attributes.items():
            return
        known.update(attributes)
        _write_json(self.path / key, known)
        self._finish(self.length)

    def _finish(self, length: int) -> None:
        metadata = dict(self._metadata)
        for name in self._arrays:
            known = metadata[f"{name}/.zarray"]
            metadata[f"{name}/.zarray"] = known | {"shape": [length, *known["shape"][1:]]}
        content = {"metadata": metadata, "zarr_consolidated_format": 1}
        _write_json(self.path / _CONSOLIDATED, content)
        self._metadata = metadata

    def _check(self, rows: dict[str, np.ndarray]) -> None:
        if rows.keys() != self._arrays.keys():
            other = sorted(rows.keys() ^ self._arrays.keys())
            raise InputError(
                f"{self.path} cannot take these steps: only one of both has {', '.join(other)}; record the "
                "same things, or write to another file."
            )
        for name, values in rows.items():
            stored = self._arrays[name]
            if stored.shape[1:] != values.shape[1:] or stored.dtype.kind != values.dtype.kind:
                raise InputError(
                    f"{self.path} cannot take these steps: {name} holds {stored.dtype} {stored.shape[1:]} a "
                    f"step and {values.dtype} {values.shape[1:]} came; write to another file."
                )


def _chunks(node: xr.DataTree) -> dict[str, Any]:
    """Return chunks of whole steps, as many as are worth reading; a large step is cut at its last axis."""
    found: dict[str, Any] = {}
    for name, variable in node.to_dataset(inherit=False).variables.items():
        if variable.dims[:1] == (AXIS,):
            shape = [max(1, s) for s in variable.shape[1:]]
            step = variable.dtype.itemsize * int(np.prod(shape, dtype=np.int64))
            rows = max(1, min(_MOST_ROWS, _SMALL // step))
            if shape:
                shape[-1] = max(1, shape[-1] // -(-step // _LARGE))
            found[str(name)] = {"chunks": (rows, *shape)}
    return found


def _read_metadata(path: Path) -> dict[str, Any]:
    try:
        found = json.loads((path / _CONSOLIDATED).read_text(encoding="utf-8"))["metadata"]
    except (OSError, ValueError, KeyError) as error:
        raise FileFormatError(
            f"{path} cannot be continued: its file {_CONSOLIDATED} is missing or damaged; "
            "write to another file."
        ) from error
    if not any(_dims(found, key.removesuffix("/.zarray"))[:1] == [AXIS] for key in found):
        raise FileFormatError(f"{path} cannot be continued: nothing in it has the axis {AXIS}.")
    return dict(found)


def _dims(metadata: dict[str, Any], name: str) -> list[str]:
    return list(metadata.get(f"{name}/.zattrs", {}).get("_ARRAY_DIMENSIONS", []))


def _write_json(path: Path, content: Any) -> None:
    """Write ``content`` so that readers see the file before or after, never between."""
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.partial")
    partial.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    os.replace(partial, path)
