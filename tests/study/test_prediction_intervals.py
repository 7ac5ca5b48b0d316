"""Intervals of what ``predict`` says: each covers the truth as often as it says, or has a reason to lack."""

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import noisekit as nk
from noisekit.study.curvature import Curvature, curvature_of
from noisekit.study.intervals import inverse, product
from noisekit.study.pace import steps_to_fall
from noisekit.study.problem import first_samples
from noisekit.study.setting import Setting
from noisekit.study.sharpness import measure_sharpness
from noisekit.study.stored_noise import stored_noise
from noisekit.theory.hyperparameters import check_hyperparameters


def _neighbour(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


trees = _neighbour("test_prediction")


def figure(found, quantity):
    return next(f for f in found.figures if f.quantity == quantity)


def gauge(found, name):
    return next(g for g in found.gauges if g.name == name)


def test_loss_of_few_batches_has_no_interval_and_a_reason():
    found = figure(nk.predict(trees.gaussian_tree(), "sgd", learning_rate=0.1), "training loss")
    assert "five recorded steps would give an interval" in found.note


def test_products_are_those_of_lognormals():
    rng = np.random.default_rng(0)
    draws = 2 * np.exp(0.3 * rng.standard_normal(200_000)) / np.exp(0.4 * rng.standard_normal(200_000))
    one, two = ((v, v * math.exp(-1.96 * s), v * math.exp(1.96 * s)) for v, s in ((2.0, 0.3), (1.0, 0.4)))
    value, low, high = product(one, inverse(two))
    assert value == 2.0
    assert [low, high] == pytest.approx(np.quantile(draws, [0.025, 0.975]), rel=0.02)
    assert math.isnan(product(one, (1.0, math.nan, math.nan))[1])


@pytest.mark.parametrize("dimension", [5, 40])
def test_interval_of_the_sharpness_covers_that_of_all_samples(dimension):
    covered = []
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        inputs = torch.randn(2048, dimension, generator=generator) * torch.linspace(1, 2, dimension)
        model = torch.nn.Linear(dimension, 1, bias=False)
        targets = torch.randn(2048, 1, generator=generator)
        whole = nk.ModelProblem(model, torch.nn.functional.mse_loss, inputs, targets)
        truth = float(torch.linalg.eigvalsh(2 * inputs.T @ inputs / 2048)[-1])
        found = measure_sharpness(first_samples(whole, 256), whole.x0, whole=whole, seed=seed)
        covered.append(found.lower <= truth <= found.upper)
        assert found.lower <= found.value <= found.upper
    assert np.mean(covered) >= 0.9


def test_sharpness_of_all_samples_is_as_exact_as_its_iteration():
    hessian = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)
    problem = nk.Quadratic(hessian)
    found = measure_sharpness(problem, problem.x0, whole=problem, iterations=60)
    assert found.lower <= 5.0 <= found.upper + 1e-6
    assert found.upper - found.lower < 1e-4
    early = measure_sharpness(problem, problem.x0, iterations=3)
    assert early.value < 5.0 <= early.upper


@pytest.mark.parametrize(("steps", "kept"), [(1, 40), (4, 200)])
def test_interval_of_the_typical_deviation_covers_it(steps, kept):
    rng = np.random.default_rng(steps)
    covered = []
    for _ in range(150):
        scale = rng.lognormal(size=400 if kept < 400 and steps > 1 else kept)
        noise = rng.standard_normal((steps, 64, len(scale))) * scale
        index = rng.choice(len(scale), kept, replace=False)
        tree = trees.record_tree(noise, ["a"], [len(scale)], index=index)
        low, high = stored_noise(tree).typical_deviation_interval(4)
        covered.append(low <= np.median(scale) / 2 <= high)
    assert np.mean(covered) >= 0.87


def test_steps_at_both_sides_of_the_fastest_rate_begin_at_none():
    hyper = check_hyperparameters("sgd", 0.1)
    setting = Setting(hyper, 1, stored_noise(trees.gaussian_tree()))
    value, low, high = steps_to_fall(setting, Curvature(10.5, "", 8.0, 14.0))  # ηλ from 0.8 to 1.4
    assert value == pytest.approx(-1 / (2 * math.log(0.05)))
    assert low < 0.2
    assert high == pytest.approx(-1 / (2 * math.log(0.4)), rel=1e-6)
    assert steps_to_fall(setting, Curvature(15.0, "", 10.0, 25.0))[2] == math.inf


def test_figures_of_a_full_record_all_have_intervals_or_reasons():
    training = {"sharpness": 1.5, "sharpness_lower": 1.2, "sharpness_upper": 1.8}
    tree = trees.gaussian_tree(steps=16, signal=3.0, training=training)
    for optimizer, rate in trees.HYPER.items():
        found = nk.predict(tree, optimizer, learning_rate=rate, batch_size=16)
        for f in found.figures:
            assert f.lower <= f.value <= f.upper or f.quantity == "training loss", f
        kappa = gauge(found, "eta_lambda_max")
        assert kappa.lower < kappa.value < kappa.upper
        signal = gauge(found, "signal_over_noise")
        assert signal.lower < signal.value < signal.upper
        assert found.trials[0].steps_lower <= found.trials[0].steps_to_fall <= found.trials[0].steps_upper
    sgd = nk.predict(tree, "sgd", learning_rate=0.1, batch_size=16)
    expected = [-1 / (2 * math.log(1 - 0.1 * curvature)) for curvature in (1.8, 1.2)]
    steps = figure(sgd, "steps to 1/e")
    assert [steps.lower, steps.upper] == pytest.approx(expected, rel=1e-9)


def test_an_old_file_says_that_it_does_not_know_its_curvature_well():
    tree = trees.gaussian_tree(training={"sharpness": 1.5})
    steps = figure(nk.predict(tree, "sgd", learning_rate=0.1), "steps to 1/e")
    assert math.isnan(steps.lower)
    assert "does not say how well it knows the curvature" in steps.note
    given = nk.predict(tree, "sgd", learning_rate=0.1, sharpness=1.5)
    assert figure(given, "steps to 1/e").lower == figure(given, "steps to 1/e").upper
    broken = trees.gaussian_tree(training={"sharpness": 1.5, "sharpness_lower": 2, "sharpness_upper": "x"})
    assert math.isnan(curvature_of(broken, "sgd").upper)


def test_noise_that_hides_the_signal_is_not_said_to_dominate():
    tree = trees.gaussian_tree(seed=3, steps=4)
    found = nk.predict(tree, "adam", learning_rate=0.1)
    signal = gauge(found, "signal_over_noise")
    assert signal.value <= 0.1 < signal.upper
    assert signal.verdict == "warning"
    assert "too short to rule out" in signal.meaning
    of_sgd = gauge(nk.predict(tree, "sgd", learning_rate=0.1), "signal_over_noise")
    assert of_sgd.verdict == "ok"  # no second moment holds the gradient there
    assert "hold at any" in of_sgd.meaning


def test_drift_is_told_from_scatter():
    rng = np.random.default_rng(0)
    steady = rng.standard_t(3, size=(16, 32, 20))
    assert (
        gauge(
            nk.predict(trees.record_tree(steady, ["a"], [20]), "sgd", learning_rate=0.1), "noise_drift"
        ).verdict
        == "ok"
    )
    falling = rng.standard_normal((16, 32, 20)) * np.linspace(3, 1, 16)[:, None, None]
    found = gauge(
        nk.predict(trees.record_tree(falling, ["a"], [20]), "sgd", learning_rate=0.1), "noise_drift"
    )
    assert found.verdict == "warning"
    assert found.lower < 1 / 9 * 1.3
    assert found.upper < 0.5


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        ({30: (3.0, 2.5, 4.0), 10: (1.5, 0.6, 6.0)}, (1.5, 0.6, 6.0)),  # no block agrees: the heaviest speaks
        ({30: (3.0, 2.5, 4.0), 10: (1.2, 0.7, 1.9)}, (1.3, 0.8, 1.8)),
        ({30: None, 10: None}, (1.3, 0.8, 1.8)),
    ],
)
def test_blocks_heavy_together_but_not_alone_have_a_variance(monkeypatch, blocks, expected):
    found = {40: (1.3, 0.8, 1.8), **blocks}
    monkeypatch.setattr("noisekit.study.stored_noise._tail", lambda noise: found[noise.shape[1]])
    assert stored_noise(trees.gaussian_tree()).tail() == expected


def test_a_heavy_block_among_others_is_refused():
    rng = np.random.default_rng(0)
    heavy = np.concatenate([rng.standard_t(1.0, (1, 200, 30)), rng.standard_normal((1, 200, 10))], axis=2)
    tree = trees.record_tree(heavy, ["heavy", "smooth"], [30, 10])
    assert not nk.predict(tree, "adam", learning_rate=0.01).exists


def test_a_prediction_prints_sentences():
    tree = trees.gaussian_tree(steps=16, signal=3.0, training={"sharpness": 30.0})
    text = str(nk.predict(tree, "sgd", learning_rate=0.1))
    assert text.startswith("sgd, learning rate 0.1, batch 64\n")
    assert "noise floor: " in text
    assert "steps to 1/e: never, " in text
    assert "refused: ηλ_max = 3" in text
    assert "Figure(" not in text
    assert repr(nk.predict(tree, "sgd", learning_rate=0.1)) == f"Prediction: {text}"


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_bias_of_weight_decay_is_said_to_be_left_out(optimizer):
    tree = trees.gaussian_tree()
    plain = nk.predict(tree, optimizer, learning_rate=0.01)
    decayed = nk.predict(tree, optimizer, learning_rate=0.01, weight_decay=0.1)
    assert figure(decayed, "noise floor").value == figure(plain, "noise floor").value
    assert "without the bias of weight decay, which raises it" in figure(decayed, "noise floor").note
    assert "bias of weight decay, which is not in it" in decayed.verdict[0]
    assert any("stationary_law" in sentence for sentence in decayed.unknown)
    assert "decay" not in str(plain)
    # What is left out, on a quadratic with its minimum at 1: f(x∞) − f* = ½(θP/(1 + θP))², P = 1.
    law = nk.stationary_law("adamw", [1.0], [1.0], 0.01, weight_decay=0.1, minimum=[1.0])
    assert law.excess_loss > 0.7 * (0.1 / 1.1) ** 2 / 2 + 0.002


def test_predictions_of_momentum_name_the_friction_and_scale_linearly():
    tree = trees.gaussian_tree()
    found = nk.predict(tree, "sgd", learning_rate=0.1, momentum=0.9, sharpness=1.0)
    friction = gauge(found, "momentum_friction")
    assert (friction.value, friction.verdict) == (pytest.approx(1.0), "ok")
    assert not [g for g in found.gauges if g.name in ("momentum_step", "momentum_lag")]
    other = [t for t in found.trials if t.what == "batch near the noise scale"]
    assert all(t.hyperparameters["momentum"] == 0.9 for t in other)
