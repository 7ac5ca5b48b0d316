"""Batch-size rules, against simulations at several batch sizes."""

import numpy as np
import pytest
import torch
from oracles import gaussian_draw, random_spd, run_optimizer

from noisekit.errors import InputError
from noisekit.theory import scale_hyperparameters, stationary_law

HESSIAN = random_spd(3, 20, 0.5, 2.0)
NOISE = random_spd(3, 21, 2.0, 5.0)
START = np.array([0.5, -0.5, 0.3])


def mean_loss(name, ratio, hyper, steps, replicates=2048):
    losses = []
    h = torch.tensor(HESSIAN)

    def visit(k, x):
        if k in (3 * steps // 4, steps):
            losses.append(float((x * (x @ h)).sum(1).mean() / 2))

    hyper = dict(hyper)
    lr = hyper.pop("lr")
    draw = gaussian_draw(NOISE / ratio)
    run_optimizer(name, lambda x: x @ h, draw, START, lr, steps, replicates=replicates, visit=visit, **hyper)
    return np.array(losses)


@pytest.mark.parametrize(
    ("name", "hyper"),
    [
        ("sgd", {"lr": 0.005, "weight_decay": 0.2}),
        ("sgd", {"lr": 0.004, "momentum": 0.9}),
        ("signsgd", {"lr": 0.01}),
        ("rmspropw", {"lr": 0.01, "beta": 0.99, "eps": 0.3, "weight_decay": 0.5}),
        ("adam", {"lr": 0.01, "betas": (0.95, 0.995), "eps": 0.3, "weight_decay": 0.5}),
        ("adamw", {"lr": 0.01, "betas": (0.95, 0.995), "eps": 0.3, "weight_decay": 0.5}),
    ],
    ids=str,
)
def test_sde_preset_keeps_the_loss_at_equal_samples_seen(name, hyper):
    base = mean_loss(name, 1.0, hyper, 1600)
    scaled = scale_hyperparameters(name, hyper | {"steps": 1600}, 4.0, preset="sde", sharpness=2.0)
    steps = scaled.pop("steps")
    assert steps == 400
    with_rule = np.abs(mean_loss(name, 4.0, scaled, steps) - base).max() / base.max()
    without = np.abs(mean_loss(name, 4.0, hyper, steps) - base).max() / base.max()
    assert with_rule < 0.08
    assert without > 3 * with_rule


CURVATURES = torch.tensor([0.1, 1.0, 10.0], dtype=torch.float64)


def losses_of_sgd(hyper, batch, samples, *, curvatures=CURVATURES, noise=16.0):
    """Mean loss of torch's SGD at four instants of as many samples, (instant, coordinate)."""
    found, steps = [], samples // batch

    def visit(k, x):
        if k % (steps // 4) == 0 and k:
            found.append((x.square().mean(0) * curvatures / 2).numpy())

    hyper = dict(hyper)
    covariance = np.eye(len(curvatures)) * noise / batch
    lr, start = hyper.pop("lr"), np.full(len(curvatures), 3.0)
    draw = gaussian_draw(covariance)
    run_optimizer(
        "sgd", lambda x: x * curvatures, draw, start, lr, steps, replicates=3000, visit=visit, **hyper
    )
    return np.array(found)


def rules_of_momentum(lr, momentum=0.9):
    base = {"lr": lr, "momentum": momentum}
    return base, *(
        scale_hyperparameters("sgd", base, 4, preset=preset, sharpness=1.0) for preset in ("sde", "linear")
    )


def test_sde_of_momentum_keeps_the_motion_and_linear_the_floor_where_steps_are_small():
    # δ²ηλ ≤ .16: per sample, sde keeps every direction, linear what is slower than the momentum's memory.
    base, sde, linear = rules_of_momentum(0.001)
    kept = losses_of_sgd(base, 4, 8000)
    moved = losses_of_sgd(sde, 16, 8000)
    lagging = losses_of_sgd(linear, 16, 8000)
    assert moved == pytest.approx(kept, rel=0.1)
    assert lagging[-1] == pytest.approx(kept[-1], rel=0.1)
    assert lagging[:, 0] == pytest.approx(kept[:, 0], rel=0.1)


def test_swings_outlast_the_linear_rule_and_not_sde():
    one = torch.ones(1, dtype=torch.float64)
    base, sde, linear = rules_of_momentum(0.003, 0.99)
    kept, moved, lagging = (
        losses_of_sgd(hyper, batch, 1000, curvatures=one, noise=1e-12)[2:].mean()
        for hyper, batch in ((base, 4), (sde, 16), (linear, 16))
    )
    assert moved == pytest.approx(kept, rel=0.4)  # of a swing that has lost more than 90 % of 4.5
    assert kept < 0.3
    assert lagging > 4 * kept


def test_at_larger_steps_linear_keeps_the_floor_that_sde_loses():
    # ηλ = .1: sde rests at (1 + 1.6/(2·1.6))… of the floor, linear at 1 + .4/(2·1.9).
    base, sde, linear = rules_of_momentum(0.01)
    kept, moved, floor = (
        losses_of_sgd(hyper, batch, 4000)[2:, 2].mean()
        for hyper, batch in ((base, 4), (sde, 16), (linear, 16))
    )
    assert moved > 1.6 * kept
    assert floor == pytest.approx(kept, rel=0.15)
    assert moved == pytest.approx(kept * (1 - 0.1 / 3.8) / (1 - 1.6 / 3.2), rel=0.1)


def test_a_rule_that_diverges_says_so():
    base = {"lr": 0.025, "momentum": 0.9}
    with pytest.warns(UserWarning, match="at which SGD diverges: it bears a largest curvature below 8"):
        sde = scale_hyperparameters("sgd", base, 4, preset="sde", sharpness=10.0)
    assert losses_of_sgd(sde, 16, 2000)[-1].sum() > 1e6
    linear = scale_hyperparameters("sgd", base, 4, sharpness=10.0)
    assert linear == {"lr": 0.1, "momentum": 0.9}
    assert losses_of_sgd(linear, 16, 2000)[-1].sum() < 1
    with pytest.warns(UserWarning, match="δ² = 16"):
        scale_hyperparameters("sgd", base, 4, preset="sde")
    with pytest.warns(UserWarning, match="diverges"):
        scale_hyperparameters("sgd", {"lr": 0.1}, 4, sharpness=5.0)


def test_the_linear_rule_bears_any_ratio_and_is_sde_without_momentum():
    assert scale_hyperparameters("sgd", {"lr": 0.1, "momentum": 0.9}, 16) == {"lr": 1.6, "momentum": 0.9}
    assert scale_hyperparameters("sgd", {"lr": 0.1}, 4, preset="linear") == {"lr": 0.4}
    with pytest.raises(InputError, match="'linear' is for sgd; adam has sde, sqrt, fixed_lr"):
        scale_hyperparameters("adam", {"lr": 0.1}, 4, preset="linear")


def test_linear_scaling_keeps_sgd_at_any_ratio_of_signal_to_noise():
    # (∇f)²/diag Σ is above 10 all the way: only ηλ, .04 and .16 here, sets the limit.
    one = torch.ones(1, dtype=torch.float64)
    paths = [
        losses_of_sgd({"lr": lr}, batch, 64 * 4, curvatures=one, noise=0.1)
        for lr, batch in ((0.01, 4), (0.04, 16))
    ]
    assert paths[1] == pytest.approx(paths[0], rel=0.04)


def test_stationary_law_of_adamw_is_invariant():
    hyper = {"lr": 0.002, "betas": (0.98, 0.999), "eps": 0.1, "weight_decay": 1.0}

    def loss(ratio):
        h = scale_hyperparameters("adamw", hyper, ratio)
        lr = h.pop("lr")
        return stationary_law("adamw", HESSIAN, NOISE / ratio, lr, **h).excess_loss

    losses = np.array([loss(r) for r in (0.25, 1.0, 4.0)])
    np.testing.assert_allclose(losses, losses[1], rtol=0.01)


def test_every_rule_in_numbers():
    adamw = {
        "lr": 1e-3,
        "betas": (0.9, 0.999),
        "eps": 1e-8,
        "weight_decay": 0.1,
        "steps": 100,
        "batch_size": 32,
    }
    scaled = scale_hyperparameters("adamw", adamw, 4)
    assert scaled["betas"] == (0.6, 0.996)  # no 0.6000000000000001
    assert scale_hyperparameters("adamw", adamw, 10 / 9)["lr"] == 0.00105409
    assert (scaled["lr"], scaled["weight_decay"], scaled["eps"]) == pytest.approx((2e-3, 0.2, 5e-9))
    assert (scaled["steps"], scaled["batch_size"]) == (25, 128)
    assert scale_hyperparameters("adamw", adamw, 4, preset="sqrt")["weight_decay"] == 0.1
    assert scale_hyperparameters("adam", adamw, 4)["weight_decay"] == 0.1
    fixed = scale_hyperparameters("adamw", adamw, 4, preset="fixed_lr")
    assert fixed["betas"] == pytest.approx((0.9, 0.998))
    assert (fixed["lr"], fixed["weight_decay"], fixed["eps"]) == pytest.approx((1e-3, 0.2, 5e-9))
    assert scale_hyperparameters("rmsprop", {"alpha": 0.99}, 4)["alpha"] == pytest.approx(0.96)
    assert scale_hyperparameters("sgd", {"lr": 0.1}, 9, preset="sqrt") == {"lr": pytest.approx(0.3)}
    assert scale_hyperparameters("signsgd", {"lr": 0.1}, 9) == {"lr": pytest.approx(0.3)}
    assert scale_hyperparameters("adamw", adamw, 1) == adamw
    there = scale_hyperparameters("sgd", {"lr": 0.1, "momentum": 0.9}, 2)
    back = scale_hyperparameters("sgd", there, 0.5)
    assert back == pytest.approx({"lr": 0.1, "momentum": 0.9})


def test_the_largest_ratio_is_named_and_is_the_limit():
    with pytest.raises(InputError, match=r"less than 10 times"):
        scale_hyperparameters("adam", {"betas": (0.9, 0.999)}, 16)
    assert scale_hyperparameters("adam", {"betas": (0.9, 0.999)}, 9.99)["betas"][0] > 0
    with pytest.raises(InputError, match=r"less than 1e\+04 times"):
        scale_hyperparameters("adam", {"betas": (0.9, 0.99)}, 20_000, preset="fixed_lr")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("adam", {"lr": 0.1}, 0), "batch_ratio = 0"),
        (("adam", {"lr": 0.1, "momentum": 0.9}, 2), "no hyper-parameter of adam 'momentum'"),
        (("adam", {"lr": -0.1}, 2), "lr = -0.1"),
        (("adam", {"betas": 0.9}, 2), "two factors"),
        (("adam", {"betas": (0.9, 0.999)}, 10), "less than 10 times"),
        (("adam", {"weight_decay": -1}, 2), "weight_decay = -1"),
        (("adam", {"steps": -5}, 2), "steps = -5"),
        (("adam", {"batch_size": 0}, 2), "batch_size = 0"),
        (("adam", None, 2), "None"),
        (("sgd", {"lr": 0.1, "batch_size": 2}, 0.1), "ratio of at least 0.5"),
    ],
)
def test_bad_input(arguments, words):
    with pytest.raises(InputError, match=words):
        scale_hyperparameters(*arguments)


def test_presets_that_do_not_exist():
    with pytest.raises(InputError, match="Did you mean 'sqrt'"):
        scale_hyperparameters("adam", {}, 2, preset="sqr")
    with pytest.raises(InputError, match="adaptive optimizers"):
        scale_hyperparameters("sgd", {"lr": 0.1}, 2, preset="fixed_lr")
