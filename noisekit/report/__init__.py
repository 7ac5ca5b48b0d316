"""One HTML page: what the noise is, what the optimizers do with it, whether the prediction held."""

from noisekit.report.page import render_report
from noisekit.report.write import write_report

__all__ = ["render_report", "write_report"]
