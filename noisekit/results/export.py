"""Result files in other formats: netCDF, zarr, or tables in CSV or Parquet."""

from __future__ import annotations

import importlib.util
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pandas as pd
import xarray as xr

from noisekit.errors import InputError, NoisekitError, unknown_name
from noisekit.results.attributes import to_json
from noisekit.results.io import check_place, save_tree

Format = Literal["netcdf", "zarr", "csv", "parquet"]
FORMATS: dict[str, str] = {"netcdf": ".nc", "zarr": ".zarr", "csv": "", "parquet": ""}
"""Formats and the suffix of what they write; without one they write a folder."""
ATTRIBUTES = "attributes.json"


def export_tree(
    tree: xr.DataTree, path: str | os.PathLike[str], to: Format, *, overwrite: bool = False
) -> Path:
    """Write ``tree`` in another format.

    Tables go into a folder: one file for each group and set of axes, in long form with a column an axis, and
    ``attributes.json`` with the attributes of every group.

    Args:
        tree: a result tree.
        path: a file with the format's suffix, or for tables a folder that does not exist yet.
        to: netcdf, zarr, csv or parquet.
        overwrite: whether what exists at ``path`` may be replaced.

    Raises:
        InputError: if the format is unknown, or the path exists or lies in no folder.
        NoisekitError: if the format needs a package that is not installed.
    """
    if to not in FORMATS:
        raise unknown_name("format", to, FORMATS)
    if FORMATS[to]:
        return save_tree(tree, path, overwrite=overwrite)
    if to == "parquet" and not importlib.util.find_spec("pyarrow"):
        raise NoisekitError("Parquet needs the package pyarrow: pip install pyarrow.")
    path = _check_folder(Path(path), overwrite)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        partial.mkdir()
        for name, table in tables(tree):
            if to == "csv":
                table.to_csv(partial / f"{name}.csv", index=False)
            else:
                table.to_parquet(partial / f"{name}.parquet", index=False)
        attributes = {node.path: dict(node.attrs) for node in tree.subtree}
        (partial / ATTRIBUTES).write_text(to_json(attributes), encoding="utf-8")
        if path.exists():
            shutil.rmtree(path)
        partial.rename(path)
    except OSError as error:
        raise NoisekitError(f"{path} could not be written: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return path


def tables(tree: xr.DataTree) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield (name, table) for each group and set of axes; the name joins the group and its axes.

    >>> from noisekit.results.example import make_example_tree
    >>> dict(tables(make_example_tree()))["training.step"].columns.tolist()
    ['step', 'loss', 'learning_rate', 'gradient_norm', 'elapsed_time']
    """
    for node in tree.subtree:
        data = node.to_dataset(inherit=False)
        by_axes: dict[tuple[str, ...], list[str]] = {}
        for name, variable in data.data_vars.items():
            by_axes.setdefault(tuple(map(str, variable.dims)), []).append(str(name))
        group = node.path.strip("/").replace("/", ".") or "root"
        for axes, names in by_axes.items():
            yield ".".join([group, *axes]), _table(data[names], axes)


def _table(data: xr.Dataset, axes: tuple[str, ...]) -> pd.DataFrame:
    if not axes:
        return pd.DataFrame({str(name): [value.item()] for name, value in data.data_vars.items()})
    data = data.drop_vars([name for name in data.coords if not set(data[name].dims) <= set(axes)])
    return data.to_dataframe(dim_order=list(axes)).reset_index()


def _check_folder(path: Path, overwrite: bool) -> Path:
    check_place(path, overwrite=overwrite)
    if path.is_file():
        raise InputError(f"{path} is a file, and tables go into a folder; choose another name.")
    if path.exists() and not _is_export(path):
        raise InputError(f"{path} holds files that no export wrote; choose another name.")
    return path


def _is_export(folder: Path) -> bool:
    names = {p.name for p in folder.iterdir()}
    if not names:
        return True
    return ATTRIBUTES in names and all(n.endswith((".csv", ".parquet")) for n in names - {ATTRIBUTES})
