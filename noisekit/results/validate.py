"""Does a tree keep to the file schema?"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import xarray as xr

from noisekit.errors import FileFormatError, NoisekitError, unknown_name
from noisekit.results.schema import SCHEMA, Group, find_group
from noisekit.results.seeds import SEED


def validate(tree: xr.DataTree, *, where: str = "The tree") -> None:
    """Raise FileFormatError with the first thing in ``tree`` that the schema does not allow.

    Groups may be missing, and so may variables; groups and variables of other names are left alone. What has
    a name of the schema must have its axes.

    Args:
        tree: a result tree.
        where: what to call it in the error, such as the path of the file.
    """
    version = str(tree.attrs.get("Conventions", ""))
    if not version.startswith("noisekit-"):
        raise FileFormatError(
            f"{where} was not written by noisekit: its attribute Conventions is {version!r}, not {SCHEMA!r}."
        )
    if version != SCHEMA:
        raise FileFormatError(
            f"{where} has schema {version!r} and this noisekit reads {SCHEMA!r}; "
            "use the version of noisekit that wrote it."
        )
    for node in tree.subtree:
        group = find_group(node.path) if node.path != "/" else None
        if group is not None:
            _validate_group(node, group, where)


def _validate_group(node: xr.DataTree, group: Group, where: str) -> None:
    for name, variable in (group.coordinates | group.variables).items():
        if name not in node.variables:
            continue
        have = node.variables[name].dims
        if have not in (variable.dims, (SEED, *variable.dims)):
            raise FileFormatError(
                f"{where}: {name} in group {node.path} has the axes {_axes(have)} and needs "
                f"{_axes(variable.dims)}; rename or transpose them, or give the variable a name of your own."
            )
        kind = node.variables[name].dtype.kind
        if (kind in "OSUT") != (variable.kind == "str") or kind not in "fiubOSUT":
            need = "text" if variable.kind == "str" else "real numbers"
            raise FileFormatError(
                f"{where}: {name} in group {node.path} holds {node.variables[name].dtype} and needs {need}; "
                "convert it, or give it another name."
            )


def _axes(dims: tuple[object, ...]) -> str:
    return f"({', '.join(map(str, dims))})"


@contextmanager
def reading(group: str) -> Iterator[None]:
    """Turn what a damaged file raises when its values are read into one sentence with the group."""
    try:
        yield
    except (OSError, RuntimeError, zlib.error) as error:
        if isinstance(error, NoisekitError):
            raise
        reason = " ".join(str(error).split())[:160].rstrip(".")
        raise FileFormatError(
            f"Values in the group {group} cannot be read: {reason}; the file is damaged, copy or make it "
            "again."
        ) from error


def require_group(tree: xr.DataTree, path: str) -> xr.DataTree:
    """Return the group at ``path``, or raise FileFormatError that says which groups there are.

    >>> from noisekit.results.example import make_example_tree
    >>> require_group(make_example_tree(), "/sde/sgd").name
    'sgd'
    """
    path = "/" + path.strip("/")
    present = {node.path for node in tree.subtree if node.path != "/"}
    if path not in present:
        raise FileFormatError(str(unknown_name("group", path, present)))
    return next(node for node in tree.subtree if node.path == path)
