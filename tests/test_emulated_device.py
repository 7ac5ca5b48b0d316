"""The emulated accelerator refuses what a GPU refuses, and computes what a CPU computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from emulated_device import emulated
from torch import Tensor, nn


@pytest.fixture
def device() -> Iterator[torch.device]:
    with emulated("xpu") as found:
        yield found


MISTAKES: dict[str, Callable[[Tensor], object]] = {
    "a tensor made on the CPU": lambda x: x + torch.ones(3),
    "in place": lambda x: x.mul_(torch.ones(3)),
    "written to the CPU": lambda x: torch.tensor(1.0).add_(x.sum()),
    "a product of matrices": lambda x: x[None] @ torch.ones(3, 1),
    "a number in a stack": lambda x: torch.stack([x[0], torch.tensor(1.0)]),
    "a sum kept on the CPU": lambda x: torch.zeros(3).index_add(0, torch.arange(3), x),
    "an index of the device": lambda x: torch.ones(3)[torch.arange(2, device=x.device)],
    "numpy": lambda x: x.numpy(),
    "asarray": lambda x: np.asarray(x),
    "array of a list": lambda x: np.array([x[0], x[1]]),
    "a generator of the CPU": lambda x: torch.randn(3, generator=torch.Generator(), device=x.device),
    "a generator of the device": lambda x: torch.randn(3, generator=torch.Generator(x.device)),
    "a generator in place": lambda x: x.normal_(generator=torch.Generator()),
    "a layer of the CPU": lambda x: nn.Linear(3, 2)(x),
    "a layer of the device": lambda x: nn.Linear(3, 2).to(x.device)(torch.ones(3)),
    "a cotangent of the CPU": lambda x: x.requires_grad_().mul(2).backward(torch.ones(3)),
    "in a map over samples": lambda x: torch.func.vmap(lambda row: row + torch.ones(2))(x[:, None]),
}
CORRECT: dict[str, Callable[[Tensor], Tensor]] = {
    "a number of the CPU": lambda x: x * torch.tensor(2.0),
    "a number of Python": lambda x: x**2 - 1,
    "an index of the CPU": lambda x: x[torch.tensor([0, 2])],
    "an index that is a list": lambda x: x[[2, 0]],
    "a mask": lambda x: x[x > 0],
    "a choice": lambda x: torch.where(x > 0, x, torch.tensor(0.0)),
    "values": lambda x: x + torch.tensor([1.0, 2.0, 3.0], device=x.device) + x.new_tensor([1.0, 2.0, 3.0]),
    "an entry": lambda x: x.clone().index_fill_(0, torch.tensor([1], device=x.device), 7.0),
    "a copy of the CPU": lambda x: x + torch.ones(3).to(x),
    "a view written to": lambda x: (y := x.clone(), y.view(3, 1)[1].fill_(5.0))[0],
    "a shape in place": lambda x: x.clone().unsqueeze_(0).squeeze_(0) @ torch.eye(3, device=x.device),
    "a decomposition": lambda x: torch.linalg.eigvalsh(torch.outer(x, x)),
    "sorted": lambda x: torch.sort(x, descending=True).values,
    "a gradient": lambda x: torch.autograd.grad((y := x.clone().requires_grad_()).pow(3).sum(), y)[0],
    "gradients of samples": lambda x: torch.func.vmap(torch.func.grad(lambda t: t.sin() * t))(x),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_mistakes_are_refused(what: str, device: torch.device) -> None:
    x = torch.linspace(-1, 2, 3, device=device)
    with pytest.raises((RuntimeError, TypeError), match=r"same device|numpy|generator|on the CPU"):
        MISTAKES[what](x)


@pytest.mark.parametrize("what", CORRECT)
def test_numbers_are_those_of_the_cpu(what: str, device: torch.device) -> None:
    found = CORRECT[what](torch.linspace(-1, 2, 3, device=device))
    assert found.device == device
    torch.testing.assert_close(
        found.detach().cpu(), CORRECT[what](torch.linspace(-1, 2, 3)), rtol=1e-6, atol=1e-7
    )


def test_a_network_trains_there_as_on_the_cpu(device: torch.device) -> None:
    images, labels = torch.randn(5, 1, 4, 4), torch.randint(3, (5,))
    losses = []
    for place in (torch.device("cpu"), device):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3)).to(place)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images.to(place)), labels.to(place))
            loss.backward()
            optimizer.step()
        assert loss.device == place
        losses.append(loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_tied_weights_stay_tied(device: torch.device) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    assert len(list(model.to(device).parameters())) == 3


def test_a_device_without_float64_refuses_it() -> None:
    with emulated("mps", float64=False) as device:
        x = torch.ones(3, device=device)
        with pytest.raises(TypeError, match=r"has no torch\.float64"):
            x.double()
        assert x.cpu().double().dtype == torch.float64


def test_nothing_is_left_behind() -> None:
    kept = torch.Generator, torch.load, torch.autograd._engine_run_backward
    with emulated():
        assert torch.Generator is not kept[0]
    assert (torch.Generator, torch.load, torch.autograd._engine_run_backward) == kept
    assert torch.zeros(2).numpy().tolist() == [0, 0]
