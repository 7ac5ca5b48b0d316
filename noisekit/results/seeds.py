"""Runs that differ in their seed alone, in one tree with an axis ``seed``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from noisekit.errors import InputError
from noisekit.results.attributes import to_json

SEED = "seed"
PROVENANCE = "provenance_by_seed"
ATTRIBUTES = "attributes_by_seed"
PLACE = "coordinate_by_seed"
"""Flat positions (seed, coordinate) where runs recorded different parameters."""

SAME = (
    "Conventions",
    "problem",
    "dataset",
    "dataset_sha256",
    "sampling",
    "batch_size",
    "n_samples",
    "n_parameters",
    "loss_reduction",
    "noise_definition",
    "dtype",
)
"""Root attributes in which runs that differ in their seed alone agree."""


def concat(trees: Iterable[xr.DataTree], dim: str = SEED) -> xr.DataTree:
    """Return one tree of runs that differ in their seed alone; every variable gets the axis ``seed`` first.

    The configurations must agree but for the seed, and so must groups, variables and axes. Runs may have
    recorded different parameters: their positions are then in ``coordinate_by_seed`` (seed, coordinate).
    Attributes that agree are kept; those of each run are in ``provenance_by_seed`` at the root and in
    ``attributes_by_seed`` of the groups, as JSON. ``by_seed`` takes the tree apart again.

    Args:
        trees: result trees, each with the attribute ``seed``; lazy ones stay lazy.
        dim: the axis they are joined along; only "seed".

    Raises:
        InputError: which says what differs and between which seeds.

    >>> from noisekit.results.example import make_example_tree
    >>> joined = concat([make_example_tree(seed) for seed in (0, 1)])
    >>> joined["sde/sgd/loss"].dims
    ('seed', 'replicate', 'time')
    """
    trees = list(trees)
    if dim != SEED:
        raise InputError(f"dim = {dim!r}: runs are joined along 'seed' only.")
    if not trees:
        raise InputError("There is no tree to join; give at least one.")
    if not all(isinstance(tree, xr.DataTree) for tree in trees):
        raise InputError("concat joins DataTrees; open files with nk.open_tree.")
    seeds = [_seed(tree, i) for i, tree in enumerate(trees)]
    if len(set(seeds)) < len(seeds):
        twice = next(seed for seed in seeds if seeds.count(seed) > 1)
        raise InputError(f"Two trees have the seed {twice}; the same run counts once.")
    for seed, tree in zip(seeds[1:], trees[1:], strict=True):
        _check_same(trees[0], tree, seeds[0], seed)
    groups: dict[str, xr.Dataset] = {}
    for node in trees[0].subtree:
        if node.path != "/" or node.variables:
            parts = [_find(tree, node.path).to_dataset(inherit=False) for tree in trees]
            groups[node.path] = _join(node.path, parts, seeds)
    result = xr.DataTree.from_dict(groups)
    result.attrs = _common([tree.attrs for tree in trees])
    result.attrs[PROVENANCE] = to_json([dict(tree.attrs) for tree in trees])
    return result


def by_seed(tree: xr.DataTree) -> dict[int, xr.DataTree]:
    """Return the runs of a tree that ``concat`` made, each as it was, by its seed."""
    seeds = seeds_of(tree)
    if not seeds:
        return {int(tree.attrs.get(SEED, 0)): tree}
    roots = _json_list(tree.attrs, PROVENANCE, len(seeds))
    found = {}
    for i, seed in enumerate(seeds):
        groups = {node.path: _one(node.to_dataset(inherit=False), i, len(seeds)) for node in tree.subtree}
        found[seed] = xr.DataTree.from_dict(groups)
        found[seed].attrs = {k: v for k, v in tree.attrs.items() if k != PROVENANCE} | roots[i]
    return found


def seeds_of(tree: xr.DataTree) -> list[int]:
    """Return the seeds of a tree that ``concat`` made; none of a single run."""
    for node in tree.subtree:
        if SEED in node.dims and SEED in node.variables:
            return [int(seed) for seed in node.variables[SEED].values]
    return []


def require_one_run(tree: xr.DataTree) -> None:
    """Raise InputError where ``tree`` joins several runs, for what only one run has."""
    seeds = seeds_of(tree)
    if seeds:
        raise InputError(
            f"The tree joins the runs of the seeds {', '.join(map(str, seeds))}, and one is needed; "
            f"choose it, as in nk.results.by_seed(tree)[{seeds[0]}]."
        )


def _seed(tree: xr.DataTree, number: int) -> int:
    seed = tree.attrs.get(SEED)
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise InputError(
            f"Tree {number} has seed = {seed!r} and needs a whole number: tree.attrs['seed'] = 0."
        )
    if seeds_of(tree):
        raise InputError(f"Tree {number} holds several seeds already; take it apart with by_seed first.")
    return int(seed)


def _check_same(one: xr.DataTree, other: xr.DataTree, first: int, second: int) -> None:
    """Raise InputError with the first thing but the seed in which two runs differ."""
    between = f"of seed {first} and seed {second}"
    for name in SAME:
        values = [tree.attrs.get(name) for tree in (one, other)]
        if values[0] != values[1]:
            raise InputError(
                f"The runs {between} differ in {name}: {values[0]!r} and {values[1]!r}; join runs of one "
                "configuration."
            )
    configs = _config(one), _config(other)
    for key in sorted(configs[0].keys() | configs[1].keys()):
        values = [config.get(key) for config in configs]
        if key != SEED and values[0] != values[1]:
            raise InputError(
                f"The configurations {between} differ in {key}: {values[0]!r} and {values[1]!r}; join runs "
                "of one configuration."
            )
    paths = [{node.path for node in tree.subtree} for tree in (one, other)]
    if paths[0] != paths[1]:
        path = min(paths[0] ^ paths[1])
        raise InputError(f"Of the runs {between} only one has the group {path}; drop it, or join like runs.")
    for node in one.subtree:
        names = [{str(n) for n in t.variables} for t in (node, _find(other, node.path))]
        if names[0] != names[1]:
            name = min(names[0] ^ names[1])
            raise InputError(
                f"Of the runs {between} only one has {name} in {node.path}; drop it, or join like runs."
            )


def _config(tree: xr.DataTree) -> dict[str, Any]:
    try:
        config = json.loads(str(tree.attrs.get("config_json") or "{}"))
    except ValueError:
        config = {"config_json": tree.attrs["config_json"]}
    return config if isinstance(config, dict) else {"config_json": config}


def _join(path: str, parts: Sequence[xr.Dataset], seeds: Sequence[int]) -> xr.Dataset:
    if not parts[0].variables:
        joined = xr.Dataset()
    else:
        parts = _free_coordinates(parts)
        for name in parts[0].sizes:
            sizes = [part.sizes.get(name) for part in parts]
            index = [part.variables.get(name) for part in parts]
            if len(set(sizes)) > 1 or not all(_equal(index[0], other) for other in index[1:]):
                i = next(i for i in range(1, len(parts)) if not _equal(index[0], index[i]))
                raise InputError(
                    f"The runs of seed {seeds[0]} and seed {seeds[i]} have another axis {name} in {path}, of "
                    f"{sizes[0]} and {sizes[i]}; choose what they share, as in tree.isel({name}=slice(10))."
                )
        names = [str(name) for name in parts[0].variables if name not in parts[0].sizes]
        stacked = {
            name: xr.Variable.concat([_with_seed(part.variables[name]) for part in parts], SEED)
            for name in names
        }
        coordinates = {n: v for n, v in parts[0].variables.items() if n in parts[0].sizes}
        coordinates |= {name: stacked.pop(name) for name in names if name in parts[0].coords}
        joined = xr.Dataset(stacked, coords={SEED: np.array(seeds), **coordinates})
        joined[SEED].attrs["long_name"] = "seed of the run"
    attributes = [part.attrs for part in parts]
    joined.attrs = _common(attributes)
    if any(a != joined.attrs for a in attributes):
        rest = [{k: v for k, v in a.items() if k not in joined.attrs} for a in attributes]
        joined.attrs[ATTRIBUTES] = to_json(rest)
    return joined


def _with_seed(variable: xr.Variable) -> xr.Variable:
    return xr.Variable((SEED, *variable.dims), variable.data[np.newaxis], variable.attrs)


def _free_coordinates(parts: Sequence[xr.Dataset]) -> Sequence[xr.Dataset]:
    """Turn positions of recorded parameters into a plain variable where the runs recorded different ones."""
    name = "coordinate"
    index = [part.variables.get(name) for part in parts]
    sizes = {part.sizes.get(name) for part in parts}
    if index[0] is None or len(sizes) > 1 or all(_equal(index[0], other) for other in index[1:]):
        return parts
    return [part.rename_vars({name: PLACE}).drop_indexes(PLACE, errors="ignore") for part in parts]


def _one(data: xr.Dataset, i: int, count: int) -> xr.Dataset:
    """Return one run's group."""
    rest = _json_list(data.attrs, ATTRIBUTES, count)
    attributes = {k: v for k, v in data.attrs.items() if k != ATTRIBUTES} | rest[i]
    if SEED in data.dims:
        data = data.isel({SEED: i}).drop_vars(SEED, errors="ignore")
    if PLACE in data.variables:
        data = data.assign_coords(coordinate=data[PLACE].variable).drop_vars(PLACE)
    data.attrs = attributes
    return data


def _equal(one: xr.Variable | None, other: xr.Variable | None) -> bool:
    return (one is None) == (other is None) and (one is None or np.array_equal(one.values, other.values))  # type: ignore[union-attr]


def _common(attributes: Sequence[Mapping[Any, Any]]) -> dict[str, Any]:
    """Return the attributes that all have with the same value."""
    first = attributes[0]
    return {str(k): v for k, v in first.items() if all(k in a and a[k] == v for a in attributes[1:])}


def _json_list(attributes: Mapping[Any, Any], name: str, count: int) -> list[dict[str, Any]]:
    try:
        found = json.loads(str(attributes.get(name) or "[]"))
    except ValueError:
        found = []
    usable = isinstance(found, list) and len(found) == count and all(isinstance(f, dict) for f in found)
    return found if usable else [{} for _ in range(count)]


def _find(tree: xr.DataTree, path: str) -> xr.DataTree:
    for name in path.strip("/").split("/"):
        tree = tree.children[name] if name else tree
    return tree
