"""The one way from plain arrays to labelled ones: names, axes and attributes come from the schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from noisekit.errors import InputError, unknown_name
from noisekit.results.attributes import storable
from noisekit.results.schema import Variable, find_group


def array(values: Any) -> NDArray[Any]:
    """Return a tensor, list or number as a numpy array; half precision as float32, which files can hold."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        if values.is_floating_point() and values.element_size() < 4:
            values = values.float()
        values = values.numpy()
    result = np.asarray(values)
    if result.dtype == np.float16:
        return result.astype(np.float32)
    return result.astype(np.int8) if result.dtype == bool else result


def dataset(path: str, values: Mapping[str, Any], attributes: Mapping[str, Any] | None = None) -> xr.Dataset:
    """Return a Dataset for the group ``path``: axes, long names and units are looked up in the schema.

    Entries that are None are left out. A name that the schema does not have is taken as an observable where
    the group admits any.
    """
    group = find_group(path)
    if group is None:
        raise InputError(f"The schema has no group {path}.")
    coordinates: dict[str, Any] = {}
    variables: dict[str, Any] = {}
    for name, value in values.items():
        if value is None:
            continue
        variable = group.coordinates.get(name) or group.variables.get(name)
        if variable is None:
            if group.open_dims is None:
                raise unknown_name(f"variable of {path}", name, group.coordinates | group.variables)
            variable = Variable(group.open_dims, name.replace("_", " "))
        target = coordinates if name in group.coordinates else variables
        target[name] = (variable.dims, _checked(path, name, variable, array(value)), variable.attributes())
    result = xr.Dataset(variables, coords=coordinates)
    result.attrs = {"title": group.title, **storable(attributes or {})}
    return result


def _checked(path: str, name: str, variable: Variable, values: NDArray[Any]) -> NDArray[Any]:
    if values.ndim != len(variable.dims):
        raise InputError(
            f"{name} of {path} has shape {values.shape}; it needs the axes ({', '.join(variable.dims)})."
        )
    return values
