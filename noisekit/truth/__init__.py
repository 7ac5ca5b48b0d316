"""Is it true: real training beside every prediction, over a grid of problems, optimizers and noise."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_FILE_OF = {
    "Experiment": "experiment",
    "experiments": "grid",
    "run_truth_study": "study",
    "plan": "study",
    "collect": "study",
    "headline": "tables",
    "table": "tables",
    "insight_table": "tables",
}

__all__ = sorted(_FILE_OF)


def __getattr__(name: str) -> Any:
    # The command line makes its help from here, and must not load torch for that.
    if name in _FILE_OF:
        return getattr(import_module(f"noisekit.truth.{_FILE_OF[name]}"), name)
    raise AttributeError(f"module 'noisekit.truth' has no attribute {name!r}")
