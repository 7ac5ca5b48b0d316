"""How the gradient that an optimizer is given compares with the mean gradient of the recorded samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from noisekit.gradients.sharded import is_sharded

CLOSE = 0.01
"""Relative: scales that differ by less are equal, because halves and the order of sums move them."""
_LONGEST_DOT = 2**30


def given_gradients(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor | None] | None:
    """Return p.grad of the model's parameters that ``optimizer`` moves, by name; None where nobody has them.

    A GradScaler lets fused optimizers divide by its scale themselves, which is done here then. Of sharded
    parameters each process has the gradient of its part alone.
    """
    of_optimizer = {id(p) for group in optimizer.param_groups for p in group["params"]}
    found = {name: p.grad for name, p in model.named_parameters() if id(p) in of_optimizer}
    present = [gradient for gradient in found.values() if gradient is not None]
    if not present or any(is_sharded(gradient) for gradient in present):
        return None
    scale = getattr(optimizer, "grad_scale", None)
    if not isinstance(scale, Tensor):
        return found
    return {name: g if g is None else g.float() / scale.to(g.device) for name, g in found.items()}


def learning_rates(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[float | Tensor]:
    """Return the learning rate of each parameter group of ``optimizer`` that holds a parameter of ``model``.

    A tensor changes in place, and may be on the device: it is copied there.
    """
    own = {id(p) for p in model.parameters()}
    rates = [group["lr"] for group in optimizer.param_groups if any(id(p) in own for p in group["params"])]
    return [rate.detach().clone() if isinstance(rate, Tensor) else rate for rate in rates]


def compared(
    means: Mapping[str, Tensor], squares: Sequence[Tensor], given: Mapping[str, Tensor | None] | None
) -> Tensor:
    """Return ⟨p, ḡ⟩/|ḡ|² and the cosine of the angle between p and ḡ, (2,), p the gradient ``given``.

    ``squares`` are |ḡ|² of the ``means``, in their order. Over the parameters that the optimizer moves; one
    without a gradient counts as zero. NaN where nothing is known, and where ḡ is zero.
    """
    like = squares[0]
    dots, own, mean = [], [], []
    for (name, gradient), square in zip(means.items(), squares, strict=True):
        if given is None or name not in given:
            continue
        mean.append(square.to(like))
        p = given[name]
        if p is not None:
            p = p.to_dense().detach().to(gradient)
            dots.append(_dot(p, gradient).to(like))
            own.append(_dot(p, p).to(like))
    if not dots:
        return torch.full_like(like, torch.nan).expand(2)
    dot, squared, square = (torch.stack(parts).sum() for parts in (dots, own, mean))
    return torch.stack([dot / square, dot / (squared.sqrt() * square.sqrt())])


def _dot(a: Tensor, b: Tensor) -> Tensor:
    parts = zip(a.reshape(-1).split(_LONGEST_DOT), b.reshape(-1).split(_LONGEST_DOT), strict=True)
    return torch.stack([torch.dot(x, y) for x, y in parts]).sum()


@dataclass(frozen=True)
class AppliedGradient:
    """What the recorded steps say about the gradient that the optimizer was given, p, beside ḡ."""

    lowest: float
    """The smallest ⟨p, ḡ⟩/|ḡ|² of the steps."""
    highest: float
    cosine: float
    """The smallest of the steps."""
    n_steps: int
    batch_size: int
    summed: bool
    """Whether the loss is a sum over the samples, so that the scale grows with the batch."""

    @property
    def is_mean(self) -> bool:
        """Whether the optimizer was given the mean gradient itself."""
        return max(abs(self.lowest - 1), abs(self.highest - 1)) <= CLOSE and not self.is_turned

    @property
    def is_turned(self) -> bool:
        """Whether the direction is another one."""
        return self.cosine < 1 - CLOSE

    @property
    def is_constant(self) -> bool:
        """Whether it was the mean gradient times one factor; a single shorter one may have been clipped."""
        one = self.highest - self.lowest <= CLOSE * abs(self.highest)
        shorter = self.n_steps == 1 and self.highest < 1 - CLOSE
        return one and self.lowest > 0 and not shorter and not self.is_turned

    @property
    def sentence(self) -> str:
        """Say what the optimizer was given, and why that may be; empty where it was the mean gradient."""
        if self.is_mean:
            return ""
        low, high = f"{self.lowest:.3g}", f"{self.highest:.3g}"
        times = f"{low} times" if low == high else f"between {low} and {high} times"
        text = f"The optimizer was given {times} the mean gradient of the recorded samples"
        if self.is_turned:
            return (
                f"{text}, turned away from it (cosine {self.cosine:.2g}): gradients of other losses or of an "
                "earlier step are in it, or it was changed coordinate by coordinate"
            )
        if not self.is_constant:
            return (
                f"{text}: it was clipped, multiplied by a factor that changes, or averaged over batches of "
                "unequal sizes"
            )
        return f"{text}: {self._cause}"

    @property
    def _cause(self) -> str:
        if self.summed:
            return f"the loss is a sum over the samples, {self.batch_size} a step"
        if abs(self.highest / self.batch_size - 1) <= CLOSE:
            return "a sum over the samples, or a factor before the loss"
        return "a factor before the loss, or accumulated gradients that were not divided"


def applied_gradient(
    scale: Any, cosine: Any, batch_size: int, settings: Mapping[str, Any]
) -> AppliedGradient | None:
    """Return what the steps of a record say, from its ``applied_scale`` and ``applied_cosine``, (step,).

    ``settings`` are the record's, which hold how its loss is reduced. None where no step knows.
    """
    if scale is None or cosine is None:
        return None
    both = torch.stack([torch.as_tensor(scale), torch.as_tensor(cosine)]).double()
    both = both[:, both.isfinite().all(0)]
    if both.shape[1] == 0:
        return None
    lowest, highest = float(both[0].min()), float(both[0].max())
    summed = settings.get("loss_reduction") == "sum"
    return AppliedGradient(lowest, highest, float(both[1].min()), both.shape[1], batch_size, summed)
