"""Sweeps of noise level, tails and batch size, by theory and by integration."""

import math

import numpy as np
import pytest
import torch
from oracles import gaussian_draw, run_optimizer

from noisekit.errors import InputError
from noisekit.noise import GaussianNoise, StudentTNoise
from noisekit.problems import Quadratic
from noisekit.theory import critical_noise, robustness, transient_law

QUADRATIC = Quadratic(torch.tensor([1.0, 2.0], dtype=torch.float64))
SCALE = torch.tensor([0.5, 0.5], dtype=torch.float64)
OPTIMIZERS = {
    "sgd": {"learning_rate": 0.02},
    "signsgd": {"learning_rate": 0.01},
    "adamw": {"learning_rate": 0.01, "weight_decay": 0.5, "betas": (0.9, 0.98)},
}


class Hidden:
    """The same quadratic without its Hessian, so that only integration can know it."""

    name = "hidden"
    x0 = QUADRATIC.x0

    def loss(self, x):
        return QUADRATIC.loss(x)

    def gradient(self, x):
        return QUADRATIC.gradient(x)


def by_optimizer(rows, name):
    return [row for row in rows if row.optimizer == name]


def test_floors_grow_as_theory_says():
    rows = robustness(
        QUADRATIC,
        GaussianNoise(scale=SCALE),
        OPTIMIZERS,
        sweep="noise",
        values=[1.0, 4.0],
        target=0.1,
        steps=400,
    )
    assert len(rows) == 6
    assert {row.source for row in rows} == {"theory"}
    growth = {
        name: by_optimizer(rows, name)[1].floor / by_optimizer(rows, name)[0].floor for name in OPTIMIZERS
    }
    assert growth["sgd"] == pytest.approx(16, rel=1e-3)
    assert growth["signsgd"] == pytest.approx(4, rel=0.02)
    assert growth["adamw"] < 4
    crossing = critical_noise(GaussianNoise(scale=SCALE), 0.01, sgd_learning_rate=0.02)
    both = robustness(
        QUADRATIC,
        GaussianNoise(scale=SCALE),
        {name: OPTIMIZERS[name] for name in ("sgd", "signsgd")},
        sweep="noise",
        values=[0.7 * crossing, 1.4 * crossing],
        target=0.1,
        steps=10,
    )
    assert both[0].floor < both[1].floor
    assert both[2].floor > both[3].floor


def test_integration_agrees_with_theory():
    arguments = {"sweep": "noise", "values": [1.0], "target": 0.2, "steps": 600}
    theory = robustness(QUADRATIC, GaussianNoise(scale=SCALE), OPTIMIZERS, **arguments)
    paths = robustness(
        Hidden(), GaussianNoise(scale=SCALE), OPTIMIZERS, replicates=256, substeps=4, **arguments
    )
    for expected, found in zip(theory, paths, strict=True):
        assert (expected.source, found.source) == ("theory", "integration")
        assert found.floor_error > 0
        assert found.floor == pytest.approx(expected.floor, rel=0.05, abs=4 * found.floor_error)
        assert found.steps_to_target == pytest.approx(expected.steps_to_target, rel=0.1, abs=4)


def test_infinite_variance_gives_a_note_and_no_number():
    rows = robustness(
        QUADRATIC,
        StudentTNoise(scale=SCALE, df=5.0),
        OPTIMIZERS,
        sweep="df",
        values=[1.5, 4.0],
        target=0.1,
        steps=500,
    )
    rows += robustness(
        Hidden(),
        StudentTNoise(scale=SCALE, df=5.0),
        OPTIMIZERS,
        sweep="df",
        values=[1.5],
        target=0.1,
        steps=20,
    )
    for row in rows:
        if row.value < 2 and row.optimizer != "signsgd":
            assert math.isnan(row.floor)
            assert math.isnan(row.steps_to_target)
            assert row.source == "none"
            assert "infinite" in row.note
        else:
            assert math.isfinite(row.floor)


def test_larger_batches_lower_the_floor():
    noise = GaussianNoise(scale=SCALE, batch_size=8)
    rows = robustness(QUADRATIC, noise, OPTIMIZERS, sweep="batch_size", values=[8, 32], target=0.1, steps=500)
    for name, ratio in (("sgd", 4.0), ("signsgd", 2.0)):
        small, large = by_optimizer(rows, name)
        assert small.floor / large.floor == pytest.approx(ratio, rel=0.02)


def test_time_to_target_is_where_the_mean_loss_crosses():
    noise = GaussianNoise(scale=SCALE)
    (row,) = robustness(
        QUADRATIC, noise, {"sgd": {"learning_rate": 0.02}}, sweep="noise", values=[1.0], target=0.3, steps=300
    )
    path = transient_law("sgd", [1.0, 2.0], noise, 0.02, x0=[1.0, 1.0], steps=300)
    first = int(np.flatnonzero(path.loss <= 0.3)[0])
    assert first - 1 <= row.steps_to_target <= first
    (never,) = robustness(
        QUADRATIC,
        noise,
        {"sgd": {"learning_rate": 0.02}},
        sweep="noise",
        values=[1.0],
        target=1e-6,
        steps=300,
    )
    assert never.steps_to_target == math.inf


def test_an_unfinished_run_says_so():
    rows = robustness(
        Hidden(), GaussianNoise(scale=SCALE), {"sgd": {"learning_rate": 0.001}},
        sweep="noise", values=[1.0], target=0.3, steps=300,
    )  # fmt: skip
    assert "still falls" in rows[0].note


def one_row(problem, scale, name, settings, *, steps=1500, **more):
    noise = GaussianNoise(scale=torch.full((2,), scale, dtype=torch.float64))
    (row,) = robustness(
        problem, noise, {name: settings}, sweep="noise", values=[1.0], target=0.5, steps=steps, **more
    )
    return row


STEEP = Quadratic(torch.tensor([0.5, 20.0], dtype=torch.float64))


def late_loss(name, lr, scale, steps=1500):
    losses = []

    def visit(k, x):
        if k > 0.8 * steps:
            losses.append(float(STEEP.loss(x).mean()))

    run_optimizer(
        name,
        lambda x: x * STEEP.hessian,
        gaussian_draw(np.eye(2) * scale**2),
        [1.0, 1.0],
        lr,
        steps,
        replicates=400,
        visit=visit,
    )
    return float(np.mean(losses))


def test_a_sweep_goes_on_where_steps_are_too_wide_for_a_stationary_law():
    row = one_row(STEEP, 0.01, "adam", {"learning_rate": 0.02})
    assert row.source == "theory"
    assert "outside the range of its linearisation" in row.note
    assert row.floor == pytest.approx(late_loss("adam", 0.02, 0.01), rel=0.06)


def test_a_run_that_does_not_come_to_rest_says_where_it_ends():
    row = one_row(STEEP, 0.1, "adam", {"learning_rate": 0.02})
    ends = float(row.note.removeprefix("the run is not at rest: its mean loss ends at "))
    found = late_loss("adam", 0.02, 0.1)
    assert ends == pytest.approx(found, rel=0.1)
    assert row.floor > 1.4 * found


def test_sgd_beyond_its_limit_has_no_floor():
    row = one_row(STEEP, 1.0, "sgd", {"learning_rate": 0.11})
    assert row.floor == math.inf
    assert row.steps_to_target == math.inf
    assert "unstable" in row.note


class Valley(Hidden):
    x0 = STEEP.x0

    def loss(self, x):
        return STEEP.loss(x) - 1.0

    def gradient(self, x):
        return STEEP.gradient(x)


def test_integration_warns_of_steps_that_an_sde_does_not_see():
    arguments = {"steps": 40, "replicates": 8}
    wide = one_row(Valley(), 0.1, "signsgd", {"learning_rate": 0.02}, **arguments)
    narrow = one_row(Valley(), 1.0, "signsgd", {"learning_rate": 0.001}, **arguments)
    # ηλℓ/σ with λ = 20
    assert f"= {0.02 * 20 * math.sqrt(2 / math.pi) / 0.1:.2g}:" in wide.note
    assert "jump across" in wide.note
    assert "jump across" not in narrow.note


def test_a_loss_below_zero_may_be_the_target_where_nothing_is_quadratic():
    noise = GaussianNoise(scale=SCALE)
    arguments = {"sweep": "noise", "values": [1.0], "target": -0.5, "steps": 100, "replicates": 8}
    (row,) = robustness(Valley(), noise, {"sgd": {"learning_rate": 0.04}}, **arguments)
    assert 0 < row.steps_to_target < 100
    with pytest.raises(InputError, match=r"target = -0\.5"):
        robustness(STEEP, noise, {"sgd": {"learning_rate": 0.04}}, **arguments)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"problem": "quadratic"}, "problem is a str"),
        ({"noise": [1.0, 1.0]}, "noise is a list"),
        ({"optimizers": {}}, "a dict from name"),
        ({"optimizers": {"sgd": {"learning_rate": -1}}}, "learning_rate = -1"),
        ({"optimizers": {"adam": {"learning_rate": 0.1, "betas": (1, 2)}}}, "β₁ = 1"),
        ({"values": ["1"]}, "values is a list of text"),
        ({"values": [math.nan]}, "NaN"),
        ({"values": [math.inf]}, "value of the sweep 'noise' = inf"),
        ({"target": math.nan}, "target = nan"),
        ({"target": "0.1"}, "target = '0.1'"),
        ({"steps": 0}, "steps = 0"),
        ({"replicates": 1}, "replicates = 1"),
        ({"substeps": 3}, "power of two"),
        ({"seed": 1.5}, "seed is 1.5"),
        ({"sweep": "batch_size", "values": [1.5]}, "whole number"),
        ({"sweep": "df", "noise": GaussianNoise(factor=torch.eye(2))}, "independent coordinates"),
    ],
)
def test_bad_arguments(change, words):
    arguments = {
        "problem": QUADRATIC,
        "noise": GaussianNoise(scale=SCALE, batch_size=8),
        "optimizers": OPTIMIZERS,
        "sweep": "noise",
        "values": [1.0],
        "target": 0.1,
        "steps": 10,
    }
    with pytest.raises(InputError, match=words):
        robustness(**arguments | change)


def test_bad_input():
    arguments = {"target": 0.1, "steps": 10}
    student = StudentTNoise(scale=SCALE, df=3.0, batch_size=8)
    with pytest.raises(InputError, match="refit"):
        robustness(QUADRATIC, student, OPTIMIZERS, sweep="batch_size", values=[16], **arguments)
    with pytest.raises(InputError, match="Did you mean 'noise'"):
        robustness(QUADRATIC, student, OPTIMIZERS, sweep="nois", values=[1], **arguments)
    with pytest.raises(InputError, match="value of the sweep"):
        robustness(QUADRATIC, student, OPTIMIZERS, sweep="noise", values=[0.0], **arguments)
    with pytest.raises(InputError, match="values is empty"):
        robustness(QUADRATIC, student, OPTIMIZERS, sweep="noise", values=[], **arguments)
    with pytest.raises(InputError, match="a dict from name"):
        robustness(QUADRATIC, student, ["sgd"], sweep="noise", values=[1.0], **arguments)
    with pytest.raises(InputError, match="no learning_rate"):
        robustness(QUADRATIC, student, {"sgd": {}}, sweep="noise", values=[1.0], **arguments)
    wrong = {"sgd": {"learning_rate": 0.1, "momntum": 0.9}}
    with pytest.raises(InputError, match="Did you mean 'momentum'"):
        robustness(QUADRATIC, student, wrong, sweep="noise", values=[1.0], **arguments)
    with pytest.raises(InputError, match="Did you mean 'sgd'"):
        robustness(QUADRATIC, student, {"sdg": {}}, sweep="noise", values=[1.0], **arguments)
