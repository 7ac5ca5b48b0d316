"""``predict`` where the recorded optimizer was not given the mean gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import noisekit as nk
from noisekit.gradients.applied_gradient import AppliedGradient
from noisekit.study.applied import Applied, for_the_mean
from noisekit.theory.hyperparameters import check_hyperparameters

N, D = 500, 4
HYPER = {"sgd": 0.1, "signsgd": 0.01, "rmsprop": 0.01, "adam": 0.01, "adamw": 0.01}


def recorded(factor: float = 1.0, clip: float | None = None, reduction: str = "mean") -> xr.DataTree:
    """A record of 12 batches of 64 of a linear regression at fixed weights, the same whatever the factor."""
    torch.manual_seed(0)
    x, y, model = torch.randn(N, D), torch.randn(N, 1), nn.Linear(D, 1)
    loss_fn, optimizer = nn.MSELoss(reduction=reduction), torch.optim.SGD(model.parameters(), lr=0.0)
    with nk.GradientNoiseRecorder(model, loss_fn, optimizer, schedule=nk.every(1)) as recorder:
        for _ in range(12):
            index = torch.randint(N, (64,))
            optimizer.zero_grad()
            (factor * loss_fn(model(x[index]), y[index])).backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
    return nk.to_datatree(record=recorder.result())


def values(found: nk.Prediction) -> dict[str, tuple[float, float, float]]:
    return {f.quantity: (f.value, f.lower, f.upper) for f in found.figures}


def assert_same(found: nk.Prediction, expected: nk.Prediction) -> None:
    assert values(found).keys() == values(expected).keys()
    for name, three in values(expected).items():
        assert values(found)[name] == pytest.approx(three, rel=1e-4, nan_ok=True), name
    for own, other in zip(found.gauges, expected.gauges, strict=True):
        assert own.value == pytest.approx(other.value, rel=1e-3, nan_ok=True), own.name


@pytest.mark.parametrize("optimizer", HYPER)
def test_a_factor_on_the_loss_is_one_on_the_learning_rate_and_on_what_is_added_to_the_gradient(optimizer):
    rate = HYPER[optimizer]
    eps = {"eps": 1e-2} if optimizer not in ("sgd", "signsgd") else {}
    found = nk.predict(recorded(3.0), optimizer, learning_rate=rate, batch_size=16, sharpness=2.0, **eps)
    expected = nk.predict(
        recorded(),
        optimizer,
        learning_rate=3 * rate if optimizer == "sgd" else rate,
        batch_size=16,
        sharpness=2.0,
        **{name: value / 3 for name, value in eps.items()},
    )
    assert_same(found, expected)
    assert found.learning_rate == rate
    assert "3 times the mean gradient" in found.verdict[0]


def test_a_summed_loss_multiplies_by_the_batch_that_is_asked_for():
    tree = recorded(reduction="sum")
    for batch in (16, 64):
        found = nk.predict(tree, "sgd", learning_rate=0.1 / batch, batch_size=batch, sharpness=2.0)
        expected = nk.predict(recorded(), "sgd", learning_rate=0.1, batch_size=batch, sharpness=2.0)
        assert_same(found, expected)
        assert f"{batch} times the mean gradient of a batch of {batch}" in found.verdict[0]


def test_another_batch_to_try_is_named_in_the_users_own_learning_rate():
    def tried(tree, rate):
        found = nk.predict(tree, "sgd", learning_rate=rate, batch_size=4, momentum=0.5, weight_decay=1e-3)
        return {trial.what: trial for trial in found.trials}

    summed, mean = tried(recorded(reduction="sum"), 0.1 / 4), tried(recorded(), 0.1)
    assert summed.keys() == mean.keys()
    for what, trial in mean.items():
        own, batch = summed[what], trial.batch_size
        assert own.batch_size == batch
        assert own.floor == pytest.approx(trial.floor, rel=1e-4)
        assert own.hyperparameters["lr"] * batch == pytest.approx(trial.hyperparameters["lr"], rel=1e-4)


def test_clipping_is_said_first_and_leaves_the_figures():
    found = nk.predict(recorded(clip=0.5), "sgd", learning_rate=0.1, batch_size=16)
    expected = nk.predict(recorded(), "sgd", learning_rate=0.1, batch_size=16)
    assert_same(found, expected)
    assert "it was clipped" in found.verdict[0]
    assert "unclipped, and do not hold here" in found.verdict[0]
    assert found.verdict[1:] == expected.verdict


def test_the_mean_gradient_and_files_that_do_not_know_are_not_mentioned():
    tree = recorded()
    unknowing = tree.copy()
    unknowing["training"] = tree["training"].to_dataset().drop_vars(["applied_scale", "applied_cosine"])
    for known in (tree, unknowing):
        found = nk.predict(known, "sgd", learning_rate=0.1, batch_size=16)
        assert not any("was given" in sentence for sentence in found.verdict)


def test_clipping_of_early_steps_alone_does_not_matter_where_the_record_ends():
    tree = recorded(3.0)
    scale = tree["training"]["applied_scale"].copy(data=np.r_[np.linspace(0.2, 0.9, 9), 3.0, 3.0, 3.0])
    tree["training"] = tree["training"].to_dataset().assign(applied_scale=scale)
    assert "3 times" in nk.predict(tree, "sgd", learning_rate=0.1).verdict[0]


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_hyperparameters_for_the_mean_gradient_take_the_same_real_steps(optimizer):
    make = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[optimizer]
    hyper = check_hyperparameters(optimizer, 0.05, eps=0.1, weight_decay=0.2)
    ends = []
    for factor, own in ((7.0, hyper), (1.0, for_the_mean(hyper, 7.0))):
        x = torch.linspace(-1, 1, 5, dtype=torch.float64).requires_grad_()
        given = {"eps": own.eps} if optimizer != "sgd" else {}
        decay = own.coupled_decay or own.decoupled_decay
        steps = make([x], lr=own.learning_rate, weight_decay=decay, **given)
        for k in range(5):
            x.grad = factor * (x.detach() - k / 3)
            steps.step()
        ends.append(x.detach())
    torch.testing.assert_close(*ends)


def test_a_factor_that_is_not_one_number_is_not_taken():
    varying = AppliedGradient(0.2, 0.9, 1.0, 10, 64, summed=True)
    turned = AppliedGradient(2.0, 2.0, 0.5, 10, 64, summed=False)
    assert Applied(varying).factor(16) == Applied(turned).factor(16) == Applied().factor(16) == 1
    assert "turned away" in Applied(turned).sentence(16)
