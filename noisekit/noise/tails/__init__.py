"""Tail-index estimators, one a file, and ``tail_index`` over them."""

from noisekit.noise.tails.estimate import TailIndex, tail_index
from noisekit.noise.tails.hill import HillPlot, hill_plot

__all__ = ["HillPlot", "TailIndex", "hill_plot", "tail_index"]
