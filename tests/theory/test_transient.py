"""Moments on the way, against simulated optimizers from the first step on."""

import math

import numpy as np
import pytest
import torch
from oracles import gaussian_draw, random_spd, run_optimizer, student_draw

from noisekit.errors import InfiniteVarianceError, InputError
from noisekit.noise import StudentTNoise
from noisekit.theory import stationary_law, steps_to_target, transient_law

HESSIAN = random_spd(3, 3, 0.5, 2.0)
NOISE = random_spd(3, 4, 0.3, 1.0)
START = np.array([1.5, -1.0, 0.5])


def simulated_moments(name, lr, steps, *, every, x0=START, replicates=8192, **hyper):
    means, variances, losses = [], [], []
    h = torch.tensor(HESSIAN)

    def visit(k, x):
        if k % every == 0:
            means.append(x.mean(0).numpy().copy())
            variances.append(x.var(0).numpy().copy())
            losses.append(float((x * (x @ h)).sum(1).mean() / 2))

    run_optimizer(
        name,
        lambda x: x @ h,
        gaussian_draw(NOISE),
        x0,
        lr,
        steps,
        replicates=replicates,
        visit=visit,
        **hyper,
    )
    return np.array(means), np.array(variances), np.array(losses)


@pytest.mark.parametrize(
    ("name", "hyper", "tolerance"),
    [
        ("sgd", {"momentum": 0.5}, 0.02),
        ("signsgd", {"weight_decay": 0.5}, 0.02),
        ("rmsprop", {}, 0.06),
        ("adam", {"betas": (0.9, 0.99)}, 0.03),
        ("adamw", {"weight_decay": 1.0}, 0.03),
    ],
    ids=str,
)
def test_moments_follow_the_simulated_optimizer(name, hyper, tolerance):
    means, variances, losses = simulated_moments(name, 0.02, 300, every=20, **hyper)
    law = transient_law(name, HESSIAN, NOISE, 0.02, x0=START, steps=300, save_every=20, **hyper)
    np.testing.assert_allclose(law.mean, means, atol=tolerance * np.abs(START).max())
    np.testing.assert_allclose(law.loss, losses, rtol=2 * tolerance, atol=0.01)
    late = slice(3, None)  # the delta method needs a v of some gradients
    np.testing.assert_allclose(law.variance[late], variances[late], rtol=0.1)


@pytest.mark.parametrize("name", ["sgd", "signsgd", "adam"])
def test_negative_controls_fail_the_same_check(name):
    _, variances, _ = simulated_moments(name, 0.02, 200, every=100, replicates=4096)
    controls = {
        "right": NOISE,
        "twice the covariance": 2 * NOISE,
        "isotropic noise of the same trace": np.eye(3) * np.trace(NOISE) / 3,
        "η² for η": 0.02 * NOISE,
    }
    for control, noise in controls.items():
        law = transient_law(name, HESSIAN, noise, 0.02, x0=START, steps=200, save_every=100)
        error = np.abs(law.variance[1:] / variances[1:] - 1).max()
        assert (error < 0.1) == (control == "right"), (control, error)


def test_far_out_the_second_moment_takes_the_noise_away():
    # Adam's m/√v is nearly 1 there whatever the gradient: with √(E v) the variance is 20 times too large.
    start = np.array([6.0, -5.0, 4.0])
    means, variances, losses = simulated_moments("adam", 0.02, 40, every=20, x0=start)
    law = transient_law("adam", HESSIAN, NOISE, 0.02, x0=start, steps=40, save_every=20)
    np.testing.assert_allclose(law.mean, means, atol=0.002)
    np.testing.assert_allclose(law.variance[1:], variances[1:], rtol=0.2)
    np.testing.assert_allclose(law.loss, losses, rtol=0.001)


def test_a_coordinate_that_never_moves_stays():
    law = transient_law("adam", [1.0, 1.0], [0.0, 1.0], 0.1, x0=[0.0, 1.0], steps=5)
    assert (law.mean[:, 0] == 0).all()
    assert np.isfinite(law.variance).all()


def test_transient_ends_in_the_stationary_law():
    for name in ("sgd", "signsgd", "rmspropw", "adamw"):
        law = transient_law(
            name, HESSIAN, NOISE, 0.05, x0=START, steps=3000, save_every=100, weight_decay=0.3
        )
        end = stationary_law(name, HESSIAN, NOISE, 0.05, weight_decay=0.3)
        np.testing.assert_allclose(law.covariance, end.covariance, rtol=0.02, atol=2e-4)


def test_sgd_is_exact():
    eta, lam, sigma2, x0 = 0.1, 1.5, 0.4, 2.0
    law = transient_law("sgd", [lam], [sigma2], eta, x0=[x0], steps=40, save_every=10)
    a = 1 - eta * lam
    np.testing.assert_allclose(law.mean[:, 0], x0 * a**law.step, rtol=1e-12)
    np.testing.assert_allclose(
        law.variance[:, 0], eta**2 * sigma2 * (1 - a ** (2 * law.step)) / (1 - a**2), rtol=1e-10
    )
    np.testing.assert_allclose(law.time, eta * law.step)


def test_steps_to_target_interpolates():
    law = transient_law("sgd", [1.0], [0.0], 0.1, x0=[1.0], steps=100)
    exact = math.log(0.01 / 0.5) / (2 * math.log(0.9))  # ½(1 − η)^{2k} = 0.01
    assert steps_to_target(law, 0.01) == pytest.approx(exact, abs=0.5)
    assert steps_to_target(law, 1.0) == 0
    assert repr(law).startswith(
        "TransientLaw: sgd, 1 coordinates, 101 instants up to step 100: mean loss 0.5"
    )
    assert steps_to_target(law, 1e-30) == math.inf


def test_sgd_beyond_its_stability_limit_is_warned_with_the_value():
    with pytest.warns(UserWarning, match=r"2\.5 is beyond the stability limit 2 "):
        law = transient_law("sgd", [1.0], [1.0], 2.5, x0=[1.0], steps=3000)
    assert law.loss[-1] == math.inf


def test_bad_input():
    with pytest.raises(InputError, match="x0 has 1"):
        transient_law("sgd", [1.0, 2.0], [1.0, 1.0], 0.1, x0=[1.0], steps=3)
    with pytest.raises(InputError, match="steps = 0"):
        transient_law("sgd", [1.0], [1.0], 0.1, x0=[1.0], steps=0)
    for change, words in (
        ({"steps": 2.5}, "steps = 2.5"),
        ({"x0": [math.inf]}, "finite"),
        ({"schedule": 0.5}, "a function from the step"),
        ({"optimizer": "signsgd", "noise": [0.0]}, "noise is zero"),
    ):
        arguments = {"optimizer": "sgd", "noise": [1.0], "x0": [1.0], "steps": 3} | change
        with pytest.raises(InputError, match=words):
            transient_law(hessian=[1.0], learning_rate=0.1, **arguments)
    with pytest.raises(InfiniteVarianceError, match="signsgd"):
        transient_law("adam", [1.0], StudentTNoise(scale=1.0, df=2.0), 0.1, x0=[1.0], steps=3)


@pytest.mark.parametrize("df", [1.5, 4.0])
def test_signsgd_under_heavy_tails_in_every_phase(df):
    scale, x0 = np.array([0.5, 0.5]), np.array([2.0, -0.3])  # far outside and inside the noise
    means, losses = [], []

    def visit(k, x):
        if k % 50 == 0:
            means.append(x.mean(0).numpy().copy())
            losses.append(float(x.square().sum(1).mean() / 2))

    run_optimizer(
        "signsgd", lambda x: x, student_draw(scale, df), x0, 0.02, 300, replicates=4096, visit=visit
    )
    noise = StudentTNoise(scale=torch.tensor(scale), df=df)
    law = transient_law("signsgd", [1.0, 1.0], noise, 0.02, x0=x0, steps=300, save_every=50)
    np.testing.assert_allclose(law.mean, means, atol=0.02)
    np.testing.assert_allclose(law.loss, losses, rtol=0.04, atol=1e-3)


def test_schedule_scales_each_step():
    law = transient_law("sgd", [1.0], [0.0], 0.1, x0=[1.0], steps=3, schedule=lambda k: 1 / (k + 1))
    np.testing.assert_allclose(law.mean[:, 0], np.cumprod([1, 0.9, 0.95, 1 - 0.1 / 3]))
