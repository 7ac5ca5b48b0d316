"""Escape times from a saddle against simulated optimizers that start on it."""

import math

import pytest
import torch
from oracles import gaussian_draw, run_optimizer, student_draw

from noisekit.errors import InfiniteVarianceError, InputError
from noisekit.noise import StudentTNoise
from noisekit.theory import escape_time


def mean_first_passage(name, curvature, draw, lr, distance, steps, **hyper):
    warm = (
        0 if name in ("sgd", "signsgd") and not hyper else 3000
    )  # m and v as the noise at the saddle has them
    first = torch.full((4000,), math.inf)

    def visit(k, x):
        out = (x[:, 0].abs() >= distance) & torch.isinf(first)
        first[out] = float(k)

    run_optimizer(
        name,
        lambda x: curvature * x,
        draw,
        [0.0],
        lr,
        steps,
        replicates=4000,
        visit=visit,
        warm=warm,
        **hyper,
    )
    assert torch.isfinite(first).all()
    return float(first.mean())


@pytest.mark.parametrize(
    ("name", "hyper"),
    [
        ("sgd", {}),
        ("sgd", {"momentum": 0.8}),
        ("signsgd", {}),
        ("rmsprop", {}),
        ("adam", {}),
        ("adam", {"betas": (0.99, 0.999)}),
    ],
    ids=str,
)
def test_mean_escape_time_is_that_of_the_simulated_optimizer(name, hyper):
    lr, curvature, variance = (0.002 if "momentum" in hyper else 0.01), -1.0, 0.25
    # Inside |x| = 0.5 the gradient is smaller than the noise; beyond it signs and v are not linear.
    expected = escape_time(name, curvature, [variance], lr, distance=0.3, **hyper)
    found = mean_first_passage(
        name, curvature, gaussian_draw([[variance]]), lr, 0.3, int(12 * expected) + 50, **hyper
    )
    assert found == pytest.approx(expected, rel=0.06)


def test_signs_escape_under_infinite_variance():
    noise = StudentTNoise(scale=torch.tensor([0.5]), df=1.5)
    expected = escape_time("signsgd", -1.0, noise, 0.01, distance=0.2)
    found = mean_first_passage("signsgd", -1.0, student_draw([0.5], 1.5), 0.01, 0.2, int(12 * expected))
    assert found == pytest.approx(expected, rel=0.06)
    with pytest.raises(InfiniteVarianceError):
        escape_time("sgd", -1.0, noise, 0.01, distance=0.2)


def test_small_distance_is_diffusion():
    # Without curvature the exit time from (−a, a) is a²/s², s² = ησ² per unit of time.
    assert escape_time("sgd", -1e-6, [4.0], 1e-5, distance=0.1) == pytest.approx(
        0.1**2 / (1e-5 * 2.0) ** 2, rel=1e-3
    )
    # Far out against the noise it is (1/k)(log z + (γ + 2 log 2)/2), z = a√k/s; a step multiplies x by 1.1.
    k = math.log(1.1) / 0.1
    s = math.sqrt(0.1**2 * 1e-300 * 2 * k / (1.1**2 - 1))
    far = (math.log(1e5 * math.sqrt(k) / s) + 0.5772157 / 2 + math.log(2)) / math.log(1.1)
    assert escape_time("sgd", -1.0, [1e-300], 0.1, distance=1e5) == pytest.approx(far, rel=1e-6)
    assert escape_time("signsgd", -1.0, [0.0], 0.01, distance=0.1) == math.inf
    assert escape_time("sgd", -1.0, [0.0], 0.01, distance=0.1) == math.inf


@pytest.mark.parametrize(
    ("curvature", "variance", "lr", "distance", "momentum"),
    [
        (-1e-3, 1.0, 0.005, 0.5, 0.9),  # diffusion: without the mean free paths 1.8 times too short
        (-0.2, 0.7225, 0.005, 0.5, 0.9),
        (-0.5, 0.25, 0.001, 0.3, 0.98),
        (-1.0, 1.0, 0.05, 0.5, 0.0),
        (-1.0, 0.0025, 0.005, 0.3, 0.9),  # drift
    ],
)
def test_steps_overshoot_and_momentum_lags(curvature, variance, lr, distance, momentum):
    expected = escape_time("sgd", curvature, [variance], lr, distance=distance, momentum=momentum)
    draw = gaussian_draw([[variance]])
    steps = int(12 * expected) + 50
    found = mean_first_passage("sgd", curvature, draw, lr, distance, steps, momentum=momentum)
    assert found == pytest.approx(expected, rel=0.045)  # 4,000 runs know it to 1.5 %


def test_bad_input():
    with pytest.raises(InputError, match=r"curvature = 1\.0"):
        escape_time("sgd", 1.0, [1.0], 0.1, distance=1.0)
    with pytest.raises(InputError, match="curvature = 'steep'"):
        escape_time("sgd", "steep", [1.0], 0.1, distance=1.0)
    with pytest.raises(InputError, match="StudentTNoise"):
        escape_time("signsgd", -1.0, [math.inf], 0.1, distance=1.0)
    with pytest.raises(InputError, match="distance = 0"):
        escape_time("sgd", -1.0, [1.0], 0.1, distance=0)
