"""Models and losses that look harmless and would give wrong numbers."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import noisekit as nk
from noisekit.errors import InputError, UnsupportedModelError


def by_sample(model: nn.Module, loss_fn: Any, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Each sample alone through the model: its loss is its term, whether loss_fn is a mean or a sum."""
    named = dict(model.named_parameters())
    rows = [
        torch.autograd.grad(loss_fn(model(x[i : i + 1]), y[i : i + 1]), list(named.values()))
        for i in range(len(x))
    ]
    return {name: torch.stack([row[k] for row in rows]) for k, name in enumerate(named)}


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def test_a_module_under_two_names_keeps_its_parameters() -> None:
    shared, other = nn.Linear(4, 4), nn.Linear(4, 4)
    other.weight = shared.weight
    model = nn.Sequential(shared, nn.Tanh(), other, nn.Tanh(), shared).double()
    before = list(model.named_parameters(remove_duplicate=False))
    found = nk.per_sample_gradients(model, F.mse_loss, randn(5, 4), randn(5, 4))
    after = list(model.named_parameters(remove_duplicate=False))
    assert all(a[0] == b[0] and a[1] is b[1] for a, b in zip(before, after, strict=True))
    for name, rows in by_sample(model, F.mse_loss, randn(5, 4), randn(5, 4)).items():
        torch.testing.assert_close(found[name], rows, rtol=1e-9, atol=1e-12)


class TwoOutputs(nn.Module):
    """Rows of all positions, and one row a sample."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.a(x).flatten(0, 1), self.b(x).mean(1)


@pytest.mark.parametrize(
    ("model", "loss_fn", "target"),
    [
        (TwoOutputs(), lambda out, y: out[0].square().sum() + (out[1] - y).square().sum(), (5, 2)),
        (nn.LSTM(3, 4, batch_first=True), lambda out, y: (out[0] - y).square().sum(), (5, 6, 4)),
    ],
)
def test_a_sum_is_seen_where_outputs_have_different_lengths(
    model: nn.Module, loss_fn: Callable[..., Tensor], target: tuple[int, ...]
) -> None:
    model, x, y = model.double(), randn(5, 6, 3), randn(*target)
    found = nk.per_sample_gradients(model, loss_fn, x, y)
    for name, rows in by_sample(model, loss_fn, x, y).items():
        torch.testing.assert_close(found[name], rows, rtol=1e-9, atol=1e-12)


def test_a_loss_on_an_output_that_is_not_batch_first_is_refused() -> None:
    model = nn.LSTM(3, 4, batch_first=True).double()
    with pytest.raises(InputError, match=r"shape \(1, 5, 4\)"):
        nk.per_sample_gradients(model, lambda out, _: out[1][0].square().sum(), randn(5, 6, 3), randn(5, 1))


class Applied(nn.Module):
    """A model of one line."""

    def __init__(self, apply: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.apply_to = apply
        for name, part in parts.items():
            setattr(self, name, part)
        self.double()

    def forward(self, x: Tensor) -> Any:
        return self.apply_to(self, x)


@pytest.mark.parametrize("engine", ["hooks", "loop"])
@pytest.mark.parametrize(
    "model",
    [
        Applied(
            lambda m, x: m.line(x) * m.gain.exp(), line=nn.Linear(4, 3), gain=nn.Parameter(torch.rand(()))
        ),
        Applied(
            lambda m, x: m.line(x.unsqueeze(1) + m.place(torch.arange(2))[None]).sum(1),
            place=nn.Embedding(2, 4),
            line=nn.Linear(4, 3),
        ),
        Applied(
            lambda m, x: m.line(m.table((x > 0).long()).sum(1)),
            table=nn.Embedding(2, 4, sparse=True),
            line=nn.Linear(4, 3),
        ),
    ],
    ids=["scalar parameter", "positions with a batch axis of one", "sparse embedding"],
)
def test_per_sample_gradients_of_unusual_parameters(model: nn.Module, engine: str) -> None:
    x, y = randn(5, 4), randn(5, 3)
    found = nk.per_sample_gradients(model, F.mse_loss, x, y, engine=engine)
    for name, rows in by_sample(model, F.mse_loss, x, y).items():
        torch.testing.assert_close(found[name], rows.to_dense(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("parameter", [nn.Parameter(torch.ones(4, dtype=torch.complex64)), nn.LazyLinear(2)])
def test_complex_and_lazy_parameters_are_refused(parameter: Any) -> None:
    model = Applied(lambda m, x: m.line(x), line=nn.Linear(4, 3))
    model.odd = parameter
    with pytest.raises(InputError, match=r"odd.* are complex or not initialised"):
        nk.gradient_statistics(model, F.mse_loss, randn(5, 4), randn(5, 3))


def test_mixing_behind_weights_that_start_at_zero_is_refused() -> None:
    model = Applied(
        lambda m, x: m.head(m.line(x) - m.line(x).mean(0)), line=nn.Linear(4, 6), head=nn.Linear(6, 3)
    )
    nn.init.zeros_(model.head.weight)
    with pytest.raises(UnsupportedModelError, match="mix"):
        nk.gradient_statistics(model, F.mse_loss, randn(5, 4), randn(5, 3))


def test_a_layer_replaced_after_the_first_look_is_seen() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    x, y = randn(5, 4), randn(5, 3)
    nk.gradient_statistics(model, F.mse_loss, x, y)
    old = model[0]  # kept alive, as a reference elsewhere would
    model[0] = nn.Linear(4, 6).double()
    found = nk.gradient_statistics(model, F.mse_loss, x, y)
    model[2] = nn.Linear(6, 3).double()
    again = nk.gradient_statistics(model, F.mse_loss, x, y)
    assert old.weight.shape == found.mean["0.weight"].shape
    for name, rows in by_sample(model, F.mse_loss, x, y).items():
        torch.testing.assert_close(again.variance[name], rows.var(0), rtol=1e-8, atol=1e-12)
    assert (found.variance["0.weight"] > 0).all()


class Broadcast(nn.Module):
    """A home-made layer with an argument that belongs to no sample."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.rand(3) + 1)

    def forward(self, x: Tensor, by_place: Tensor) -> Tensor:
        return x * self.gain * by_place


@pytest.mark.parametrize("n", [3, 4, 6])
def test_an_argument_with_as_many_rows_as_samples_gives_no_wrong_numbers(n: int) -> None:
    places = torch.arange(1.0, 5.0, dtype=torch.float64)[:, None]
    model = Applied(
        lambda m, x: m.line(m.layer(x, places)), layer=Broadcast(), line=nn.Linear(3, 2)
    )  # four places
    x, y = randn(n, 4, 3), randn(n, 4, 2)
    if n == 4:
        with pytest.raises(UnsupportedModelError, match=r"layer\.gain.*leading axis of one"):
            nk.gradient_statistics(model, F.mse_loss, x, y)
        return
    found = nk.gradient_statistics(model, F.mse_loss, x, y)
    for name, rows in by_sample(model, F.mse_loss, x, y).items():
        torch.testing.assert_close(found.variance[name], rows.var(0), rtol=1e-8, atol=1e-12)


def recorded(model: nn.Module, loss_fn: Any, step: Callable[[], None], **options: Any) -> nk.GradientRecord:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    options = {"schedule": nk.every(1), "coordinates": 10**6, "sketch": 0, **options}
    with nk.GradientNoiseRecorder(model, loss_fn, optimizer, **options) as recorder:
        optimizer.zero_grad()
        step()
        optimizer.step()
    return recorder.result()


@pytest.mark.parametrize("coordinates", [0, 8])
def test_a_penalty_on_the_weights_is_refused(coordinates: int) -> None:
    model, x, y = nn.Linear(40, 30).double(), randn(5, 40), randn(5, 30)

    def step() -> None:
        penalty = sum(p.square().sum() for p in model.parameters())
        (F.mse_loss(model(x), y) + 0.05 * penalty).backward()

    with pytest.raises(UnsupportedModelError, match="penalty"):
        recorded(model, F.mse_loss, step, coordinates=coordinates, gram=False)


def test_two_backward_passes_through_one_forward_pass_are_refused() -> None:
    model, x, y = nn.Linear(40, 30).double(), randn(5, 40), randn(5, 30)

    def step() -> None:
        loss = F.mse_loss(model(x), y)
        loss.backward(retain_graph=True)
        loss.backward()

    with pytest.raises(InputError, match="call backward once"):
        recorded(model, F.mse_loss, step)


def test_losses_that_are_weighted_against_each_other_are_refused_until_observed() -> None:
    model, x, y = nn.Linear(4, 3).double(), randn(5, 4), randn(5, 3)

    def step() -> None:
        out = model(x)
        (0.7 * F.mse_loss(out, y) + 0.3 * F.mse_loss(out, 0 * y)).backward()

    with pytest.raises(InputError, match="called 2 times"):
        recorded(model, F.mse_loss, step)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with nk.GradientNoiseRecorder(model, F.mse_loss, optimizer, schedule=nk.every(1)) as recorder:
        out = model(x)
        loss = 0.7 * F.mse_loss(out, y) + 0.3 * F.mse_loss(out, 0 * y)
        recorder.observe(loss)
        (1024 * loss).backward()
        optimizer.step()
    rows = by_sample(model, lambda o, t: 0.7 * F.mse_loss(o, t) + 0.3 * F.mse_loss(o, 0 * t), x, y)
    norms = sum(r.flatten(1).square().sum(1) for r in rows.values())
    torch.testing.assert_close(recorder.result().squared_norm[0], norms, rtol=1e-9, atol=0)
    torch.testing.assert_close(recorder.result().loss[0], loss.detach().float())


@pytest.mark.parametrize("kind", ["function", "wrapped", "module"])
def test_arguments_of_the_loss_in_the_loop_are_heeded(kind: str) -> None:
    model, x, y = nn.Linear(4, 3).double(), randn(5, 4), randn(5, 3)

    def wrapped(*args: Any, **kwargs: Any) -> Tensor:
        return F.mse_loss(*args, **kwargs)

    class Loss(nn.Module):
        def forward(self, outputs: Tensor, targets: Tensor, *, reduction: str = "mean") -> Tensor:
            return F.mse_loss(outputs, targets, reduction=reduction)

    loss_fn: Any = {"function": F.mse_loss, "wrapped": wrapped, "module": Loss()}[kind]
    names = ("outputs", "targets") if kind == "module" else ("input", "target")

    def step() -> None:
        loss_fn(**dict(zip(names, (model(x), y), strict=True)), reduction="sum").backward()

    found = recorded(model, loss_fn, step)
    rows = by_sample(model, lambda o, t: F.mse_loss(o, t, reduction="sum"), x, y)
    norms = sum(r.flatten(1).square().sum(1) for r in rows.values())
    torch.testing.assert_close(found.squared_norm[0], norms, rtol=1e-9, atol=0)


def test_the_recorded_loss_is_the_one_that_is_differentiated() -> None:
    model, x, y = nn.Linear(4, 3).double(), randn(5, 4), randn(5, 3)

    def step() -> None:
        F.mse_loss(model(0 * x), y)  # a look at other data, with gradients on
        F.mse_loss(model(x), y).backward()

    found = recorded(model, F.mse_loss, step)
    torch.testing.assert_close(found.loss[0], F.mse_loss(model(x), y).detach().float())


@pytest.mark.parametrize("functional", [False, True])
def test_a_checkpoint_around_the_whole_model(functional: bool) -> None:
    x, y = randn(5, 4), randn(5, 3)
    model: nn.Module = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    if functional:
        model = Applied(
            lambda m, x: m.line(torch.tanh(x @ m.w)), w=nn.Parameter(torch.rand(4, 6)), line=model[2]
        )

    def step() -> None:
        F.mse_loss(checkpoint(model, x, use_reentrant=False), y).backward()

    rows = by_sample(model, F.mse_loss, x, y)
    norms = sum(r.flatten(1).square().sum(1) for r in rows.values())
    torch.testing.assert_close(recorded(model, F.mse_loss, step).squared_norm[0], norms, rtol=1e-9, atol=0)


def test_copies_of_a_watched_model_are_not_watched() -> None:
    model, x, y = nn.Linear(4, 3).double(), randn(5, 4), randn(5, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with nk.GradientNoiseRecorder(model, F.mse_loss, optimizer, schedule=nk.every(1)) as recorder:
        loss = F.mse_loss(model(x), y)
        stored = io.BytesIO()
        torch.save(model, stored)
        stored.seek(0)
        for other in (copy.deepcopy(model), torch.load(stored, weights_only=False)):
            other(torch.full_like(x, torch.nan)).sum().backward()
        loss.backward()
        optimizer.step()
    rows = by_sample(model, F.mse_loss, x, y)
    norms = sum(r.flatten(1).square().sum(1) for r in rows.values())
    torch.testing.assert_close(recorder.result().squared_norm[0], norms, rtol=1e-9, atol=0)


def test_a_failed_attachment_leaves_the_model_free() -> None:
    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)

    def schedule(_: int) -> bool:
        raise KeyError("schedule")

    with pytest.raises(KeyError), nk.GradientNoiseRecorder(model, F.mse_loss, optimizer, schedule=schedule):
        pass
    with nk.GradientNoiseRecorder(model, F.mse_loss, optimizer):
        pass


def test_a_backward_pass_whose_gradients_are_thrown_away_is_forgotten() -> None:
    model, x, y = nn.Linear(4, 3).double(), randn(5, 4), randn(5, 3)

    def step() -> None:
        F.mse_loss(model(2 * x), y).backward()
        model.zero_grad()
        F.mse_loss(model(x), y).backward()

    rows = by_sample(model, F.mse_loss, x, y)
    norms = sum(r.flatten(1).square().sum(1) for r in rows.values())
    found = recorded(model, F.mse_loss, step, gram=False)
    torch.testing.assert_close(found.squared_norm[0], norms, rtol=1e-9, atol=0)


def test_rows_that_a_gate_sends_to_experts_stay_with_their_samples() -> None:
    def route(m: nn.Module, x: Tensor) -> Tensor:
        first = x[..., 0] > 0
        out = x.new_zeros(*x.shape[:2], 4)
        out[first], out[~first] = m.a(x[first]), m.b(x[~first])
        return out

    model = Applied(route, a=nn.Linear(3, 4), b=nn.Linear(3, 4))
    x, y = randn(6, 2, 3), randn(6, 2, 4)
    x[..., 0] = (
        x[..., 0].abs() * torch.tensor([1, 1, 1, -1, -1, -1])[:, None]
    )  # six rows each, of six samples
    x[5, :, 0] *= torch.tensor([1, -1])
    x[4, 0, 0] *= -1
    found = nk.per_sample_gradients(model, F.mse_loss, x, y)
    for name, rows in by_sample(model, F.mse_loss, x, y).items():
        torch.testing.assert_close(found[name], rows, rtol=1e-9, atol=1e-12)
    x[..., 0] = x[..., 0].abs() * torch.tensor([1, 1, 1, -1, -1, -1])[:, None]
    found = nk.per_sample_gradients(model, F.mse_loss, x, y)
    for name, rows in by_sample(model, F.mse_loss, x, y).items():
        torch.testing.assert_close(found[name], rows, rtol=1e-9, atol=1e-12)
