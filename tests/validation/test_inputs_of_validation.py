"""What every function of validation refuses, argument by argument, in one sentence."""

import math
from functools import partial

import numpy as np
import pytest
import torch

from noisekit.errors import InfiniteVarianceError, InputError, kind_of
from noisekit.noise import GaussianNoise, StudentTNoise
from noisekit.optimizers import simulate_optimizer
from noisekit.problems import Quadratic
from noisekit.validation import (
    compare,
    compare_curves,
    compare_hitting_times,
    fit_order,
    hitting_times,
    simulate_coupled,
    weak_order,
)

BOWL = Quadratic(torch.tensor([1.0, 2.0]))
NOISE = GaussianNoise(scale=torch.ones(2))
RATES = [0.1, 0.05, 0.025, 0.0125]
CURVES = np.linspace(1.0, 2.0, 24).reshape(8, 3)


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1)


def coupled(seed, **more):
    return simulate_coupled(
        BOWL, sgd, BOWL.x0, NOISE, steps=4, replicates=6, seed=seed, observables={"loss": BOWL.loss}, **more
    )


RUNS, OTHER = coupled(0), coupled(1)
CALLS = {
    "compare": partial(compare, prediction=RUNS, reference=OTHER),
    "compare_curves": partial(compare_curves, name="loss", prediction=CURVES, reference=CURVES + 0.1),
    "hitting_times": partial(hitting_times, solution=RUNS, level=0.5),
    "compare_hitting_times": partial(compare_hitting_times, prediction=RUNS, reference=OTHER, level=0.5),
    "weak_order": partial(
        weak_order, prediction=lambda r: RUNS, reference=lambda r: OTHER, learning_rates=RATES
    ),
    "fit_order": partial(fit_order, learning_rates=RATES, gap=RATES, gap_error=[0.001] * 4),
    "simulate_coupled": partial(
        simulate_coupled, problem=BOWL, make_optimizer=sgd, x0=BOWL.x0, noise=NOISE, steps=2, replicates=3
    ),
    "simulate_optimizer": partial(
        simulate_optimizer, problem=BOWL, make_optimizer=sgd, x0=BOWL.x0, noise=NOISE, steps=2, replicates=3
    ),
}
SIMULATIONS = ("simulate_coupled", "simulate_optimizer")


def refused(call, name, value, words, error=InputError):
    with pytest.raises(error, match=words) as caught:
        CALLS[call](**{name: value})
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith((".", "?"))


@pytest.mark.parametrize("value", [None, 3, "file.nc", {"loss": [1.0]}], ids=repr)
@pytest.mark.parametrize(
    ("call", "name"),
    [
        ("compare", "prediction"),
        ("compare", "reference"),
        ("hitting_times", "solution"),
        ("compare_hitting_times", "prediction"),
        ("compare_hitting_times", "reference"),
    ],
)
def test_what_is_no_solution(call, name, value):
    refused(call, name, value, f"The {name} is {kind_of(value)}; a Solution is needed")


@pytest.mark.parametrize(
    "value", [0.0, -1.0, math.nan, None, "0.1", True, 1j, [0.1, 0.2], torch.ones(2)], ids=repr
)
@pytest.mark.parametrize("call", ["compare", "compare_curves"])
@pytest.mark.parametrize("name", ["tolerance", "spread"])
def test_limits_of_agreement(call, name, value):
    refused(call, name, value, f"{name} = ")


@pytest.mark.parametrize("name", ["prediction", "reference", "refined"])
@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("text", "tensor or an array"),
        ([["a"] * 3] * 8, "list of text"),
        (CURVES * 1j, "complex numbers"),
        (CURVES > 1, "truth values"),
        (CURVES[0], r"\(replicate, time\)"),
        (CURVES[:, :2], "same instants"),
        (np.zeros((8, 0)), "is empty"),
        (np.zeros((0, 3)), "is empty"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_curves(name, value, words):
    refused("compare_curves", name, value, words)


def test_curves_may_be_tensors_and_lists():
    expected = compare_curves("loss", CURVES, CURVES + 0.1, CURVES[:1])
    for form in (torch.tensor, np.ndarray.tolist):
        found = compare_curves("loss", form(CURVES), form(CURVES + 0.1), form(CURVES[:1]))
        np.testing.assert_array_equal(found.gap, expected.gap)
        np.testing.assert_array_equal(found.discretisation_error, expected.discretisation_error)


@pytest.mark.parametrize(
    ("call", "name", "value", "words"),
    [
        ("compare", "refined", 3, "The refined is an int"),
        ("compare", "observables", 3, "observables is an int"),
        ("compare", "observables", [3], "no observable in both solutions '3'"),
        ("compare", "observables", {"x": lambda x: "high"}, "returned 'high'"),
        ("compare", "observables", {"x": lambda x: x[:, 0] * 1j}, "one real value a replicate"),
        ("compare", "paired", "yes", "paired is 'yes'"),
        ("compare_curves", "paired", None, "paired is None"),
        ("compare_curves", "prediction", CURVES[:1], "at least 2 are needed"),
        ("hitting_times", "level", math.nan, "level = nan"),
        ("hitting_times", "level", True, "level = True"),
        ("hitting_times", "level", "low", "level = 'low'"),
        ("hitting_times", "observable", "los", "Did you mean 'loss'"),
        ("compare_hitting_times", "level", math.inf, "level = inf"),
        ("weak_order", "learning_rates", ["1", "2", "3", "4"], "list of text"),
        ("weak_order", "learning_rates", [0.1, 0.2, 0.3, math.nan], "NaN"),
        ("weak_order", "learning_rates", [0.1, 0.2, 0.3, math.inf], "infinite"),
        ("weak_order", "learning_rates", [0.1, 0.2, 0.3], "at least 4"),
        ("weak_order", "learning_rates", [-0.1, 0.1, 0.2, 0.3], "at least 4 different positive"),
        ("weak_order", "prediction", RUNS, "prediction is a Solution; a function"),
        ("weak_order", "reference", None, "reference is None; a function"),
        ("weak_order", "prediction", lambda r: None, "The prediction is None"),
        ("weak_order", "paired", 1, "paired is 1"),
        ("fit_order", "learning_rates", [0.1] * 4, "two different positive"),
        ("fit_order", "learning_rates", [0.1, 0.2, 0.3, math.inf], "infinite"),
        ("fit_order", "gap", [1.0, 1.0, 1.0, math.nan], "gap has 1 NaN"),
        ("fit_order", "gap", ["1", "2", "3", "4"], "list of text"),
        ("fit_order", "gap", [1.0, -1.0, 1.0, 1.0], "A gap is zero or below"),
        ("fit_order", "gap_error", [-1.0, 1.0, 1.0, 1.0], "gap_error has the value -1"),
        ("fit_order", "gap_error", [True] * 4, "truth values"),
    ],
)
def test_what_belongs_to_one_argument(call, name, value, words):
    refused(call, name, value, words)


@pytest.mark.parametrize("call", SIMULATIONS)
@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("problem", None, "problem is None"),
        ("problem", "quadratic", "problem is a str"),
        ("make_optimizer", None, "make_optimizer"),
        ("make_optimizer", lambda p: 3, "must return a torch.optim.Optimizer"),
        ("make_optimizer", lambda p: torch.optim.SGD(p, lr=-1.0), "failed: Invalid learning rate: -1.0"),
        ("make_optimizer", lambda: None, r"make_optimizer\(\[parameter\]\) failed"),
        ("make_optimizer", lambda p: torch.optim.LBFGS(p), "needs a closure"),
        ("x0", [1.0, 1.0], "x0 is list"),
        ("x0", torch.ones(3), "x0 has 3 coordinates"),
        ("x0", torch.tensor([1, 1]), "float tensor"),
        ("x0", torch.ones(2, dtype=torch.complex64), "float tensor"),
        ("x0", torch.tensor([math.nan, 1.0]), "NaN"),
        ("noise", [1.0, 1.0], "noise is a list"),
        ("noise", GaussianNoise(scale=torch.ones(3)), "3 coordinates"),
        ("steps", 0, "steps is 0"),
        ("steps", 2.5, "steps is 2.5"),
        ("replicates", -1, "replicates is -1"),
        ("save_every", "2", "save_every is '2'"),
        ("observables", {"a": 3}, "observables must map"),
        ("observables", ["loss"], "observables must map"),
        ("observables", {"a": lambda x: 3}, "Observable 'a' returned"),
        ("observables", {"a": lambda x: x}, "a replicate"),
        ("keep_state", 1, "keep_state is 1"),
        ("seed", 1.5, "seed is 1.5"),
        ("start_step", -1, "start_step is -1"),
        ("init_state", {"y": torch.ones(2)}, "'y'"),
        ("init_state", 3, "init_state must map"),
    ],
)
def test_simulations_of_an_optimizer(call, name, value, words):
    refused(call, name, value, words)


def test_a_path_of_an_sde_needs_a_variance():
    noise = StudentTNoise(scale=torch.ones(2), df=1.5)
    refused("simulate_coupled", "noise", noise, "no variance", InfiniteVarianceError)
