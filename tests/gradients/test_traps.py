"""Models and losses that look harmless and would give wrong numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import noisekit as nk
from noisekit.errors import InputError


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
