"""How well the trace of the covariance is known from the samples of one batch."""

from __future__ import annotations

import math

import numpy as np
import xarray as xr
from scipy.special import stdtrit

from noisekit._intervals import log_interval


def trace_interval(tree: xr.DataTree) -> tuple[float, float]:
    """Return the 95 % interval of tr Σ₁ at the last recorded step, NaN where no norms of samples are kept.

    tr Σ₁ is a mean of |g_i − ḡ|² over n samples; the scatter of |g_i|², which the file has, stands for theirs
    and is no smaller on average. Student's interval, symmetric in the logarithm.

    >>> from noisekit.results.example import make_example_tree
    >>> [round(end, 1) for end in trace_interval(make_example_tree())]
    [33.1, 37.0]
    """
    nothing = math.nan, math.nan
    if "gradient_noise" not in tree.children or "samples" not in tree["gradient_noise"].children:
        return nothing
    whole, samples = tree["gradient_noise"].to_dataset(), tree["gradient_noise/samples"].to_dataset()
    if "trace" not in whole or "squared_norm" not in samples or samples.sizes.get("step", 0) == 0:
        return nothing
    trace = float(whole["trace"].isel(step=-1).sum())
    norms = samples["squared_norm"].isel(step=-1).values.astype(float)
    n = norms.size
    if n < 2 or not (trace > 0 and np.isfinite(norms).all()):
        return nothing
    relative = float(norms.std(ddof=1)) / math.sqrt(n) / trace
    return log_interval(trace, float(stdtrit(n - 1, 0.975)) * relative)
