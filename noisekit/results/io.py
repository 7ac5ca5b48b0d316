"""Result files: netCDF-4 through h5netcdf, or zarr, chosen by the suffix of the path."""

from __future__ import annotations

import asyncio
import errno
import importlib.util
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr

from noisekit.errors import FileFormatError, InputError, NoisekitError
from noisekit.results.attributes import storable
from noisekit.results.schema import SCHEMA
from noisekit.results.validate import validate
from noisekit.results.zarr_codecs import METADATA, refuse_unsafe_codecs

NETCDF_SUFFIXES = (".nc", ".nc4")
ZARR_SUFFIX = ".zarr"
_CANNOT_RESERVE = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)
"""What a file system or a C library answers that does not know how to reserve space."""
_PATIENCE = 600.0
"""Seconds in which a disk that works ends a write or takes a byte: a close may flush a large piece."""


def save_tree(tree: xr.DataTree, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write a result tree: netCDF-4 for ``.nc``, zarr for ``.zarr``.

    The tree is written under a temporary name beside ``path`` and renamed, so that no half file is ever seen.

    Args:
        tree: as ``to_datatree`` returns it.
        path: where to write; its folder must exist.
        overwrite: whether a file that exists may be replaced.

    Returns:
        The path.

    Raises:
        InputError: if the path exists, its folder does not, or the suffix is unknown.
        NoisekitError: if the system refuses to write.
    """
    path = check_output(path, overwrite=overwrite)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        _write(writable(tree), partial, path.suffix)
        replace(partial, path)
    except OSError as error:
        reason = "the disk is full" if error.errno == errno.ENOSPC else (error.strerror or str(error))
        raise NoisekitError(f"{path} could not be written: {reason}.") from error
    finally:
        remove(partial)
    return path


def check_output(
    path: str | os.PathLike[str], *, overwrite: bool = False, suffixes: tuple[str, ...] = ()
) -> Path:
    """Return ``path`` if a file may be written there; meant to be asked before long work begins."""
    path = Path(path)
    suffixes = suffixes or (*NETCDF_SUFFIXES, ZARR_SUFFIX)
    if path.suffix not in suffixes:
        raise InputError(
            f"{path} has the suffix {path.suffix!r}; it needs one of {', '.join(suffixes)}, "
            "which chooses the format."
        )
    if path.suffix == ZARR_SUFFIX and not importlib.util.find_spec("zarr"):
        raise NoisekitError(f"{path} needs the package zarr to be written: pip install 'noisekit[zarr]'.")
    check_place(path, overwrite=overwrite)
    if path.exists() and path.is_dir() != (path.suffix == ZARR_SUFFIX):
        raise InputError(f"{path} is a {'folder' if path.is_dir() else 'file'}; choose another name.")
    if path.is_dir() and not any((path / name).exists() for name in METADATA):
        raise InputError(f"{path} is a folder but no zarr store; choose another name.")
    return path


def check_place(path: Path, *, overwrite: bool) -> None:
    """Raise InputError unless ``path`` is free, or may be replaced, in a folder that can be written to."""
    if not path.parent.is_dir():
        raise InputError(f"The folder {path.parent} does not exist; make it first or choose another.")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists; choose another name or allow overwriting.")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"The folder {path.parent} cannot be written to; choose another.")


def open_tree(
    path: str | os.PathLike[str],
    *,
    chunks: Mapping[str, int] | int | Literal["auto", "stored"] | None = "stored",
) -> xr.DataTree:
    """Open a result file lazily: values are read when they are used.

    Args:
        path: a file that ``save_tree`` or ``stream_record`` wrote.
        chunks: pieces in which dask reads: as they are "stored" (plain lazy arrays if dask is not installed),
            "auto" for dask's own size, sizes by axis such as ``{"step": 1, "coordinate": 4096}``, or None for
            no dask.

    Raises:
        InputError: if there is no such file.
        FileFormatError: if the file is not a result file, is cut short, or has another schema version.
        NoisekitError: if chunks are asked for and dask is not installed.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"There is no file {path}; check the name.")
    has_dask = importlib.util.find_spec("dask") is not None
    if chunks not in ("stored", None) and not has_dask:
        raise NoisekitError("Reading in chunks needs the package dask: pip install 'noisekit[zarr]'.")
    pieces: Any = ({} if has_dask else None) if isinstance(chunks, str) and chunks == "stored" else chunks
    is_zarr = path.is_dir()
    if is_zarr:
        if not importlib.util.find_spec("zarr"):
            raise NoisekitError(
                f"{path} is a zarr store, and zarr is not installed: pip install 'noisekit[zarr]'."
            )
        refuse_unsafe_codecs(path)
    try:
        options: dict[str, Any] = {"engine": "zarr" if is_zarr else "h5netcdf", "chunks": pieces}
        if is_zarr and (path / ".zgroup").exists() and not (path / ".zmetadata").exists():
            options["consolidated"] = False
        tree = xr.open_datatree(path, **options)
    except PermissionError as error:
        raise FileFormatError(f"{path} may not be read; change its permissions.") from error
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        where = _faulty_group(path, is_zarr, options)
        raise FileFormatError(
            f"{path} is not a result file, or is damaged{where}: {_reason(error)}."
        ) from error
    try:
        validate(tree, where=str(path))
    except FileFormatError:
        tree.close()
        raise
    return tree


def _faulty_group(path: Path, is_zarr: bool, options: dict[str, Any]) -> str:
    """Return words that name the first group of a file which cannot be opened by itself, or nothing."""
    try:
        if is_zarr:
            kept = {k: v for k, v in options.items() if k != "chunks"} | {"chunks": None}
            folders = sorted({p.parent.parent for p in path.rglob(".zarray")})
            groups = [str(f.relative_to(path)) for f in folders]
        else:
            import h5netcdf

            kept = {"engine": "h5netcdf"}
            with h5netcdf.File(path, "r") as file:
                groups = list(_group_names(file))
    except (OSError, RuntimeError, ValueError):
        return ""
    for group in groups:
        try:
            xr.open_dataset(path, group=group, **kept).close()
        except (OSError, ValueError, KeyError, RuntimeError):
            return f" in the group /{group}"
    return ""


def _group_names(group: Any, path: str = "") -> Iterator[str]:
    for name, child in group.groups.items():
        yield f"{path}{name}"
        yield from _group_names(child, f"{path}{name}/")


def _reason(error: Exception) -> str:
    text = str(error)
    if "truncated file" in text:
        return "it is cut short; copy or make it again"
    if "signature not found" in text:
        return "it is not in netCDF-4 (HDF5) format"
    if "No group found" in text:
        return "it holds no zarr store"
    if "conflicting sizes" in text:
        return f"{text.strip()}; copy the file again, or leave out the variable that is too long"
    return " ".join(text.split())[:200].rstrip(".") or type(error).__name__


def writable(tree: xr.DataTree) -> xr.DataTree:
    """Return a copy with attributes and types that both formats hold."""

    def convert(data: xr.Dataset) -> xr.Dataset:
        data = data.copy()
        data.attrs = storable(data.attrs)
        for name, variable in data.variables.items():
            if variable.dtype == np.float16:
                data[name] = data[name].astype(np.float32)
            elif variable.dtype == bool:
                data[name] = data[name].astype(np.int8)
            data[name].attrs = storable(variable.attrs)
            data[name].encoding = {}
        return data

    groups = {node.path: convert(node.to_dataset(inherit=False)) for node in tree.subtree}
    result = xr.DataTree.from_dict(groups, name=tree.name)
    result.attrs.setdefault("Conventions", SCHEMA)
    return result


def _write(tree: xr.DataTree, path: Path, suffix: str) -> None:
    if suffix == ZARR_SUFFIX:
        write_zarr(tree, path)
    else:
        _reserve(path, sum(_most_bytes(node.to_dataset(inherit=False)) for node in tree.subtree))
        tree.to_netcdf(path, engine="h5netcdf")


def write_zarr(
    tree: xr.DataTree, path: Path, encoding: Mapping[str, Mapping[str, Any]] | None = None
) -> None:
    """Write a zarr store; when it fails, nothing writes to ``path`` any more once this has raised.

    Raises NoisekitError where the disk hangs: then a late write may still come.
    """
    import zarr

    try:
        # Version 2 of the format: version 3 has no agreed way to write text coordinates. The metadata are
        # gathered once, at the end: xarray would do so again after each group.
        tree.to_zarr(path, zarr_format=2, consolidated=False, encoding=encoding)
        zarr.consolidate_metadata(path, zarr_format=2)
    except BaseException:
        _await_zarr_writers(path)
        raise


def _await_zarr_writers(path: Path) -> None:
    """Wait until zarr's event loop is idle: the first write that fails ends a call while others still run.

    One that ended later would make the folder again after it has been removed. A slow disk gets the time it
    takes; one that ends no write and takes no byte for ``_PATIENCE`` hangs, which raises NoisekitError.
    """
    from zarr.core.sync import sync

    async def others() -> tuple[int, int]:
        running = asyncio.all_tasks() - {asyncio.current_task()}
        if not running:
            return 0, 0
        done, left = await asyncio.wait(running, timeout=_PATIENCE)
        await asyncio.gather(*done, return_exceptions=True)  # else each error that nobody takes is logged
        return len(done), len(left)

    before = _size(path)
    while (counts := sync(others()))[1]:
        done, left = counts
        size = _size(path)
        if not done and size == before:
            raise NoisekitError(
                f"The disk of {path.parent} hangs: {left} writes did not end and nothing was written in "
                f"{_PATIENCE:g} s; find out why, and remove {path.name} there."
            )
        before = size


def _size(folder: Path) -> int:
    """Return the bytes of all files below ``folder``; those that vanish meanwhile do not count."""
    total = 0
    for root, _, files in os.walk(folder):
        for name in files:
            with suppress(OSError):
                total += os.stat(os.path.join(root, name)).st_size
    return total


def _most_bytes(data: xr.Dataset) -> int:
    """Return a bound of what HDF5 needs for a group: values, texts, headers of variables and attributes."""
    kept = [data.attrs, *(variable.attrs for variable in data.variables.values())]
    attributes = [value for attrs in kept for value in attrs.values()]
    texts = sum(len(str(value).encode()) for value in attributes)
    for variable in data.variables.values():
        if variable.dtype == object:
            texts += sum(len(str(value).encode()) + 16 for value in variable.values.flat)
    headers = 4096 * (1 + len(data.variables)) + 128 * len(attributes)
    return data.nbytes + data.nbytes // 8 + 2 * texts + headers


def _reserve(path: Path, size: int) -> None:
    """Raise OSError if a file of ``size`` bytes has no room: HDF5 ends the process where a disk is full.

    Space is taken and given back, which quotas count too; where the system cannot do that, what is free is
    looked up. Others may still fill the disk while HDF5 writes.
    """
    if hasattr(os, "posix_fallocate"):
        try:
            with path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, size)
            return
        except OSError as error:
            if error.errno not in _CANNOT_RESERVE:
                raise
    if shutil.disk_usage(path.parent).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def replace(partial: Path, path: Path) -> None:
    """Rename ``partial`` to ``path``; a folder in the way is moved aside first, because rename refuses it."""
    if path.is_dir() and not path.is_symlink():
        aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.old")
        path.rename(aside)
        try:
            partial.rename(path)
        except OSError:
            aside.rename(path)
            raise
        shutil.rmtree(aside)
    else:
        os.replace(partial, path)


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
