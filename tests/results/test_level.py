"""The level of a training curve where a record ends, with the interval that the scatter of batches gives."""

import math

import numpy as np
import pytest
import xarray as xr

import noisekit as nk
from noisekit.results.level import level_at_end


@pytest.mark.parametrize("shape", ["flat", "falling"])
@pytest.mark.parametrize("n", [5, 16, 40])
def test_the_interval_covers_the_truth(shape, n):
    rng = np.random.default_rng(n)
    step = 4.0 * np.arange(n)
    truth = np.ones(n) if shape == "flat" else 1 / (1 + step / 10)
    found = [level_at_end(step, truth * rng.gamma(25, 1 / 25, size=n)) for _ in range(400)]
    covered = np.mean([low <= truth[-1] <= high for _, low, high in found])
    assert 0.9 < covered < 0.99
    assert np.mean([value for value, _, _ in found]) == pytest.approx(truth[-1], rel=0.06)


def test_few_batches_give_no_interval():
    value, low, high = level_at_end(np.arange(4), np.array([4.0, 3.0, 2.0, 1.0]))
    assert value == 1.0
    assert math.isnan(low)
    assert math.isnan(high)
    assert level_at_end(np.arange(6), np.arange(6.0) - 3)[0] == pytest.approx(2.0)


def table_of(n):
    """The table of a training of ``n`` batches of 32 whose gradients have a mean of length 3 and noise."""
    rng = np.random.default_rng(0)
    gradients = np.array([3.0, 0, 0, 0, 0]) + rng.standard_normal((n, 32, 5)).mean(axis=1)
    values = {
        "loss": ("step", 0.5 * rng.gamma(32, 1 / 32, size=n)),
        "gradient_norm": ("step", np.linalg.norm(gradients, axis=1)),
    }
    data = xr.Dataset(values, {"step": 10 * np.arange(n)}, {"batch_size": 32})
    return data, nk.summary(xr.DataTree.from_dict({"/training": data})).set_index("quantity")


def test_the_summary_gives_the_level_with_its_interval():
    _, table = table_of(16)
    for name, truth in (("loss", 0.5), ("gradient norm", math.sqrt(9 + 5 / 32))):
        row = table.loc[name]
        assert row["lower"] < truth < row["upper"]
        assert row["lower"] < row["value"] < row["upper"]
        assert row["batch_size"] == 32
        assert row["note"] == "step 150, trend of the last batches"


def test_the_summary_of_few_steps_says_that_it_is_one_batch():
    data, table = table_of(4)
    for name in ("loss", "gradient norm"):
        row = table.loc[name]
        assert row["value"] == data[name.replace(" ", "_")].values[-1]
        assert math.isnan(row["lower"])
        assert math.isnan(row["upper"])
        assert row["note"] == "step 30, of one batch"
