"""Does the prediction match: comparison of ensembles, and the weak order of an SDE."""

from noisekit.validation.compare import compare, compare_curves
from noisekit.validation.comparison import Comparison, ObservableComparison
from noisekit.validation.coupled import simulate_coupled
from noisekit.validation.hitting_time import HittingTimeComparison, compare_hitting_times, hitting_times
from noisekit.validation.weak_order import WeakOrder, fit_order, weak_order

__all__ = [
    "Comparison",
    "HittingTimeComparison",
    "ObservableComparison",
    "WeakOrder",
    "compare",
    "compare_curves",
    "compare_hitting_times",
    "fit_order",
    "hitting_times",
    "simulate_coupled",
    "weak_order",
]
