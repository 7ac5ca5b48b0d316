"""Moments and weighted sums of per-sample gradients from one pass, against a loop over the samples."""

from collections.abc import Callable

import pytest
import torch
from host_syncs import HostSyncs
from torch import Tensor, nn

from noisekit.gradients import diagonal_moments, engine
from noisekit.gradients.moments import moments_and_sums

N = 12


class TwiceUsed(nn.Module):
    """A layer that is applied two times, and one that no sample reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.unused = nn.Linear(3, 3), nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.shared(torch.tanh(self.shared(x)))


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.norm, self.head = nn.Embedding(7, 4), nn.LayerNorm(4), nn.Linear(4, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.norm(self.table(tokens))).mean(1)


def image_network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.Tanh(), nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(36, 3)
    )


def of_vectors() -> Tensor:
    return torch.randn(N, 3, dtype=torch.float64)


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "dense": (lambda: nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 3)), of_vectors),
    "images": (image_network, lambda: torch.randn(N, 2, 6, 6, dtype=torch.float64)),
    "twice used": (TwiceUsed, of_vectors),
    "words": (Words, lambda: torch.randint(7, (N, 5))),
}


def loop_over_samples(
    model: nn.Module, loss_fn: nn.Module, x: Tensor, y: Tensor, given: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Return every sample's gradient by torch.autograd, (sample, *parameter)."""
    rows: dict[str, list[Tensor]] = {name: [] for name in given}
    for k in range(N):
        leaves = {name: value.clone().requires_grad_() for name, value in given.items()}
        loss = loss_fn(torch.func.functional_call(model, leaves, (x[k : k + 1],)), y[k : k + 1])
        found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
        for name, gradient in zip(leaves, found, strict=True):
            rows[name].append(gradient)
    return {name: torch.stack(parts) for name, parts in rows.items()}


@pytest.mark.parametrize("chunk", [None, 5])
@pytest.mark.parametrize("name", list(CASES))
def test_one_pass_gives_moments_and_a_weighted_sum(name: str, chunk: int | None) -> None:
    torch.manual_seed(0)
    make, draw = CASES[name]
    model, loss_fn, x = make().double(), nn.CrossEntropyLoss(), draw()
    y, weights = torch.randint(3, (N,)), torch.randn(N, dtype=torch.float64)
    given = {key: p.detach() + 0.1 for key, p in model.named_parameters()}
    rows = loop_over_samples(model, loss_fn, x, y, given)
    for _ in range(3):  # once with autograd's gradient, then by the samples alone
        found = moments_and_sums(model, loss_fn, x, y, given, weights=weights, chunk=chunk)
        mean, second = diagonal_moments(model, loss_fn, x, y, given, chunk=chunk)
        for key in found.mean:
            weighted = torch.tensordot(weights, rows[key], 1)
            for got, expected in (
                (found.mean[key], rows[key].mean(0)),
                (found.second[key], rows[key].square().mean(0)),
                (found.weighted[key], weighted),
                (mean[key], rows[key].mean(0)),
                (second[key], rows[key].square().mean(0)),
            ):
                torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)
    assert set(found.mean) == {key for key in rows if not key.startswith("unused")}


def test_autograd_is_not_asked_for_gradients_that_the_samples_give(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model, loss_fn = image_network().double(), nn.CrossEntropyLoss()
    x, y = torch.randn(N, 2, 6, 6, dtype=torch.float64), torch.randint(3, (N,))
    asked = []
    plain = torch.autograd.grad

    def counting(out, roots, *rest, **named):
        asked.append(len(roots))
        return plain(out, roots, *rest, **named)

    monkeypatch.setattr(engine.torch.autograd, "grad", counting)
    given = {key: p.detach() for key, p in model.named_parameters()}
    diagonal_moments(model, loss_fn, x, y, given)
    asked.clear()
    diagonal_moments(model, loss_fn, x, y, given)
    assert asked == [1]


def test_a_parameter_left_out_of_a_pass_has_zeros() -> None:
    class Sometimes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.short = nn.Linear(3, 2), nn.Linear(2, 2), False

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            return x if self.short else self.second(x)

    torch.manual_seed(0)
    model, loss_fn, x, y = Sometimes().double(), nn.MSELoss(), of_vectors(), of_vectors()[:, :2]
    for short in (False, False, True, False):
        model.short = short
        found = moments_and_sums(model, loss_fn, x, y, weights=torch.ones(N, dtype=torch.float64))
    model.short = True
    found = moments_and_sums(model, loss_fn, x, y, weights=torch.ones(N, dtype=torch.float64))
    for values in (found.mean, found.second, found.weighted):
        assert float(values["second.weight"].abs().max()) == 0
        assert float(values["first.weight"].abs().max()) > 0


@pytest.mark.parametrize("half", [False, True])
def test_whether_samples_add_up_is_asked_once_a_pass(half: bool) -> None:
    """Each question would wait for a GPU; in half precision the answer would change nothing."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 3))
    x, y = torch.randn(N, 3), torch.randn(N, 3)

    def waits(loss_fn: nn.Module) -> list[str]:
        with HostSyncs() as syncs, torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            diagonal_moments(model, loss_fn, x, y)
        return [line for line in syncs.seen if "moments.py" in line]

    for loss_fn in (nn.MSELoss(), nn.L1Loss()):  # each is compared with autograd once
        seen = waits(loss_fn)
        assert all("_misses" in line for line in seen)
        assert bool(seen) is not half
