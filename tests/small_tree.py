"""A part of the example tree with few steps, samples and coordinates, which opens in an instant."""

import xarray as xr

from noisekit.results import make_example_tree

_FEW = {"step": slice(-4, None), "sample": slice(24), "coordinate": slice(24), "projection": slice(8)}
RECORD = ("training", "gradient_noise", "gradient_noise/samples")
PAIR = ("sde/adam", "optimizer/adam", "comparison/adam")


def small_tree(*paths):
    """Return the groups ``paths`` of the example tree; if none is given, a record and a pair of ensembles."""
    whole, groups = make_example_tree(), {}
    for path in paths or (*RECORD, *PAIR):
        data = whole[path].to_dataset(inherit=False)
        groups[f"/{path}"] = data.isel({axis: part for axis, part in _FEW.items() if axis in data.dims})
    tree = xr.DataTree.from_dict(groups)
    tree.attrs = whole.attrs
    return tree
