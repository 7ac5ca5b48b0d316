"""The largest curvature of the loss, where a file holds it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class Curvature:
    """λ_max, the largest eigenvalue of the Hessian, where it comes from, and its 95 % interval.

    Of a value that was given both ends are the value; they are NaN in files that do not hold them.
    """

    value: float
    source: str
    lower: float = math.nan
    upper: float = math.nan

    def as_attributes(self) -> dict[str, float]:
        """Return value and ends by their names in a file."""
        return {"sharpness": self.value, "sharpness_lower": self.lower, "sharpness_upper": self.upper}


def curvature_of(tree: xr.DataTree, optimizer: str, given: float | None = None) -> Curvature | None:
    """Return the curvature that was given, or that the file measured; None if nobody knows it.

    It is estimated by power iteration, from below. A negative or zero one tells nothing about a minimum.
    """
    if given is not None:
        return Curvature(float(given), "given", float(given), float(given))
    theory = tree["theory"].children if "theory" in tree.children else {}
    places = [theory[name].attrs for name in (optimizer, *theory) if name in theory]
    if "training" in tree.children:
        places.append(tree["training"].attrs)
    for attributes in places:
        value = _number(attributes, "sharpness")
        if math.isfinite(value) and value > 0:
            where = attributes.get("sharpness_where") or attributes.get("where") or "where the record ends"
            lower, upper = (_number(attributes, f"sharpness_{end}") for end in ("lower", "upper"))
            if not lower <= value <= upper < math.inf:
                lower, upper = math.nan, math.nan
            return Curvature(value, str(where), max(lower, 0.0), upper)
    return None


def _number(attributes: Mapping[Any, Any], name: str) -> float:
    try:
        return float(attributes.get(name, math.nan))
    except (TypeError, ValueError):
        return math.nan
