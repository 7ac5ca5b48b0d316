"""Labelled results: the file schema, conversion to xarray, files, summaries. Imports no torch."""

from noisekit.results.convert import solution_to_dataset, to_datatree
from noisekit.results.example import make_example_tree
from noisekit.results.io import open_tree, save_tree
from noisekit.results.provenance import provenance
from noisekit.results.summary import summary
from noisekit.results.validate import require_group, validate

__all__ = [
    "make_example_tree",
    "open_tree",
    "provenance",
    "require_group",
    "save_tree",
    "solution_to_dataset",
    "summary",
    "to_datatree",
    "validate",
]
