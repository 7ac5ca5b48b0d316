"""The recorder sees the user's own loop, changes nothing in it, and comes off cleanly."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from recorder_helpers import assert_rows_equal, flat, small
from torch import Tensor, nn

from noisekit.errors import InputError, NonFiniteError, UnsupportedModelError
from noisekit.gradients import (
    GradientNoiseRecorder,
    every,
    first,
    gradient_statistics,
    logarithmic,
)

Case = tuple[nn.Module, Any, Any, Any]
Reference = Callable[..., dict[str, Tensor]]


def function_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    outputs = outputs.log_softmax(1)
    return F.nll_loss(outputs, targets)


class Scaled:
    """A loss that is an object with __call__."""

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return 2 * F.cross_entropy(outputs, targets)

    def method(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self(outputs, targets)


def test_every_model_in_its_own_loop(any_case: Case, reference: Reference) -> None:
    model, loss_fn, inputs, targets = any_case
    torch.manual_seed(1)
    rows = flat(reference(model, loss_fn, inputs, targets))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    torch.manual_seed(1)
    with GradientNoiseRecorder(model, loss_fn, optimizer, schedule=first(1), sketch=8) as recorder:
        outputs = model(**inputs) if isinstance(inputs, dict) else model(inputs)
        loss_fn(outputs, targets).backward()
        optimizer.step()
    assert_rows_equal(recorder.result(), rows)


@pytest.mark.parametrize(
    "loss_fn",
    [
        nn.CrossEntropyLoss(),
        F.cross_entropy,
        function_loss,
        lambda out, y: F.cross_entropy(out, y, reduction="sum"),
        partial(function_loss),
        Scaled(),
        Scaled().method,
    ],
)
def test_losses_of_every_form_are_seen(loss_fn: Any) -> None:
    model, x, y = small()
    expected = gradient_statistics(model, loss_fn, x, y)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with GradientNoiseRecorder(model, loss_fn, optimizer) as recorder:
        loss = loss_fn(model(x), y)
        loss.backward()
        optimizer.step()
    record = recorder.result()
    assert torch.allclose(record.squared_norm[0], expected.squared_norms, rtol=1e-12)
    assert float(record.loss[0]) == pytest.approx(float(loss.detach()))


def train(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    steps: int,
    recorder: Callable[..., Any] | None = None,
    **options: Any,
) -> tuple[dict[str, Tensor], Any]:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    loss_fn = nn.CrossEntropyLoss()
    attached = recorder(model, loss_fn, optimizer, **options) if recorder else None
    torch.manual_seed(7)
    if attached:
        attached.__enter__()
    for _ in range(steps):
        index = torch.randint(0, len(x), (6,))
        optimizer.zero_grad()
        loss_fn(model(x[index]), y[index]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
    if attached:
        attached.__exit__(None, None, None)
    return {name: p.detach().clone() for name, p in model.named_parameters()}, attached


def test_training_is_numerically_unchanged() -> None:
    model, x, y = small()
    model.insert(1, nn.Dropout(0.3))
    twin = copy.deepcopy(model)
    plain, _ = train(model, x, y, 12)
    keys = list(twin.state_dict())
    recorded, recorder = train(twin, x, y, 12, GradientNoiseRecorder, schedule=every(3))
    assert all(torch.equal(plain[name], recorded[name]) for name in plain)
    record = recorder.result()
    assert record.step.tolist() == [0, 3, 6, 9]
    assert record.batch_size == 6
    assert list(twin.state_dict()) == keys
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    assert all(not getattr(m, kind) for m in twin.modules() for kind in hooks)
    assert all(not p._backward_hooks for p in twin.parameters())
    assert {k for m in twin.modules() for k in vars(m)} == {k for m in model.modules() for k in vars(m)}


def test_hooks_come_off_after_an_exception() -> None:
    model, x, y = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def fail() -> None:
        with GradientNoiseRecorder(model, F.cross_entropy, optimizer):
            model(x)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())
    assert not optimizer._optimizer_step_pre_hooks
    assert sys.getprofile() is None
    with GradientNoiseRecorder(model, F.cross_entropy, optimizer):
        F.cross_entropy(model(x), y).backward()


def test_attaching_twice_is_an_error() -> None:
    model, _, _ = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loss = nn.CrossEntropyLoss()
    with (
        GradientNoiseRecorder(model, loss, optimizer),
        pytest.raises(InputError, match="already attached"),
        GradientNoiseRecorder(model, loss, optimizer),
    ):
        pass


def test_evaluation_inside_the_loop_is_not_recorded(reference: Reference) -> None:
    model, x, y = small()
    rows = flat(reference(model, nn.CrossEntropyLoss(), x[:4], y[:4]))
    optimizer, loss_fn = torch.optim.SGD(model.parameters(), lr=0.1), nn.CrossEntropyLoss()
    with GradientNoiseRecorder(model, loss_fn, optimizer) as recorder:
        loss_fn(model(x), y)  # with gradients, but never differentiated
        with torch.no_grad():
            loss_fn(model(x[:2]), y[:2])
        loss = loss_fn(model(x[:4]), y[:4])
        loss.backward()
        optimizer.step()
    assert_rows_equal(recorder.result(), rows)


def test_not_a_number_names_step_parameter_and_sample() -> None:
    model, x, _ = small()
    optimizer, loss_fn = torch.optim.SGD(model.parameters(), lr=0.1), nn.MSELoss()
    x[5, 0] = torch.nan
    before = {name: p.detach().clone() for name, p in model.named_parameters()}

    def steps() -> None:
        with GradientNoiseRecorder(model, loss_fn, optimizer, schedule=every(1)):
            for part in (slice(0, 3), slice(3, 6)):
                loss_fn(model(x[part]), torch.ones(3, 2).double()).backward()
                optimizer.step()
                optimizer.zero_grad()

    with pytest.raises(NonFiniteError, match=r"sample 2 .* step 1, in .*2\.weight"):
        steps()
    assert all(bool(p.isfinite().all()) for p in model.parameters())
    assert any(not torch.equal(before[name], p) for name, p in model.named_parameters())


def test_record_by_call_keeps_the_random_state() -> None:
    model, x, y = small()
    model.insert(1, nn.Dropout(0.5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with GradientNoiseRecorder(model, function_loss, optimizer, schedule=every(2), engine="loop") as recorder:
        for _ in range(3):
            state = torch.get_rng_state()
            recorder.record(x, y)
            assert torch.equal(state, torch.get_rng_state())
            optimizer.zero_grad()
            function_loss(model(x), y).backward()
            optimizer.step()
    assert recorder.result().step.tolist() == [0, 2]


def test_callback_gets_numbers() -> None:
    model, x, y = small()
    seen: list[dict[str, float]] = []
    train(model, x, y, 4, GradientNoiseRecorder, schedule=logarithmic(3), on_record=seen.append)
    assert [row["step"] for row in seen] == [0, 1]
    assert all(row["noise_trace"] > 0 and row["learning_rate"] == 0.01 for row in seen)


def test_a_loss_that_is_not_seen_is_an_error() -> None:
    model, x, y = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with GradientNoiseRecorder(model, nn.CrossEntropyLoss(), optimizer):
        F.cross_entropy(model(x), y).backward()
        with pytest.raises(InputError, match="did not see the loss"):
            optimizer.step()


def test_a_penalty_on_the_weights_is_refused() -> None:
    model, x, y = small()
    optimizer, loss_fn = torch.optim.SGD(model.parameters(), lr=0.1), nn.CrossEntropyLoss()
    with GradientNoiseRecorder(model, loss_fn, optimizer):
        penalty = sum(p.square().sum() for p in model[0].parameters())
        (loss_fn(model(x), y) + 0.01 * penalty).backward()
        with pytest.raises(UnsupportedModelError, match=r"gradient of 0\.weight, 0\.bias is not the sum"):
            optimizer.step()


@pytest.mark.parametrize(
    "loss_fn",
    [nn.CrossEntropyLoss(reduction="none"), lambda out, y: F.cross_entropy(out, y, reduction="none")],
)
def test_a_loss_that_is_not_reduced_is_refused(loss_fn: Any) -> None:
    model, x, y = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step() -> None:
        with GradientNoiseRecorder(model, loss_fn, optimizer):
            loss_fn(model(x), y).mean().backward()

    with pytest.raises(InputError, match="one number"):
        step()
    assert sys.getprofile() is None


class Switch(nn.Module):
    """Uses one of two layers, by the sign of the first input."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.out = nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh((self.up if bool(x[0, 0] > 0) else self.down)(x)))


def test_a_layer_that_a_step_leaves_out_has_no_noise_there() -> None:
    torch.manual_seed(0)
    model, x, y = Switch().double(), torch.randn(8, 3).double().abs(), torch.randint(0, 2, (8,))
    optimizer, loss_fn = torch.optim.SGD(model.parameters(), lr=0.1), nn.CrossEntropyLoss()
    with GradientNoiseRecorder(model, loss_fn, optimizer, sketch=0) as recorder:
        loss_fn(model(x), y).backward()
        optimizer.step()
    record = recorder.result()
    assert record.uncovered == ["down.weight", "down.bias"]
    assert record.coverage == pytest.approx(26 / 42)


def test_observe_shows_a_loss() -> None:
    model, x, y = small()
    expected = gradient_statistics(model, F.cross_entropy, x, y)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with GradientNoiseRecorder(model, nn.CrossEntropyLoss(), optimizer) as recorder:
        loss = -model(x).log_softmax(1)[torch.arange(8), y].mean()
        recorder.observe(loss)
        (3 * loss).backward()
        optimizer.step()
    assert torch.allclose(recorder.result().squared_norm[0], expected.squared_norms, rtol=1e-12)


class MixesSamples(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        out = self.layer(x)
        return out - out.mean(0)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)),
            r"Train-mode BatchNorm .* inner\.1\.",
        ),
        (MixesSamples(), "samples of a batch mix .* layer"),
        (nn.Sequential(nn.Unflatten(1, (1, 3)), nn.LSTM(3, 2)), "samples of a batch mix"),
    ],
)
def test_models_that_mix_samples_are_refused(model: nn.Module, message: str) -> None:
    class FirstOutput(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, x: Tensor) -> Tensor:
            out = self.inner(x)
            return out[0] if isinstance(out, tuple) else out

    wrapped = FirstOutput()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def attach() -> None:
        with GradientNoiseRecorder(wrapped, nn.MSELoss(), optimizer):
            wrapped(torch.randn(6, 3))

    with pytest.raises(UnsupportedModelError, match=message):
        attach()


def test_nothing_recorded_and_bad_schedules() -> None:
    model, _, _ = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = GradientNoiseRecorder(model, nn.CrossEntropyLoss(), optimizer)
    with pytest.raises(InputError, match="Nothing was recorded"):
        recorder.result()
    with pytest.raises(InputError, match="function of the step"):
        GradientNoiseRecorder(model, nn.CrossEntropyLoss(), optimizer, schedule=10)  # type: ignore[arg-type]
    for schedule in (every, first, logarithmic):
        with pytest.raises(InputError):
            schedule(0)


def test_schedules_and_recorders_print_what_they_are() -> None:
    assert repr(every(4)) == "every(4)"
    assert repr(every(4, start=3)) == "every(4, start=3)"
    assert repr(first(3)) == "first(3)"
    assert repr(logarithmic()) == "logarithmic(10)"
    model, x, y = small()
    _, recorder = train(model, x, y, 4, GradientNoiseRecorder, schedule=every(2))
    name = type(model).__name__
    assert repr(recorder) == f"GradientNoiseRecorder({name}, every(2), 2 steps recorded before step 4)"
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    own = GradientNoiseRecorder(model, nn.CrossEntropyLoss(), optimizer, schedule=lambda step: step > 3)
    assert " at 0x" not in repr(own)
