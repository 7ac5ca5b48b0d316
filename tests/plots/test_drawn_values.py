"""What is drawn is what is in the tree, or what a closed form says."""

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure
from scipy import stats

import noisekit.plots as plots
from noisekit.errors import InputError
from noisekit.plots.ensembles import Ensemble, ensemble
from noisekit.plots.fits import read_fits
from noisekit.plots.groups import shorten_all
from noisekit.plots.hill_plot import hill_estimates
from noisekit.plots.pooled_noise import pooled_noise
from noisekit.plots.signal_to_noise import total_signal_to_noise
from noisekit.plots.ticks import plain_log_ticks
from noisekit.results.example import make_example_tree

mpl.use("Agg")


def blank_axes():
    return Figure().add_subplot()


def samples_tree(noise, model=None):
    n = noise.shape[-1]
    coords = {"step": [7], "coordinate": np.arange(n), "coordinate_block": ("coordinate", ["w"] * n)}
    groups = {
        "/gradient_noise/samples": xr.Dataset({"noise": (("step", "sample", "coordinate"), noise)}, coords)
    }
    if model is not None:
        fits = {name: (("step", "coordinate"), values[None]) for name, values in model.items()}
        groups["/noise_model"] = xr.Dataset(fits, coords)
    return xr.DataTree.from_dict(groups)


def test_hill_estimates_agree_with_the_textbook_sum():
    x = np.random.default_rng(0).pareto(2.5, 400) + 1
    ordered = np.sort(x)[::-1]
    direct = [1 / np.mean(np.log(ordered[:k] / ordered[k])) for k in (1, 10, 57, 200)]
    np.testing.assert_allclose(hill_estimates(x, np.array([1, 10, 57, 200])), direct, rtol=1e-12)


def test_hill_of_a_pareto_law_is_its_index():
    x = np.random.default_rng(1).pareto(3.0, 200_000) + 1
    assert hill_estimates(x, np.array([20_000]))[0] == pytest.approx(3.0, abs=4 * 3 / np.sqrt(20_000))


def test_scaled_gaussian_coordinates_pool_to_a_gaussian():
    rng = np.random.default_rng(2)
    noise = rng.normal(size=(1, 2000, 30)) * rng.lognormal(0, 3, 30)
    pooled = pooled_noise(samples_tree(noise))
    assert stats.kurtosis(pooled.values) == pytest.approx(0, abs=0.08)
    assert stats.kurtosis(noise.ravel()) > 10
    z = np.array([-2.0, 0.0, 1.0])
    np.testing.assert_allclose(pooled.density(z, "gaussian"), stats.norm.pdf(z), rtol=1e-6)


def test_pooled_law_is_the_mean_of_the_fitted_laws():
    rng = np.random.default_rng(3)
    df, scale = np.array([3.0, 8.0, np.inf]), np.array([0.1, 5.0, 2.0])
    noise = rng.normal(size=(1, 100, 3)) * scale
    pooled = pooled_noise(samples_tree(noise, {"location": np.zeros(3), "scale": scale, "df": df}))
    z = np.linspace(-6, 6, 25)
    by_hand = (stats.t.cdf(z, 3) + stats.t.cdf(z, 8) + stats.norm.cdf(z)) / 3
    np.testing.assert_allclose(pooled.cumulative(z, "fitted"), by_hand, rtol=1e-12)
    np.testing.assert_allclose(pooled.quantile(by_hand, "fitted"), z, atol=5e-3)


def test_silent_coordinates_are_left_out_and_counted():
    noise = np.random.default_rng(4).normal(size=(1, 50, 4))
    noise[..., 1] = 0
    noise[0, 3, 2] = np.nan
    pooled = pooled_noise(samples_tree(noise))
    assert (pooled.n_coordinates, pooled.n_silent) == (2, 2)
    assert pooled.values.size == 100


def test_noise_that_is_all_zero_is_refused():
    with pytest.raises(InputError, match="all are zero, not finite or set aside"):
        plots.plot_noise_histogram(samples_tree(np.zeros((1, 10, 3))))


def test_trajectories_draw_the_means_of_the_file():
    tree = make_example_tree()
    ax = plots.plot_trajectories(tree, optimizer="adam", ax=blank_axes())
    lines = {line.get_label(): line for line in ax.lines}
    for label, kind in (("real runs (32)", "optimizer"), ("SDE paths (32)", "sde")):
        expected = tree[f"{kind}/adam/loss"].mean("replicate").values
        np.testing.assert_allclose(lines[label].get_ydata(), expected)
        np.testing.assert_array_equal(lines[label].get_xdata(), tree[f"{kind}/adam/step"].values)


def test_diverged_replicates_are_left_out_and_counted():
    tree = make_example_tree()
    data = tree["optimizer/sgd"].to_dataset(inherit=False).copy(deep=True)
    data["loss"][3, 10:] = np.nan
    data["diverged"][3] = 20
    data["loss"][5] = 1e6
    data["diverged"][5] = 0
    tree["optimizer/sgd"] = xr.DataTree(data)
    runs = ensemble(tree, "optimizer", "sgd")
    assert (runs.n, runs.n_diverged) == (30, 2)
    ax = plots.plot_trajectories(tree, optimizer="sgd", ax=blank_axes())
    assert "real runs (30, 2 diverged)" in [line.get_label() for line in ax.lines]
    kept = np.delete(data["loss"].values, [3, 5], axis=0)
    np.testing.assert_allclose(runs.mean, kept.mean(0))
    level, error = runs.late(0.1)
    each = kept[:, -4:].mean(1)
    assert (level, error) == pytest.approx((each.mean(), each.std(ddof=1) / np.sqrt(30)))


def test_standard_error_band_is_narrower_than_the_quantiles():
    tree = make_example_tree()
    spans = {}
    for band in ("quantiles", "standard_error"):
        ax = plots.plot_trajectories(tree, optimizer="sgd", band=band, ax=blank_axes())
        spans[band] = np.ptp(ax.collections[0].get_paths()[0].vertices[-40:, 1])
    assert spans["standard_error"] < spans["quantiles"]


def test_an_unknown_band_is_refused():
    with pytest.raises(InputError, match="band = 'box'"):
        plots.plot_trajectories(make_example_tree(), band="box")


def test_signal_of_all_blocks_is_a_ratio_of_sums():
    tree = make_example_tree()
    data = tree["gradient_noise"].to_dataset(inherit=False)
    per_batch = data["trace"].sum("block") / 64
    expected = (data["mean_squared_norm"].sum("block") - per_batch) / per_batch
    np.testing.assert_allclose(total_signal_to_noise(data), expected.values)


def test_floor_lines_have_slope_two_for_sgd_and_one_for_adam():
    ax = plots.plot_floor_against_noise(make_example_tree(), ax=blank_axes())
    slopes = {}
    for line in ax.lines:
        x, y = np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)
        if x.size > 2 and np.all(y > 0) and not str(line.get_label()).startswith("_"):
            slopes[line.get_label()] = np.polyfit(np.log(x), np.log(y), 1)[0]
    assert slopes == pytest.approx({"sgd": 2.0, "adam": 1.0})


def test_stationary_law_draws_the_variance_of_the_runs():
    tree = make_example_tree()
    del tree["stationary"]
    data = tree["optimizer/sgd"].to_dataset(inherit=False)
    x = np.random.default_rng(5).normal(size=(32, data.sizes["time"], 40))
    tree["optimizer/sgd"] = xr.DataTree(data.assign(x=(("replicate", "time", "coordinate"), x)))
    ax = plots.plot_stationary_law(tree, optimizer="sgd", ax=blank_axes())
    drawn = next(line for line in ax.lines if len(line.get_xdata()) == 40)
    np.testing.assert_allclose(drawn.get_ydata(), x[:, -1].var(axis=0, ddof=1))
    np.testing.assert_allclose(drawn.get_xdata(), tree["theory/sgd/stationary_variance"].values)


def test_no_signal_is_marked_not_dropped():
    tree = make_example_tree()
    data = tree["gradient_noise"].to_dataset(inherit=False).copy(deep=True)
    data["signal_to_noise"][-1] = -0.2
    tree["gradient_noise"] = xr.DataTree(data)
    ax = plots.plot_signal_to_noise(tree, ax=blank_axes())
    assert "▾ no signal seen" in [t.get_text() for t in ax.texts]


def test_noise_scale_without_upper_end_is_drawn_to_the_top():
    tree = make_example_tree()
    data = tree["gradient_noise"].to_dataset(inherit=False).copy(deep=True)
    data["total_noise_scale_interval"][-1, 1] = np.inf
    data["total_noise_scale"][-2] = np.nan
    tree["gradient_noise"] = xr.DataTree(data)
    ax = plots.plot_noise_scale(tree, ax=blank_axes())
    assert np.isfinite(ax.get_ylim()).all()
    top = ax.collections[0].get_paths()[0].vertices[:, 1].max()
    assert top == pytest.approx(ax.get_ylim()[1])


def test_a_tail_too_light_to_measure_points_out_of_the_axis():
    alpha = np.array([3.0, np.inf, 5.0]).reshape(1, 3, 1)
    interval = np.stack([0.5 * np.minimum(alpha, 20), np.where(alpha > 4, np.inf, 2 * alpha)], axis=-1)
    data = xr.Dataset(
        {
            "alpha": (("step", "block", "estimator"), alpha),
            "alpha_interval": (("step", "block", "estimator", "bound"), interval),
        },
        {"step": [0], "block": ["a", "b", "c"], "estimator": ["gpd"], "bound": ["lower", "upper"]},
    )
    ax = plots.plot_tail_index(xr.DataTree.from_dict({"/tail_index": data}), ax=blank_axes())
    arrow = next(line for line in ax.lines if line.get_marker() == ">")
    assert arrow.get_xdata() == pytest.approx([ax.get_xlim()[1]])
    assert list(arrow.get_ydata()) == [1.0]
    assert 5 < ax.get_xlim()[1] <= 100


def test_coordinates_that_were_set_aside_are_not_shown():
    noise = np.random.default_rng(6).normal(size=(1, 60, 3))
    fits = {"location": np.zeros(3), "scale": np.ones(3), "df": np.array([4.0, 0.1, np.inf])}
    fits |= {"is_set_aside": np.array([0, 1, 0]), "is_heavy_tailed": np.array([1, 1, 0])}
    tree = samples_tree(noise, fits)
    found = read_fits(tree)
    assert (found.df.tolist(), found.n_set_aside, found.heavy_share) == ([4.0, np.inf], 1, 0.5)
    assert (pooled_noise(tree).n_coordinates, pooled_noise(tree).n_silent) == (2, 1)


def test_noise_of_a_minibatch_is_taken_from_its_own_group():
    tree = make_example_tree()
    pooled = pooled_noise(tree, of="minibatch")
    data = tree["minibatch_noise"].to_dataset()
    scaled = (data["noise"] - data["location"]) / data["scale"]
    np.testing.assert_allclose(np.sort(pooled.values), np.sort(scaled.values.ravel()), rtol=1e-5)
    ax = plots.plot_noise_histogram(tree, of="minibatch", ax=blank_axes())
    assert ax.get_title(loc="left") == "Gradient noise where training ended"
    assert ax.get_xlabel() == "gradient noise of a minibatch of 64 (fitted scales)"
    with pytest.raises(InputError, match="'sample' or 'minibatch'"):
        plots.plot_degrees_of_freedom(tree, of="batch")


def test_fits_that_are_all_gaussian_can_be_drawn():
    tree = make_example_tree()
    data = tree["noise_model"].to_dataset()
    tree["noise_model"].dataset = data.assign(df=data["df"] * np.inf)
    ax = plots.plot_degrees_of_freedom(tree, ax=blank_axes())
    assert all(np.asarray(line.get_xdata())[0] in (2.0, 200.0) for line in ax.lines)


@pytest.mark.parametrize(("slope", "falling"), [(-0.05, True), (0.0, False), (0.05, False)])
@pytest.mark.parametrize("instants", [6, 40])
def test_a_loss_that_still_falls_is_noticed(slope, falling, instants):
    rng = np.random.default_rng(7)
    loss = 1 + slope * np.arange(instants) + 0.01 * rng.standard_normal((20, instants))
    runs = Ensemble(np.arange(instants), loss, 0, "optimizer")
    assert runs.still_falling() is falling


def test_of_many_coordinates_evenly_spread_ones_are_drawn(monkeypatch):
    monkeypatch.setattr("noisekit.plots.pooled_noise._MOST", 64 * 24)
    tree = make_example_tree()
    whole = tree["gradient_noise/samples/noise"].values[-1]
    places = np.linspace(0, 95, 24).round().astype(int)
    del tree["noise_model"]
    pool = pooled_noise(tree)
    centred = whole[:, places].astype(float) - whole[:, places].astype(float).mean(0)
    np.testing.assert_allclose(pool.values, (centred / centred.std(0, ddof=1)).ravel())
    assert pool.n_coordinates == 24


def test_names_of_layers_fit_and_still_differ():
    names = [f"transformer.layers.{i}.attention.in_proj_weight" for i in range(12)]
    shown = shorten_all(names)
    assert len(set(shown)) == 12
    assert max(map(len, shown)) <= 22
    assert shorten_all(["0.weight", "0.bias"]) == ["0.weight", "0.bias"]
    assert shorten_all(["model.conv1.weight", "model.conv1.bias"]) == ["conv1.weight", "conv1.bias"]
    assert shorten_all(["alone.weight"]) == ["alone.weight"]


@pytest.mark.parametrize(("low", "high"), [(30, 1500), (1.2e-5, 2e-3), (1e-7, 10.0), (0.9, 1.1)])
def test_ticks_of_a_logarithmic_axis_are_few_and_plain(low, high):
    ax = Figure().subplots()
    ax.set_xscale("log")
    ax.set_xlim(low, high)
    plain_log_ticks(ax.xaxis)
    labels = [label.get_text() for label in ax.get_xticklabels()]
    assert 1 <= len(labels) <= (7 if low > 1e-4 else 5)
    assert not [label for label in labels if "e+" in label or "e-" in label]
    plain = [float(label) for label in labels if "$" not in label]
    assert all(min(abs(value / tick - 1) for tick in ax.get_xticks()) < 1e-6 for value in plain)


def test_an_experiment_without_an_sde_says_so():
    tree = make_example_tree()
    name = next(iter(tree["truth"].children))
    data = tree[f"truth/{name}"].to_dataset()
    tree[f"truth/{name}"].dataset = data.assign(gap=data["gap"] * np.nan)
    ax = plots.plot_truth(tree)
    assert [text.get_text() for text in ax.texts] == ["no SDE: infinite variance"]
    assert ax.figure.get_size_inches()[1] == pytest.approx(1.4 + 0.42 * len(tree["truth"].children))
