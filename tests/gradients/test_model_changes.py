"""What is known of a model is forgotten when the model changes: every change a user makes, one by one."""

from __future__ import annotations

import gc
from collections.abc import Callable
from weakref import ref

import pytest
import torch
from torch import Tensor, nn

from noisekit.errors import UnsupportedModelError
from noisekit.gradients import GradientStatistics, gradient_statistics
from noisekit.gradients.checks import plan_for
from noisekit.gradients.model_state import ModelState

N = 6


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2)).double().eval()


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(N, 3, dtype=torch.float64, generator=generator)
    return x, torch.randn(N, 2, dtype=torch.float64, generator=generator)


def by_loop(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Per-sample gradients by one backward pass a sample."""
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    rows = [
        torch.autograd.grad(nn.functional.mse_loss(model(x[i : i + 1]), y[i : i + 1]), list(named.values()))
        for i in range(len(x))
    ]
    return {name: torch.stack([row[k] for row in rows]) for k, name in enumerate(named)}


def replace_parameter(model: nn.Sequential) -> None:
    model[0].weight = nn.Parameter(torch.randn(4, 3, dtype=torch.float64))


def replace_values(model: nn.Sequential) -> None:
    model[0].weight.data = torch.randn(4, 3, dtype=torch.float64)


def replace_module(model: nn.Sequential) -> None:
    model[2] = nn.Linear(4, 2).double()


def replace_by_another_kind(model: nn.Sequential) -> None:
    model[1] = nn.LayerNorm(4).double()


def append_module(model: nn.Sequential) -> None:
    model.append(nn.Linear(2, 2).double())


def freeze(model: nn.Sequential) -> None:
    model[0].weight.requires_grad_(requires_grad=False)


def tie(model: nn.Sequential) -> None:
    model[2] = nn.Linear(4, 4).double()
    model.append(nn.Linear(4, 4).double())
    model[3].weight = model[2].weight
    model.append(nn.Linear(4, 2).double())


def drop_bias(model: nn.Sequential) -> None:
    model[0].bias = None


CHANGES = [
    replace_parameter,
    replace_values,
    replace_module,
    replace_by_another_kind,
    append_module,
    freeze,
    tie,
    drop_bias,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_statistics_after_a_change_are_those_of_the_changed_model(
    change: Callable[[nn.Sequential], None],
) -> None:
    model, loss_fn, (x, y) = network(), nn.MSELoss(), batch()
    for _ in range(3):
        gradient_statistics(model, loss_fn, x, y)
    change(model)
    expected = by_loop(model, x, y)
    for _ in range(3):
        assert_agrees(gradient_statistics(model, loss_fn, x, y), expected)


def assert_agrees(found: GradientStatistics, expected: dict[str, Tensor]) -> None:
    assert list(found.mean) == list(expected)
    for name, rows in expected.items():
        torch.testing.assert_close(found.mean[name], rows.mean(0), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(found.variance[name], rows.var(0), rtol=1e-9, atol=1e-12)


def test_unfrozen_parameters_are_seen_again() -> None:
    model, loss_fn, (x, y) = network(), nn.MSELoss(), batch()
    freeze(model)
    assert "0.weight" not in gradient_statistics(model, loss_fn, x, y).mean
    model[0].weight.requires_grad_(requires_grad=True)
    assert_agrees(gradient_statistics(model, loss_fn, x, y), by_loop(model, x, y))


def test_train_mode_has_a_plan_of_its_own_and_eval_mode_its_old_one() -> None:
    model, (x, _) = network(), batch()
    of_eval = plan_for(model, x)
    assert not of_eval.stochastic
    assert plan_for(model.train(), x).stochastic
    assert plan_for(model.eval(), x) is of_eval


def test_a_layer_that_mixes_samples_in_train_mode_only_is_refused_when_it_is_put_there() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).double().eval()
    x, y = batch()
    for _ in range(3):
        gradient_statistics(model, nn.MSELoss(), x, y)
    model.train()
    with pytest.raises(UnsupportedModelError, match="BatchNorm"):
        gradient_statistics(model, nn.MSELoss(), x, y)


def test_another_precision_is_followed() -> None:
    model, loss_fn, (x, y) = network(), nn.MSELoss(), batch()
    for _ in range(3):
        gradient_statistics(model, loss_fn, x, y)
    model.float()
    for _ in range(3):
        found = gradient_statistics(model, loss_fn, x.float(), y.float())
    assert {t.dtype for t in [*found.variance.values(), found.squared_norms]} == {torch.float32}
    assert found.sketch is not None
    assert found.sketch.dtype == torch.float32


MOVES: dict[str, Callable[[nn.Sequential], object]] = {
    "nothing": lambda model: None,
    "device": lambda model: model.to("meta"),
    "dtype": lambda model: model.float(),
    "shape": lambda model: setattr(model[0].weight, "data", torch.zeros(2, 3, dtype=torch.float64)),
    "requires_grad": lambda model: model[2].bias.requires_grad_(requires_grad=False),
    "mode of one layer": lambda model: model[1].train(),
    "name": lambda model: setattr(model, "_modules", {f"_{k}": m for k, m in model._modules.items()}),
}


@pytest.mark.parametrize("what", MOVES)
def test_state_holds_until_the_model_changes(what: str) -> None:
    model = network()
    state = ModelState(model)
    MOVES[what](model)
    assert state.holds() is (what == "nothing")


def test_neither_a_model_nor_what_was_in_it_is_kept_alive() -> None:
    model, (x, y) = network(), batch()
    for _ in range(3):
        gradient_statistics(model, nn.MSELoss(), x, y)
    gone = [ref(model), ref(model[2]), ref(model[0].weight)]
    replace_parameter(model)
    replace_module(model)
    gc.collect()
    assert [r() is None for r in gone] == [False, True, True]
    del model
    gc.collect()
    assert gone[0]() is None
