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
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from noisekit.errors import InputError, NonFiniteError, UnsupportedModelError
from noisekit.gradients import (
    GradientNoiseRecorder,
    GradientRecord,
    every,
    first,
    gradient_statistics,
    logarithmic,
    merge_records,
)

Case = tuple[nn.Module, Any, Any, Any]
Reference = Callable[..., dict[str, Tensor]]


def small() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(inplace=True), nn.Linear(5, 2)).double()
    return model, torch.randn(8, 3).double(), torch.randint(0, 2, (8,))


def function_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    outputs = outputs.log_softmax(1)
    return F.nll_loss(outputs, targets)


class Scaled:
    """A loss that is an object with __call__."""

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return 2 * F.cross_entropy(outputs, targets)

    def method(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self(outputs, targets)


def assert_rows_equal(record: GradientRecord, rows: Tensor, row: int = 0) -> None:
    assert record.coordinate_values is not None
    assert record.coordinate_index is not None
    assert record.gram is not None
    scale = float(rows.abs().max())
    expected = rows[:, record.coordinate_index]
    assert float((record.coordinate_values[row] - expected).abs().max()) < 1e-9 * scale
    assert float((record.gram[row] - rows @ rows.T).abs().max()) < 1e-9 * scale**2 * rows.shape[1]
    assert torch.allclose(record.squared_norm[row], rows.square().sum(1), rtol=1e-9)
    assert torch.allclose(record.trace[row].sum(), rows.var(0).sum(), rtol=1e-9)
    assert torch.allclose(record.mean_squared_norm[row].sum(), rows.mean(0).square().sum(), rtol=1e-9)
    assert record.deviation_sum is not None
    assert torch.allclose(record.deviation_sum[row].sum(), rows.std(0).sum(), rtol=1e-6)


def flat(gradients: dict[str, Tensor]) -> Tensor:
    return torch.cat([g.flatten(1) for g in gradients.values()], 1)


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


def test_repeat_at_frozen_weights(reference: Reference) -> None:
    model, x, y = small()
    loss_fn = nn.CrossEntropyLoss()
    rows = flat(reference(model, loss_fn, x, y))
    recorder = GradientNoiseRecorder(model, loss_fn, torch.optim.SGD(model.parameters(), lr=0.1), sketch=0)
    recorder.repeat((x[k : k + 2], y[k : k + 2]) for k in range(0, 8, 2))
    record = recorder.result()
    assert record.batch_size == 2
    means = rows.reshape(4, 2, -1).mean(1)
    assert torch.allclose(record.minibatch_noise(), means - means.mean(0), atol=1e-12)
    assert record.moments is not None
    total = torch.cat([v.flatten() for v in record.moments.variance(pooled=False).values()])
    assert torch.allclose(total, rows.var(0), rtol=1e-9)
    pooled = torch.cat([v.flatten() for v in record.moments.variance().values()])
    assert torch.allclose(pooled, rows.reshape(4, 2, -1).var(1).mean(0), rtol=1e-9)


def test_merging_records_is_exact() -> None:
    model, x, y = small()
    loss_fn = nn.CrossEntropyLoss()
    batches = [(x[k : k + 2], y[k : k + 2]) for k in range(0, 8, 2)]
    records = []
    for part in (batches, batches[:1], batches[1:]):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        recorder = GradientNoiseRecorder(model, loss_fn, optimizer, coordinates=5, sketch=4)
        recorder.repeat(part)
        records.append(recorder.result())
    whole, merged = records[0], merge_records(records[1], records[2])
    assert torch.equal(merged.squared_norm, whole.squared_norm)
    assert whole.moments is not None
    assert merged.moments is not None
    for name, value in whole.moments.squares.items():
        assert torch.allclose(merged.moments.squares[name], value, rtol=1e-12)
        assert torch.allclose(merged.moments.mean[name], whole.moments.mean[name], rtol=1e-12)
    for name in (
        "gram",
        "eigenvalue",
        "coordinate_values",
        "sketch",
        "trace",
        "loss",
        "step",
        "deviation_sum",
    ):
        assert torch.equal(getattr(merged, name), getattr(whole, name)), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 4}, "batch size"),
        ({"gram": False}, r"gram \(only one has it\)"),
        ({"moments": False}, r"moments \(only one has it\)"),
        ({"coordinates": [0, 1]}, "coordinates"),
        ({"seed": 1, "coordinates": [0, 1, 2]}, "coordinates, the seed or size of the sketch"),
        ({"sketch": 5}, "seed or size of the sketch"),
        ({"model": nn.Sequential(nn.Linear(3, 2)).double()}, "block, block size"),
    ],
)
def test_only_like_records_merge(change: dict[str, Any], message: str) -> None:
    own, x, y = small()
    options = {"coordinates": 5, "sketch": 4, "gram": True, "moments": True, "seed": 0, **change}
    model, size = options.pop("model", own), options.pop("size", 8)
    records = []
    for network, count, chosen in (
        (own, 8, {"coordinates": 5, "sketch": 4}),
        (model, size, options),
    ):
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        recorder = GradientNoiseRecorder(network, nn.CrossEntropyLoss(), optimizer, **chosen)
        recorder.repeat([(x[:count], y[:count])])
        records.append(recorder.result())
    with pytest.raises(InputError, match=f"differ in .*{message}"):
        merge_records(*records)


def test_a_smaller_last_batch_is_skipped_and_named() -> None:
    model, x, y = small()
    optimizer, loss_fn = torch.optim.SGD(model.parameters(), lr=0.1), nn.CrossEntropyLoss()
    with GradientNoiseRecorder(model, loss_fn, optimizer, schedule=every(1)) as recorder:
        for part in (slice(0, 3), slice(3, 6), slice(6, 8)):
            loss_fn(model(x[part]), y[part]).backward()
            optimizer.step()
    record = recorder.result()
    assert record.step.tolist() == [0, 1]
    assert record.settings["skipped_steps"] == [2]


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
