"""A recorded step does not make the host wait for a GPU, which the calls it makes show on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from gradient_cases import Case
from host_syncs import HostSyncs
from torch import Tensor, nn

from noisekit.errors import NonFiniteError
from noisekit.gradients import GradientNoiseRecorder, device, every, gradient_statistics

FLAG_OF_THE_STEP_BEFORE = "rows.py:check_finite"
"""Looks at one flag of the recorded step before, which was sent to the host then."""


@pytest.fixture
def as_on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "on_host", lambda _: False)


def outputs_of(model: nn.Module, inputs: Any) -> Any:
    return model(**inputs) if isinstance(inputs, dict) else model(inputs)


def syncs_of_third_step(
    case: Case, *, passes: int = 1, lr: float | Tensor = 1e-3, **options: Any
) -> list[str]:
    """Return what makes the host wait in a step when the model is known and all that is drawn is drawn."""
    model, loss_fn, inputs, targets = case
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=lr)
    seen: list[str] = []
    with GradientNoiseRecorder(model, loss_fn, optimizer, schedule=every(1), **options):
        for _ in range(3):
            with HostSyncs(allowed=[FLAG_OF_THE_STEP_BEFORE]) as syncs:
                optimizer.zero_grad()
                for _ in range(passes):
                    loss_fn(outputs_of(model, inputs), targets).backward()
                optimizer.step()
            seen = syncs.seen
    return seen


@pytest.mark.usefixtures("as_on_a_device")
def test_a_recorded_step_does_not_wait_for_the_device(any_case: Case) -> None:
    assert syncs_of_third_step(any_case, coordinates=10, sketch=8) == []


def small_case() -> Case:
    torch.manual_seed(0)
    return nn.Linear(3, 2), nn.MSELoss(), torch.randn(6, 3), torch.randn(6, 2)


@pytest.mark.usefixtures("as_on_a_device")
@pytest.mark.parametrize(
    "options", [{}, {"coordinates": 0}, {"gram": False}, {"moments": False}, {"sketch": 0}]
)
def test_whatever_is_recorded_does_not_wait(options: dict[str, Any]) -> None:
    assert syncs_of_third_step(small_case(), **{"coordinates": 3, "sketch": 4} | options) == []


@pytest.mark.usefixtures("as_on_a_device")
def test_accumulated_gradients_do_not_wait() -> None:
    found = syncs_of_third_step(small_case(), passes=2, gram=False, coordinates=3, sketch=4)
    assert found == []
    found = syncs_of_third_step(small_case(), passes=2, micro_batches=2, coordinates=3, sketch=4)
    assert found == []


@pytest.mark.usefixtures("as_on_a_device")
def test_a_learning_rate_on_the_device_is_not_read() -> None:
    rate = torch.tensor(1e-3)
    assert syncs_of_third_step(small_case(), lr=rate, coordinates=3, sketch=4) == []


@pytest.mark.usefixtures("as_on_a_device")
def test_a_bad_sample_is_named_by_the_record_after_it() -> None:
    model, loss_fn, inputs, targets = small_case()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    bad = inputs.clone()
    bad[4, 1] = torch.inf
    recorder = GradientNoiseRecorder(model, loss_fn, optimizer, schedule=every(1))

    def train() -> None:
        for batch in (inputs, bad, inputs):
            optimizer.zero_grad()
            loss_fn(model(batch), targets).backward()
            for p in model.parameters():
                assert p.grad is not None
                p.grad.nan_to_num_(0.0, 0.0, 0.0)  # so that the weights stay finite
            optimizer.step()

    with (
        recorder,
        pytest.raises(NonFiniteError, match=r"sample 4 of the batch .* at step 1, in weight"),
    ):
        train()


@pytest.mark.usefixtures("as_on_a_device")
def test_statistics_of_one_batch_look_once_at_their_end() -> None:
    model, loss_fn, inputs, targets = small_case()
    for _ in range(4):
        with HostSyncs() as syncs:
            gradient_statistics(model, loss_fn, inputs, targets, coordinates=3, sketch=4)
    assert [line.partition(" at ")[0] for line in syncs.seen] == ["_local_scalar_dense"]
    assert "check_finite" in syncs.seen[0]


WAITS: dict[str, Callable[[Tensor], object]] = {
    "_local_scalar_dense": lambda x: x.sum().item(),
    "is a condition": lambda x: bool(x.sum() > 0),
    "becomes a number": lambda x: float(x.sum()),
    "nonzero": lambda x: x.nonzero(),
    "masked_select": lambda x: x.masked_select(x > 0),
    "index": lambda x: x[x > 0],
    "index_put_": lambda x: x.clone().__setitem__(x > 0, 0.0),
    "_unique2": lambda x: x.unique(),
    "equal": lambda x: torch.equal(x, x),
    "tolist": lambda x: x.tolist(),
    "numpy": lambda x: x.numpy(),
    "cpu": lambda x: x.cpu(),
    "new_tensor": lambda x: x.new_tensor([1.0]),
    "tensor": lambda x: torch.tensor([1.0], device=x.device),
    "copy from the host": lambda x: torch.arange(3).float().to(x.device),
    "copy from the host, by a tensor": lambda x: torch.rand(3).to(x),
    "index from the host": lambda x: x[torch.arange(2)],
    "repeat_interleave": lambda x: x.repeat_interleave(torch.ones_like(x, dtype=torch.long)),
}
FREE: dict[str, Callable[[Tensor], object]] = {
    "arithmetic": lambda x: (x * 2).sum(),
    "made on the device": lambda x: torch.arange(3, device=x.device).to(x),
    "choice without lengths": lambda x: torch.where(x > 0, x, 0.0),
    "index on the device": lambda x: x[torch.arange(2, device=x.device)],
    "another dtype": lambda x: x.to(torch.float64),
    "sent ahead": lambda x: torch.rand(3).to(x.device, non_blocking=True),
    "scatter": lambda x: x.new_zeros(2).index_add_(0, torch.zeros_like(x, dtype=torch.long), x),
}


@pytest.mark.parametrize("what", WAITS)
def test_what_waits_is_seen(what: str) -> None:
    values = torch.linspace(-1, 2, 3)
    with HostSyncs(package=__file__) as syncs:
        WAITS[what](values)
    assert syncs.seen


@pytest.mark.parametrize("what", FREE)
def test_what_does_not_wait_is_not(what: str) -> None:
    values = torch.linspace(-1, 2, 3)
    with HostSyncs(package=__file__) as syncs:
        FREE[what](values)
    assert syncs.seen == []


def test_allowed_functions_are_left_out_and_others_named_by_line() -> None:
    values = torch.linspace(-1, 2, 3)

    def looks() -> float:
        return float(values.sum())

    with HostSyncs(package=__file__, allowed=["test_host_syncs.py:looks"]) as syncs:
        looks()
        values.tolist()
    assert len(syncs.seen) == 1
    assert syncs.seen[0].startswith("tolist at test_host_syncs.py:")
