"""Per-sample gradient statistics: exact, complete, cheap."""

from noisekit.gradients.layer_rules import layer_rule
from noisekit.gradients.moments import diagonal_moments
from noisekit.gradients.per_sample import per_sample_gradients
from noisekit.gradients.ranks import Ranks
from noisekit.gradients.record import GradientRecord, GradientStatistics
from noisekit.gradients.recorder import GradientNoiseRecorder
from noisekit.gradients.rows import merge_records
from noisekit.gradients.schedule import every, first, logarithmic
from noisekit.gradients.statistics import gradient_statistics, noise_directions
from noisekit.gradients.streaming import RunningMoments

__all__ = [
    "GradientNoiseRecorder",
    "GradientRecord",
    "GradientStatistics",
    "Ranks",
    "RunningMoments",
    "diagonal_moments",
    "every",
    "first",
    "gradient_statistics",
    "layer_rule",
    "logarithmic",
    "merge_records",
    "noise_directions",
    "per_sample_gradients",
]
