"""The whole chain for one problem: train and record, fit, predict, run for real, compare."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from noisekit.study.collect_config import CollectConfig
from noisekit.study.config import StudyConfig

if TYPE_CHECKING:
    from noisekit.study.collecting import collect
    from noisekit.study.prediction import Prediction, predict
    from noisekit.study.problem import load_study_problem
    from noisekit.study.run import run_study

__all__ = [
    "CollectConfig",
    "Prediction",
    "StudyConfig",
    "collect",
    "load_study_problem",
    "predict",
    "run_study",
]

_FILE_OF = {
    "Prediction": "prediction",
    "collect": "collecting",
    "load_study_problem": "problem",
    "predict": "prediction",
    "run_study": "run",
}


def __getattr__(name: str) -> Any:
    # The command line reads StudyConfig to make its help, and must not load torch for that.
    if name in _FILE_OF:
        return getattr(import_module(f"noisekit.study.{_FILE_OF[name]}"), name)
    raise AttributeError(f"module 'noisekit.study' has no attribute {name!r}")
