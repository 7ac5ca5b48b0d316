"""What every function of theory refuses, argument by argument, in one sentence and without a warning."""

import math
from decimal import Decimal
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import torch

from noisekit.errors import InputError
from noisekit.noise import GaussianNoise
from noisekit.theory import (
    critical_noise,
    escape_time,
    loss_bound,
    noise_floor,
    regimes,
    scale_hyperparameters,
    signsgd_phase,
    stationary_law,
    steps_to_target,
    transient_law,
)
from noisekit.theory.inputs import as_real

NAN, INF = math.nan, math.inf
SQUARE = [[1.0, 0.2], [0.2, 2.0]]
CALLS = {
    "stationary_law": partial(
        stationary_law, optimizer="adamw", hessian=SQUARE, noise=[1.0, 2.0], learning_rate=0.01
    ),
    "transient_law": partial(
        transient_law, optimizer="sgd", hessian=SQUARE, noise=[1.0, 2.0], learning_rate=0.01, x0=[1.0, 1.0],
        steps=3,
    ),
    "noise_floor": partial(
        noise_floor, optimizer="sgd", noise=[1.0, 2.0], learning_rate=0.01, curvature=[1.0, 2.0], time=1.0
    ),
    "critical_noise": partial(critical_noise, noise=[1.0, 2.0], learning_rate=0.01, sgd_learning_rate=0.02),
    "escape_time": partial(
        escape_time, optimizer="adam", curvature=-1.0, noise=[1.0], learning_rate=0.01, distance=0.3
    ),
    "loss_bound": partial(
        loss_bound, optimizer="adamw", steps=[1, 2], learning_rate=0.1, initial_excess=1.0,
        strong_convexity=1.0, hessian_trace=2.0, noise_std=1.0, smoothness=2.0, weight_decay=0.1,
    ),
    "regimes": partial(
        regimes, optimizer="adam", learning_rate=0.01, gradient=[1.0, 1.0], noise=[1.0, 2.0], noise_scale=5.0
    ),
    "signsgd_phase": partial(signsgd_phase, gradient=[1.0, 1.0], noise=[1.0, 2.0]),
    "scale_hyperparameters": partial(
        scale_hyperparameters, optimizer="adam", hyperparameters={"lr": 0.1}, batch_ratio=2
    ),
}  # fmt: skip

NUMBERS = {
    "learning_rate": ["stationary_law", "transient_law", "noise_floor", "critical_noise", "escape_time",
                      "loss_bound", "regimes"],
    "sgd_learning_rate": ["critical_noise"],
    "distance": ["escape_time"],
    "strong_convexity": ["loss_bound"],
    "hessian_trace": ["loss_bound"],
    "noise_std": ["loss_bound"],
    "smoothness": ["loss_bound"],
    "batch_ratio": ["scale_hyperparameters"],
}  # fmt: skip
ARRAYS = {
    "hessian": ["stationary_law", "transient_law"],
    "noise": ["stationary_law", "transient_law", "noise_floor", "critical_noise", "escape_time", "regimes",
              "signsgd_phase"],
    "minimum": ["stationary_law"],
    "x0": ["transient_law"],
    "curvature": ["noise_floor"],
    "gradient": ["regimes", "signsgd_phase"],
    "df": ["regimes"],
    "df_interval": ["regimes"],
    "noise_trace": ["regimes"],
    "steps": ["loss_bound"],
    "at": ["stationary_law", "transient_law", "noise_floor", "critical_noise", "regimes", "signsgd_phase"],
}  # fmt: skip


def table(arguments):
    return [(call, name) for name, calls in arguments.items() for call in calls]


def refused(call, name, value, words=""):
    with pytest.raises(InputError, match=words) as caught:
        CALLS[call](**{name: value})
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")


@pytest.mark.parametrize(("call", "name"), table(NUMBERS))
@pytest.mark.parametrize(
    "value", [-1.0, 0.0, NAN, INF, "0.1", True, torch.tensor(True), 1j, [1.0, 2.0], torch.ones(2)], ids=repr
)
def test_numbers(call, name, value):
    refused(call, name, value, name)


@pytest.mark.parametrize(("call", "name"), table(ARRAYS))
@pytest.mark.parametrize(
    "value",
    [
        [], "text", ["1", "2"], [True, False], torch.tensor([True, False]), [1j, 1.0], np.array([1j, 1.0]),
        torch.ones(2, dtype=torch.complex64), [NAN, 1.0], torch.zeros(0), {}, {"w": torch.tensor([True])},
        [[1.0, 2.0], [3.0]], object(), np.array([True, 1.0], dtype=object),
        np.array(["1", 2.0], dtype=object), np.array([b"1", 2.0], dtype=object),
        np.array([torch.tensor(True), 1.0], dtype=object),
    ],
    ids=lambda value: repr(value).partition(" object at")[0],
)  # fmt: skip
def test_arrays(call, name, value):
    refused(call, name, value, name)


def test_objects_are_numbers_or_are_named():
    fractions = np.array([Fraction(1, 2), Decimal("0.25"), 2], dtype=object)
    assert as_real("x", fractions).tolist() == [0.5, 0.25, 2.0]
    with pytest.raises(InputError, match="x is a ndarray of text and truth values; a tensor or an array"):
        as_real("x", np.array([True, "2"], dtype=object))


@pytest.mark.parametrize(
    ("call", "name"),
    [(call, name) for call, name in table(ARRAYS) if name not in ("noise", "df", "df_interval")],
)
def test_infinite_values_where_none_can_be(call, name):
    refused(call, name, [INF, 1.0], f"{name} has 1 infinite value")


@pytest.mark.parametrize(
    ("call", "name", "value", "words"),
    [
        ("stationary_law", "optimizer", "adm", "Did you mean 'adam'"),
        ("stationary_law", "hessian", [[1.0, 2.0]], r"shape \(1, 2\)"),
        ("stationary_law", "hessian", [[1.0, 2.0], [0.0, 1.0]], "not symmetric"),
        ("stationary_law", "hessian", [[1.0, 2.0], [2.0, 1.0]], "positive definite"),
        ("stationary_law", "noise", [-1.0, 1.0], "negative"),
        ("stationary_law", "noise", [[1.0, 2.0], [2.0, 1.0]], "none below 0"),
        ("stationary_law", "noise", [1.0, 2.0, 3.0], "3 coordinates"),
        ("stationary_law", "noise", np.ones((2, 2, 2)), r"shape \(2, 2, 2\)"),
        ("stationary_law", "betas", (0.9, 1.0), r"β₂ = 1.0"),
        ("stationary_law", "betas", (-0.1, 0.9), r"β₁ = -0.1"),
        ("stationary_law", "betas", 0.9, "two factors"),
        ("stationary_law", "betas", (NAN, 0.9), r"β₁ = nan"),
        ("stationary_law", "eps", -1e-8, "eps = -1e-08"),
        ("stationary_law", "weight_decay", INF, "weight_decay = inf"),
        ("stationary_law", "source", "sdee", "Did you mean 'sde'"),
        ("stationary_law", "minimum", [1.0], "1 coordinates, the Hessian 2"),
        ("transient_law", "steps", 0, "steps = 0"),
        ("transient_law", "steps", 2.5, "steps = 2.5"),
        ("transient_law", "steps", "3", "steps = '3'"),
        ("transient_law", "save_every", -1, "save_every = -1"),
        ("transient_law", "momentum", 1.0, "momentum = 1.0"),
        ("transient_law", "x0", [1.0], "1 coordinates"),
        ("noise_floor", "curvature", [-1.0, 1.0], "non-negative"),
        ("noise_floor", "time", None, "belong together"),
        ("noise_floor", "time", -1.0, "time = -1.0"),
        ("critical_noise", "against", "sgd", "compared with"),
        ("critical_noise", "noise", [0.0, 0.0], "zero in every coordinate"),
        ("critical_noise", "against", "signsdg", "Did you mean 'signsgd'"),
        ("escape_time", "curvature", NAN, "curvature = nan"),
        ("escape_time", "noise", [1.0, 1.0], "2 coordinates and the problem 1"),
        ("loss_bound", "steps", [-1], "steps has the value -1"),
        ("loss_bound", "phase", 0, "phase = 0"),
        ("loss_bound", "phase", "3", "phase = '3'"),
        ("loss_bound", "slope", "chord", "'secant'"),
        ("loss_bound", "dimension", 2.5, "dimension = 2.5"),
        ("loss_bound", "smoothness", 0.5, "below the smallest eigenvalue"),
        ("regimes", "df_interval", 3.0, r"shape \(\)"),
        ("regimes", "df_interval", [3.0, 2.0], "lower end first"),
        ("regimes", "df", [0.0], "degrees of freedom are positive"),
        ("regimes", "noise_trace", [1.0, 0.0], "positive values"),
        ("regimes", "n_samples", 0, "n_samples = 0"),
        ("regimes", "substeps", 1.5, "substeps = 1.5"),
        ("regimes", "gradient", [1.0, 1.0, 1.0], "noise has 2 coordinates and the problem 3"),
        ("scale_hyperparameters", "hyperparameters", {"lr": "0.1"}, "lr = '0.1'"),
        ("scale_hyperparameters", "hyperparameters", {"steps": 2.5}, "steps = 2.5"),
    ],
)
def test_what_belongs_to_one_argument(call, name, value, words):
    refused(call, name, value, words)


def test_steps_to_target_needs_a_law():
    law = transient_law("sgd", [1.0], [1.0], 0.1, x0=[1.0], steps=3)
    with pytest.raises(InputError, match="law is a list"):
        steps_to_target([1.0], 0.5)
    with pytest.raises(InputError, match=r"target = -1\.0"):
        steps_to_target(law, -1.0)


def test_good_input_in_any_form_gives_the_same_number():
    expected = noise_floor("sgd", [1.0, 2.0], 0.1)
    for noise in (
        torch.tensor([1, 2]),
        np.array([1.0, 2.0], dtype=np.float32),
        (1, 2),
        {"a": torch.tensor(1.0, requires_grad=True), "b": np.array([2])},
        torch.tensor([1.0, 2.0], dtype=torch.bfloat16),
        GaussianNoise(scale=torch.tensor([1.0, 2.0], dtype=torch.float64).sqrt()),
    ):
        assert noise_floor("sgd", noise, np.float32(0.1)) == pytest.approx(expected, rel=1e-6)
        assert noise_floor("sgd", noise, torch.tensor(0.1)) == pytest.approx(expected, rel=1e-6)


def test_a_flat_loss_has_no_stability_limit_to_warn_of():
    law = transient_law("sgd", [0.0, 0.0], [1.0, 1.0], 5.0, x0=[1.0, 1.0], steps=2)
    np.testing.assert_array_equal(law.loss, 0.0)
