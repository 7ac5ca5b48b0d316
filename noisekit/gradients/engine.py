"""One backward pass with per-sample contributions handed on parameter by parameter, whatever the engine."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from noisekit.errors import InputError, unknown_name
from noisekit.gradients.batch import Batch, call_model, count_samples, trainable
from noisekit.gradients.checks import Plan, plan_for
from noisekit.gradients.contributions import Contribution, Explicit
from noisekit.gradients.dense import MOST_OUTPUTS, linear_uses
from noisekit.gradients.hooks import HookCapture, OnParameter, OnUses
from noisekit.gradients.losses import Reduction, evaluate, find_reduction
from noisekit.gradients.outputs import Outputs, cotangents, own_sum, refuse_hidden_terms
from noisekit.gradients.plan import Trust
from noisekit.gradients.random_state import random_state, set_random_state, untouched_random_state
from noisekit.gradients.replay import ENGINES

ENGINE_NAMES = ("hooks", "vmap", "loop")


@dataclass(frozen=True)
class Pass:
    """What one forward and backward pass leaves behind."""

    loss: Tensor
    gradients: dict[str, Tensor]
    """Gradient of the loss by parameter name, as training has it; empty in a pass by samples alone."""
    scale: float
    """Contributions times this are the per-sample gradients: N for a mean loss, 1 for a sum."""
    plan: Plan
    n_samples: int
    reduction: Reduction = "mean"
    half_precision: bool = False
    """Whether gradients in half precision came by."""
    loss_fn: Any = None
    by_hooks: bool = False
    """Whether every parameter was seen by layer rules alone."""

    @property
    def by_samples(self) -> bool:
        """Whether autograd was not asked for the gradients of the parameters."""
        return not self.gradients

    def trust(self) -> None:
        """Note that the samples add up to the gradient: for this loss the next passes are by samples."""
        if self.by_hooks:
            with suppress(TypeError):  # a callable without hash or weak references
                self.plan.trust.setdefault(self.loss_fn, Trust(by_samples=True))


class MissedUseError(Exception):
    """A backward pass by samples alone did not come by a use of a parameter, as where a layer detaches."""


def underlying(model: nn.Module) -> nn.Module:
    """Return the module that torch.compile or data parallelism wraps, with the user's own names."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, (nn.parallel.DistributedDataParallel, nn.DataParallel)):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def underlying_optimizer(optimizer: Any) -> Any:
    """Return the optimizer that accelerate wraps, which has the hooks around a step."""
    while isinstance(getattr(optimizer, "optimizer", None), torch.optim.Optimizer):
        optimizer = optimizer.optimizer
    return optimizer


def skips_itself(optimizer: Any) -> bool:
    """Whether a GradScaler has let a fused ``optimizer`` do the step, which finds infinite gradients there.

    Other optimizers it does not call then. Waits for the device, where there is such a scaler.
    """
    found = getattr(optimizer, "found_inf", None)
    return isinstance(found, torch.Tensor) and bool(found > 0)


def check_engine(engine: str) -> None:
    """Raise for an engine that does not exist."""
    if engine not in ENGINE_NAMES:
        raise unknown_name("engine", engine, ENGINE_NAMES)


def reduction_of(plan: Plan, loss_fn: Any, outputs: Any, targets: Batch, n: int) -> Reduction:
    """Return how ``loss_fn`` is reduced, examined once for each loss."""
    try:
        if loss_fn in plan.reductions:
            return plan.reductions[loss_fn]
        found = find_reduction(loss_fn, outputs, targets, n)
        if found is not None:
            plan.reductions[loss_fn] = found
    except TypeError:  # a callable without hash or weak references
        found = find_reduction(loss_fn, outputs, targets, n)
    return found or "mean"


def run_pass(
    model: nn.Module,
    loss_fn: Any,
    inputs: Batch,
    targets: Batch,
    on_parameter: OnParameter,
    *,
    engine: str = "hooks",
    tensors: Mapping[str, Tensor] | None = None,
    plan: Plan | None = None,
    parameters: Mapping[str, nn.Parameter] | None = None,
    by_samples: OnUses | None = None,
) -> Pass:
    """Differentiate the loss once and hand each parameter's per-sample contributions to ``on_parameter``.

    ``tensors`` are values for (some of) the parameters, by name, that are used in the place of the model's
    own; ``plan`` and ``parameters`` are what is covered, where that is known already. Given ``by_samples``,
    autograd leaves out the gradients of the parameters, which are the sums over the samples, and all goes to
    ``by_samples``, where the graph of the loss has no other use of the parameters than the calls seen.
    Raises MissedUseError where a pass by samples did not come by every use.
    """
    check_engine(engine)
    model = underlying(model)
    n = count_samples(inputs)
    plan = plan or plan_for(model, inputs, tensors)
    given = None
    trust = _trust(plan, loss_fn)
    if by_samples and parameters and engine == "hooks" and n <= trust.samples_by_graph:
        return _pass_by_graph(model, loss_fn, inputs, targets, plan, parameters, by_samples)
    covered = parameters or {n: p for n, p in trainable(model).items() if n not in plan.unused}
    standing: dict[str, Tensor] = dict(covered)
    names = list(standing)
    if tensors is not None:
        given = {name: t.detach().requires_grad_(name in standing) for name, t in tensors.items()}
        standing.update({name: t for name, t in given.items() if name in standing})
    hidden: list[str] = []
    if plan.frontier:
        on_parameter = _watched(on_parameter, hidden)
    hooked = plan.hooked if engine == "hooks" else ()
    rest = [name for name in names if name not in hooked]
    if rest or not trust.by_samples:
        by_samples = None
    before = random_state(standing) if plan.stochastic and (rest or by_samples) else []

    targets_of_hooks = plan.targets if hooked else ()
    with (
        HookCapture(targets_of_hooks, standing, plan.layouts, on_parameter, undecided=True) as capture,
        torch.enable_grad(),
    ):
        capture.n_samples = n
        outputs = call_model(model, inputs, given)
        seen = Outputs(outputs) if rest else None
        outputs = outputs if seen is None else seen.given
        loss = evaluate(loss_fn, outputs, targets)
        if not loss.requires_grad:
            raise InputError(
                "The loss does not depend on the model's outputs: compute it without detach() or no_grad()."
            )
        reduction = reduction_of(plan, loss_fn, outputs, targets, n)
        leaves = [] if seen is None else [*seen.outer, *seen.inner]
        wanted = [standing[name] for name in names]
        watched = [leaf for leaf in leaves if leaf.requires_grad]
        scale = float(n) if reduction == "mean" else 1.0
        roots = capture.roots_of(loss, by_samples) if by_samples else []
        if by_samples and not roots:
            plan.doubt(loss_fn)
        if roots:
            if plan.dense and tensors is None:
                _learn_to_read_graph(plan, loss_fn, loss, standing, n)
            seed, scale = _seed(loss, scale, n)
            torch.autograd.grad(loss, roots, seed)
            if not capture.complete:
                plan.doubt(loss_fn)
                if before:
                    set_random_state(standing, before)
                raise MissedUseError
            names = []
            results: Sequence[Tensor | None] = ()
        else:
            capture.listen()
            results = torch.autograd.grad(loss, [*wanted, *watched], allow_unused=True)
    gradients = {
        name: torch.zeros_like(standing[name]) if g is None else g.to_dense()
        for name, g in zip(names, results, strict=False)
    }
    if rest:
        received = iter(results[len(wanted) :])
        reached = [next(received) if leaf.requires_grad else None for leaf in leaves]
        half = len(leaves) // 2
        arrived = cotangents(reached[:half], reached[half:], plan.frontier)
        how = _replay_engine(engine, plan)
        replay(
            model,
            standing,
            rest,
            inputs,
            arrived,
            n,
            how,
            before,
            on_parameter,
            gradients,
        )
    refuse_hidden_terms(hidden)
    return Pass(
        loss.detach(),
        gradients,
        scale,
        plan,
        n,
        reduction,
        capture.half_precision,
        loss_fn,
        not rest and plan.hooks_suffice,
    )


_NO_TRUST = Trust(by_samples=False)


def _trust(plan: Plan, loss_fn: Any) -> Trust:
    try:
        return plan.trust.get(loss_fn, _NO_TRUST)
    except TypeError:  # a callable without hash or weak references
        return _NO_TRUST


def _learn_to_read_graph(
    plan: Plan, loss_fn: Any, loss: Tensor, parameters: Mapping[str, Tensor], n: int
) -> None:
    """Note it where the graph of ``loss`` shows all that the hooks do, in a small network."""
    uses = linear_uses(loss, {id(p): name for name, p in parameters.items()}, n)
    if uses:
        outputs = sum(parameters[use.weight].shape[0] for use in uses)
        plan.trust[loss_fn] = Trust(by_samples=True, samples_by_graph=MOST_OUTPUTS // outputs)


def _pass_by_graph(
    model: nn.Module,
    loss_fn: Any,
    inputs: Batch,
    targets: Batch,
    plan: Plan,
    parameters: Mapping[str, nn.Parameter],
    on_uses: OnUses,
) -> Pass:
    """Take a pass by samples without hooks."""
    n = count_samples(inputs)
    before = random_state(parameters) if plan.stochastic else []
    with torch.enable_grad():
        outputs = call_model(model, inputs)
        loss = evaluate(loss_fn, outputs, targets)
    reduction = reduction_of(plan, loss_fn, outputs, targets, n)
    uses = linear_uses(loss, {id(p): name for name, p in parameters.items()}, n)
    if not uses:
        plan.doubt(loss_fn)
        if before:
            set_random_state(parameters, before)
        raise MissedUseError
    seed, scale = _seed(loss, float(n) if reduction == "mean" else 1.0, n)
    found: dict[str, list[Contribution]] = {}
    with torch.no_grad():
        for use, grad in zip(uses, torch.autograd.grad(loss, [u.output for u in uses], seed), strict=True):
            for name, contribution in use.contributions(grad):
                found.setdefault(name, []).append(contribution)
        for name, own in found.items():
            on_uses(name, own)
    return Pass(loss.detach(), {}, scale, plan, n, reduction, loss_fn=loss_fn, by_hooks=True)


def _seed(loss: Tensor, scale: float, n: int) -> tuple[Tensor, float]:
    """Return what to start a backward pass with, and the scale of its contributions.

    So that Σ c_i² is Σ g_i² / (n − 1), which is most of the variance.
    """
    left = math.sqrt(max(n - 1, 1))
    return torch.full_like(loss, scale / left), left


def _watched(on_parameter: OnParameter, hidden: list[str]) -> OnParameter:
    """Return ``on_parameter`` that notes the parameters whose contributions are not all of the gradient."""

    def watched(name: str, uses: Sequence[Contribution], gradient: Tensor) -> None:
        if not own_sum(uses, gradient)[1]:
            hidden.append(name)
        on_parameter(name, uses, gradient)

    return watched


def _replay_engine(engine: str, plan: Plan) -> str:
    if engine == "hooks":
        return plan.replay_engine
    if not plan.stochastic:
        return engine
    if engine == "vmap":
        raise InputError(
            "The model draws random numbers (dropout), and vmap would draw others than the training step: "
            "use engine='hooks' or engine='loop', or put the model in eval mode."
        )
    return "masked"


def replay(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    names: Sequence[str],
    inputs: Batch,
    cotangents: Sequence[Tensor | None],
    n: int,
    how: str,
    state: Sequence[Tensor],
    on_parameter: OnParameter,
    gradients: Mapping[str, Tensor],
) -> None:
    """Hand on the contributions of ``names`` from a replay of the forward pass with this random ``state``."""
    with untouched_random_state(tensors):
        if state:
            set_random_state(tensors, state)
        parts = list(ENGINES[how](model, tensors, names, inputs, cotangents, n))
    with torch.no_grad():
        rows = {name: torch.cat([part[name] for _, part in parts]) for name in names}
        for name in names:
            on_parameter(name, [Explicit(rows[name])], gradients[name])


def weighted_pass(
    model: nn.Module, loss_fn: Any, inputs: Batch, targets: Batch, weights: Tensor
) -> dict[str, Tensor]:
    """Return Σ_i w_ki g_i for each row of ``weights`` (component, sample): one backward pass a row."""
    n = count_samples(inputs)
    plan = plan_for(model, inputs)
    wanted = {name: p for name, p in trainable(model).items() if name not in plan.unused}
    with torch.enable_grad():
        outputs = call_model(model, inputs)
        seen = Outputs(outputs)
        loss = evaluate(loss_fn, seen.given, targets)
        scale = float(n) if reduction_of(plan, loss_fn, seen.given, targets, n) == "mean" else 1.0
        outer, inner = (
            [_gradient_of(loss, leaf) if leaf.requires_grad else None for leaf in leaves]
            for leaves in (seen.outer, seen.inner)
        )
    reached = [
        (leaf, cotangent)
        for leaf, cotangent in zip(seen.inner, cotangents(outer, inner, plan.frontier), strict=True)
        if cotangent is not None and cotangent.ndim and cotangent.shape[0] % n == 0
    ]
    leaves = [leaf for leaf, _ in reached]
    rows = []
    for row in weights:
        pushed = []
        for _, cotangent in reached:
            w = row.to(cotangent).repeat_interleave(cotangent.shape[0] // n) * scale
            pushed.append(cotangent * w.reshape(-1, *[1] * (cotangent.ndim - 1)))
        rows.append(torch.autograd.grad(leaves, list(wanted.values()), pushed, retain_graph=True))
    return {name: torch.stack([row[k] for row in rows]) for k, name in enumerate(wanted)}


def _gradient_of(loss: Tensor, leaf: Tensor) -> Tensor | None:
    return torch.autograd.grad(loss, leaf, retain_graph=True, allow_unused=True)[0]
