"""A network, its loss and its data as a problem over flattened parameters."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import vmap

from noisekit._typing import LossFunction
from noisekit.errors import InputError, kind_of
from noisekit.gradients import per_sample_gradients
from noisekit.gradients.batch import call_model
from noisekit.gradients.moments import moments_and_sums
from noisekit.problems.checks import (
    can_be_batched,
    count_activations,
    refuse_mixing_loss,
    refuse_mixing_modules,
)
from noisekit.problems.dense import is_mlp, mlp_moments, mlp_per_sample_gradients
from noisekit.problems.sample_losses import sample_losses
from noisekit.problems.shown import Shown

ACTIVATION_BUDGET = 2**24
"""Numbers of activations that a pass may hold before its samples are split."""

BATCHED_UP_TO = 64
"""Samples a replicate up to which all replicates go through any network at once. On a CPU, 32 minibatches of
16 images take a light convolutional network a fifth of the time of 32 passes; with many samples single passes
win, because convolutions of many replicates become slow grouped ones."""


class ModelProblem(Shown):
    """The training loss of a network, f(x) = (1/N) Σ ℓ_i(x), over its flattened trainable parameters x.

    Args:
        model: any module that treats samples independently; its own parameters are never changed.
        loss_fn: maps (outputs, targets) of a batch to the mean (or the sum) of the losses of its samples.
        inputs: (sample, …), on any device.
        targets: (sample, …).
        name: how results call the problem.
        dtype: of the parameters and of floating-point inputs; that of the model if not given.
        device: where everything lives; that of the model if not given.
        test_inputs: held-out samples, which the loss never sees.
        test_targets: their targets.
        metadata: what results should remember, such as the data set and its sha256.
        replicates: "vmap" evaluates all replicates in one batched pass, "loop" goes one by one; "auto" takes
            one pass for dense networks and for minibatches, and goes one by one for many samples of others.
        chunk_size: samples in one pass; chosen by the activations of one sample if not given.

    Raises:
        InputError: if inputs and targets do not have the same number of samples, nothing is trainable, or the
            loss is not one number.
        UnsupportedModelError: if samples mix or the loss is random (BatchNorm, Dropout in training mode).
        NonFiniteError: if the loss of the first samples is NaN or infinite.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFunction,
        inputs: Tensor,
        targets: Tensor,
        *,
        name: str = "model",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        test_inputs: Tensor | None = None,
        test_targets: Tensor | None = None,
        metadata: dict[str, Any] | None = None,
        replicates: Literal["auto", "vmap", "loop"] = "auto",
        chunk_size: int | None = None,
    ) -> None:
        for what, given in (("inputs", inputs), ("targets", targets)):
            if not isinstance(given, Tensor):
                raise InputError(
                    f"{what} is {kind_of(given)}; it needs to be one tensor, with samples first."
                )
        if inputs.ndim == 0 or len(inputs) == 0 or len(inputs) != len(targets):
            raise InputError(
                f"There are {tuple(inputs.shape)} inputs and {tuple(targets.shape)} targets; "
                "both need the same number of samples, at least one, on their first axis."
            )
        if replicates not in ("auto", "vmap", "loop"):
            raise InputError(f"replicates is {replicates!r}; choose 'auto', 'vmap' or 'loop'.")
        if chunk_size is not None and chunk_size < 1:
            raise InputError(f"chunk_size is {chunk_size}; it needs to be at least 1.")
        refuse_mixing_modules(model)
        if dtype is not None or device is not None:
            model = model.to(device=device, dtype=dtype)
        trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
        if not trainable:
            raise InputError("The model has no trainable parameter; set requires_grad on at least one.")
        first = next(iter(trainable.values()))
        self.model = model
        self.loss_fn = loss_fn
        self.name = name
        self.dtype = first.dtype
        self.device = first.device
        self.inputs = self._place(inputs)
        self.targets = self._place(targets)
        self.test_inputs = None if test_inputs is None else self._place(test_inputs)
        self.test_targets = None if test_targets is None else self._place(test_targets)
        self.parameter_names = list(trainable)
        self.parameter_shapes = [p.shape for p in trainable.values()]
        self._sizes = [p.numel() for p in trainable.values()]
        self._x0 = torch.cat([p.detach().reshape(-1) for p in trainable.values()]).clone()
        self.metadata = {"n_parameters": len(self._x0), **(metadata or {})}
        self.replicates = replicates
        self.chunk_size = chunk_size
        refuse_mixing_loss(model, loss_fn, self.inputs[:4], self.targets[:4])
        self._activations = count_activations(model, self.inputs)
        self._is_mlp = is_mlp(model, self.inputs)
        self._has_batching_rules = replicates == "auto" and can_be_batched(model, self.inputs[:2])

    @property
    def x0(self) -> Tensor:
        """The model's parameters when the problem was made, flattened, (coordinate,)."""
        return self._x0

    @property
    def n_samples(self) -> int:
        """N, the number of training samples."""
        return len(self.inputs)

    @property
    def n_parameters(self) -> int:
        """The number of coordinates of x."""
        return len(self._x0)

    def unflatten(self, x: Tensor) -> dict[str, Tensor]:
        """Return the named parameters in ``x`` (…, coordinate), each (…, *shape)."""
        parts = x.split(self._sizes, dim=-1)
        shapes = zip(self.parameter_names, parts, self.parameter_shapes, strict=True)
        return {name: part.reshape(*x.shape[:-1], *shape) for name, part, shape in shapes}

    def flatten(self, parameters: dict[str, Tensor]) -> Tensor:
        """Return x (…, coordinate) from named tensors (…, *shape): the inverse of ``unflatten``.

        A parameter that is not there has no part in the loss: its coordinates are 0.
        """
        known = {
            n: parameters[n].reshape(*parameters[n].shape[: parameters[n].ndim - len(s)], -1)
            for n, s in zip(self.parameter_names, self.parameter_shapes, strict=True)
            if n in parameters
        }
        like = next(iter(known.values()))
        return torch.cat(
            [
                known[n] if n in known else like.new_zeros(*like.shape[:-1], math.prod(s))
                for n, s in zip(self.parameter_names, self.parameter_shapes, strict=True)
            ],
            -1,
        )

    def outputs(self, x: Tensor, inputs: Tensor) -> Tensor:
        """Return what the network says at ``x`` (coordinate,) about ``inputs`` (sample, …)."""
        return call_model(self.model, (self._place(inputs),), self.unflatten(x))

    def loss(self, x: Tensor) -> Tensor:
        """Return f(x), (replicate,)."""
        with torch.no_grad():
            return self.sample_losses(x).mean(-1)

    def sample_losses(self, x: Tensor) -> Tensor:
        """Return ℓ_i(x), (replicate, sample)."""
        self._check(x)
        rows = []
        with torch.no_grad():
            for _, leaves in self._groups(x, self.n_samples):
                parts = [self._losses(leaves, *self._samples(None, chunk)) for chunk in self._chunks(leaves)]
                rows.append(torch.cat(parts, -1))
        return torch.cat(rows)

    def gradient(self, x: Tensor) -> Tensor:
        """Return ∇f(x), (replicate, coordinate)."""
        return self._weighted_sum(x, None, None)

    def minibatch_gradient(self, x: Tensor, index: Tensor) -> Tensor:
        """Return the mean gradient over the samples ``index`` (replicate, batch): (replicate, coordinate)."""
        if index.ndim != 2 or len(index) != len(x):
            raise InputError(f"index has shape {tuple(index.shape)}; it needs ({len(x)}, batch).")
        return self._weighted_sum(x, None, index)

    def weighted_gradient(self, x: Tensor, weights: Tensor) -> Tensor:
        """Return Σ_i w_i ∇ℓ_i(x) for ``weights`` (replicate, sample), as (replicate, coordinate)."""
        self._check_weights(x, weights)
        return self._weighted_sum(x, weights, None)

    def gradient_and_weighted(self, x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return ∇f(x) and Σ_i w_i ∇ℓ_i(x) from one forward pass."""
        self._check_weights(x, weights)
        both = torch.empty_like(x), torch.empty_like(x)
        self._weighted_sums(x, [None, weights], None, list(both))
        return both

    def gradient_moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return (1/N) Σ ∇ℓ_i and (1/N) Σ (∇ℓ_i)², both (replicate, coordinate)."""
        self._check(x)
        mean, second = self._moments(x, None)
        return mean, second

    def moments_and_weighted(self, x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return (1/N) Σ ∇ℓ_i, (1/N) Σ (∇ℓ_i)² and Σ_i w_i ∇ℓ_i from one pass over the data."""
        self._check(x)
        self._check_weights(x, weights)
        mean, second, weighted = self._moments(x, weights)
        return mean, second, weighted

    def _moments(self, x: Tensor, weights: Tensor | None) -> list[Tensor]:
        if self._is_mlp and self.replicates != "loop":
            parts = [
                mlp_moments(
                    self, leaves, list(self._chunks(leaves)), None if weights is None else weights[rows]
                )
                for rows, leaves in self._groups(x, self.n_samples)
            ]
            return [torch.cat(part) for part in zip(*parts, strict=True)]
        of_rows = [
            self._moments_of_one(row, None if weights is None else weights[k]) for k, row in enumerate(x)
        ]
        return [torch.stack(part) for part in zip(*of_rows, strict=True)]

    def per_sample_gradients(self, x: Tensor) -> Tensor:
        """Return every ∇ℓ_i(x), (replicate, sample, coordinate): for small problems only."""
        self._check(x)
        if self._is_mlp and self.replicates != "loop":
            groups = self._groups(x, self.n_samples)
            found = [mlp_per_sample_gradients(self, g, list(self._chunks(g))) for _, g in groups]
            return found[0] if len(found) == 1 else torch.cat(found)
        rows = []
        for row in x:
            self._load(self._own_model, row)
            rows.append(per_sample_gradients(self._own_model, self.loss_fn, self.inputs, self.targets))
        return torch.stack([self.flatten(row) for row in rows])

    def module_at(self, x: Tensor) -> nn.Module:
        """Return a copy of the model with the parameters ``x`` (coordinate,)."""
        self._check(x.unsqueeze(0))
        module = copy.deepcopy(self.model)
        self._load(module, x)
        return module

    @cached_property
    def _own_model(self) -> nn.Module:
        """A copy whose parameters may be overwritten, for what needs a module rather than a function."""
        return copy.deepcopy(self.model)

    def _load(self, module: nn.Module, x: Tensor) -> None:
        parameters = dict(module.named_parameters())
        with torch.no_grad():
            for name, value in self.unflatten(x).items():
                parameters[name].copy_(value)

    def _moments_of_one(self, x: Tensor, weights: Tensor | None) -> list[Tensor]:
        chunk = self.chunk_size or max(1, ACTIVATION_BUDGET // self._activations)
        parameters = self.unflatten(x.detach())
        samples, chunk = (self.inputs, self.targets), min(chunk, self.n_samples)
        found = moments_and_sums(self.model, self.loss_fn, *samples, parameters, weights=weights, chunk=chunk)
        both = [self.flatten(found.mean), self.flatten(found.second)]
        return both if weights is None else [*both, self.flatten(found.weighted)]

    def _weighted_sum(self, x: Tensor, weights: Tensor | None, index: Tensor | None) -> Tensor:
        """Return Σ w_i ∇ℓ_i over all samples or those of ``index``; without weights their mean."""
        result = torch.empty_like(x)
        self._weighted_sums(x, [weights], index, [result])
        return result

    def _weighted_sums(
        self, x: Tensor, weightings: list[Tensor | None], index: Tensor | None, results: list[Tensor]
    ) -> None:
        """Write the gradient of each weighting to ``results``: one forward pass, a backward pass for each."""
        self._check(x)
        n = self.n_samples if index is None else index.shape[1]
        for rows, leaves in self._groups(x, n):
            totals: list[tuple[Tensor, ...]] = []
            for chunk in self._chunks(leaves, n):
                samples = self._samples(None if index is None else index[rows], chunk)
                with torch.enable_grad():
                    losses = self._losses(leaves, *samples)
                    scalars = [
                        losses.sum() / n if w is None else (losses * w[rows, chunk]).sum() for w in weightings
                    ]
                parts = [
                    torch.autograd.grad(
                        scalar,
                        leaves,
                        retain_graph=k + 1 < len(scalars),
                        allow_unused=True,
                        materialize_grads=True,
                    )
                    for k, scalar in enumerate(scalars)
                ]
                totals = (
                    [tuple(torch._foreach_add(t, p)) for t, p in zip(totals, parts, strict=True)]
                    if totals
                    else parts
                )
            with torch.no_grad():  # in torch 2.6 the zeros that autograd makes ask for a gradient
                for total, result in zip(totals, results, strict=True):
                    torch.cat([part.reshape(len(part), -1) for part in total], -1, out=result[rows])

    def _losses(self, leaves: list[Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
        """Return (replicate, sample) losses; inputs are (sample, …), or (replicate, sample, …) when drawn."""
        replicates = len(leaves[0])
        own_samples = inputs.ndim > self.inputs.ndim
        if replicates == 1:
            parameters = {n: leaf.squeeze(0) for n, leaf in zip(self.parameter_names, leaves, strict=True)}
            if own_samples:
                inputs, targets = inputs.squeeze(0), targets.squeeze(0)
            outputs = call_model(self.model, (inputs,), parameters)
            return sample_losses(self.loss_fn, outputs, targets).unsqueeze(0)
        parameters = dict(zip(self.parameter_names, leaves, strict=True))
        call = vmap(lambda p, i: call_model(self.model, (i,), p), in_dims=(0, 0 if own_samples else None))
        outputs = call(parameters, inputs)
        if not own_samples:
            targets = targets.expand(replicates, *targets.shape)
        losses = sample_losses(self.loss_fn, outputs.flatten(0, 1), targets.flatten(0, 1))
        return losses.unflatten(0, (replicates, -1))

    def _groups(self, x: Tensor, n: int) -> Iterator[tuple[slice, list[Tensor]]]:
        """Yield replicates that go through together, with their parameters as leaves of a graph."""
        if self.replicates == "auto":
            together = self._is_mlp or (self._has_batching_rules and n <= BATCHED_UP_TO)
        else:
            together = self.replicates == "vmap"
        size = len(x) if together else 1
        for start in range(0, len(x), size):
            rows = slice(start, start + size)
            parameters = self.unflatten(x[rows].detach())
            yield rows, [p.requires_grad_() for p in parameters.values()]

    def _chunks(self, leaves: list[Tensor], n: int | None = None) -> Iterator[slice]:
        n = self.n_samples if n is None else n
        size = self.chunk_size or max(1, ACTIVATION_BUDGET // (self._activations * len(leaves[0])))
        for start in range(0, n, size):
            yield slice(start, min(start + size, n))

    def _samples(self, index: Tensor | None, chunk: slice) -> tuple[Tensor, Tensor]:
        if index is None:
            return self.inputs[chunk], self.targets[chunk]
        return self.inputs[index[:, chunk]], self.targets[index[:, chunk]]

    def _place(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, self.dtype if tensor.is_floating_point() else None)

    def _check_weights(self, x: Tensor, weights: Tensor) -> None:
        if weights.shape != (len(x), self.n_samples):
            raise InputError(
                f"weights has shape {tuple(weights.shape)}; it needs ({len(x)}, {self.n_samples})."
            )

    def _check(self, x: Tensor) -> None:
        if x.ndim != 2 or x.shape[1] != self.n_parameters:
            raise InputError(
                f"x has shape {tuple(x.shape)}; {self.name} needs (replicate, {self.n_parameters})."
            )
        if x.dtype != self.dtype:
            raise InputError(f"x is {x.dtype} and {self.name} is {self.dtype}; convert one with .to(dtype).")
