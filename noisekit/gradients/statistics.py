"""Statistics of the per-sample gradients of one batch, without holding the gradients."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from noisekit.errors import InputError
from noisekit.gradients.attached import unseen
from noisekit.gradients.batch import ONE_SAMPLE, Batch, as_batch, count_samples
from noisekit.gradients.checks import Plan, plan_for
from noisekit.gradients.collector import to_statistics
from noisekit.gradients.distributed import sums_of_batch
from noisekit.gradients.engine import run_pass, underlying, weighted_pass
from noisekit.gradients.random_state import random_state, set_random_state
from noisekit.gradients.ranks import Ranks
from noisekit.gradients.record import GradientStatistics, centred
from noisekit.gradients.selection import DEFAULT_SKETCH, Selection
from noisekit.gradients.sharded import gathered


@unseen
def gradient_statistics(
    model: nn.Module,
    loss_fn: Any,
    inputs: Batch,
    targets: Batch,
    *,
    coordinates: int | Sequence[int] | Tensor = 512,
    sketch: int = DEFAULT_SKETCH,
    gram: bool = True,
    engine: str = "hooks",
    seed: int = 0,
) -> GradientStatistics:
    """Return the statistics of the per-sample gradients g_i = ∇ℓ_i of a batch of N samples.

    Mean ḡ and unbiased variance of every coordinate; |g_i|²; the Gram matrix g_i·g_j, whose centred
    eigenvalues are those of the covariance; g_i at some coordinates; and a sketch s_i with E[s_i·s_j] =
    g_i·g_j. One forward and backward pass, and no (sample × parameter) matrix.

    Arguments: see per_sample_gradients. ``coordinates`` how many, drawn with ``seed``, or their flat
    positions in increasing order; ``sketch`` numbers a sample (the default is cut to the size of a smaller
    model); 0 and ``gram=False`` leave things out at no cost. A DistributedDataParallel or fully_shard model,
    called by every process with its own samples, gives each the statistics of all samples in rank order.
    Raises InputError for fewer than two samples, UnsupportedModelError if samples mix, NonFiniteError naming
    the sample and the parameter where a gradient is NaN or infinite.

    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> x, y = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.zeros(2, 1)
    >>> gradient_statistics(model, lambda out, _: out.mean(), x, y).variance["weight"].tolist()
    [[2.0, 2.0]]
    """
    inputs, targets = as_batch(inputs), as_batch(targets)
    ranks, model = Ranks.of(model), gathered(underlying(model))
    if count_samples(inputs) < 2 and ranks is None:
        raise InputError(ONE_SAMPLE)
    plan = plan_for(model, inputs)
    covered, coverage, uncovered = covered_parameters(plan)
    local_gram = gram and ranks is None
    selection = Selection.of(
        plan, covered, coordinates=coordinates, sketch=sketch, gram=local_gram, seed=seed
    )
    run = partial(run_pass, model, loss_fn, inputs, targets, engine=engine, plan=plan, parameters=covered)
    sums, _ = sums_of_batch(ranks, gram, selection, run)
    sums.check_finite("")
    return to_statistics(sums, selection, coverage, uncovered)


def covered_parameters(plan: Plan) -> tuple[dict[str, nn.Parameter], float, list[str]]:
    """Return the parameters that statistics include, their fraction, and the names of the others."""
    assert plan.state is not None
    covered = plan.state.trainable()
    for name in plan.unused:
        del covered[name]
    return covered, plan.coverage, list(plan.unused)


@unseen
def noise_directions(
    model: nn.Module, loss_fn: Any, inputs: Batch, targets: Batch, *, components: int = 1
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the largest eigenvalues of the per-sample covariance and their eigenvectors.

    With the centred Gram matrix HGH = UΛUᵀ the covariance has eigenvalues λ/(N−1) and the unit eigenvectors
    Σ_i (HU)_ik g_i / √λ_k: one weighted backward pass a component.

    Returns (component,) in descending order and a dict of (component, *parameter).
    Raises InputError where ``components`` is not between 1 and N−1.
    """
    inputs, targets = as_batch(inputs), as_batch(targets)
    n = count_samples(inputs)
    if not 1 <= components < n:
        raise InputError(
            f"components is {components}: {n} samples have between 1 and {n - 1} noise directions."
        )
    tensors = dict(model.named_parameters())
    state = random_state(tensors)
    statistics = gradient_statistics(model, loss_fn, inputs, targets, coordinates=0, sketch=0)
    assert statistics.gram is not None
    values, vectors = torch.linalg.eigh(centred(statistics.gram))
    order = torch.arange(n - 1, n - 1 - components, -1, device=values.device)
    values, vectors = values[order].clamp(min=0), vectors[:, order]
    weights = (vectors - vectors.mean(0)) / values.sqrt()
    set_random_state(tensors, state)  # the same dropout masks in both passes
    directions = weighted_pass(underlying(model), loss_fn, inputs, targets, weights.T)
    return values / (n - 1), directions
