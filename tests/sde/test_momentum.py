"""The equations of SGD with momentum beside torch's own steps."""

import numpy as np
import pytest
import torch

import noisekit as nk
from noisekit.errors import InputError

CURVATURES = torch.tensor([2.0, 0.5], dtype=torch.float64)
PROBLEM = nk.Quadratic(CURVATURES)
NOISE = nk.GaussianNoise(scale=1.0)
SILENT = nk.GaussianNoise(scale=0.0)
START = torch.tensor([1.0, -1.0], dtype=torch.float64)


def quartic(x):
    return x * CURVATURES + x.pow(3)


def by_hand(eta, momentum, steps, *, nesterov=False, decay=0.0, schedule=lambda k: 1.0, gradient=quartic):
    """Every x of torch's SGD without noise, (step, coordinate)."""
    parameter = torch.nn.Parameter(START.clone())
    optimizer = torch.optim.SGD([parameter], lr=eta, momentum=momentum, nesterov=nesterov, weight_decay=decay)
    path = [START]
    for k in range(steps):
        optimizer.param_groups[0]["lr"] = eta * schedule(k)
        parameter.grad = gradient(parameter.detach())
        optimizer.step()
        path.append(parameter.detach().clone())
    return torch.stack(path)


def path(sde, steps, substeps, **given):
    return nk.integrate(sde, START, steps=steps, substeps=substeps, **given).state["x"][0]


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_one_substep_of_the_midpoint_equation_is_the_step_of_torch(nesterov, decay):
    given = {"momentum": 0.9, "nesterov": nesterov, "weight_decay": decay}
    sde = nk.SGDSDE(quartic, SILENT, 0.1, schedule=lambda k: 1 / (1 + k), **given)
    real = by_hand(0.1, 0.9, 20, nesterov=nesterov, decay=decay, schedule=lambda k: 1 / (1 + k))
    torch.testing.assert_close(path(sde, 20, 1), real, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("variant", ["midpoint", "kinetic"])
def test_substeps_converge_to_the_equation_that_terms_gives(variant):
    # Heun's scheme knows the drift alone; the leapfrog of the variant is of order 2 too.
    sde = nk.SGDSDE(quartic, SILENT, 0.05, momentum=0.9, variant=variant)
    end = path(sde, 40, 64, solver=nk.StochasticHeun())[-1]
    gaps = [float((path(sde, 40, n)[-1] - end).norm()) for n in (2, 4, 8)]
    assert np.diff(np.log2(gaps)) == pytest.approx(-2, abs=0.2)


def test_the_ringing_of_a_light_friction_decays_as_that_of_torch():
    # η = .01, λ = 1, μ = .99: the friction of a step's own difference is twice the optimizer's.
    def envelope(x):
        return float(x[200:].abs().max())

    given = {"momentum": 0.99}
    one = lambda x: x  # noqa: E731
    real = envelope(by_hand(0.01, 0.99, 300, gradient=one))
    found = {
        variant: envelope(path(nk.SGDSDE(one, SILENT, 0.01, variant=variant, **given), 300, 4))
        for variant in ("midpoint", "kinetic", "consistent")
    }
    assert found["midpoint"] == pytest.approx(real, rel=0.01)
    assert found["kinetic"] == pytest.approx(real, rel=0.05)
    assert found["consistent"] < 0.5 * real


@pytest.mark.parametrize("nesterov", [False, True])
def test_noise_keeps_up_the_loss_that_it_keeps_up_for_torch(nesterov):
    options = {"steps": 500, "replicates": 2000, "save_every": 250, "keep_state": False}
    options["observables"] = {"loss": PROBLEM.loss}

    def make(parameters):
        return torch.optim.SGD(parameters, lr=0.02, momentum=0.98, nesterov=nesterov)

    def prediction(variant):
        sde = nk.SGDSDE(PROBLEM.gradient, NOISE, 0.02, momentum=0.98, nesterov=nesterov, variant=variant)
        return float(nk.integrate(sde, START, substeps=4, **options).observables["loss"][:, -1].mean())

    run = nk.simulate_optimizer(PROBLEM, make, START, noise=NOISE, seed=1, **options)
    real = float(run.observables["loss"][:, -1].mean())
    assert prediction("midpoint") == pytest.approx(real, rel=0.08)
    assert prediction("consistent") < 0.85 * real


def test_the_buffer_has_the_variance_of_torchs():
    options = {"steps": 200, "replicates": 4000, "save_every": 200}
    sde = nk.SGDSDE(PROBLEM.gradient, NOISE, 0.02, momentum=0.9)
    buffer = nk.integrate(sde, START, substeps=4, **options).state["m"][:, -1]
    # σ²/((1 − μ)(1 + μ)) of a buffer that the motion of x hardly changes.
    assert buffer.var(0).numpy() == pytest.approx(1 / (0.1 * 1.9), rel=0.15)


@pytest.mark.parametrize("decay", [0.0, 0.2])
def test_one_pass_over_the_data_gives_the_same_kick_as_two(decay):
    problem = nk.load_problem("breast-cancer-mlp", n_samples=32)
    noise = nk.MinibatchNoise(problem, batch_size=8)
    given = {"steps": 3, "replicates": 2, "substeps": 2}
    together, apart = (
        nk.integrate(nk.SGDSDE(f, noise, 0.05, momentum=0.8, weight_decay=decay), problem.x0, **given)
        for f in (problem.gradient, lambda x: problem.gradient(x))
    )
    torch.testing.assert_close(together.state["x"], apart.state["x"], rtol=1e-4, atol=1e-5)


def test_variants_that_do_not_exist_are_refused():
    with pytest.raises(InputError, match="Did you mean 'kinetic'"):
        nk.SGDSDE(quartic, NOISE, 0.1, momentum=0.9, variant="cinetic")
    with pytest.raises(InputError, match="extends the 'consistent' variant"):
        nk.SGDSDE(quartic, NOISE, 0.1, momentum=0.9, variant="midpoint", order=2)
    with pytest.raises(InputError, match="heavy ball"):
        nk.SGDSDE(quartic, NOISE, 0.1, momentum=0.9, nesterov=True, variant="kinetic")
    assert "variant='midpoint'" in repr(nk.SGDSDE(quartic, NOISE, 0.1, momentum=0.9))
    assert "variant" not in repr(nk.SGDSDE(quartic, NOISE, 0.1))
