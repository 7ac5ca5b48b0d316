"""Passes that do not ask autograd for the parameters: only where the samples are all of the gradient."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from noisekit.errors import UnsupportedModelError
from noisekit.gradients import diagonal_moments, engine, gradient_statistics
from noisekit.gradients.checks import plan_for
from noisekit.gradients.dense import linear_uses
from noisekit.gradients.engine import run_pass

N = 6
X, Y = torch.randn(N, 3, dtype=torch.float64), torch.randn(N, 2, dtype=torch.float64)


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()


def ignore(*_: object) -> None:
    """Take no notice."""


def test_the_gradient_of_parameters_is_left_out_once_the_samples_were_seen_to_add_up() -> None:
    model, loss_fn = network(), nn.MSELoss()
    assert not run_pass(model, loss_fn, X, Y, ignore, by_samples=ignore).by_samples
    gradient_statistics(model, loss_fn, X, Y)
    assert run_pass(model, loss_fn, X, Y, ignore, by_samples=ignore).by_samples
    assert not run_pass(model, nn.MSELoss(), X, Y, ignore, by_samples=ignore).by_samples
    assert not run_pass(model, loss_fn, X, Y, ignore).by_samples


@pytest.mark.parametrize("coordinates", [0, 5])
def test_a_penalty_that_a_loss_grows_later_is_refused(coordinates: int) -> None:
    model, strength = network(), [0.0]

    def loss_fn(outputs: Tensor, targets: Tensor) -> Tensor:
        loss = F.mse_loss(outputs, targets)
        return loss + strength[0] * model[0].weight.square().sum() if strength[0] else loss  # type: ignore[union-attr, operator]

    for _ in range(3):
        gradient_statistics(model, loss_fn, X, Y, coordinates=coordinates, sketch=0)
    strength[0] = 1.0
    with pytest.raises(UnsupportedModelError, match=r"0\.weight is not the sum"):
        gradient_statistics(model, loss_fn, X, Y, coordinates=coordinates, sketch=0)


class Reused(nn.Module):
    """Uses the weight of its first layer once more, beside the layer, when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 2)
        self.again = False

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.second(x @ self.first.weight if self.again else x)


def test_a_weight_that_is_used_beside_its_layer_later_is_noticed() -> None:
    model, loss_fn = Reused().double(), nn.MSELoss()
    for _ in range(3):
        gradient_statistics(model, loss_fn, X, Y, coordinates=0)
    model.again = True
    with pytest.raises(UnsupportedModelError, match=r"first\.weight is not the sum"):
        gradient_statistics(model, loss_fn, X, Y, coordinates=0)


class Detaching(nn.Linear):
    """A layer through which no gradient flows."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.detach(), self.weight, self.bias)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_layer_that_detaches_its_input_is_met_all_the_same(dropout: float) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(dropout), Detaching(4, 2)).double()
    branch = nn.ModuleDict({"tail": model, "head": nn.Linear(3, 2).double()})
    branch.forward = lambda x: branch["tail"](x) + branch["head"](x)  # type: ignore[method-assign]
    loss_fn, found = nn.MSELoss(), []
    for _ in range(3):
        torch.manual_seed(2)
        found.append(gradient_statistics(branch, loss_fn, X, Y))
    for other in found[1:]:
        assert other.uncovered == found[0].uncovered
        for name, mean in found[0].mean.items():
            torch.testing.assert_close(other.mean[name], mean, rtol=1e-9, atol=1e-12)
            torch.testing.assert_close(other.variance[name], found[0].variance[name], rtol=1e-9, atol=1e-12)


class Sometimes(nn.Module):
    """Leaves its second layer out when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 2), nn.Linear(2, 2)
        self.short = False

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return x if self.short else self.second(x)


def test_a_layer_that_is_left_out_has_zeros() -> None:
    model, loss_fn = Sometimes().double(), nn.MSELoss()
    for short in (False, False, False, True):
        model.short = short
        found = gradient_statistics(model, loss_fn, X, Y)
    assert float(found.mean["second.weight"].abs().max()) == 0
    mean = torch.autograd.grad(loss_fn(model(X), Y), model.first.weight)[0]
    torch.testing.assert_close(found.mean["first.weight"], mean, rtol=1e-9, atol=1e-12)


def test_large_numbers_whose_squares_add_up_to_infinity_are_finite() -> None:
    model, x = nn.Linear(4, 1, bias=False), 1e19 * torch.eye(4)
    found = gradient_statistics(model, lambda out, _: out.mean(), x, torch.zeros(4, 1), sketch=0)
    assert bool(found.squared_norms.isfinite().all())
    assert bool(found.squared_norms.sum().isinf())


def test_moments_at_other_weights_do_not_disturb_the_plan() -> None:
    model, loss_fn = network(), nn.MSELoss()
    plan = plan_for(model, X)
    elsewhere = {name: p.detach() + 1 for name, p in model.named_parameters()}
    diagonal_moments(model, loss_fn, X, Y, elsewhere)
    assert plan_for(model, X) is plan


class Product(nn.Module):
    """A linear layer whose product is written out, with a factor that is one at first."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.factor = nn.Linear(3, 2), 1.0

    def forward(self, x: Tensor) -> Tensor:
        if self.factor == 1:
            return self.layer(x)
        return torch.addmm(self.layer.bias, x, self.layer.weight.T, alpha=self.factor)


def test_products_with_a_factor_are_not_read_off_the_graph() -> None:
    model = Product()
    inputs, names = torch.randn(N, 3), {id(p): name for name, p in model.named_parameters()}
    assert linear_uses(model(inputs).sum(), names, N)
    model.factor = 2.0
    assert linear_uses(model(inputs).sum(), names, N) is None


@pytest.mark.parametrize("bias", [True, False])
def test_layers_are_read_off_the_graph_with_their_inputs(bias: bool) -> None:
    model = nn.Linear(3, 2, bias=bias)
    names = {id(p): name for name, p in model.named_parameters()}
    inputs = torch.randn(N, 3)
    uses = linear_uses(model(inputs).sin().mean(), names, N)
    assert uses is not None
    assert [(use.weight, use.bias) for use in uses] == [("weight", "bias" if bias else None)]
    assert torch.equal(uses[0].x, inputs)


NOT_LINEAR: dict[str, Callable[[nn.Linear, Tensor], Tensor]] = {
    "rows of two samples": lambda layer, x: layer(x.repeat(2, 1)),
    "a penalty": lambda layer, x: layer(x).mean() + layer.bias.sum(),
    "a product of two uses": lambda layer, x: layer(x) @ layer.weight,
    "an input that is trained": lambda layer, x: layer(x.requires_grad_()),
    "positions": lambda layer, x: layer(x.unflatten(0, (N, 1, 1)).expand(N, 2, 2, 3)),
}


@pytest.mark.parametrize("what", NOT_LINEAR)
def test_other_uses_are_left_to_the_hooks(what: str) -> None:
    layer = nn.Linear(3, 3 if what == "a product of two uses" else 2)
    names = {id(p): name for name, p in layer.named_parameters()}
    assert linear_uses(NOT_LINEAR[what](layer, torch.randn(N, 3)).sum(), names, N) is None


def test_a_bias_with_a_row_for_each_sample_is_no_bias() -> None:
    weight = nn.Parameter(torch.randn(2, 2))
    outputs = torch.addmm(weight, torch.randn(2, 2), weight.T)
    assert linear_uses(outputs.sum(), {id(weight): "weight"}, 2) is None


def test_large_batches_of_small_networks_go_by_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "MOST_OUTPUTS", 2 * N * (4 + 2))
    model, loss_fn = network(), nn.MSELoss()
    for _ in range(2):
        gradient_statistics(model, loss_fn, X, Y)
    assert plan_for(model, X).trust[loss_fn].samples_by_graph == 2 * N
    x, y = X.repeat(3, 1), Y.repeat(3, 1)
    found = gradient_statistics(model, loss_fn, x, y)
    mean = torch.autograd.grad(loss_fn(model(X), Y), model[0].weight)[0]
    torch.testing.assert_close(found.mean["0.weight"], mean, rtol=1e-9, atol=1e-12)
