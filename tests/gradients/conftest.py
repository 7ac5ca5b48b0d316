"""Every gradient case as a fixture, and per-sample gradients by their definition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradient_model_cases  # noqa: F401 - adds its cases
import pytest
import torch
from gradient_cases import CASES, Case
from torch import Tensor, nn

# FSDP2 of torch 2.6 needs a GPU, with or without a recorder.
collect_ignore = [] if hasattr(torch.cpu.Stream, "record_event") else ["test_sharded.py"]


@pytest.fixture(params=sorted(CASES))
def any_case(request: pytest.FixtureRequest) -> Case:
    torch.manual_seed(0)
    return CASES[request.param]()


@pytest.fixture
def reference() -> Callable[..., dict[str, Tensor]]:
    return reference_gradients


def reference_gradients(model: nn.Module, loss_fn: Any, inputs: Any, targets: Any) -> dict[str, Tensor]:
    """Per-sample gradients by their definition: one backward pass of the whole batch for each sample's term.

    The term is cut out with a mask on the gradient of the outputs, so dropout and weighted means are
    included.
    """
    args = ((), inputs) if isinstance(inputs, dict) else ((inputs,), {})
    outputs = model(*args[0], **args[1])
    out = outputs["sum"] if isinstance(outputs, dict) else outputs
    n = len(next(iter(inputs.values())) if isinstance(inputs, dict) else inputs)
    (cotangent,) = torch.autograd.grad(loss_fn(outputs, targets), out, retain_graph=True)
    scale = 1 if getattr(loss_fn, "reduction", "mean") == "sum" else n
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    rows: list[tuple[Tensor | None, ...]] = []
    for i in range(n):
        alone = torch.zeros_like(cotangent)
        mine = slice(i * len(out) // n, (i + 1) * len(out) // n)
        alone[mine] = cotangent[mine] * scale
        rows.append(
            torch.autograd.grad(out, list(named.values()), alone, retain_graph=True, allow_unused=True)
        )
    return {
        name: torch.stack([torch.zeros_like(p) if r[k] is None else r[k] for r in rows])  # type: ignore[misc]
        for k, (name, p) in enumerate(named.items())
    }
