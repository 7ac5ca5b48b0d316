"""Does the prediction match: comparison of ensembles, and the weak order of an SDE."""

from noisekit.validation.compare import compare, compare_curves
from noisekit.validation.comparison import Comparison, ObservableComparison

__all__ = ["Comparison", "ObservableComparison", "compare", "compare_curves"]
