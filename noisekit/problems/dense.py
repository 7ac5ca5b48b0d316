"""Per-sample gradients of dense networks, for all replicates in one pass."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.func import vmap

from noisekit.gradients.batch import call_model
from noisekit.problems.sample_losses import sample_losses

if TYPE_CHECKING:
    from noisekit.problems.network import ModelProblem

ELEMENTWISE = (nn.ReLU, nn.Tanh, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Softplus, nn.ELU, nn.LeakyReLU, nn.Identity)


def is_mlp(model: nn.Module, inputs: Tensor) -> bool:
    """Return whether the model is a chain of Linear and element-wise modules on vectors."""
    if not isinstance(model, nn.Sequential) or inputs.ndim < 2:
        return False
    layers = list(model)
    if inputs.ndim > 2 and not (layers and isinstance(layers[0], nn.Flatten)):
        return False
    linears = [m for m in layers if type(m) is nn.Linear]
    unshared = sum(2 if m.bias is not None else 1 for m in linears) == len(list(model.parameters()))
    return unshared and all(type(m) in (nn.Linear, nn.Flatten, *ELEMENTWISE) for m in layers)


def mlp_moments(
    problem: ModelProblem, leaves: list[Tensor], chunks: list[slice], weights: Tensor | None = None
) -> list[Tensor]:
    """Return mean and second moment of an MLP for all replicates at once, and Σ w_i ∇ℓ_i if asked for.

    The gradient of sample i for a Linear is the outer product b_i a_iᵀ of the gradient at its output and its
    input, so Σ (∇ℓ_i)² = (B²)ᵀ A²: two products of the size of the backward pass.
    ``weights`` is (replicate, sample).
    """
    parameters = dict(zip(problem.parameter_names, leaves, strict=True))
    names = _linears(problem)
    mean = {n: torch.zeros_like(p) for n, p in parameters.items()}
    second = {n: torch.zeros_like(p) for n, p in parameters.items()}
    weighted = {} if weights is None else {n: torch.zeros_like(p) for n, p in parameters.items()}
    for chunk in chunks:
        inputs, targets = problem.inputs[chunk], problem.targets[chunk]
        values, gradients = _inputs_and_output_gradients(problem, parameters, names, inputs, targets)
        for weight, a, b in zip(names, values, gradients, strict=True):
            if weight in mean:
                mean[weight] += b.mT @ a
                second[weight] += b.square().mT @ a.square()
            bias = weight.removesuffix("weight") + "bias"
            if bias in mean:
                mean[bias] += b.sum(1)
                second[bias] += b.square().sum(1)
            if weights is None:
                continue
            b = b * weights[:, chunk, None]
            if weight in weighted:
                weighted[weight] += b.mT @ a
            if bias in weighted:
                weighted[bias] += b.sum(1)
    n = problem.n_samples
    both = [problem.flatten(mean) / n, problem.flatten(second) / n]
    return both if weights is None else [*both, problem.flatten(weighted)]


def mlp_per_sample_gradients(problem: ModelProblem, leaves: list[Tensor], chunks: list[slice]) -> Tensor:
    """Return every b_i a_iᵀ and b_i of an MLP, (replicate, sample, coordinate)."""
    parameters = dict(zip(problem.parameter_names, leaves, strict=True))
    names = _linears(problem)
    result = leaves[0].new_empty(len(leaves[0]), problem.n_samples, problem.n_parameters)
    parts = result.split([math.prod(shape) for shape in problem.parameter_shapes], dim=-1)
    places = dict(zip(problem.parameter_names, parts, strict=True))
    for chunk in chunks:
        samples = problem.inputs[chunk], problem.targets[chunk]
        values, gradients = _inputs_and_output_gradients(problem, parameters, names, *samples)
        for weight, a, b in zip(names, values, gradients, strict=True):
            if weight in places:
                # Written where they stay: memory, not arithmetic, is what this takes.
                place = places[weight][:, chunk].unflatten(-1, (b.shape[-1], a.shape[-1]))
                torch.mul(b.unsqueeze(-1), a.unsqueeze(-2), out=place)
            bias = weight.removesuffix("weight") + "bias"
            if bias in places:
                places[bias][:, chunk] = b
    return result


def _linears(problem: ModelProblem) -> dict[str, nn.Linear]:
    """Return the Linear modules by the name of their weight, in the order in which they are applied."""
    return {f"{n}.weight": m for n, m in problem.model.named_modules() if isinstance(m, nn.Linear)}


def _inputs_and_output_gradients(
    problem: ModelProblem,
    parameters: dict[str, Tensor],
    names: dict[str, nn.Linear],
    inputs: Tensor,
    targets: Tensor,
) -> tuple[list[Tensor], list[Tensor]]:
    """Return a and b = ∂ℓ/∂output of every Linear, (replicate, sample, feature).

    A zero added to each output receives b as its gradient; it is an argument of the batched function, because
    tensors met inside vmap cannot be kept.
    """

    def forward(own: dict[str, Tensor], zeros: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        seen: list[Tensor] = []

        def keep_and_add(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            seen.append(args[0].expand(len(inputs), -1))
            return output + zeros[len(seen) - 1]

        handles = [m.register_forward_hook(keep_and_add) for m in names.values()]
        try:
            outputs = call_model(problem.model, (inputs,), own)
        finally:
            for handle in handles:
                handle.remove()
        return outputs, seen

    fixed = {n: p.detach() for n, p in parameters.items()}
    replicates = len(next(iter(fixed.values())))
    zeros = [
        inputs.new_zeros(replicates, len(inputs), m.out_features, requires_grad=True) for m in names.values()
    ]
    with torch.enable_grad():
        outputs, seen = vmap(forward)(fixed, zeros)
        repeated = targets.expand(replicates, *targets.shape).flatten(0, 1)
        total = sample_losses(problem.loss_fn, outputs.flatten(0, 1), repeated).sum()
        gradients = torch.autograd.grad(total, zeros)
    return [a.detach() for a in seen], list(gradients)
