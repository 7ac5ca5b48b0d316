"""The sum of standard deviations of each block, which floors of adaptive optimizers need, in a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noisekit.gradients import GradientRecord
from noisekit.results.labelled import array
from noisekit.study.stored_noise import DEVIATION

if TYPE_CHECKING:
    import xarray as xr


def keep_deviations(tree: xr.DataTree, record: GradientRecord | None) -> xr.DataTree:
    """Write Σσ of every block at every recorded step into ``tree``, whose record this is, and return it."""
    if record is not None and record.deviation_sum is not None:
        data = tree["gradient_noise"].to_dataset()
        attributes = {"long_name": "sum of standard deviations of the block", "units": "1", "symbol": "Σ σ"}
        values = ("step", "block"), array(record.deviation_sum), attributes
        tree["gradient_noise"].dataset = data.assign({DEVIATION: values})
    return tree
