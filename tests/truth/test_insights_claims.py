"""Each insight in a tiny form: the physical claim, in a way that fails if it is wrong, and its figure."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure
from scipy.special import erf

from noisekit.plots.insights import draw_insight
from noisekit.truth.insights import (
    batch_scaling,
    decoupled_decay,
    floor_from_record,
    heavy_tails,
    noise_floors,
    signsgd_phases,
    signsgd_stationary,
)

mpl.use("Agg")


def sizes(name, **changes):
    """Return the sizes of an insight, smaller."""
    from importlib import import_module

    return import_module(f"noisekit.truth.insights.{name}").Sizes(**changes)


def check(data, tmp_path):
    """Every number is labelled, the file can be written and read, and the figure draws from it."""
    for name, variable in data.data_vars.items():
        assert variable.attrs["long_name"], name
        assert variable.attrs["units"], name
    for name in ("claim", "verdict", "finding", "settings"):
        assert data.attrs[name]
    data.to_netcdf(tmp_path / "insight.nc")
    with xr.open_dataset(tmp_path / "insight.nc") as read:
        figure = draw_insight(read.load())
    assert isinstance(figure, Figure)
    figure.canvas.draw()
    for text in figure.findobj(mpl.text.Text):
        if text.get_visible() and text.get_text().strip():
            box = text.get_window_extent()
            assert box.x0 >= -1, text
            assert box.x1 <= figure.bbox.x1 + 1, text
    plt.close("all")


def within(value, expected, error, *, tolerance=0.0, errors=3.5):
    return bool((np.abs(value - expected) <= tolerance + errors * error).all())


@pytest.mark.slow
def test_signsgd_moves_by_erf_and_not_by_straight_lines(tmp_path):
    small = sizes(
        "signsgd_phases", one_replicates=3000, replicates=300, drift_draws=40_000, steps=400, instants=40,
        learning_rate=0.03, substeps=2,
    )  # fmt: skip
    shares = []
    data = signsgd_phases(preset=small, progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert within(data.drift, erf(data.ratio), data.drift_error, errors=4.5)
    one = data.sel(ratio=1.0)
    assert float(one.drift_line / one.drift - 1) == pytest.approx(0.339, abs=0.02)
    gap = data.sde_loss / data.loss - 1
    assert within(
        gap, 0, np.hypot(data.sde_loss_error, data.loss_error) / data.loss, tolerance=0.02, errors=4.5
    )
    tangent, secant = (data.bounds.sel(line=f"phase 3, {kind}") for kind in ("tangent", "secant"))
    loss = data.loss.sel(problem="one coordinate")
    assert float((loss / tangent).max()) > 1.15
    assert float((loss / secant).max()) < 1.02
    assert data.attrs["finding"] == "held in part"
    check(data, tmp_path)


@pytest.mark.slow
def test_the_floor_is_quadratic_for_sgd_and_linear_for_the_others(tmp_path):
    small = sizes(
        "noise_floors", dimension=4, replicates=32, levels=(0.2, 0.8, 3.0), settle=500, keep=500,
        batch_sizes=(8, 32, 128), batch_replicates=16, batch_learning_rate=0.02, sign_learning_rate=0.004,
        batch_keep=8.0,
    )  # fmt: skip
    data = noise_floors(preset=small)
    for problem, tolerance in (("quadratic", 0.05), ("linear-regression", 0.06)):
        found = data.sel(problem=problem)
        assert within(found.slope, found.expected_slope, found.slope_error, tolerance=tolerance)
        assert float(found.slope_error.max()) < 0.15
        assert float(found.slope.sel(optimizer="sgd") - found.slope.sel(optimizer="signsgd")) > 0.5
        law = found.floor / found.stationary_law
        assert within(law, 1, found.floor_error / found.floor, tolerance=0.1)
    check(data, tmp_path)


@pytest.mark.slow
def test_signsgd_settles_in_its_stationary_law_whatever_the_tail(tmp_path):
    small = sizes("signsgd_stationary", dimension=4, replicates=200, settle=300, keep=400)
    data = signsgd_stationary(preset=small)
    assert within(data.ratio, 1, data.ratio_error, tolerance=0.03)
    assert float(data.ratio_error.max()) < 0.04
    # With heavier tails it lies between: the scale is that of the peak, so the floor grows with 1/ν.
    variance = data.variance.sum("component")
    assert variance.sel(law="t1") > variance.sel(law="t5")
    # Only the published form, made for commuting matrices, has the wrong shape under correlated noise.
    off = data.distance.sel(law="gaussian, correlated")
    assert off.sel(source="published") > 2 * off.sel(source="sde")
    check(data, tmp_path)


@pytest.mark.slow
def test_signsgd_survives_cauchy_noise_and_sgd_does_not(tmp_path):
    small = sizes(
        "heavy_tails",
        dimension=4,
        replicates=96,
        steps=350,
        instants=25,
        start=1.0,
        degrees_of_freedom=(5.0, 1.0),
    )
    data = heavy_tails(preset=small)
    assert data.lost.sel(optimizer="signsgd").values.tolist() == [0, 0]
    assert float(data.lost.sel(optimizer="sgd", df=5.0)) == 0
    assert float(data.lost.sel(optimizer="sgd", df=1.0)) > 0.9
    assert data.has_sde.sel(df=1.0).values.tolist() == [0, 1, 0, 0]
    assert data.has_sde.sel(df=5.0).values.all()
    sign = data.sel(optimizer="signsgd")
    error = np.hypot(sign.late_median_error, sign.sde_late_median_error)
    assert within(sign.sde_late_median, sign.late_median, error)
    # Adaptive optimizers are not lost, but Cauchy noise makes their steps too small to learn.
    slow = data.late_median.sel(df=1.0) > 4 * data.late_median.sel(df=1.0, optimizer="signsgd")
    assert slow.sel(optimizer=["rmsprop", "adam"]).all()
    check(data, tmp_path)


@pytest.mark.slow
def test_decoupled_decay_bounds_the_floor_and_l2_does_not(tmp_path):
    small = sizes(
        "decoupled_decay",
        dimension=3,
        replicates=96,
        levels=(1.0, 10.0, 30.0),
        settle=900,
        keep=500,
        learning_rate=0.04,
        offset=1.0,
    )
    data = decoupled_decay(preset=small)
    at_zero = data.sel(centre="minimum at 0")
    decoupled = at_zero.growth.sel(optimizer=["rmspropw", "adamw"])
    l2 = at_zero.growth.sel(optimizer=["rmsprop", "adam"])
    assert (decoupled < 0.3).all()
    assert (l2 > 0.8).all()
    assert (at_zero.floor < at_zero.bound).all()
    assert within(
        at_zero.floor / at_zero.stationary_law, 1, at_zero.floor_error / at_zero.floor, tolerance=0.05
    )
    # Away from 0 decoupled decay pays with bias what it saves in noise.
    away = data.sel(centre="minimum away from 0", level=10.0).floor
    assert away.sel(optimizer="adamw") > 1.3 * away.sel(optimizer="adam")
    check(data, tmp_path)


@pytest.mark.slow
def test_the_whole_rule_keeps_the_floor_and_parts_of_it_do_not(tmp_path):
    small = sizes(
        "batch_scaling", dimension=4, replicates=128, regression_replicates=48, settle=700, keep=600,
        small_batch_rules=(), regression_rules=("sde", "linear"),
    )  # fmt: skip
    data = batch_scaling(preset=small)
    ratio = data.floor / data.floor.sel(ratio=1.0)
    error = np.hypot(data.floor_error / data.floor, (data.floor_error / data.floor).sel(ratio=1.0)) * ratio
    large = {"problem": "quadratic", "optimizer": "adamw", "ratio": 16.0}
    kept = ratio.sel(rule="sde", **large)
    assert within(kept, 1, error.sel(rule="sde", **large), tolerance=0.05)
    for rule in ("θ unscaled (sqrt)", "ε unscaled", "linear"):
        assert abs(float(ratio.sel(rule=rule, **large)) - 1) > 0.2, rule
    minibatches = large | {"problem": "linear-regression"}
    found = ratio.sel(rule=["sde", "linear"], **minibatches)
    assert abs(float(found[0]) - 1) < 0.3 < float(found[1]) - 1
    check(data, tmp_path)


@pytest.mark.slow
def test_a_network_reaches_the_floor_that_its_record_predicts(tmp_path):
    from noisekit.truth.insights.floor_from_record import Case

    cases = (Case(0.01, 16, ("sgd", "adam", "signsgd"), (4.0,), 220), Case(0.0, 16, ("sgd",), (4.0,), 80))
    data = floor_from_record(preset=sizes("floor_from_record", cases=cases, replicates=8, descent=500))
    ratio, error = data.ratio.values, data.ratio_error.values
    assert data.optimizer.values.tolist() == ["sgd", "adam", "signsgd", "sgd"]
    assert within(ratio[:2], 1, error[:2], tolerance=0.35)
    assert ratio[2] > 2  # signs of skewed gradients do not balance at the minimum
    assert data.sign_bias.values[2] > 0.1
    assert ratio[3] < 0  # without a minimum the loss goes on falling
    check(data, tmp_path)


@pytest.mark.parametrize(
    ("slope", "finding"),
    [
        ([[2.0, 1.0, 1.0, 1.0]] * 2, "held"),
        ([[2.0, 1.2, 1.0, 1.0]] * 2, "held in part"),
        ([[1.0, 1.0, 1.0, 1.0]] * 2, "failed"),
    ],
)
def test_a_wrong_slope_is_not_called_held(slope, finding):
    from noisekit.truth.insights.noise_floors import _finding

    values = np.stack([np.array(slope), np.full((2, 4), 0.01)], axis=-1)
    assert _finding(values, np.array([2.0, 1.0, 1.0, 1.0])) == finding
