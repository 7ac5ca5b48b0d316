"""The gradient that the optimizer is given, beside the mean gradient that is recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import noisekit as nk
from noisekit.gradients.applied_gradient import applied_gradient
from noisekit.gradients.rows import merge_records

N = 8


def two_layers() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def batch(k: int, n: int = N) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(k)
    return torch.randn(n, 3, generator=generator), torch.randn(n, 2, generator=generator)


def record_of(
    train: Callable[[nn.Module, Callable[..., Tensor], torch.optim.Optimizer], None],
    loss_fn: nn.Module | None = None,
    fused: bool = False,
    **options: object,
) -> nk.GradientRecord:
    model = two_layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, fused=fused)
    loss_fn = loss_fn or nn.MSELoss()
    with nk.GradientNoiseRecorder(model, loss_fn, optimizer, schedule=nk.every(1), **options) as recorder:
        for k in range(3):
            optimizer.zero_grad()
            train(lambda k=k, n=N: loss_fn(model(batch(k, n)[0]), batch(k, n)[1]), model, optimizer)
    return recorder.result()


def with_factor(factor: float) -> Callable[..., None]:
    def train(loss: Callable[..., Tensor], model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        (factor * loss()).backward()
        optimizer.step()

    return train


def test_a_plain_loop_gives_the_mean_gradient_and_nothing_is_said() -> None:
    record = record_of(with_factor(1.0))
    torch.testing.assert_close(record.applied_scale, torch.ones(3))
    torch.testing.assert_close(record.applied_cosine, torch.ones(3))
    assert "optimizer was given" not in str(record) + str(nk.analyze(record))


def test_a_factor_is_seen_and_said() -> None:
    record = record_of(with_factor(3.0))
    torch.testing.assert_close(record.applied_scale, torch.full((3,), 3.0))
    assert record.applied.is_constant
    said = "The optimizer was given 3 times the mean gradient of the recorded samples: a factor"
    assert said in str(record)
    assert said in str(nk.analyze(record))


def test_a_summed_loss_gives_the_batch_size_times_the_mean() -> None:
    record = record_of(with_factor(1.0), nn.MSELoss(reduction="sum"))
    torch.testing.assert_close(record.applied_scale, torch.full((3,), float(N)))
    assert record.applied.summed
    assert "8 times the mean gradient of the recorded samples: the loss is a sum over the samples" in str(
        record
    )


def test_clipping_gives_the_share_that_it_leaves() -> None:
    norms = []

    def train(loss: Callable[..., Tensor], model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        loss().backward()
        norms.append(float(nn.utils.clip_grad_norm_(model.parameters(), 0.2)))
        optimizer.step()

    record = record_of(train)
    torch.testing.assert_close(record.applied_scale, 0.2 / torch.tensor(norms), rtol=1e-4, atol=0)
    assert not record.applied.is_constant
    assert "it was clipped" in str(record)


def test_clipping_by_value_turns_the_gradient() -> None:
    seen = []

    def train(loss: Callable[..., Tensor], model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        loss().backward()
        before = torch.cat([p.grad.flatten() for p in model.parameters()]).double()
        nn.utils.clip_grad_value_(model.parameters(), 0.02)
        after = torch.cat([p.grad.flatten() for p in model.parameters()]).double()
        seen.append(
            torch.stack([after @ before / (before @ before), torch.cosine_similarity(after, before, 0)])
        )
        optimizer.step()

    record = record_of(train)
    scale, cosine = torch.stack(seen).float().T
    torch.testing.assert_close(record.applied_scale, scale, rtol=1e-4, atol=0)
    torch.testing.assert_close(record.applied_cosine, cosine, rtol=1e-4, atol=0)
    assert record.applied.is_turned
    assert "coordinate by coordinate" in str(record)


@pytest.mark.parametrize("divided", [True, False])
def test_accumulated_gradients_are_compared_with_the_mean_of_all(divided: bool) -> None:
    def train(loss: Callable[..., Tensor], model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        for k in range(4):
            (loss(k) / (4 if divided else 1)).backward()
        optimizer.step()

    record = record_of(train, micro_batches=4)
    torch.testing.assert_close(record.applied_scale, torch.full((3,), 1.0 if divided else 4.0))


@pytest.mark.parametrize("fused", [False, True])
def test_the_scale_of_a_grad_scaler_is_no_factor(fused: bool) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)

    def train(loss: Callable[..., Tensor], model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        scaler.scale(2 * loss()).backward()
        scaler.step(optimizer)
        scaler.update()

    record = record_of(train, fused=fused)
    torch.testing.assert_close(record.applied_scale, torch.full((3,), 2.0))


def test_where_the_step_is_not_seen_nothing_is_known() -> None:
    model, loss_fn = two_layers(), nn.MSELoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    recorder = nk.GradientNoiseRecorder(model, loss_fn, optimizer, schedule=nk.every(1))
    recorder.attach()
    loss_fn(model(batch(0)[0]), batch(0)[1]).backward()
    recorder.end_step()
    recorder.detach()
    recorder.repeat([batch(1)])
    record = recorder.result()
    assert record.applied_scale.isnan().all()
    assert record.applied is None
    assert "optimizer was given" not in str(record)


def test_parameters_of_another_optimizer_do_not_count() -> None:
    model, loss_fn = two_layers(), nn.MSELoss()
    optimizer = torch.optim.SGD(model[0].parameters(), lr=1e-3)
    with nk.GradientNoiseRecorder(model, loss_fn, optimizer, schedule=nk.every(1)) as recorder:
        loss_fn(model(batch(0)[0]), batch(0)[1]).backward()
        model[2].weight.grad.zero_()
        optimizer.step()
    torch.testing.assert_close(recorder.result().applied_scale, torch.ones(1))


def test_one_step_with_less_than_the_mean_may_be_clipped_and_is_no_factor() -> None:
    assert not applied_gradient([0.5], [1.0], 8, {}).is_constant
    assert applied_gradient([0.5, 0.5], [1.0, 1.0], 8, {}).is_constant
    assert applied_gradient([3.0], [1.0], 8, {}).is_constant
    assert not applied_gradient([-1.0, -1.0], [-1.0, -1.0], 8, {}).is_constant
    assert applied_gradient([float("nan")], [float("nan")], 8, {}) is None


def test_the_file_keeps_it(tmp_path: Path) -> None:
    record = record_of(with_factor(3.0))
    nk.save_tree(nk.to_datatree(record=record), tmp_path / "a.nc")
    training = nk.open_tree(tmp_path / "a.nc")["training"]
    assert training["applied_scale"].values == pytest.approx([3.0, 3.0, 3.0], rel=1e-5)
    assert training["applied_cosine"].values == pytest.approx([1.0, 1.0, 1.0], rel=1e-5)
    assert training.attrs["loss_reduction"] == "mean"


def test_records_merge_and_one_that_does_not_know_takes_the_knowledge_along() -> None:
    record = record_of(with_factor(3.0))
    torch.testing.assert_close(merge_records(record, record).applied_scale, torch.full((6,), 3.0))
    unknowing = replace(record, applied_scale=None, applied_cosine=None)
    assert merge_records(record, unknowing).applied is None


def grouped(*rates: float | Tensor) -> nk.GradientRecord:
    model, loss_fn, other = two_layers(), nn.MSELoss(), nn.Linear(2, 2)
    groups = [{"params": model[k].parameters(), "lr": rate} for k, rate in zip((0, 2), rates, strict=True)]
    optimizer = torch.optim.SGD([*groups, {"params": other.parameters(), "lr": 7.0}], lr=1.0)
    with nk.GradientNoiseRecorder(model, loss_fn, optimizer, schedule=nk.every(1)) as recorder:
        for k in range(2):
            optimizer.zero_grad()
            loss_fn(model(batch(k)[0]), batch(k)[1]).backward()
            optimizer.step()
    return recorder.result()


@pytest.mark.parametrize("kind", [float, torch.tensor])
def test_groups_with_learning_rates_of_their_own_are_said(kind: Callable[[float], float | Tensor]) -> None:
    record = grouped(kind(0.5), kind(0.01))
    torch.testing.assert_close(record.learning_rate, torch.tensor([0.5, 0.5]))
    assert record.settings["group_learning_rates"] == pytest.approx([0.5, 0.01])
    assert "parameter groups have learning rates 0.5, 0.01; the first is kept" in str(record)
    found = nk.predict(nk.to_datatree(record=record), "sgd", learning_rate=0.1)
    assert "learning rates of 0.5, 0.01 in its 2 groups" in found.unknown[-1]


def test_groups_with_one_learning_rate_are_not_mentioned() -> None:
    record = grouped(0.5, 0.5)
    assert "group_learning_rates" not in record.settings
    assert "groups" not in str(record) + str(
        nk.predict(nk.to_datatree(record=record), "sgd", learning_rate=0.1)
    )
