"""Is it true: real training beside every prediction, over a grid of problems, optimizers and noise."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from noisekit.truth.experiment import Experiment
    from noisekit.truth.grid import experiments
    from noisekit.truth.study import Plan, collect, plan, run_truth_study
    from noisekit.truth.tables import headline, insight_table, table

__all__ = [
    "Experiment",
    "Plan",
    "collect",
    "experiments",
    "headline",
    "insight_table",
    "plan",
    "run_truth_study",
    "table",
]

_FILE_OF = {
    "Experiment": "experiment",
    "experiments": "grid",
    "Plan": "study",
    "collect": "study",
    "plan": "study",
    "run_truth_study": "study",
    "headline": "tables",
    "insight_table": "tables",
    "table": "tables",
}


def __getattr__(name: str) -> Any:
    # The command line makes its help from here, and must not load torch for that.
    if name in _FILE_OF:
        return getattr(import_module(f"noisekit.truth.{_FILE_OF[name]}"), name)
    raise AttributeError(f"module 'noisekit.truth' has no attribute {name!r}")
