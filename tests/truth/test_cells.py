"""A study is computed cell by cell: once, in any order, in any number of processes, with the same numbers."""

import os
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from noisekit.errors import NoisekitError
from noisekit.truth import cells as cells_module
from noisekit.truth.cells import EnsembleCell, cells_of, run_cells
from noisekit.truth.experiment import TRUTH, Experiment
from noisekit.truth.measure import measure

SMALL = Experiment(
    "linear-regression",
    "sgd",
    0.1,
    steps=8,
    replicates=64,
    arms=("consistent", "fine", "ode", "double_covariance"),
    batch_size=4,
    warmup=4,
    options={"dimension": 3, "n_samples": 40},
)


def contents(folder):
    return {p.name: xr.load_dataset(p, engine="h5netcdf") for p in sorted(folder.glob("*.nc"))}


def test_cells_are_computed_once_and_resumed(tmp_path, monkeypatch):
    cells = cells_of([SMALL])
    run_cells(cells[:2], tmp_path, workers=1)
    computed = []
    store = EnsembleCell.store
    monkeypatch.setattr(
        EnsembleCell, "store", lambda cell, folder: (computed.append(cell.arm), store(cell, folder))
    )
    run_cells(cells, tmp_path, workers=1)
    assert sorted(computed) == ["double_covariance", "fine", "ode"]
    assert len(contents(tmp_path)) == 5


@pytest.mark.slow
def test_processes_and_ranks_give_the_same_numbers(tmp_path, monkeypatch):
    cells = cells_of([SMALL])
    folders = [tmp_path / name for name in ("one", "two", "ranks")]
    for folder in folders:
        folder.mkdir()
    run_cells(cells, folders[0], workers=1)
    run_cells(cells, folders[1], workers=2)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("1", "0"):
        monkeypatch.setitem(os.environ, "RANK", rank)
        run_cells(cells, folders[2], workers=1)
    one, *others = map(contents, folders)
    for other in others:
        assert list(other) == list(one)
        for name, data in one.items():
            xr.testing.assert_equal(data, other[name])


def test_other_settings_are_other_cells(tmp_path):
    changed = [replace(SMALL, **{k: v}) for k, v in (("seed", 1), ("substeps", 4), ("learning_rate", 0.2))]
    paths = {EnsembleCell(e, "consistent").path(tmp_path) for e in (SMALL, *changed)}
    assert len(paths) == 4
    fewer = replace(SMALL, arms=("consistent",))
    assert EnsembleCell(fewer, TRUTH).path(tmp_path) == EnsembleCell(SMALL, TRUTH).path(tmp_path)


def test_a_failing_cell_is_named_and_the_others_stay(tmp_path):
    bad = replace(SMALL, optimizer="adam", learning_rate=-1.0)
    with pytest.raises(NoisekitError, match=r"linear-regression_adam.*Run it again to go on"):
        run_cells(cells_of([bad, SMALL]), tmp_path, workers=1)
    assert len(contents(tmp_path)) == 5


def test_nothing_half_written_is_left(tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(cells_module.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        EnsembleCell(SMALL, TRUTH).store(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_sde_holds_and_the_controls_fail(tmp_path):
    row = replace(SMALL, replicates=2000, steps=40, learning_rate=0.2)
    run_cells(cells_of([row]), tmp_path, workers=1)
    found = measure(row, tmp_path).sel(observable="loss")
    own, double, ode = (found.sel(arm=a) for a in ("consistent", "double_covariance", "ode"))
    assert float(own["gap"]) < 3 * float(own["gap_error"]) + 2 * float(own["discretisation_error"])
    assert abs(float(own["std_ratio"]) - 1) < 0.2
    for wrong in (double, ode):
        assert float(wrong["gap"]) > 5 * float(own["gap"])
        assert abs(np.log(float(wrong["std_ratio"]))) > 0.3
        assert float(wrong["covariance_distance"]) > 3 * float(own["covariance_distance"])
    assert float(ode["parameter_variance_ratio"]) < 0.1 < float(own["parameter_variance_ratio"])


def test_a_prediction_that_does_not_exist_says_why(tmp_path):
    row = Experiment(
        "quadratic", "sgd", 0.1, 4, 16, noise="student_t", df=1.5, arms=("consistent",), warmup=2
    )
    run_cells(cells_of([row]), tmp_path, workers=1)
    found = measure(row, tmp_path)
    assert "infinite variance" in str(found["refusal"].sel(arm="consistent").item())
    assert np.isnan(found["gap"].sel(arm="consistent")).all()
    assert np.isfinite(found["reference_mean"]).all()
