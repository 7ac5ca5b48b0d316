"""A weak-order experiment as a group of the schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from noisekit.results.labelled import dataset

if TYPE_CHECKING:
    from noisekit.validation.weak_order import WeakOrder


def weak_order_groups(
    optimizer: str, order: WeakOrder, *, attributes: Mapping[str, Any] | None = None
) -> dict[str, xr.Dataset]:
    """Return what ``nk.weak_order`` found as the group ``/weak_order/<optimizer>``, by path.

    Learning rates are stored ascending. ``optimizer`` may carry a variant, such as ``adam (published)``.
    """
    ascending = np.argsort(order.learning_rate)
    values = {
        "learning_rate": order.learning_rate[ascending],
        "gap": order.gap[ascending],
        "gap_error": order.gap_error[ascending],
        "slope": order.slope,
        "slope_error": order.slope_error,
    }
    known = {"observable": order.observable, "resolved": order.resolved}
    path = f"/weak_order/{optimizer}"
    return {path: dataset(path, values, known | dict(attributes or {}))}
