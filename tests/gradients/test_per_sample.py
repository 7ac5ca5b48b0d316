"""The three engines against the definition, over every kind of model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from noisekit.errors import InputError
from noisekit.gradients import GradientNoiseRecorder, diagonal_moments, every, per_sample_gradients

Case = tuple[nn.Module, Any, Any, Any]
Reference = Callable[..., dict[str, Tensor]]


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert sorted(found) == sorted(expected)
    scale = max(float(t.abs().max()) for t in expected.values())
    for name, value in expected.items():
        assert found[name].shape == value.shape, name
        assert float((found[name] - value).abs().max()) < 1e-9 * scale, name


@pytest.mark.parametrize("engine", ["hooks", "vmap", "loop"])
def test_engines_agree_with_the_definition(any_case: Case, reference: Reference, engine: str) -> None:
    model, loss_fn, inputs, targets = any_case
    torch.manual_seed(1)
    expected = reference(model, loss_fn, inputs, targets)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    _ = model(**inputs) if isinstance(inputs, dict) else model(inputs)
    stochastic = not torch.equal(state, torch.get_rng_state())
    torch.manual_seed(1)
    recurrent = any(isinstance(m, nn.RNNBase) for m in model.modules())
    if engine == "vmap" and (stochastic or recurrent):
        with pytest.raises(InputError, match="random numbers" if stochastic else "vmap cannot run"):
            per_sample_gradients(model, loss_fn, inputs, targets, engine=engine)
        return
    found = per_sample_gradients(model, loss_fn, inputs, targets, engine=engine)
    assert_equal(found, expected)


def test_moments_are_those_of_the_samples(any_case: Case, reference: Reference) -> None:
    model, loss_fn, inputs, targets = any_case
    torch.manual_seed(1)
    expected = reference(model, loss_fn, inputs, targets)
    torch.manual_seed(1)
    mean, second = diagonal_moments(model, loss_fn, inputs, targets)
    assert_equal(mean, {name: g.mean(0) for name, g in expected.items()})
    assert_equal(second, {name: g.square().mean(0) for name, g in expected.items()})


@pytest.mark.parametrize("engine", ["hooks", "vmap", "loop"])
def test_a_loss_with_single_precision_weights_of_its_own(engine: str) -> None:
    torch.manual_seed(0)
    model, loss_fn = nn.Linear(3, 2), nn.CrossEntropyLoss(weight=torch.tensor([1.0, 4.0]))
    inputs, targets = torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1])
    found = per_sample_gradients(model, loss_fn, inputs, targets, engine=engine)
    loss_fn(model(inputs), targets).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name].mean(0), parameter.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("in_a_loop", [True, False])
def test_the_recorder_takes_such_a_loss(in_a_loop: bool) -> None:
    torch.manual_seed(0)
    model, loss_fn = nn.Linear(3, 2), nn.CrossEntropyLoss(weight=torch.tensor([1.0, 4.0]))
    inputs, targets = torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with GradientNoiseRecorder(model, loss_fn, optimizer, schedule=every(1)) as recorder:
        if in_a_loop:
            loss_fn(model(inputs), targets).backward()
            optimizer.step()
        else:
            recorder.record(inputs, targets)
    found = per_sample_gradients(model, loss_fn, inputs, targets)
    squared = torch.stack([g.flatten(1).square().sum(1) for g in found.values()]).sum(0)
    torch.testing.assert_close(recorder.result().squared_norm[0], squared)
