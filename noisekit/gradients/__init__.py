"""Per-sample gradient statistics: exact, complete, cheap."""

from noisekit.gradients.layer_rules import layer_rule
from noisekit.gradients.moments import diagonal_moments
from noisekit.gradients.per_sample import per_sample_gradients
from noisekit.gradients.record import GradientRecord, GradientStatistics

__all__ = [
    "GradientRecord",
    "GradientStatistics",
    "diagonal_moments",
    "layer_rule",
    "per_sample_gradients",
]
