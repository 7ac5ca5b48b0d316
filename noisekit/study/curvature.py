"""The largest curvature of the loss, where a file holds it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class Curvature:
    """λ_max, the largest eigenvalue of the Hessian, and where it comes from."""

    value: float
    source: str


def curvature_of(tree: xr.DataTree, optimizer: str, given: float | None = None) -> Curvature | None:
    """Return the curvature that was given, or that the file measured; None if nobody knows it.

    It is estimated by power iteration, from below. A negative or zero one tells nothing about a minimum.
    """
    if given is not None:
        return Curvature(float(given), "given")
    theory = tree["theory"].children if "theory" in tree.children else {}
    places = [theory[name].attrs for name in (optimizer, *theory) if name in theory]
    if "training" in tree.children:
        places.append(tree["training"].attrs)
    for attributes in places:
        try:
            value = float(attributes.get("sharpness", math.nan))
        except (TypeError, ValueError):
            continue
        if math.isfinite(value) and value > 0:
            where = attributes.get("sharpness_where") or attributes.get("where") or "where the record ends"
            return Curvature(value, str(where))
    return None
