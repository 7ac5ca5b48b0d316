"""What is wrong with a batch, a loss, a model or an optimizer is said in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from noisekit.errors import InputError, NonFiniteError, UnsupportedModelError
from noisekit.gradients import GradientNoiseRecorder, every, gradient_statistics

N = 6


def parts(**change: Any) -> dict[str, Any]:
    torch.manual_seed(0)
    usual = {
        "model": nn.Linear(3, 2),
        "loss_fn": nn.MSELoss(),
        "inputs": torch.randn(N, 3),
        "targets": torch.randn(N, 2),
    }
    return {**usual, **change}


def in_a_loop(model: nn.Module, loss_fn: Any, inputs: Tensor, targets: Tensor, **options: Any) -> None:
    parameters = list(model.parameters())
    optimizer = options.pop("optimizer", torch.optim.SGD(parameters, lr=0.1))
    with GradientNoiseRecorder(model, loss_fn, optimizer, schedule=every(1), **options):
        loss_fn(model(inputs), targets).backward()
        optimizer.step()


def first_two(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs[:2] - targets[:2]).square().mean()


@pytest.mark.parametrize("call", [gradient_statistics, in_a_loop])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": torch.zeros(0, 3), "targets": torch.zeros(0, 2)}, "batch is empty"),
        ({"inputs": torch.zeros(1, 3), "targets": torch.zeros(1, 2)}, "one sample"),
        ({"loss_fn": first_two}, "leave some samples out"),
        ({"model": nn.Linear(3, 2).requires_grad_(False)}, "unfreeze"),
        ({"sketch": 9}, "sketch=9 is larger than the model, which has 8"),
        ({"sketch": 2.5}, "sketch is 2.5"),
        ({"coordinates": 2.5}, "whole number"),
        ({"coordinates": [8]}, r"positions 0\.\.7"),
        ({"loss_fn": "mse"}, "loss_fn is 'mse'"),
    ],
)
def test_a_sentence_says_what_is_wrong(
    call: Callable[..., Any], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        call(**parts(**change))


@pytest.mark.parametrize("call", [gradient_statistics, in_a_loop])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("where", ["inputs", "targets"])
def test_the_bad_sample_is_named_on_the_first_batch(call: Callable[..., Any], bad: float, where: str) -> None:
    given = parts()
    given[where][4, 1] = bad
    with pytest.raises(NonFiniteError, match=r"sample 4 .* weight, bias"):
        call(**given)


class _Root(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (0 * x).sqrt()


@pytest.mark.parametrize("call", [gradient_statistics, in_a_loop])
def test_an_infinite_slope_is_not_taken_for_samples_that_mix(call: Callable[..., Any]) -> None:
    model = nn.Sequential(nn.Linear(3, 4), _Root(), nn.Linear(4, 2))
    with pytest.raises(NonFiniteError, match=r"NaN in 0\.weight, 0\.bias"):
        call(**parts(model=model))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss_fn": nn.MSELoss(reduction="none")}, "one number"),
        ({"loss_fn": lambda out, y: (out.detach() - y).square().mean()}, "without detach"),
        ({"model": nn.Linear(3, 2, device="meta")}, "inputs are on cpu and the model on meta"),
        ({"inputs": [1.0, 2.0]}, "no tensor with a sample axis"),
    ],
)
def test_statistics_of_what_does_not_fit(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        gradient_statistics(**parts(**change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": None}, "model is None"),
        ({"optimizer": None}, "optimizer is None"),
        ({"optimizer": torch.optim.SGD(nn.Linear(3, 2).parameters(), lr=0.1)}, "no parameter of this model"),
        ({"micro_batches": 0}, "micro_batches is 0"),
        ({"schedule": 10}, "function of the step"),
        ({"engine": "hook"}, "Did you mean 'hooks'"),
    ],
)
def test_a_recorder_of_what_does_not_fit(change: dict[str, Any], message: str) -> None:
    model = nn.Linear(3, 2)
    usual = {
        "model": model,
        "loss_fn": nn.MSELoss(),
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
    }
    with pytest.raises(InputError, match=message):
        GradientNoiseRecorder(**{**usual, **change})


def test_parameters_without_gradient_are_named() -> None:
    model = nn.ModuleDict({"used": nn.Linear(3, 2), "idle": nn.Linear(3, 2)})
    model.forward = lambda x: model["used"](x)  # type: ignore[method-assign]
    optimizer, loss_fn = torch.optim.SGD(model.parameters(), lr=0.1), nn.MSELoss()
    with GradientNoiseRecorder(model, loss_fn, optimizer, sketch=0) as recorder:
        loss_fn(model(torch.randn(N, 3)), torch.randn(N, 2)).backward()
        optimizer.step()
    record = recorder.result()
    assert record.uncovered == ["idle.weight", "idle.bias"]
    assert record.coverage == 0.5


def test_data_parallel_over_devices_is_refused() -> None:
    model = nn.DataParallel(nn.Linear(3, 2))
    model.device_ids = [0, 1]
    with pytest.raises(UnsupportedModelError, match="DistributedDataParallel"):
        gradient_statistics(**parts(model=model))


def test_sharded_parameters_are_refused() -> None:
    class Sharded(nn.Parameter):
        placements = ("Shard(0)",)

    model = nn.Linear(3, 2)
    model.weight = Sharded(model.weight.detach())
    with pytest.raises(UnsupportedModelError, match="parameters weight are sharded"):
        gradient_statistics(**parts(model=model))
