"""Measurements of the user's own within a recorded step are no part of the training that is recorded."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import noisekit as nk
from noisekit.gradients import noise_directions


def statistics(model: nn.Module, loss_fn: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return nk.gradient_statistics(model, loss_fn, x, y).squared_norms


def gradients(model: nn.Module, loss_fn: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return nk.per_sample_gradients(model=model, loss_fn=loss_fn, inputs=x, targets=y)["0.weight"]


def directions(model: nn.Module, loss_fn: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return noise_directions(model, loss_fn, x, y)[0]


def part_alone(model: nn.Module, loss_fn: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return nk.per_sample_gradients(model[0], lambda outputs, _: outputs.square().mean(), x, y)["weight"]


def trained(measure: Callable[..., Tensor] | None, where: str = "") -> tuple[nk.GradientRecord, list[Tensor]]:
    torch.manual_seed(0)
    model, loss_fn = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), nn.MSELoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y, found = torch.randn(8, 3), torch.randn(8, 2), []

    def look(here: str) -> None:
        if measure is not None and here == where:
            found.append(measure(model, loss_fn, x[:4], y[:4]))

    with nk.GradientNoiseRecorder(model, loss_fn, optimizer, schedule=nk.every(2)) as recorder:
        for _ in range(4):
            optimizer.zero_grad()
            look("before the forward pass")
            loss = loss_fn(model(x), y)
            look("between the passes")
            loss.backward()
            look("before the step")
            optimizer.step()
    return recorder.result(), found


@pytest.mark.parametrize("where", ["before the forward pass", "between the passes", "before the step"])
@pytest.mark.parametrize("measure", [statistics, gradients, directions, part_alone])
def test_the_record_is_the_one_without_the_measurement(measure: Callable[..., Tensor], where: str) -> None:
    expected, _ = trained(None)
    record, found = trained(measure, where)
    assert len(found) == 4
    assert all(value.isfinite().all() and value.abs().sum() > 0 for value in found)
    assert record.batch_size == 8
    for name in ("step", "loss", "trace", "squared_norm", "gram", "applied_scale"):
        torch.testing.assert_close(getattr(record, name), getattr(expected, name), msg=name)


def test_a_recorder_that_is_gone_watches_nothing() -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = nk.GradientNoiseRecorder(model, nn.MSELoss(), optimizer)
    recorder.attach()
    recorder.detach()
    del recorder
    x, y = torch.randn(4, 2), torch.randn(4, 1)
    assert nk.per_sample_gradients(model, nn.MSELoss(), x, y)["weight"].shape == (4, 1, 2)
