"""Does the prediction match: comparison of ensembles, and the weak order of an SDE."""

from noisekit.validation.compare import compare, compare_curves
from noisekit.validation.comparison import Comparison, ObservableComparison
from noisekit.validation.coupled import simulate_coupled
from noisekit.validation.weak_order import WeakOrder, fit_order, weak_order

__all__ = [
    "Comparison",
    "ObservableComparison",
    "WeakOrder",
    "compare",
    "compare_curves",
    "fit_order",
    "simulate_coupled",
    "weak_order",
]
