"""One forward and backward pass of the user's own training step, seen through hooks."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from noisekit.errors import InputError
from noisekit.gradients.batch import Batch
from noisekit.gradients.checks import Plan
from noisekit.gradients.collector import Collector, Sums, merge_sums
from noisekit.gradients.contributions import Contribution, Joined, measure
from noisekit.gradients.engine import reduction_of, replay
from noisekit.gradients.measure import Request
from noisekit.gradients.outputs import Outputs, cotangents
from noisekit.gradients.selection import Selection


class TrainingPass:
    """What is seen of one pass: inputs, gradients of the outputs, the loss and its factor.

    The factor a is the gradient that arrives at the loss: the loss scale of a GradScaler, divided by the
    number of accumulation steps if the loop divides. The per-sample gradients are N/a (a sum: 1/a) times what
    the backward pass carries.
    """

    def __init__(
        self,
        plan: Plan,
        selection: Selection,
        inputs: Batch,
        n: int,
        state: list[Tensor],
        *,
        keep_uses: bool = False,
    ):
        self.plan, self.inputs, self.n_samples = plan, inputs, n
        self.collector = Collector(selection)
        self._losses: list[_SeenLoss] = []
        self._told = False
        """Whether the loop itself has shown the loss."""
        self.step_samples = n
        """Samples of all passes (and processes) before the optimizer step."""
        self.gradients: dict[str, Tensor] = {}
        """Gradients of the replayed parameters in this pass."""
        self.uses: dict[str, list[Contribution]] | None = {} if keep_uses else None
        """Every use of every parameter, kept where the Gram matrix spans several passes."""
        self._state = state
        self.half_precision = False
        """Whether gradients in half precision came by."""
        self._outer: list[Tensor | None] = []
        self._inner: list[Tensor | None] = []

    def see_outputs(self, outputs: Any) -> Any:
        """Return the outputs for the loop to use; their gradients are kept where a replay will need them."""
        if not self.plan.replayed:
            return outputs
        seen = Outputs(outputs)
        self._outer, self._inner = [None] * len(seen.outer), [None] * len(seen.inner)
        for leaves, received in ((seen.outer, self._outer), (seen.inner, self._inner)):
            for k, leaf in enumerate(leaves):
                if leaf.requires_grad:
                    leaf.register_hook(partial(_keep, received, k))
        return seen.given

    def see_loss(
        self, loss_fn: Any, outputs: Any, targets: Any, loss: Tensor, rest: Mapping[str, Any]
    ) -> None:
        """Keep the loss and find out how it is reduced; ``rest`` are the further arguments of its call."""
        if self._told:
            return
        if rest:
            key = tuple((name, v if isinstance(v, str | float | int) else id(v)) for name, v in rest.items())
            loss_fn = self.plan.losses.setdefault((id(loss_fn), key), partial(loss_fn, **rest))
        reduction = reduction_of(self.plan, loss_fn, outputs, targets, self.n_samples)
        self._losses.append(_SeenLoss(loss, reduction, 1.0))

    def see_told_loss(self, loss: Tensor, factor: float, reduction: str) -> None:
        """Keep the loss that the loop shows, which has been multiplied by ``factor`` already."""
        self._told = True
        self._losses = [_SeenLoss(loss, reduction, factor)]

    @property
    def _differentiated(self) -> list[_SeenLoss]:
        return [loss for loss in self._losses if loss.factor is not None]

    @property
    def loss(self) -> Tensor | None:
        """The loss of this pass."""
        values = [loss.value for loss in self._differentiated]
        return torch.stack(values).sum(0) if values else None

    @property
    def reduction(self) -> str:
        """ "mean", "sum" or "step"."""
        return self._differentiated[0].reduction

    @property
    def factor(self) -> Tensor | None:
        """What the loss was multiplied by before it was differentiated; None where it was not seen."""
        found = self._differentiated
        if not found:
            return None
        several = len(found) > 1
        if several and (
            len({loss.reduction for loss in found}) > 1 or any(float(loss.factor or 0) != 1 for loss in found)
        ):
            raise InputError(
                f"The loss function was called {len(found)} times in this step and its values were weighted, "
                "so what the loss of a sample is cannot be told: call recorder.observe(loss) with the whole "
                "loss before it is scaled."
            )
        return found[0].factor

    def add(self, name: str, uses: Sequence[Contribution], gradient: Tensor) -> None:
        """Take the contributions of a parameter."""
        if self.uses is not None:
            self.uses[name] = list(uses)
        self.collector.add(name, uses, gradient, copy=True)

    @property
    def differentiated(self) -> bool:
        """Whether a backward pass has come through."""
        return not self.collector.empty or any(c is not None for c in self._outer)

    @property
    def scale(self) -> Tensor:
        """What turns contributions into per-sample gradients."""
        factor = self.factor
        assert factor is not None
        factor = factor.float() if factor.dtype in (torch.float16, torch.bfloat16) else factor
        samples = {"mean": self.n_samples, "step": self.step_samples}.get(self.reduction, 1)
        return samples / factor

    def sums(self, model: nn.Module, names: Sequence[str]) -> Sums:
        """Return the sums over the samples, after replaying what the hooks do not see."""
        if self.plan.replayed:
            parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
            for name in self.plan.replayed:
                self.gradients.setdefault(name, torch.zeros_like(parameters[name]))
            replay(
                model,
                parameters,
                self.plan.replayed,
                self.inputs,
                cotangents(self._outer, self._inner, self.plan.frontier),
                self.n_samples,
                self.plan.replay_engine,
                self._state if self.plan.stochastic else [],
                self.add,
                self.gradients,
            )
        if not self.collector.empty:
            self.collector.check_that_samples_add_up(half_precision=self.half_precision)
        return self.collector.sums(self.scale, names)


def sums_of_step(
    model: nn.Module, passes: Sequence[TrainingPass], names: Sequence[str], *, gram: bool
) -> tuple[Sums, Tensor]:
    """Return the sums over the samples of all ``passes`` before one optimizer step, and their losses.

    A pass that a GradScaler found infinite and skipped is left out where a finite one follows.
    """
    for p in passes:
        p.step_samples = sum(each.n_samples for each in passes)
    parts = [p.sums(model, names) for p in passes]
    if len(parts) > 1 and _called_by_scaler():
        finite = [bool(part.squared_norms.isfinite().all()) for part in parts]
        first = finite.index(True) if True in finite else 0
        parts, passes = parts[first:], passes[first:]
    # A share of the step's mean, or of its sum, counts as often as there are shares.
    shares = {"step": len(passes), "sum": len(passes)}
    losses = torch.stack([p.loss * shares.get(p.reduction, 1) for p in passes if p.loss is not None])
    if len(parts) == 1:
        return parts[0], losses
    merged = merge_sums(parts)
    return (replace(merged, gram=_gram(passes, names)) if gram else merged), losses


def _called_by_scaler() -> bool:
    """Whether a GradScaler calls the optimizer, having waited for the gradients to see if they are finite."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__") == "torch.amp.grad_scaler":
            return True
        frame = frame.f_back
    return False


def _gram(passes: Sequence[TrainingPass], names: Sequence[str]) -> Tensor:
    """Return g_i·g_j over the samples of all passes."""
    total: Tensor | None = None
    for name in names:
        kept = [p.uses[name] for p in passes if p.uses is not None]
        if len(kept) < len(passes):
            raise InputError(
                f"{len(passes)} backward passes came before one optimizer step: tell the recorder with "
                f"micro_batches={len(passes)}, or leave the Gram matrix out with gram=False."
            )
        found = measure([Joined(kept)], Request(second_moment=False, gram=True)).gram
        total = found if total is None or found is None else total + found
    assert total is not None
    scales = torch.cat([p.scale.expand(p.n_samples) for p in passes]).to(total.dtype)
    return total * scales * scales[:, None]


class _SeenLoss:
    """A loss, and once it is differentiated what it was multiplied by."""

    def __init__(self, loss: Tensor, reduction: str, factor: float):
        self.value = loss.detach() / factor
        self.reduction = reduction
        self.factor: Tensor | None = None

        def keep(grad: Tensor) -> None:
            self.factor = grad.detach() * factor

        loss.register_hook(keep)


def _keep(received: list[Tensor | None], k: int, gradient: Tensor) -> None:
    received[k] = gradient.detach()
