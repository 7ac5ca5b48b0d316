"""Experiments over many runs become groups of the schema, with the numbers that numpy finds in the runs."""

import matplotlib as mpl
import numpy as np
import pytest
import torch

import noisekit as nk
from noisekit.errors import InputError
from noisekit.results import (
    batch_scaling_groups,
    phase_groups,
    robustness_groups,
    stationary_groups,
    sweep_groups,
    validate,
    weak_order_groups,
)
from noisekit.results.schema import find_group
from noisekit.sde.solution import Solution
from noisekit.validation.weak_order import fit_order

mpl.use("Agg")


def runs(loss, *, x=None, diverged=None, kind="optimizer", rate=0.1, statistics=None, **settings):
    """A Solution around given losses (replicate, time)."""
    loss = torch.as_tensor(np.asarray(loss, dtype=float))
    n, t = loss.shape
    return Solution(
        optimizer="sgd",
        kind=kind,
        step=torch.arange(t) * 5,
        time=0.5 * torch.arange(t),
        state={} if x is None else {"x": torch.as_tensor(x)},
        observables={"loss": loss},
        diverged=torch.full((n,), -1) if diverged is None else torch.tensor(diverged),
        learning_rate=rate,
        seed=0,
        settings=settings,
        statistics=statistics or {},
    )


def as_tree(groups):
    """Put groups into a tree, as a user does, and check it against the schema."""
    tree = nk.to_datatree(experiments=groups)
    validate(tree)
    for node in tree.subtree:
        group = find_group(node.path) if node.variables else None
        if group is not None:
            known = group.coordinates | group.variables
            assert all(v.attrs["long_name"] == known[str(k)].long_name for k, v in node.variables.items())
    return tree


def test_a_weak_order_is_stored_and_drawn():
    rate = np.array([0.08, 0.04, 0.02, 0.01])
    order = fit_order(rate, 0.3 * rate**2, 0.001 * rate, observable="loss")
    tree = as_tree(weak_order_groups("sgd", order) | weak_order_groups("adam", order, attributes={"beta": 2}))
    node = tree["weak_order/sgd"]
    np.testing.assert_allclose(node["learning_rate"], rate[::-1])
    np.testing.assert_allclose(node["gap"], 0.3 * rate[::-1] ** 2)
    assert float(node["slope"]) == pytest.approx(2.0)
    assert tree["weak_order/adam"].attrs["beta"] == 2
    drawn = nk.plot_weak_order(tree)
    assert "slope 2.0" in drawn.get_legend().get_texts()[0].get_text()


def test_robustness_rows_become_sweeps_with_refusals():
    problem = nk.Quadratic(torch.tensor([1.0, 2.0]))
    noise = nk.StudentTNoise(scale=torch.tensor([0.5, 0.5]), df=5.0)
    optimizers = {"sgd": {"learning_rate": 0.05}, "signsgd": {"learning_rate": 0.01}}
    settings = {"target": 0.5, "steps": 200}
    rows = nk.robustness(problem, noise, optimizers, sweep="df", values=[5.0, 1.0], **settings)
    rows += nk.robustness(problem, noise, optimizers, sweep="noise", values=[2.0, 1.0], **settings)
    tree = as_tree(robustness_groups(rows, attributes=settings))
    sgd = tree["df_sweep/sgd"]
    np.testing.assert_array_equal(sgd["df"], [1.0, 5.0])
    assert np.isnan(sgd["predicted_floor"][0])
    assert "infinite" in str(sgd["note"].values[0])
    assert str(sgd["source"].values[0]) == "none"
    levels = tree["noise_sweep/sgd"]
    ratio = float(levels["predicted_floor"][1] / levels["predicted_floor"][0])
    assert ratio == pytest.approx(4.0, rel=1e-6)
    assert levels.attrs["steps"] == 200
    labels = [t.get_text() for t in nk.plot_floor_against_noise(tree).get_legend().get_texts()]
    assert {"sgd", "signsgd"} <= set(labels)


def test_a_sweep_of_runs_has_the_late_level_of_the_survivors():
    rng = np.random.default_rng(0)
    loss = {level: 0.5 + level * rng.uniform(1, 2, (6, 20)) for level in (2.0, 0.5)}
    solutions = {level: runs(values, diverged=[-1] * 5 + [3]) for level, values in loss.items()}
    groups = sweep_groups(
        "sgd", solutions, minimum=0.5, late=0.2, target=1.2, predicted={0.5: 0.75}, attributes={"lr": 0.1}
    )
    node = as_tree(groups)["noise_sweep/sgd"]
    for i, level in enumerate((0.5, 2.0)):
        each = loss[level][:5, -4:].mean(1)
        assert float(node["floor"][i]) == pytest.approx(each.mean() - 0.5)
        assert float(node["floor_error"][i]) == pytest.approx(each.std(ddof=1) / np.sqrt(5))
        assert float(node["diverged_fraction"][i]) == pytest.approx(1 / 6)
    first = np.flatnonzero(loss[0.5][:5].mean(0) <= 1.2)
    expected = 5 * first[0] if first.size else np.inf
    assert float(node["steps_to_target"][0]) == expected
    assert np.isinf(node["steps_to_target"][1])
    np.testing.assert_array_equal(node["predicted_floor"], [0.75, np.nan])


def test_batch_scaling_counts_samples_and_leaves_gaps():
    falling = np.tile(np.linspace(2, 1, 11), (4, 1))
    solutions = {"sde": {1.0: runs(falling), 4.0: runs(falling[:, ::5])}, "sqrt": {1.0: runs(falling + 1)}}
    tree = as_tree(batch_scaling_groups("adamw", solutions, late=0.01, target=1.5))
    node = tree["batch_scaling/adamw"]
    np.testing.assert_allclose(node["loss"], [[1.0, 1.0], [2.0, np.nan]])
    np.testing.assert_allclose(node["samples_to_target"], [[25.0, 20.0], [np.inf, np.nan]])
    assert nk.plot_batch_scaling(tree).get_title(loc="left") == "Batch scaling of adamw"


def test_the_stationary_law_is_measured_without_bias_and_with_its_error():
    """Runs drawn from the law itself: 95 of 100 standard errors hold the difference, roughly."""
    law = nk.stationary_law("sgd", [1.0, 4.0], [1.0, 1.0], 0.1)
    rng = np.random.default_rng(1)
    decay = np.array([0.9, 0.6])
    x = np.zeros((400, 60, 2))
    x[:, 0] = rng.normal(size=(400, 2))
    for t in range(1, 60):
        x[:, t] = decay * x[:, t - 1] + np.sqrt(1 - decay**2) * rng.normal(size=(400, 2))
    x *= np.sqrt(np.diag(law.covariance))
    tree = as_tree(stationary_groups("sgd", law, runs(np.ones((400, 60)), x=x), late=0.5))
    node = tree["stationary/sgd"]
    late = x[:, -30:]
    np.testing.assert_allclose(node["measured_variance"], late.var(axis=0, ddof=1).mean(0))
    np.testing.assert_allclose(np.diag(node["measured_covariance"]), node["measured_variance"])
    cross = np.mean([np.cov(late[:, t].T)[0, 1] for t in range(30)])
    assert float(node["measured_covariance"][0, 1]) == pytest.approx(cross)
    deviation = (node["measured_variance"] - node["predicted_variance"]) / node["measured_variance_error"]
    assert (abs(deviation) < 3).all()
    # 30 instants with autocorrelation .9: Var of the mean of squares over the independent replicates.
    lags = np.abs(np.subtract.outer(np.arange(30), np.arange(30)))
    for i, c in enumerate(decay):
        expected = law.covariance[i, i] * np.sqrt(2 * (c ** (2 * lags)).mean() / 400)
        assert float(node["measured_variance_error"][i]) == pytest.approx(expected, rel=0.2)
    assert node.attrs["n_replicates"] == 400
    nk.plot_stationary_law(tree)


def test_a_law_of_many_coordinates_keeps_no_matrix_and_says_what_is_missing():
    law = nk.stationary_law("sgd", np.ones(70), np.ones(70), 0.1)
    node = stationary_groups("sgd", law)["/stationary/sgd"]
    assert "predicted_covariance" not in node
    assert "measured_variance" not in node
    with pytest.raises(InputError, match="keep_state=True"):
        stationary_groups("sgd", law, runs(np.ones((3, 4))))
    with pytest.raises(InputError, match="have 2 coordinates and the law 70"):
        stationary_groups("sgd", law, runs(np.ones((3, 4)), x=np.ones((3, 4, 2))))
    with pytest.raises(InputError, match="at least 2"):
        stationary_groups("sgd", law, runs(np.ones((2, 4)), x=np.ones((2, 4, 70)), diverged=[-1, 2]))


def test_phases_follow_the_runs():
    x = np.array([[[4.0, 1.0], [1.2 * 2**0.5, 0.1]], [[4.0, 4.0], [0.1, 0.1]]])
    groups = phase_groups(
        "signsgd",
        runs([[3.0, 2.0], [2.0, 2.0]], x=x),
        lambda x: x,
        nk.GaussianNoise(scale=torch.ones(2)),
        minimum=1.0,
        loss_bound={3: [2.0, 1.5]},
    )
    node = as_tree(groups)["phases/signsgd"]
    np.testing.assert_allclose(node["phase_fraction"], [[0.75, 0, 0.25], [0, 0.25, 0.75]])
    ratios = np.sort(np.array([4.0, 1.0, 4.0, 4.0]) / 2**0.5)
    np.testing.assert_allclose(node["ratio_quantile"][0], np.quantile(ratios, node["quantile"]), rtol=1e-6)
    np.testing.assert_allclose(node["excess_loss"], [1.5, 1.0])
    np.testing.assert_array_equal(node["loss_bound"][2], [2.0, 1.5])
    assert np.isnan(node["loss_bound"][0]).all()


def test_statistics_of_a_solution_without_states_are_kept():
    paths = nk.integrate(
        nk.SGDSDE(lambda x: x, nk.GaussianNoise(scale=torch.ones(3)), 0.1),
        torch.ones(3),
        steps=4,
        replicates=8,
        keep_state=False,
        quantiles=(0.1, 0.9),
    )
    node = nk.to_datatree(solutions=[paths])["sde/sgd"]
    np.testing.assert_allclose(node["x_mean"], paths.statistics["x_mean"])
    assert node["x_quantile"].dims == ("quantile", "time", "coordinate")
    np.testing.assert_allclose(node["quantile"], [0.1, 0.9])


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: robustness_groups([]), "no row to store"),
        (lambda: sweep_groups("sgd", {}), "at least one value"),
        (lambda: sweep_groups("sgd", {1.0: runs(np.ones((2, 3)))}, observable="lost"), "Did you mean 'loss'"),
        (lambda: sweep_groups("sgd", {1.0: runs(np.ones((2, 3)))}, sweep="dff"), "Did you mean 'df'"),
        (lambda: sweep_groups("sgd", {1.0: runs(np.ones((2, 3)))}, late=0.0), "above 0 and at most 1"),
        (lambda: batch_scaling_groups("sgd", {}), "at least one rule"),
        (
            lambda: phase_groups("signsgd", runs(np.ones((2, 3))), lambda x: x, [1.0]),
            "keep_state=True",
        ),
    ],
)
def test_what_cannot_be_stored_is_one_sentence(call, text):
    with pytest.raises(InputError, match=text):
        call()
