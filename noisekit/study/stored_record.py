"""From a file back to a gradient record, for what was not estimated before the file was written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from noisekit.errors import InputError
from noisekit.gradients import GradientRecord
from noisekit.results.records import noise_model_dataset, tail_index_dataset
from noisekit.results.validate import require_group
from noisekit.study.noise import SAMPLES_NEEDED, fit_record

if TYPE_CHECKING:
    import xarray as xr


def with_fits(tree: xr.DataTree, *, progress: bool = False) -> xr.DataTree:
    """Return ``tree`` with fits and tail indices of its recorded samples, if it has none and keeps samples.

    Raises:
        FileFormatError: if the tree has no record of gradient noise.
    """
    record = stored_record(tree)
    if record.coordinate_values is None or record.batch_size < SAMPLES_NEEDED:
        return tree
    fits, tail = fit_record(record, progress=progress)
    groups = {node.path: node.to_dataset(inherit=False) for node in tree.subtree}
    groups |= {
        "/noise_model": noise_model_dataset(fits, record),
        "/tail_index": tail_index_dataset(tail, record),
    }
    return type(tree).from_dict(groups)


def stored_record(tree: xr.DataTree) -> GradientRecord:
    """Return the record that ``tree`` was written from, as far as files keep it.

    The coordinate values are noise, g_i − ḡ: the mean gradient is not in a file. Without Gram matrix.

    Raises:
        FileFormatError: if the tree has no record of gradient noise.
        InputError: if the record holds no step.
    """
    noise = require_group(tree, "/gradient_noise").to_dataset()
    samples = noise_samples(tree)
    steps = noise["step"].values
    if not len(steps):
        raise InputError("The file records no step; record at least one batch.")
    nothing = torch.full((len(steps),), torch.nan)
    training = tree["training"].to_dataset() if "training" in tree.children else None

    def over_steps(name: str) -> Tensor:
        found = training is not None and name in training and training[name].shape == (len(steps),)
        return torch.tensor(training[name].values) if found and training is not None else nothing

    values = samples.get("noise")
    squared = samples.get("squared_norm", np.zeros((len(steps), 0), dtype=np.float32))
    batch = int(noise.attrs.get("batch_size", 0)) or squared.shape[1]
    return GradientRecord(
        step=torch.tensor(steps),
        loss=over_steps("loss"),
        learning_rate=over_steps("learning_rate"),
        gradient_norm=over_steps("gradient_norm"),
        elapsed_time=over_steps("elapsed_time"),
        block=[str(b) for b in noise["block"].values],
        block_size=[int(n) for n in noise["block_size"].values],
        trace=torch.tensor(noise["trace"].transpose("step", "block").values),
        mean_squared_norm=torch.tensor(noise["mean_squared_norm"].transpose("step", "block").values),
        squared_norm=torch.tensor(squared),
        gram=None,
        eigenvalue=None,
        coordinate_index=None if values is None else torch.tensor(samples["coordinate"]),
        coordinate_block=None if values is None else [str(b) for b in samples["coordinate_block"]],
        coordinate_values=None if values is None else torch.tensor(values),
        sketch=None,
        batch_size=batch,
        coverage=float(noise.attrs.get("coverage", np.nan)),
        uncovered=[],
    )


def noise_samples(tree: xr.DataTree) -> dict[str, Any]:
    """Return the per-sample arrays of a file by name; noise only together with its coordinates."""
    children = tree["gradient_noise"].children
    if "samples" not in children:
        return {}
    data = children["samples"].to_dataset()
    found: dict[str, Any] = {}
    if "squared_norm" in data:
        found["squared_norm"] = data["squared_norm"].transpose("step", "sample").values
    if {"noise", "coordinate", "coordinate_block"} <= set(data.variables):
        found["noise"] = data["noise"].transpose("step", "sample", "coordinate").values
        found |= {name: data[name].values for name in ("coordinate", "coordinate_block")}
    return found
