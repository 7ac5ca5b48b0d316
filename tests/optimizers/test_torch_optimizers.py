"""SignSGD and RMSpropW as torch optimizers, against loops and torch's own RMSprop."""

import copy

import pytest
import torch

from noisekit import RMSpropW, SignSGD
from noisekit.errors import InputError


def parameters(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((3, 4), (5,))]


def give_gradients(params, step):
    generator = torch.Generator().manual_seed(100 + step)
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator)


def test_signsgd_subtracts_the_sign():
    params = parameters()
    before = [p.detach().clone() for p in params]
    give_gradients(params, 0)
    SignSGD(params, lr=0.1).step()
    for p, old in zip(params, before, strict=True):
        torch.testing.assert_close(p.detach(), old - 0.1 * p.grad.sign())


def test_signsgd_decay_is_beside_the_sign():
    params = parameters()
    before = [p.detach().clone() for p in params]
    give_gradients(params, 0)
    optimizer = SignSGD(params, lr=0.1, weight_decay=0.5)
    optimizer.step()
    for p, old in zip(params, before, strict=True):
        torch.testing.assert_close(p.detach(), old - 0.1 * p.grad.sign() - 0.1 * 0.5 * old)
    with pytest.raises(InputError, match="weight_decay"):
        SignSGD(params, lr=0.1, weight_decay=-0.5)


def test_rmspropw_without_decay_is_torch_rmsprop():
    ours, theirs = parameters(), parameters()
    optimizers = [RMSpropW(ours, lr=0.01, alpha=0.9), torch.optim.RMSprop(theirs, lr=0.01, alpha=0.9)]
    for step in range(5):
        give_gradients(ours, step)
        give_gradients(theirs, step)
        for optimizer in optimizers:
            optimizer.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p.detach(), q.detach())


def test_rmspropw_decay_against_a_loop():
    p = torch.nn.Parameter(torch.tensor([2.0, -1.0], dtype=torch.float64))
    optimizer = RMSpropW([p], lr=0.05, alpha=0.8, eps=1e-3, weight_decay=0.3)
    x, v = [2.0, -1.0], [0.0, 0.0]
    for g in ([1.0, -3.0], [0.2, 0.5], [-1.0, 2.0]):
        p.grad = torch.tensor(g, dtype=torch.float64)
        optimizer.step()
        for i in range(2):
            v[i] = 0.8 * v[i] + 0.2 * g[i] ** 2
            x[i] = x[i] - 0.05 * g[i] / (v[i] ** 0.5 + 1e-3) - 0.05 * 0.3 * x[i]
    torch.testing.assert_close(p.detach(), torch.tensor(x, dtype=torch.float64))


@pytest.mark.parametrize(
    "make", [lambda p: SignSGD(p, lr=0.1), lambda p: RMSpropW(p, lr=0.1, weight_decay=0.1)]
)
def test_state_dict_continues_the_run(make):
    params = parameters()
    optimizer = make(params)
    for step in range(3):
        give_gradients(params, step)
        optimizer.step()
    twins = [torch.nn.Parameter(p.detach().clone()) for p in params]
    other = make(twins)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for group, opt in ((params, optimizer), (twins, other)):
        give_gradients(group, 9)
        opt.step()
    for p, q in zip(params, twins, strict=True):
        assert torch.equal(p.detach(), q.detach())


def test_groups_closures_and_maximize():
    first, second = parameters()
    start = second.detach().clone()
    optimizer = SignSGD([{"params": [first], "lr": 0.0}, {"params": [second]}], lr=0.1, maximize=True)

    def closure():
        loss = first.sum() + second.square().sum()
        optimizer.zero_grad()
        loss.backward()
        return loss

    loss = optimizer.step(closure)
    assert loss.requires_grad
    assert torch.equal(first.detach(), parameters()[0].detach())
    torch.testing.assert_close(second.detach(), start + 0.1 * start.sign())


def test_parameters_without_gradient_are_left_alone():
    params = parameters()
    params[0].grad = torch.ones_like(params[0])
    RMSpropW(params, lr=0.1).step()
    assert torch.equal(params[1].detach(), parameters()[1].detach())


@pytest.mark.parametrize(
    "arguments", [{"lr": -1.0}, {"alpha": 1.0}, {"eps": -1.0}, {"weight_decay": float("nan")}]
)
def test_bad_hyperparameters_are_refused(arguments):
    name = next(iter(arguments))
    with pytest.raises(InputError, match=name):
        RMSpropW(parameters(), **arguments)


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), "0.1", None, True, 1j, [0.1]], ids=repr)
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (SignSGD, "lr"),
        (SignSGD, "weight_decay"),
        (RMSpropW, "lr"),
        (RMSpropW, "alpha"),
        (RMSpropW, "eps"),
        (RMSpropW, "weight_decay"),
    ],
)
def test_every_hyperparameter_of_every_group_is_checked(make, name, value):
    with pytest.raises(InputError, match=f"^{name} is "):
        make(parameters(), **{name: value})
    first, second = parameters()
    with pytest.raises(InputError, match=f"^{name} is "):
        make([{"params": [first], name: value}, {"params": [second]}])
    optimizer = make([first])
    with pytest.raises(InputError, match=f"^{name} is "):
        optimizer.add_param_group({"params": [second], name: value})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("make", [SignSGD, RMSpropW])
@pytest.mark.parametrize("params", [None, 3, [], "weights", [1.0]], ids=repr)
def test_what_cannot_be_optimized_is_said(make, params):
    with pytest.raises(InputError, match="params cannot be optimized"):
        make(params)


def test_sparse_gradients_are_refused():
    embedding = torch.nn.Embedding(4, 2, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(InputError, match="sparse"):
        SignSGD(embedding.parameters(), lr=0.1).step()
