"""Mean and second moment of per-sample gradients at any parameter values, for ensembles of models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from noisekit.gradients.batch import Batch, as_batch, count_samples, select
from noisekit.gradients.contributions import Contribution, measure
from noisekit.gradients.engine import run_pass
from noisekit.gradients.measure import Request


def diagonal_moments(
    model: nn.Module,
    loss_fn: Any,
    inputs: Batch,
    targets: Batch,
    parameters: Mapping[str, Tensor] | None = None,
    *,
    chunk: int | None = None,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return (1/N) Σ g_i and (1/N) Σ g_i² over all samples, by parameter name, at given parameter values.

    Arguments: ``parameters`` values by name that stand in for the model's own (all or some of them);
    ``chunk`` how many samples go through the model at once (all of them if None).
    Returns two dicts of tensors shaped like the parameters. Costs about one and a half forward and backward
    passes.
    """
    inputs, targets = as_batch(inputs), as_batch(targets)
    n = count_samples(inputs)
    mean: dict[str, Tensor] = {}
    second: dict[str, Tensor] = {}
    request = Request(squared_norms=False)
    for start in range(0, n, chunk or n):
        part = slice(start, min(start + (chunk or n), n))
        squares: dict[str, Tensor] = {}

        def on_parameter(
            name: str, uses: Sequence[Contribution], _: Tensor, squares: dict[str, Tensor] = squares
        ) -> None:
            moment = measure(uses, request).second_moment
            assert moment is not None
            squares[name] = moment

        whole = part.start == 0 and part.stop == n
        xs, ys = (inputs, targets) if whole else (select(inputs, part, n), select(targets, part, n))
        run = run_pass(model, loss_fn, xs, ys, on_parameter, tensors=parameters)
        for name, gradient in run.gradients.items():
            # The gradient is Σ contributions, and g_i = scale × contribution.
            _add(mean, name, gradient * run.scale)
            _add(second, name, squares[name] * run.scale**2)
    return {name: t / n for name, t in mean.items()}, {name: t / n for name, t in second.items()}


def _add(totals: dict[str, Tensor], name: str, value: Tensor) -> None:
    totals[name] = totals[name] + value if name in totals else value
