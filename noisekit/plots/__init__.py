"""Figures of a result tree, one function a file; each takes the tree and returns its axes or figure."""

from noisekit.plots.batch_scaling import plot_batch_scaling
from noisekit.plots.covariance_spectrum import plot_covariance_spectrum
from noisekit.plots.degrees_of_freedom import plot_degrees_of_freedom
from noisekit.plots.floor_against_noise import plot_floor_against_noise
from noisekit.plots.hill_plot import plot_hill
from noisekit.plots.noise_floors import plot_noise_floors
from noisekit.plots.noise_histogram import plot_noise_histogram
from noisekit.plots.noise_qq import plot_noise_qq
from noisekit.plots.noise_scale import plot_noise_scale
from noisekit.plots.phase_course import plot_phase_course
from noisekit.plots.prediction_gap import plot_prediction_gap
from noisekit.plots.signal_to_noise import plot_signal_to_noise
from noisekit.plots.signsgd_phases import plot_signsgd_phases
from noisekit.plots.stationary_law import plot_stationary_law
from noisekit.plots.style import theme
from noisekit.plots.tail_index import plot_tail_index
from noisekit.plots.training_curve import plot_training_curve
from noisekit.plots.trajectories import plot_trajectories
from noisekit.plots.truth import plot_truth
from noisekit.plots.weak_order import plot_weak_order

__all__ = [
    "plot_batch_scaling",
    "plot_covariance_spectrum",
    "plot_degrees_of_freedom",
    "plot_floor_against_noise",
    "plot_hill",
    "plot_noise_floors",
    "plot_noise_histogram",
    "plot_noise_qq",
    "plot_noise_scale",
    "plot_phase_course",
    "plot_prediction_gap",
    "plot_signal_to_noise",
    "plot_signsgd_phases",
    "plot_stationary_law",
    "plot_tail_index",
    "plot_training_curve",
    "plot_trajectories",
    "plot_truth",
    "plot_weak_order",
    "theme",
]
