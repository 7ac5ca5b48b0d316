"""The whole chain for one problem: train and record, fit, predict, run for real, compare."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from noisekit.study.config import StudyConfig

if TYPE_CHECKING:
    from noisekit.study.problem import load_study_problem
    from noisekit.study.run import run_study

__all__ = ["StudyConfig", "load_study_problem", "run_study"]

_FILE_OF = {"load_study_problem": "problem", "run_study": "run"}


def __getattr__(name: str) -> Any:
    # The command line reads StudyConfig to make its help, and must not load torch for that.
    if name in _FILE_OF:
        return getattr(import_module(f"noisekit.study.{_FILE_OF[name]}"), name)
    raise AttributeError(f"module 'noisekit.study' has no attribute {name!r}")
