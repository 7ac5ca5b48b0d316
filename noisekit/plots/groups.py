"""Reading a result tree for a figure: what is missing is said in one sentence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from noisekit.errors import FileFormatError, InputError, unknown_name
from noisekit.results.validate import reading

_HOW_TO_GET = {
    "training": "attach a GradientNoiseRecorder to the training",
    "gradient_noise": "attach a GradientNoiseRecorder to the training",
    "gradient_noise/samples": "record with coordinates > 0",
    "noise_model": "record with coordinates > 0 and fit the noise",
    "minibatch_noise": "run the whole study, as `noisekit run` does",
    "tail_index": "record with coordinates > 0 and estimate the tail index",
    "sde": "integrate an optimizer's SDE, as `noisekit run` does",
    "optimizer": "run real optimizers, as `noisekit run` does",
    "theory": "compute the closed forms, as `noisekit run` does",
    "comparison": "compare prediction and runs, as `noisekit run` does",
    "weak_order": "store nk.weak_order with results.weak_order_groups",
    "noise_sweep": "store nk.robustness with results.robustness_groups, or runs with results.sweep_groups",
    "batch_scaling": "store the runs with results.batch_scaling_groups",
    "phases": "store runs of SignSGD with results.phase_groups",
    "truth": "make one with `noisekit study`",
    "stationary": "store nk.stationary_law with results.stationary_groups",
}


def has_group(tree: xr.DataTree, path: str) -> bool:
    """Return whether ``tree`` has a group at ``path`` with at least one variable."""
    node = _node(tree, path)
    return node is not None and bool(node.data_vars)


def _node(tree: xr.DataTree, path: str) -> xr.DataTree | None:
    """Return the group at ``path``; DataTree's own ``in`` sees direct children only."""
    for name in path.strip("/").split("/"):
        if name not in tree.children:
            return None
        tree = tree.children[name]
    return tree


def dataset(tree: xr.DataTree, path: str, *variables: str, seeds: bool = False) -> xr.Dataset:
    """Return the group at ``path``, with all of ``variables`` in it; with an axis seed if ``seeds`` allow it.

    Raises InputError, which names what is missing and how to get it.
    """
    if not isinstance(tree, xr.DataTree):
        raise InputError(
            f"A figure is drawn from a DataTree, not from {type(tree).__name__}; "
            "open a file with nk.open_tree."
        )
    path = path.strip("/")
    if not has_group(tree, path):
        present = ", ".join(g for g in tree.groups if g != "/" and tree[g].data_vars) or "no groups"
        hint = _HOW_TO_GET.get(path) or _HOW_TO_GET.get(path.split("/")[0]) or "write it before plotting"
        raise InputError(f"This figure needs the group /{path}, and the tree has {present}; {hint}.")
    node = _node(tree, path)
    assert node is not None
    data = node.to_dataset()
    if "seed" in data.dims and not seeds:
        known = ", ".join(str(s) for s in data["seed"].values)
        raise InputError(
            f"This figure shows one run, and the tree joins the seeds {known}; choose one, as in "
            f"nk.results.by_seed(tree)[{data['seed'].values[0]}]."
        )
    missing = [name for name in variables if name not in data.variables]
    if missing:
        hint = _HOW_TO_GET.get(path) or _HOW_TO_GET.get(path.split("/")[0]) or "write it before plotting"
        raise InputError(
            f"This figure needs {' and '.join(missing)} in the group /{path}, which has "
            f"{', '.join(map(str, data.data_vars))}; {hint}."
        )
    with reading(f"/{path}"):
        return _small_loaded(data)


def small_loaded(tree: xr.DataTree) -> xr.DataTree:
    """Return the tree with its small variables read, once for many figures; what is damaged stays unread."""

    def read(node: xr.DataTree) -> xr.Dataset:
        data = node.to_dataset(inherit=False)
        try:
            with reading(node.path):
                return _small_loaded(data)
        except FileFormatError:
            return data

    return xr.DataTree.from_dict({node.path: read(node) for node in tree.subtree}, name=tree.name)


def _small_loaded(data: xr.Dataset) -> xr.Dataset:
    """Read lazy variables below 64 MiB; of larger ones a figure takes the part that it draws."""
    small = [name for name, variable in data.variables.items() if variable.nbytes < 2**26]
    if len(small) == len(data.variables):
        return data.compute()
    read = data[small].compute()
    return data.assign_coords(read.coords).assign(read.data_vars)


def optimizers_in(tree: xr.DataTree, *roots: str) -> list[str]:
    """Return the names below every one of the groups ``roots``, in the order of the file."""
    nodes = [_node(tree, root) for root in roots]
    named = [[] if node is None else [str(name) for name in node.children] for node in nodes]
    return [name for name in named[0] if all(name in other for other in named[1:])]


def choose_optimizer(tree: xr.DataTree, optimizer: str | None, *roots: str) -> str:
    """Return ``optimizer`` if every one of ``roots`` has it, or the first that they all have."""
    known = optimizers_in(tree, *roots)
    if not known:
        dataset(tree, f"{roots[0]}/{optimizer or '*'}")
    if optimizer is None:
        return known[0]
    if optimizer not in known:
        raise unknown_name("optimizer in this tree", optimizer, known)
    return optimizer


def at_step(data: xr.Dataset, step: int | None) -> xr.Dataset:
    """Return one recorded step of ``data``: the given one, or the last."""
    if "step" not in data.dims:
        return data
    if data.sizes["step"] == 0:
        raise InputError("No step was recorded, so there is nothing to draw; record at least one.")
    if step is None:
        return data.isel(step=-1).load()
    steps = data["step"].values if "step" in data.coords else np.arange(data.sizes["step"])
    where = np.flatnonzero(steps == step)
    if where.size == 0:
        nearest = steps[np.abs(steps - step).argmin()]
        raise InputError(
            f"Step {step} was not recorded; the nearest is {nearest}, "
            f"of {steps.size} from {steps[0]} to {steps[-1]}."
        )
    return data.isel(step=int(where[0])).load()


def step_values(data: xr.Dataset, dim: str = "step") -> np.ndarray:
    """Return the values of an axis, or 0, 1, 2… where the file has none."""
    return data[dim].values if dim in data.variables else np.arange(data.sizes[dim])


def shorten(name: object, length: int = 22) -> str:
    """Return a parameter name that fits beside an axis: the end says more than the beginning."""
    text = str(name).replace("$", r"\$")
    return text if len(text) <= length else "…" + text[-(length - 1) :]


def shorten_all(names: Sequence[str], length: int = 22) -> list[str]:
    """Return parameter names that fit and still differ: without what all begin with, cut where they agree.

    >>> shorten_all(["net.layers.0.attention.weight", "net.layers.1.attention.weight"], 14)
    ['0.at…on.weight', '1.at…on.weight']
    """
    parts = [name.split(".") for name in names]
    same = 0
    if len(names) > 1:
        while all(len(p) > same + 2 for p in parts) and len({p[same] for p in parts}) == 1:
            same += 1
    rest = [".".join(p[same:]) for p in parts]
    for head in range(0, length - 2, 4):
        cut = [
            shorten(name, length)
            if head == 0 or len(name) <= length
            else f"{shorten(name[:head])}…{shorten(name[-(length - head - 1) :])}"
            for name in rest
        ]
        if len(set(cut)) == len(set(names)):
            break
    return cut
