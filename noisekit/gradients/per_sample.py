"""Per-sample gradients themselves, for models small enough to hold them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from noisekit.gradients.attached import unseen
from noisekit.gradients.batch import Batch, as_batch
from noisekit.gradients.contributions import Contribution
from noisekit.gradients.engine import run_pass, underlying
from noisekit.gradients.sharded import gathered


@unseen
def per_sample_gradients(
    model: nn.Module, loss_fn: Any, inputs: Batch, targets: Batch, *, engine: str = "hooks"
) -> dict[str, Tensor]:
    """Return the gradient of each sample's loss, g_i = ∇ℓ_i, by parameter name.

    The training gradient is the mean of g_i over the samples for a loss that is a mean, and their sum for a
    loss that is a sum; which of the two ``loss_fn`` is, is found out on the outputs. Where a mean is weighted
    (class weights, ignored tokens), g_i is N times the sample's term.

    Arguments: ``inputs`` a tensor, or a tuple or dict of tensors, with the sample axis first; ``targets``
    likewise; ``loss_fn(outputs, targets)`` one number. ``engine``: "hooks" (fast), "vmap" or "loop" (the
    plain reference).
    Returns tensors (sample, *parameter).
    Raises UnsupportedModelError if the samples of a batch mix, InputError for a loss that is not reduced.

    >>> import torch
    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> x, y = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.zeros(2, 1)
    >>> per_sample_gradients(model, lambda out, _: out.mean(), x, y)["weight"].tolist()
    [[[1.0, 2.0]], [[3.0, 4.0]]]
    """
    found: dict[str, Tensor] = {}

    def on_parameter(name: str, uses: Sequence[Contribution], _: Tensor) -> None:
        everything = slice(0, uses[0].n_samples)
        total = uses[0].rows(everything)
        for use in uses[1:]:
            total += use.rows(everything)
        found[name] = total

    model = gathered(underlying(model))
    run = run_pass(model, loss_fn, as_batch(inputs), as_batch(targets), on_parameter, engine=engine)
    return {name: found[name] * run.scale for name in run.gradients}
