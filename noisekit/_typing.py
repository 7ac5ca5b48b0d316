"""The vocabulary of axes and the type aliases that every room uses.

Axis names, always singular and always in this order where several meet:
``replicate`` (independent runs or paths), ``step`` (optimizer steps), ``time`` (saved instants),
``sample`` (training examples or noise draws), ``coordinate`` (parameters, flattened), ``block`` (a named
parameter tensor), ``component`` (eigenvalues), ``projection`` (sketch), ``estimator``, ``quantile`` and
``bound``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

GradientFunction: TypeAlias = Callable[[Tensor], Tensor]
"""Maps x (replicate, coordinate) to the gradient of the loss, same shape."""

Observable: TypeAlias = Callable[[Tensor], Tensor]
"""Maps x (replicate, coordinate) to one number a replicate, (replicate,)."""

State: TypeAlias = dict[str, Tensor]
"""SDE or optimizer state: keys ``x``, ``m``, ``v``; each (replicate, coordinate)."""

LossFunction: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Maps (outputs, targets) to a scalar: the mean (or the sum) over the samples of a batch."""

OptimizerFactory: TypeAlias = Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]
"""Builds a torch optimizer over the given parameters."""
