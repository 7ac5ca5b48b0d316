"""Which run a command reads where a file joins runs of several seeds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from noisekit.errors import InputError

if TYPE_CHECKING:
    import xarray as xr


def one_run(tree: xr.DataTree, seed: int | None, path: Path) -> xr.DataTree:
    """Return the run of ``seed`` in ``tree``, the content of ``path``; a file of one run is that run.

    Raises:
        InputError: if there are several runs and no seed chooses one, or no run has that seed.
    """
    from noisekit.results.seeds import by_seed, seeds_of

    seeds = seeds_of(tree)
    if not seeds:
        own = tree.attrs.get("seed")
        if seed is not None and seed != own:
            raise InputError(f"{path} holds one run, whose seed is {own}; leave out --seed {seed}.")
        return tree
    known = ", ".join(map(str, seeds))
    if seed is None:
        raise InputError(f"{path} joins runs of the seeds {known}; choose one, such as --seed {seeds[0]}.")
    if seed not in seeds:
        raise InputError(f"{path} has no run of seed {seed}; it joins the seeds {known}.")
    return by_seed(tree)[seed]
