"""The interval of a trace covers it, and is absent where the file keeps no norms of samples."""

import math

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from noisekit.results import summary
from noisekit.results.example import make_example_tree
from noisekit.results.summary import share_interval
from noisekit.results.trace_interval import trace_interval


def tree_of(gradients):
    trace = gradients.var(axis=0, ddof=1).sum()
    whole = xr.Dataset({"trace": (("step", "block"), [[trace]])}, {"step": [0], "block": ["w"]})
    norms = (gradients**2).sum(axis=1)[None]
    samples = xr.Dataset({"squared_norm": (("step", "sample"), norms)}, {"step": [0]})
    return xr.DataTree.from_dict({"/gradient_noise": whole, "/gradient_noise/samples": samples})


@pytest.mark.parametrize("mean", [0.0, 0.5])
def test_interval_covers_the_trace(mean):
    rng = np.random.default_rng(0)
    scale = rng.lognormal(size=60)
    covered = []
    for _ in range(200):
        low, high = trace_interval(tree_of(rng.standard_normal((48, 60)) * scale + mean))
        covered.append(low <= (scale**2).sum() <= high)
    assert 0.9 <= np.mean(covered) <= 0.995


def test_without_norms_there_is_none():
    tree = tree_of(np.random.default_rng(0).standard_normal((8, 3)))
    tree = xr.DataTree.from_dict({"/gradient_noise": tree["gradient_noise"].to_dataset()})
    assert all(map(math.isnan, trace_interval(tree)))
    assert all(map(math.isnan, trace_interval(xr.DataTree())))


def test_summary_gives_intervals_of_trace_and_share():
    table = summary(make_example_tree()).set_index("quantity")
    trace = table.loc["trace of the covariance"]
    assert trace["lower"] < trace["value"] < trace["upper"]
    share = table.loc["fraction with heavy tails, of one sample"]
    assert 0 <= share["lower"] < share["value"] < share["upper"] <= 1


def test_share_interval_is_wilsons():
    found = stats.binomtest(37, 96).proportion_ci(method="wilson")
    assert share_interval(37 / 96, 96) == pytest.approx((found.low, found.high), abs=1e-4)
