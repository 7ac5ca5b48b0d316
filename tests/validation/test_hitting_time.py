"""First times of built paths, and the law of first times of SGD and its SDE."""

import math

import numpy as np
import pytest
import torch

from noisekit.errors import InputError
from noisekit.noise import GaussianNoise
from noisekit.optimizers import simulate_optimizer
from noisekit.problems import Quadratic
from noisekit.sde import SGDSDE, Solution, integrate
from noisekit.validation import compare_hitting_times, hitting_times


def solution(values, steps):
    values = torch.tensor(values)
    return Solution(
        optimizer="sgd",
        kind="sde",
        step=torch.tensor(steps),
        time=torch.tensor(steps) * 0.1,
        state={},
        observables={"loss": values},
        diverged=torch.full((len(values),), -1),
        learning_rate=0.1,
        seed=0,
    )


def test_first_saved_step_at_or_below_the_level():
    paths = solution([[3.0, 2.0, 1.0], [1.0, 5.0, 5.0], [9.0, 9.0, math.nan]], [0, 10, 20])
    np.testing.assert_array_equal(hitting_times(paths, 2.0), [10, 0, math.inf])
    result = compare_hitting_times(paths, paths, 2.0)
    assert result.distance == 0
    assert result.prediction_median == 10
    assert repr(result).startswith("HittingTimeComparison: level 2: median step 10 predicted, 10 in the")


def test_sgd_and_its_sde_share_the_law_and_a_noiseless_one_does_not():
    problem = Quadratic(torch.tensor([1.0, 2.0]))
    common = {"steps": 100, "replicates": 800, "observables": {"loss": problem.loss}, "keep_state": False}
    noise = GaussianNoise(scale=torch.tensor([1.0, 1.0]))
    runs = simulate_optimizer(
        problem, lambda p: torch.optim.SGD(p, lr=0.02), problem.x0, noise=noise, seed=1, **common
    )

    def paths(noise):
        return integrate(SGDSDE(problem.gradient, noise, 0.02), problem.x0, seed=2, substeps=2, **common)

    same = compare_hitting_times(paths(noise), runs, 0.3)
    assert same.p_value > 0.01
    assert same.prediction_median == pytest.approx(same.reference_median, rel=0.1)
    other = compare_hitting_times(paths(GaussianNoise(scale=torch.zeros(2))), runs, 0.3)
    assert other.p_value < 1e-6


def test_bad_input():
    a, b = solution([[1.0, 2.0]], [0, 10]), solution([[1.0, 2.0]], [0, 20])
    with pytest.raises(InputError, match="same saved steps"):
        compare_hitting_times(a, b, 1.0)
    with pytest.raises(InputError, match="level = nan"):
        compare_hitting_times(a, a, math.nan)
    with pytest.raises(InputError, match="Did you mean 'loss'"):
        hitting_times(a, 1.0, observable="lass")
