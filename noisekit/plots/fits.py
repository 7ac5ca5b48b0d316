"""The laws fitted to the noise of single coordinates: of one sample's gradient, or of a minibatch's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import xarray as xr

from noisekit.errors import InputError
from noisekit.plots.groups import at_step, dataset, has_group

NoiseOf: TypeAlias = Literal["sample", "minibatch"]
"""Whose noise: that of one sample's gradient, or that of a minibatch where training ended."""

FIT_GROUP = {"sample": "noise_model", "minibatch": "minibatch_noise"}
VALUE_GROUP = {"sample": "gradient_noise/samples", "minibatch": "minibatch_noise"}


@dataclass(frozen=True)
class Fits:
    """Fits of the coordinates that have a smooth law; every array is (coordinate,)."""

    df: np.ndarray
    """Degrees of freedom, inf for a Gaussian."""
    heavy: np.ndarray | None
    """Where the Gaussian is rejected; None if the file does not say."""
    block: np.ndarray
    """Parameter tensor of each coordinate; empty text if the file does not say."""
    n_set_aside: int
    """Coordinates without a fit, because their values are constant or repeat."""
    batch_size: int
    """Samples in the gradients whose noise was fitted."""
    step: int | None

    @property
    def heavy_share(self) -> float:
        """Share of the fitted coordinates where the Gaussian is rejected; NaN if the file does not say."""
        return float(self.heavy.mean()) if self.heavy is not None else float("nan")


def check_noise_of(of: str) -> None:
    """Raise InputError unless ``of`` is "sample" or "minibatch"."""
    if of not in FIT_GROUP:
        raise InputError(f"of = {of!r} is not known; use 'sample' or 'minibatch'.")


def read_fits(tree: xr.DataTree, of: str = "sample", step: int | None = None) -> Fits:
    """Return the fits of one recorded step (default: the last); a minibatch's are made at one step only.

    Raises InputError where the tree has none.
    """
    check_noise_of(of)
    data = at_step(dataset(tree, FIT_GROUP[of], "df"), step)
    df = data["df"].values.astype(float)
    fitted = df > 0
    if "is_set_aside" in data:
        fitted &= data["is_set_aside"].values != 1
    if not fitted.any():
        raise InputError("No coordinate has a fitted law; record more samples or coordinates and fit again.")
    block = data["coordinate_block"].values if "coordinate_block" in data else np.full(df.shape, "")
    return Fits(
        df=df[fitted],
        heavy=data["is_heavy_tailed"].values[fitted] == 1 if "is_heavy_tailed" in data else None,
        block=block.astype(str)[fitted],
        n_set_aside=int((~fitted).sum()),
        batch_size=int(data.attrs.get("batch_size", 1)),
        step=int(data["step"]) if "step" in data.coords else None,
    )


def has_fits(tree: xr.DataTree, of: str) -> bool:
    """Return whether ``tree`` holds at least one fit of the noise of a "sample" or of a "minibatch"."""
    if not has_group(tree, FIT_GROUP[of]):
        return False
    try:
        read_fits(tree, of)
    except InputError:
        return False
    return True
