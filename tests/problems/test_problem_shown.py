"""A problem prints its name and sizes, never an address."""

import pytest
import torch

import noisekit as nk


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("quadratic", "Quadratic('quadratic', parameters=10)"),
        ("embedded-saddle", "EmbeddedSaddle('embedded-saddle', parameters=2)"),
        ("rosenbrock", "Rosenbrock('rosenbrock', parameters=2)"),
        ("quartic", "Quartic('quartic', parameters=10)"),
        ("linear-regression", "LinearRegression('linear-regression', parameters=20, samples=1000)"),
        ("breast-cancer-mlp", "ModelProblem('breast-cancer-mlp', parameters=530, samples=455)"),
    ],
)
def test_problem_prints_its_name_and_sizes(name, text):
    assert repr(nk.load_problem(name)) == text


def test_unusual_precision_is_shown():
    problem = nk.Quadratic(torch.ones(2, dtype=torch.float64), name="bowl")
    assert repr(problem) == "Quadratic('bowl', parameters=2, float64)"


@pytest.mark.parametrize("name", ["SGDSDE", "SignSGDSDE", "RMSpropSDE", "AdamSDE"])
def test_sde_prints_its_settings_and_no_address(name):
    problem = nk.Quadratic(torch.ones(2))
    sde = getattr(nk, name)(problem.gradient, nk.GaussianNoise(scale=1.0), 0.25, weight_decay=0.5)
    text = repr(sde)
    assert text.startswith(f"{name}(learning_rate=0.25, ")
    assert "weight_decay=0.5" in text
    assert "noise=GaussianNoise(" in text
    assert " at 0x" not in text
    assert "schedule" not in text
