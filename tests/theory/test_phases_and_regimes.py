"""Phases of SignSGD and the gauges beside a prediction."""

import math

import numpy as np
import pytest
import torch
from oracles import erf_vector, gaussian_draw

from noisekit.errors import InputError
from noisekit.noise import GaussianNoise, StudentTNoise
from noisekit.theory import regimes, signsgd_phase, stationary_law


def gauges(*args, **kw):
    return {row.name: row for row in regimes(*args, **kw)}


def test_phase_by_the_ratio_of_gradient_and_noise():
    std = np.array([2.0, 2.0, 2.0, 0.0])
    ratio = np.array([1.6, -1.2, 0.3])
    gradient = np.append(ratio * math.sqrt(2) * std[:3], 1.0)
    found = signsgd_phase(torch.tensor(gradient), std**2)
    np.testing.assert_allclose(found.ratio[:3], ratio, rtol=1e-9)
    np.testing.assert_array_equal(found.phase, [1, 2, 3, 1])
    assert found.fraction == {1: 0.5, 2: 0.25, 3: 0.25}
    assert repr(found) == "SignSGDPhase: 4 coordinates: phase 1 50%, phase 2 25%, phase 3 25%"
    model = signsgd_phase(gradient[:3], GaussianNoise(scale=torch.tensor(std[:3])))
    np.testing.assert_allclose(model.ratio, ratio, rtol=1e-6)


def test_phases_say_what_the_mean_sign_does():
    generator = torch.Generator().manual_seed(0)
    gradient = torch.tensor([3.0, 0.1], dtype=torch.float64)
    signs = (gradient + gaussian_draw(np.eye(2))((100_000, 2), generator)).sign().mean(0).numpy()
    found = signsgd_phase(gradient, [1.0, 1.0])
    np.testing.assert_array_equal(found.phase, [1, 3])
    np.testing.assert_allclose(signs, erf_vector(found.ratio), atol=0.01)
    assert signs[0] == pytest.approx(1, abs=0.01)
    assert signs[1] == pytest.approx(math.sqrt(2 / math.pi) * 0.1, abs=0.01)


def test_cauchy_noise_has_phases_too():
    found = signsgd_phase([0.1], StudentTNoise(scale=torch.ones(1), df=1.0))
    assert found.phase[0] == 3
    assert found.ratio[0] == pytest.approx(0.1 / math.sqrt(math.pi), rel=1e-5)  # (2/π)u = erf slope · Y


def test_gauges_of_a_quiet_adamw():
    rows = gauges(
        "adamw",
        1e-3,
        gradient=[0.1, 0.1],
        noise=[1.0, 1.0],
        sharpness=10.0,
        weight_decay=0.1,
        df=[5.0, 8.0],
        noise_trace=[2.0, 2.2],
        n_samples=10_000,
        noise_scale=500.0,
        substeps=8,
    )
    assert {r.verdict for r in rows.values()} == {"ok"}
    assert rows["signal_over_noise"].value == pytest.approx(0.01)
    assert rows["eta_lambda_max"].value == pytest.approx(1e-2, rel=1e-4)
    assert rows["momentum_lag"].value == pytest.approx(1e-3)
    assert rows["noise_scale_identified"].value == 20
    assert all(r.meaning for r in rows.values())


@pytest.mark.parametrize(
    ("optimizer", "arguments", "gauge", "verdict"),
    [
        ("sgd", {"sharpness": 4.0}, "eta_lambda_max", "ok"),
        ("sgd", {"sharpness": 6.0}, "eta_lambda_max", "warning"),
        ("sgd", {"sharpness": 21.0}, "eta_lambda_max", "refused"),
        ("sgd", {"sharpness": 37.0, "momentum": 0.9}, "eta_lambda_max", "warning"),  # stable up to 3.8
        ("sgd", {"sharpness": 39.0, "momentum": 0.9}, "eta_lambda_max", "refused"),
        ("rmsprop", {"sharpness": 99.0}, "eta_lambda_max", "warning"),
        ("adam", {"gradient": [1.0], "noise": [1.0]}, "signal_over_noise", "warning"),
        ("signsgd", {"gradient": [5.0, 0.0], "noise": [1.0, 1.0]}, "noise_phase", "warning"),
        ("adamw", {"weight_decay": 1.0}, "momentum_lag", "warning"),
        ("adam", {"betas": (0.5, 0.999)}, "momentum_step", "warning"),
        ("rmsprop", {"beta": 0.9}, "second_moment_step", "warning"),
        ("sgd", {"df": [1.5, 5.0]}, "tail", "refused"),
        ("sgd", {"df_interval": [[1.5, 2.5]]}, "tail", "warning"),
        ("adam", {"df_interval": [[1.2, 1.8], [3.0, 9.0]]}, "tail", "refused"),
        ("signsgd", {"df": [1.5]}, "tail", "ok"),
        ("sgd", {"noise": StudentTNoise(scale=torch.ones(1), df=2.0)}, "tail", "refused"),
        ("sgd", {"noise_trace": [1.0, 4.0]}, "noise_drift", "warning"),
        ("sgd", {"n_samples": 10, "noise_scale": 100.0}, "noise_scale_identified", "warning"),
        ("sgd", {"substeps": 1}, "substeps", "warning"),
    ],
)
def test_verdicts(optimizer, arguments, gauge, verdict):
    assert gauges(optimizer, 0.1, **arguments)[gauge].verdict == verdict


def test_only_what_can_be_computed_is_listed():
    assert regimes("sgd", 0.1) == []
    assert set(gauges("sgd", 0.1, sharpness=1.0)) == {"eta_lambda_max"}


def test_bad_input():
    with pytest.raises(InputError, match="1 coordinates, the noise 2"):
        regimes("sgd", 0.1, gradient=[1.0], noise=np.ones(2), at=np.zeros(2))
    with pytest.raises(InputError, match="sharpness = inf"):
        regimes("sgd", 0.1, sharpness=math.inf)
    for change in ({"df": [-1.0]}, {"df_interval": [1.0, 2.0, 3.0]}, {"substeps": 0}, {"n_samples": 0}):
        with pytest.raises(InputError, match=next(iter(change))):
            regimes("sgd", 0.1, noise_scale=1.0, **change)
    with pytest.raises(InputError, match="two positive values"):
        regimes("sgd", 0.1, noise_trace=[1.0])
    with pytest.raises(InputError, match="make them equal"):
        signsgd_phase([1.0, 2.0], [1.0, 1.0, 1.0])


def test_friction_of_momentum_is_a_matter_of_the_equation():
    given = {"momentum": 0.99, "sharpness": 2.0}
    default = gauges("sgd", 0.01, **given)
    assert default["momentum_friction"].value == pytest.approx(2.0)
    assert {g.verdict for g in default.values()} == {"ok"}
    consistent = gauges("sgd", 0.01, variant="consistent", **given)["momentum_friction"]
    assert consistent.verdict == "warning"
    assert "midpoint" in consistent.meaning
    # What it says of the loss at rest is what the equation has.
    laws = [
        stationary_law("sgd", [2.0], [1.0], 0.01, momentum=0.99, **more).excess_loss
        for more in ({}, {"source": "sde", "variant": "consistent"})
    ]
    assert laws[0] / laws[1] == pytest.approx(1 + consistent.value, rel=0.03)
    assert "momentum_friction" not in gauges("sgd", 0.01, sharpness=2.0)
    with pytest.raises(InputError, match="no variant 'kinetik'"):
        gauges("sgd", 0.01, variant="kinetik", **given)


def test_a_large_gradient_is_no_trouble_for_sgd():
    loud = {"gradient": [5.0], "noise": [1.0]}
    assert gauges("sgd", 0.1, **loud)["signal_over_noise"].verdict == "ok"
    assert gauges("signsgd", 0.1, **loud)["signal_over_noise"].verdict == "warning"
    assert "malladi" not in gauges("signsgd", 0.1, **loud)["signal_over_noise"].meaning
