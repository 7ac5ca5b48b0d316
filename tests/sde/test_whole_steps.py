"""The first steps of an SDE as the optimizer makes them: an SDE is not near steps divided by their size."""

import math

import pytest
import torch

import noisekit as nk
from noisekit.errors import InputError
from noisekit.optimizers.named import build_optimizer
from noisekit.sde.named import build_sde
from noisekit.validation import simulate_coupled

PROBLEM = nk.Quadratic(torch.tensor([1.0, 3.0], dtype=torch.float64), x0=torch.tensor([1.0, -0.3]).double())
NOISE = nk.GaussianNoise(scale=0.5)
SETTINGS = {
    "rmsprop": {"beta": 0.9, "weight_decay": 0.2},
    "rmspropw": {"beta": 0.9, "weight_decay": 0.2},
    "adam": {"betas": (0.8, 0.95)},
    "adamw": {"betas": (0.8, 0.95), "weight_decay": 0.2},
}


def paths(name, *, order=1, **options):
    sde = build_sde(name, PROBLEM.gradient, NOISE, 0.05, order=order, **SETTINGS[name])
    x0 = None if "init_state" in options else PROBLEM.x0
    return nk.integrate(sde, x0, **{"replicates": 32, "steps": 6} | options)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("name", SETTINGS)
def test_whole_steps_are_those_of_torch_on_the_same_path(name, order):
    make = build_optimizer(name, 0.05, **SETTINGS[name])
    real = simulate_coupled(PROBLEM, make, PROBLEM.x0, NOISE, steps=6, replicates=32)
    found = paths(name, order=order, substeps=4, whole_steps=6)
    for part, value in real.state.items():
        torch.testing.assert_close(found.state[part][:, 1:], value[:, 1:], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("order", [1, 2])
def test_after_them_the_sde_goes_on_from_the_state_of_the_optimizer(order):
    both = paths("adam", order=order, substeps=4, whole_steps=2)
    begun = paths("adam", order=order, substeps=4, whole_steps=2, steps=2)
    assert both.settings["whole_steps"] == 2
    state = {key: value[:, -1] for key, value in begun.state.items()}
    rest = paths("adam", order=order, substeps=4, steps=4, start_step=2, init_state=state)
    torch.testing.assert_close(both.state["x"][:, 2:], rest.state["x"], rtol=1e-9, atol=1e-12)


def test_from_nothing_four_whole_steps_take_away_most_of_the_gap():
    replicates, eta = 4000, 0.02
    run = {"steps": 20, "save_every": 4, "replicates": replicates, "observables": {"loss": PROBLEM.loss}}
    real = simulate_coupled(PROBLEM, build_optimizer("adam", eta), PROBLEM.x0, NOISE, **run).observables[
        "loss"
    ]

    def gap(whole):
        sde = build_sde("adam", PROBLEM.gradient, NOISE, eta)
        found = nk.integrate(sde, PROBLEM.x0, substeps=4, whole_steps=whole, **run).observables["loss"]
        difference = (found - real)[:, 1:]
        return float((difference.mean(0) / real[:, 1:].mean(0)).abs().mean()), float(
            (difference.std(0) / real[:, 1:].mean(0)).mean() / math.sqrt(replicates)
        )

    (before, _), (after, error) = gap(0), gap(4)
    assert before > 10 * error
    assert after < 0.4 * before


def test_a_checkpoint_in_the_layer_is_resumed(tmp_path):
    whole = {"substeps": 2, "whole_steps": 4}
    plain = paths("adamw", **whole)
    for _ in range(2):
        kept = paths("adamw", **whole, checkpoint=tmp_path / "c.pt", checkpoint_every=3)
        assert torch.equal(kept.state["x"], plain.state["x"])


def test_what_has_no_such_start_is_refused():
    with pytest.raises(InputError, match="sgd has no V"):
        nk.integrate(nk.SGDSDE(PROBLEM.gradient, NOISE, 0.1), PROBLEM.x0, steps=2, whole_steps=1)
    sde = nk.AdamSDE(PROBLEM.gradient, NOISE, 0.1, variant="published")
    with pytest.raises(InputError, match="not 'published'"):
        nk.integrate(sde, PROBLEM.x0, steps=2, whole_steps=1)
    with pytest.raises(InputError, match="leave out whole_steps"):
        paths("adam", whole_steps=1, fused=True)
    with pytest.raises(InputError, match="whole_steps is -1"):
        paths("adam", whole_steps=-1)
