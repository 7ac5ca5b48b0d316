"""The recorder in loops of every kind: accumulation, mixed precision, checkpoints, compilers, closures."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from recorder_helpers import assert_rows_equal, flat, small
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from noisekit.errors import InputError, UnsupportedModelError
from noisekit.gradients import (
    GradientNoiseRecorder,
    GradientRecord,
    diagonal_moments,
    every,
    gradient_statistics,
)
from noisekit.gradients.half_precision import no_graph

Case = tuple[nn.Module, Any, Any, Any]
Reference = Callable[..., dict[str, Tensor]]


def test_gradient_accumulation_is_one_batch(reference: Reference) -> None:
    model, x, y = small()
    rows = flat(reference(model, nn.CrossEntropyLoss(), x, y))
    optimizer, loss_fn = torch.optim.SGD(model.parameters(), lr=0.1), nn.CrossEntropyLoss()

    def step(**options: Any) -> GradientRecord:
        with GradientNoiseRecorder(model, loss_fn, optimizer, **options) as recorder:
            for part in (slice(0, 4), slice(4, 8)):
                (loss_fn(model(x[part]), y[part]) / 2).backward()
            optimizer.step()
        return recorder.result()

    with pytest.raises(InputError, match="micro_batches=2"):
        step()
    record = step(micro_batches=2)
    assert record.batch_size == 8
    assert_rows_equal(record, rows)


def test_autocast_and_grad_scaler() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.LayerNorm(32), nn.GELU(), nn.Linear(32, 3))
    x, y, loss_fn = torch.randn(32, 16), torch.randint(0, 3, (32,)), nn.CrossEntropyLoss()
    expected = gradient_statistics(model, loss_fn, x, y)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with GradientNoiseRecorder(model, loss_fn, optimizer) as recorder:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loss_fn(model(x), y)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        scaler.step(optimizer)
        scaler.update()
    record = recorder.result()
    assert torch.allclose(record.squared_norm[0], expected.squared_norms, rtol=0.1)
    assert record.gradient_norm[0] == pytest.approx(float(gradient.norm()), rel=1e-3)
    assert record.coordinate_values is not None
    means = record.coordinate_values[0].mean(0)
    assert float((means - gradient[record.coordinate_index]).norm() / gradient.norm()) < 0.01


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.2), nn.Tanh()) for _ in range(3)
        )
        self.out = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False)
        return self.out(x)


def test_checkpointing(reference: Reference) -> None:
    torch.manual_seed(0)
    model, x, y = Checkpointed().double(), torch.randn(6, 4).double(), torch.randint(0, 2, (6,))
    plain = nn.Sequential(*model.blocks, model.out)
    torch.manual_seed(1)
    rows = flat(reference(plain, nn.CrossEntropyLoss(), x, y))
    optimizer, loss_fn = torch.optim.SGD(model.parameters(), lr=0.1), nn.CrossEntropyLoss()
    torch.manual_seed(1)
    with GradientNoiseRecorder(model, loss_fn, optimizer) as recorder:
        loss_fn(model(x), y).backward()
        optimizer.step()
    assert_rows_equal(recorder.result(), rows)


@pytest.mark.slow
@pytest.mark.parametrize("in_place", [False, True])
def test_compiled_model(reference: Reference, in_place: bool) -> None:
    model, x, y = small()
    plain = copy.deepcopy(model)
    compiled = torch.compile(model, backend="aot_eager")
    if in_place:
        model.compile(backend="aot_eager")
        compiled = model
    optimizer, loss_fn = torch.optim.SGD(model.parameters(), lr=0.1), nn.CrossEntropyLoss()
    expected = []
    with GradientNoiseRecorder(compiled, loss_fn, optimizer, schedule=every(2)) as recorder:
        for step in range(4):
            if step % 2 == 0:
                plain.load_state_dict(model.state_dict())
                expected.append(flat(reference(plain, loss_fn, x, y)))
            optimizer.zero_grad()
            loss_fn(compiled(x), y).backward()
            optimizer.step()
    record = recorder.result()
    assert record.block == ["0.weight", "0.bias", "2.weight", "2.bias"]
    for k, rows in enumerate(expected):
        assert_rows_equal(record, rows, k)


@pytest.mark.parametrize("kind", [nn.Linear, nn.LSTM])
def test_a_model_that_is_one_layer(reference: Reference, kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model = kind(3, 2, batch_first=True) if kind is nn.LSTM else kind(3, 2)
    model, x = model.double(), torch.randn(6, 4, 3).double()

    def loss_fn(outputs: Any, targets: Tensor) -> Tensor:
        return F.mse_loss(outputs[0] if isinstance(outputs, tuple) else outputs, targets)

    y = torch.randn(6, 4, 2).double()
    losses = [loss_fn(model(x[i : i + 1]), y[i : i + 1]) for i in range(6)]
    gradients = [torch.autograd.grad(loss, list(model.parameters())) for loss in losses]
    rows = torch.stack([torch.cat([g.flatten() for g in own]) for own in gradients])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with GradientNoiseRecorder(model, loss_fn, optimizer, schedule=every(1), micro_batches=2) as recorder:
        for _ in range(2):
            for part in (slice(0, 3), slice(3, 6)):
                (loss_fn(model(x[part]), y[part]) / 2).backward()
            optimizer.step()
    for row in range(2):
        assert_rows_equal(recorder.result(), rows, row)


def test_a_step_with_a_closure_needs_a_call(reference: Reference) -> None:
    model, x, y = small()
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=2)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_fn(model(x), y)
        loss.backward()
        return loss

    with (
        pytest.raises(InputError, match=r"record\(inputs, targets\)"),
        GradientNoiseRecorder(model, loss_fn, optimizer),
    ):
        optimizer.step(closure)
    rows = flat(reference(model, loss_fn, x, y))
    with GradientNoiseRecorder(model, loss_fn, optimizer, schedule=every(2)) as recorder:
        for _ in range(2):
            recorder.record(x, y)
            optimizer.step(closure)
    assert recorder.result().step.tolist() == [0]
    assert_rows_equal(recorder.result(), rows)


def test_a_step_that_the_scaler_skips_is_left_out(reference: Reference) -> None:
    model, x, y = small()
    rows = flat(reference(model, nn.CrossEntropyLoss(), x[4:], y[4:]))
    optimizer, loss_fn = torch.optim.SGD(model.parameters(), lr=0.1), nn.CrossEntropyLoss()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with GradientNoiseRecorder(model, loss_fn, optimizer, micro_batches=2) as recorder:
        for part, blow_up in ((slice(0, 4), torch.inf), (slice(4, 8), 1.0)):
            optimizer.zero_grad()
            scaler.scale(loss_fn(model(x[part]), y[part]) * blow_up).backward()
            scaler.step(optimizer)
            scaler.update()
    assert recorder.result().batch_size == 4
    assert recorder.result().step.tolist() == [0]
    # The loss seen is the one before the infinite factor, so the factor is in what the backward pass carries.
    assert_rows_equal(recorder.result(), rows)


def test_a_step_that_a_fused_optimizer_skips_is_left_out(reference: Reference) -> None:
    """The scaler calls a fused optimizer in any case, which then moves nothing."""
    model, x, y = small()
    rows = flat(reference(model, nn.CrossEntropyLoss(), x[4:], y[4:]))
    optimizer, loss_fn = torch.optim.SGD(model.parameters(), lr=0.1, fused=True), nn.CrossEntropyLoss()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    before = [p.clone() for p in model.parameters()]
    with GradientNoiseRecorder(model, loss_fn, optimizer, schedule=every(1)) as recorder:
        for part, blow_up in ((slice(0, 4), torch.inf), (slice(4, 8), 1.0), (slice(4, 8), torch.inf)):
            optimizer.zero_grad()
            scaler.scale(loss_fn(model(x[part]), y[part]) * blow_up).backward()
            if part.start == 4 and blow_up == 1:
                assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
            scaler.step(optimizer)
            scaler.update()
    assert recorder.step == 1
    assert recorder.result().step.tolist() == [0]
    assert_rows_equal(recorder.result(), rows)


def test_a_captured_pass_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, _ = small()
    monkeypatch.setattr(nn.Parameter, "is_cuda", True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with (
        GradientNoiseRecorder(model, nn.CrossEntropyLoss(), optimizer),
        pytest.raises(UnsupportedModelError, match="is captured in a CUDA graph"),
    ):
        model(x)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_images_with_their_channels_last(memory_format: torch.memory_format, reference: Reference) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.GroupNorm(2, 4),
        nn.ReLU(),
        nn.Conv2d(4, 2, 1),
        nn.Flatten(),
        nn.Linear(50, 3),
    ).double()
    x, y, loss_fn = torch.randn(6, 3, 5, 5).double(), torch.randint(0, 3, (6,)), nn.CrossEntropyLoss()
    rows = flat(reference(model, loss_fn, x, y))
    model, x = model.to(memory_format=memory_format), x.to(memory_format=memory_format)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    with GradientNoiseRecorder(model, loss_fn, optimizer) as recorder:
        loss_fn(model(x), y).backward()
        optimizer.step()
    assert_rows_equal(recorder.result(), rows)


@pytest.mark.slow
def test_accelerate_loop(reference: Reference) -> None:
    from accelerate import Accelerator

    model, x, y = small()
    rows = flat(reference(model, nn.CrossEntropyLoss(), x, y))
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    loss_fn = nn.CrossEntropyLoss()
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
    with GradientNoiseRecorder(model, loss_fn, optimizer, micro_batches=2) as recorder:
        for part in (slice(0, 4), slice(4, 8)):
            with accelerator.accumulate(model):
                accelerator.backward(loss_fn(model(x[part]), y[part]))
                optimizer.step()
                optimizer.zero_grad()
    assert_rows_equal(recorder.result(), rows)


def test_nothing_without_a_graph_is_kept_by_autocast() -> None:
    weight, x = torch.ones(2, 2, requires_grad=True), torch.ones(1, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with no_graph():
            assert not torch.is_autocast_cache_enabled()
            assert not nn.functional.linear(x, weight).requires_grad
        assert torch.is_autocast_cache_enabled()
        assert nn.functional.linear(x, weight).requires_grad
        mean, _ = diagonal_moments(nn.Linear(2, 1), nn.MSELoss(), x.repeat(3, 1), torch.ones(3, 1))
    assert set(mean) == {"weight", "bias"}
