"""The sentences say what the data say."""

import numpy as np
import pytest
import xarray as xr

from noisekit.report import noise_readings, optimizer_readings, tables
from noisekit.report.verdict import noise_sentence, optimizer_sentence, prediction_sentence
from noisekit.results.example import make_example_tree


def runs(levels, n=20, steps=11, spread=0.01, seed=0):
    """A tree with real runs whose loss is flat at the given levels."""
    rng = np.random.default_rng(seed)
    groups = {}
    for name, level in levels.items():
        loss = level + spread * rng.standard_normal((n, 1)) * np.ones(steps)
        coords = {
            "time": 0.1 * np.arange(steps),
            "step": ("time", np.arange(steps)),
            "replicate": np.arange(n),
        }
        groups[f"/optimizer/{name}"] = xr.Dataset({"loss": (("replicate", "time"), loss)}, coords)
    return xr.DataTree.from_dict(groups)


def test_the_lowest_optimizer_is_named_when_the_errors_allow():
    sentence = optimizer_sentence(runs({"sgd": 1.0, "adam": 0.5}))
    assert sentence.startswith("Of 2 optimizers adam ends lowest, at a loss of 0.50")
    assert "mean of 20 real runs" in sentence


def test_optimizers_within_their_errors_are_called_equal():
    sentence = optimizer_sentence(runs({"sgd": 1.0, "adam": 1.001, "signsgd": 3.0}))
    assert "sgd and adam end equally low within their errors" in sentence or "adam and sgd end" in sentence
    assert "signsgd at 3.0" in sentence


@pytest.mark.parametrize(
    ("slopes", "ending"),
    [
        ({"sgd": 0.1, "adam": 0.1}, "; both still falling."),
        ({"sgd": 0.1, "adam": 0.0}, "; sgd still falling."),
        ({"sgd": 0.1}, "; sgd still falling."),
        ({"sgd": 0.0, "adam": -0.1}, "(mean of 20 real runs, ± standard error); sgd at 1.9982 ± 0.0019."),
    ],
)
def test_runs_that_have_not_levelled_off_are_said_to_fall(slopes, ending):
    tree = runs({name: 2.0 if name == "sgd" else 1.0 for name in slopes}, steps=30)
    for name, slope in slopes.items():
        data = tree[f"optimizer/{name}"]
        wiggle = 1e-4 * np.random.default_rng(1).standard_normal((20, 30))
        data["loss"] = data["loss"] + slope * (29 - data["step"]) / 29 + wiggle
    assert optimizer_sentence(tree).endswith(ending)


def test_the_median_of_fits_is_the_same_in_table_and_figure():
    tree = make_example_tree()
    data = tree["minibatch_noise"].to_dataset()
    df = np.full(data["df"].shape, np.inf)
    df[:47], df[47], df[48] = 1.0, 3.0, 5.0
    tree["minibatch_noise"].dataset = data.assign(df=("coordinate", df))
    rows = {row[0].text: row[1].text for row in tables.noise_table(tree).rows}
    assert rows["degrees of freedom ν, median of Student-t fits, a minibatch of 64"] == "4.0"
    assert "Median ν is 4.0" in noise_readings.read_degrees_of_freedom(tree, "minibatch")


def test_nothing_but_diverged_runs_is_said():
    tree = runs({"sgd": 1.0})
    tree["optimizer/sgd"]["loss"][:, -1] = np.nan
    assert optimizer_sentence(tree) == "No replicate of any optimizer stayed finite."


def test_gaussian_noise_is_called_gaussian():
    tree = make_example_tree()
    data = tree["noise_model"].to_dataset()
    tree["noise_model"].dataset = data.assign(is_heavy_tailed=data["is_heavy_tailed"] * 0)
    assert "gradient looks Gaussian in all of the 96 recorded coordinates" in noise_sentence(tree)


def test_heavy_noise_gives_its_share_and_its_median_df():
    tree = make_example_tree()
    data = tree["noise_model"].isel(step=-1)
    heavy = data["is_heavy_tailed"].values == 1
    sentence = noise_sentence(tree)
    assert f"heavy-tailed in {100 * heavy.mean():.0f} % of the 96" in sentence
    assert f"median ν = {np.median(data['df'].values[heavy]):.1f} there" in sentence
    assert "noise scale at step 110" in sentence


@pytest.mark.parametrize(("words", "expected"), [
    (("held", "held"), "held for both optimizers: sgd ("),
    (("held", "missed"), ") and missed for adam ("),
    (("unclear", "held"), "held for adam ("),
])  # fmt: skip
def test_the_prediction_sentence_follows_the_verdicts(words, expected):
    tree = make_example_tree()
    for name, word in zip(("sgd", "adam"), words, strict=True):
        data = tree[f"comparison/{name}"].to_dataset()
        known = {"verdict": word, "mean_relative_gap": 0.0123, "mean_standard_error": 0.004}
        tree[f"comparison/{name}"].dataset = data.assign(
            {key: ("observable", [value] * data.sizes["observable"]) for key, value in known.items()}
        )
    sentence = prediction_sentence(tree)
    assert expected in sentence
    assert "sgd (1.2 ± 0.4 %)" in sentence


def test_trajectory_reading_counts_standard_errors():
    # Means 1 and 1.05; standard deviations 0.1 and 0.2 over 25 replicates: √(0.02² + 0.04²) = 0.0447.
    unit = np.array([-1.0, 1.0] * 12 + [0.0])
    unit /= unit.std(ddof=1)
    coords = {"time": [0.0, 1.0], "step": ("time", [0, 8]), "replicate": np.arange(25)}
    tree = xr.DataTree.from_dict(
        {
            f"/{kind}/sgd": xr.Dataset(
                {"loss": (("replicate", "time"), np.stack([mean + spread * unit] * 2, 1))}, coords
            )
            for kind, mean, spread in (("optimizer", 1.0, 0.1), ("sde", 1.05, 0.2))
        }
    )
    reading = optimizer_readings.read_trajectory(tree, "sgd")
    assert "At step 8 the real runs have a mean loss of 1.00 ± 0.02 and the SDE 1.05 ± 0.04" in reading
    assert "1.1 standard errors apart; its spread is 2.0 ± 0.4 times theirs" in reading


def test_spectrum_reading_counts_the_directions_that_carry_half():
    value = np.array([[5.0, 3.0, 1.0, 1.0]])
    tree = xr.DataTree.from_dict(
        {"/gradient_noise": xr.Dataset({"eigenvalue": (("step", "component"), value)})}
    )
    reading = noise_readings.read_spectrum(tree)
    assert "largest of 4 eigenvalues has 50 % of the noise" in reading
    assert "one carries half" in reading


def test_crossing_of_the_floors():
    tree = xr.DataTree.from_dict(
        {
            f"/theory/{name}": xr.Dataset({"noise_floor": floor})
            for name, floor in (("sgd", 0.01), ("adam", 0.03))
        }
    )
    reading = optimizer_readings.read_floor_against_noise(tree)
    # 0.01 c² = 0.03 c at c = 3
    assert "sgd has the lowest predicted floor, 0.010; above 3.0 times this noise it would be adam" in reading


def test_far_values_are_counted():
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((1, 1000, 4))
    noise[0, :20, 0] = 50
    coords = {"step": [0], "coordinate": np.arange(4)}
    data = xr.Dataset({"noise": (("step", "sample", "coordinate"), noise)}, coords)
    reading = noise_readings.read_histogram(xr.DataTree.from_dict({"/gradient_noise/samples": data}))
    assert "Beyond 4 standard deviations lie 0.50 % of the 4\u202f000 values" in reading


def test_an_unseen_signal_is_said():
    tree = make_example_tree()
    data = tree["gradient_noise"].to_dataset()
    nothing = data["total_noise_scale"] * np.nan
    tree["gradient_noise"].dataset = data.assign(total_noise_scale=nothing)
    assert "cannot be told" in noise_readings.read_noise_scale(tree)
    assert "too large for the recorded batches" in noise_sentence(tree)


def test_optimizer_table_shows_the_numbers_of_the_file():
    tree = make_example_tree()
    table = tables.optimizer_table(tree)
    row = dict(zip(table.head, (cell.text for cell in table.rows[0]), strict=True))
    late = tree["optimizer/sgd/loss"].values[:, -4:].mean(1)
    assert row["optimizer"] == "sgd"
    assert row["learning rate"] == "0.05"
    assert row["final loss, real runs"].startswith(f"{late.mean():.3f} ± ")
    assert row["prediction"] == "held"


def test_regimes_have_a_row_for_each_gauge_and_a_column_for_each_optimizer():
    table = tables.regime_table(make_example_tree())
    assert table.head == ["gauge", "sgd", "adam", "what it says"]
    assert [row[0].text for row in table.rows] == [
        "learning rate × sharpness, ηλ_max",
        "tail of the noise, ν̂ or α̂",
        "signal over noise, (∇f)²/diag Σ",
    ]
    assert table.rows[0][1] == tables.Cell("0.31 (0.30 to 0.36) · ok", "good")
    assert table.rows[2][1] == tables.Cell("0.80 · warning", "warn")


def test_coverage_names_what_is_left_out():
    tree = make_example_tree()
    tree["gradient_noise"].attrs |= {"coverage": 0.913, "uncovered": '["norm.running"]'}
    sentence, names = tables.coverage(tree)
    assert "cover 91 % of the trainable parameters" in sentence
    assert names == ["norm.running"]


def test_the_noise_of_minibatches_is_in_the_verdict():
    tree = make_example_tree()
    heavy = tree["minibatch_noise/is_heavy_tailed"].values
    assert (
        f"and that of a minibatch of 64 is heavy-tailed in {100 * heavy.mean():.0f} % of 96;"
        in noise_sentence(tree)
    )
    data = tree["minibatch_noise"].to_dataset()
    tree["minibatch_noise"].dataset = data.assign(is_heavy_tailed=0 * data["is_heavy_tailed"])
    assert "and that of a minibatch of 64 looks Gaussian everywhere;" in noise_sentence(tree)
    only = xr.DataTree.from_dict({"/minibatch_noise": data})
    assert noise_sentence(only).startswith("The noise of a minibatch of 64 is heavy-tailed in ")


def test_a_meaning_that_differs_names_its_optimizers():
    tree = make_example_tree()
    data = tree["theory/adam"].to_dataset()
    meanings = ["other", *data["gauge_meaning"].values[1:].tolist()]
    tree["theory/adam"].dataset = data.assign(gauge_meaning=("gauge", meanings))
    last = [row[-1].text for row in tables.regime_table(tree).rows]
    assert last[0].startswith("sgd: ")
    assert last[0].endswith("; adam: other")
    assert "sgd" not in last[1]


def test_a_stored_law_is_read_with_its_intervals():
    coords = {"coordinate": np.arange(3)}
    values = {
        "predicted_variance": [1.0, 2.0, 4.0],
        "measured_variance": [1.1, 2.0, 8.0],
        "measured_variance_error": [0.1, 0.1, 0.1],
    }
    data = xr.Dataset({name: ("coordinate", v) for name, v in values.items()}, coords, {"n_replicates": 64})
    tree = xr.DataTree.from_dict({"/stationary/sgd": data})
    text = optimizer_readings.read_stationary_law(tree, "sgd")
    assert text.startswith("Over 3 coordinates the variance of 64 real runs is 1.1 times the predicted one")
    assert text.endswith("the prediction lies within the 95 % interval of 2 of them.")
    tree["stationary/sgd"] = xr.DataTree(data[["predicted_variance"]])
    assert "between 1.0 and 4.0; this file holds no" in optimizer_readings.read_stationary_law(tree, "sgd")


def test_the_course_of_phases_is_read_from_its_ends():
    coords = {"time": [0.0, 0.1], "step": ("time", [0, 10]), "phase": [1, 2, 3]}
    share = [[0.9, 0.1, 0.0], [0.1, 0.15, 0.75]]
    data = xr.Dataset({"phase_fraction": (("time", "phase"), share)}, coords)
    tree = xr.DataTree.from_dict({"/phases/signsgd": data})
    text = "0 % of the coordinates are inside the noise (phase 3) at step 0 and 75 % at step 10"
    assert optimizer_readings.read_phase_course(tree, "signsgd") == f"{text}."
    tree["phases/signsgd"] = xr.DataTree(data.assign(excess_loss=("time", [2.0, 0.5])))
    expected = f"{text}, where 25 % of the first excess loss is left."
    assert optimizer_readings.read_phase_course(tree, "signsgd") == expected


def test_the_report_draws_what_experiments_stored():
    from noisekit.report.figures import draw_figures

    whole = make_example_tree()
    tree = xr.DataTree.from_dict({"/phases": whole["phases"], "/stationary": whole["stationary"]})
    titles = {picture.title for picture in draw_figures(tree)[0]}
    assert titles == {
        "sgd: stationary variance", "adam: stationary variance", "signsgd: phases along its runs",
    }  # fmt: skip


def test_all_is_said_only_of_all_and_a_sharp_peak_is_no_infinite_variance():
    tree = make_example_tree()
    data = tree["noise_model"].to_dataset()
    everywhere = data.assign(is_heavy_tailed=data["is_heavy_tailed"] * 0 + 1, df=data["df"] * 0 + 0.8)
    tree["noise_model"].dataset = everywhere
    assert "heavy-tailed in all of the " in noise_sentence(tree)
    assert "by its sharp peak: whether its variance is finite, the tail index says" in noise_sentence(tree)
    tree["noise_model"].dataset = everywhere.assign(df=data["df"] * 0 + 3.0)
    assert "sharp peak" not in noise_sentence(tree)


def test_a_scale_that_drowns_at_the_end_is_told_from_below():
    tree = make_example_tree()
    data = tree["gradient_noise"].to_dataset()
    value, interval = data["total_noise_scale"].copy(), data["total_noise_scale_interval"].copy()
    value[-2:] = np.nan
    interval[-2:] = np.array([210.0, np.inf])
    tree["gradient_noise"].dataset = data.assign(total_noise_scale=value, total_noise_scale_interval=interval)
    assert "the noise scale at step 110 is above 210 samples (95 %)" in noise_sentence(tree)


def test_a_record_without_fits_is_not_called_absent():
    tree = make_example_tree()
    for name in ("noise_model", "minibatch_noise", "tail_index"):
        del tree[name]
    data = tree["gradient_noise"].to_dataset()
    tree["gradient_noise"].dataset = data.drop_vars("total_noise_scale")
    assert "Nothing has been fitted yet" in noise_sentence(tree)
    assert noise_sentence(xr.DataTree()) == "This file holds no record of the gradient noise."
