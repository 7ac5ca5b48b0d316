"""The tables of the page say what was asked, at worst and lost."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from noisekit.results.example_truth import truth_groups

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_truth_tables.py"


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(SCRIPT))


@pytest.mark.parametrize(
    ("gap", "error", "said"),
    [
        (0.2, 0.1, "held"),
        (0.4, 0.1, "on the edge"),
        (0.6, 0.1, "missed"),
        (0.1, 0.2, "error too large to say"),
    ],
)
def test_what_was_asked_needs_a_small_error(script, gap, error, said):
    assert script["asked"](gap, error, 0.3) == said


def test_rows_have_the_worst_instant_and_count_lost_paths(script):
    groups = truth_groups(np.random.default_rng(0))
    for data in groups.values():
        data.attrs |= {"replicates": 64, "steps": 40, "n_samples": "all"}
    data = groups["/truth/example_sgd"]
    data["n_diverged"].loc[{"arm": "consistent"}] = 3
    lines = script["tables"](xr.DataTree.from_dict(groups))["headline"].splitlines()
    head, row = ([cell.strip() for cell in line.strip("|").split("|")] for line in (lines[0], lines[2]))
    found = dict(zip(head, row, strict=True))
    assert found["runs × steps"] == "64 × 40"
    assert "(3 paths lost)" in found["gap of the mean loss"]
    worst = float(data["worst_gap"].sel(arm="consistent", observable="loss"))
    assert found["at worst"].startswith(f"{100 * worst:.2f} ±")
