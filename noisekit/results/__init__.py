"""Labelled results: the file schema, conversion to xarray, files, summaries. Imports no torch."""

from noisekit.results.analysis import analyze_tree
from noisekit.results.batch_scalings import batch_scaling_groups
from noisekit.results.convert import solution_to_dataset, to_datatree
from noisekit.results.example import make_example_tree
from noisekit.results.io import open_tree, save_tree
from noisekit.results.phases import phase_groups
from noisekit.results.provenance import provenance
from noisekit.results.record_writer import RecordWriter, stream_record
from noisekit.results.rest import stationary_groups
from noisekit.results.seeds import by_seed, concat
from noisekit.results.summary import summary
from noisekit.results.sweeps import robustness_groups, sweep_groups
from noisekit.results.validate import require_group, validate
from noisekit.results.weak_orders import weak_order_groups

__all__ = [
    "RecordWriter",
    "analyze_tree",
    "batch_scaling_groups",
    "by_seed",
    "concat",
    "make_example_tree",
    "open_tree",
    "phase_groups",
    "provenance",
    "require_group",
    "robustness_groups",
    "save_tree",
    "solution_to_dataset",
    "stationary_groups",
    "stream_record",
    "summary",
    "sweep_groups",
    "to_datatree",
    "validate",
    "weak_order_groups",
]
