"""What a file already knows of an optimizer: the floor it computed, and how the runs it made came out."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

from noisekit.errors import FileFormatError
from noisekit.study.prediction_figures import Figure
from noisekit.theory.hyperparameters import Hyperparameters

if TYPE_CHECKING:
    import xarray as xr


def floor_in_file(tree: xr.DataTree, hyper: Hyperparameters, batch_size: int) -> Figure | None:
    """Return the noise floor that the file computed, which is linear in the learning rate.

    Raises:
        FileFormatError: if the file has none for this optimizer and batch size.
    """
    name = hyper.optimizer
    node = tree["theory"].children.get(name) if "theory" in tree.children else None
    rate = _learning_rate(tree, name)
    if node is None or "noise_floor" not in node.data_vars or not rate > 0:
        has = ", ".join(tree["theory"].children) if "theory" in tree.children else ""
        known = f"; it has floors for {has} only" if has else ""
        raise FileFormatError(
            f"The file holds no record of gradient noise to predict {name} from{known}: record a network "
            "with noisekit collect."
        )
    of = tree.attrs.get("batch_size")
    if of and int(of) != batch_size:
        raise FileFormatError(
            f"The file has the floor of {name} at batch size {int(of)} and no record of gradient noise to "
            f"find it at {batch_size}: ask for {int(of)}, or record a network with noisekit collect."
        )
    value = float(node["noise_floor"]) * hyper.learning_rate / rate
    note = f"computed by the file at a learning rate of {rate:g}, to which it is proportional, without error"
    return Figure("noise floor", value, math.nan, math.nan, "loss", int(of) if of else None, note)


def measured_sentence(tree: xr.DataTree, optimizer: str, learning_rate: float, batch_size: int) -> str:
    """Return what the file's own real runs say, if they had these settings; else the empty text."""
    node = tree["comparison"].children.get(optimizer) if "comparison" in tree.children else None
    of = tree.attrs.get("batch_size")
    same = math.isclose(_learning_rate(tree, optimizer), learning_rate, rel_tol=1e-6)
    if node is None or not same or (of and int(of) != batch_size):
        return ""
    text = str(node.attrs.get("verdict_text", "")).split(". ")[0].rstrip(".")
    return f"This file ran {optimizer} itself at these settings beside its SDE. {text}." if text else ""


def _learning_rate(tree: xr.DataTree, optimizer: str) -> float:
    """Return the learning rate at which the file treated the optimizer, NaN if it does not say."""
    for group in ("optimizer", "sde"):
        if group in tree.children and optimizer in tree[group].children:
            return float(tree[group].children[optimizer].attrs.get("learning_rate", math.nan))
    try:
        config = json.loads(str(tree.attrs.get("config_json", "{}")))
        return float(config["learning_rates"][config["optimizers"].index(optimizer)])
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return math.nan
