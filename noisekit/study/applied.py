"""The gradient that the recorded optimizer was given, as a prediction takes it into account.

An optimizer that is given c times the mean gradient takes the steps of one that is given the mean gradient
itself: SGD at the learning rate cη, adaptive optimizers at ε/c, all with weight decay that is added to the
gradient at θ/c. The first is what the user sets, the second what theory for the mean gradient needs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from noisekit.gradients.applied_gradient import AppliedGradient, applied_gradient
from noisekit.theory.hyperparameters import Hyperparameters

if TYPE_CHECKING:
    import xarray as xr

_FEWEST = 3
"""Steps with one scale: clipping to a norm gives each another."""


@dataclass(frozen=True)
class Applied:
    """The factor c on the mean gradient where a record ends; 1 where it is not known or not one number."""

    found: AppliedGradient | None = None

    def factor(self, batch_size: int) -> float:
        """Return c at a batch size: for a sum over the samples it grows with the batch."""
        if self.found is None or self.found.is_mean or not self.found.is_constant:
            return 1.0
        c = (self.found.lowest + self.found.highest) / 2
        return c * batch_size / self.found.batch_size if self.found.summed else c

    def sentence(self, batch_size: int) -> str:
        """Say what the figures make of it; empty where the optimizer was given the mean gradient."""
        if self.found is None or not self.found.sentence:
            return ""
        said = self.found.sentence
        if not self.found.is_constant:
            return f"{said}. The figures are for the mean gradient, unclipped, and do not hold here."
        times = f"{self.factor(batch_size):.3g} times the mean gradient"
        if self.found.summed:
            return f"{said}. The figures are for {times} of a batch of {batch_size}."
        return f"{said}. The figures are for {times} at every batch size."


def for_the_mean(hyper: Hyperparameters, factor: float) -> Hyperparameters:
    """Return the hyper-parameters that make of the mean gradient what ``hyper`` makes of ``factor`` times it.

    The way back is 1/``factor``.
    """
    if factor == 1:
        return hyper
    rate = hyper.learning_rate * (factor if hyper.optimizer == "sgd" else 1)
    return replace(
        hyper, learning_rate=rate, eps=hyper.eps / factor, coupled_decay=hyper.coupled_decay / factor
    )


def stored_applied(tree: xr.DataTree, batch_size: int, last: int) -> Applied:
    """Return what the ``last`` recorded steps of a file say; all steps where these are no clear factor."""
    if "training" not in tree.children:
        return Applied()
    data = tree["training"].to_dataset()
    if not {"applied_scale", "applied_cosine"} <= set(data.data_vars) or batch_size < 1:
        return Applied()
    scale, cosine = data["applied_scale"].values, data["applied_cosine"].values
    at_end = applied_gradient(scale[-last:], cosine[-last:], batch_size, data.attrs)
    if at_end is None or at_end.is_mean or (at_end.is_constant and at_end.n_steps >= _FEWEST):
        return Applied(at_end)
    return Applied(applied_gradient(scale, cosine, batch_size, data.attrs))


def groups_differ(tree: xr.DataTree) -> tuple[str, ...]:
    """Say that the recorded optimizer's parameter groups had learning rates of their own, if they had."""
    data = tree["training"].attrs if "training" in tree.children else {}
    rates = json.loads(data.get("group_learning_rates", "[]"))
    if not rates:
        return ()
    named = ", ".join(f"{rate:g}" for rate in rates)
    return (
        f"What the parameter groups do each: the recorded optimizer had learning rates of {named} in its "
        f"{len(rates)} groups, and the figures are for one learning rate for all parameters.",
    )
