"""SignSGD as a torch optimizer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from noisekit.optimizers.checks import check_nonnegative
from noisekit.optimizers.grouped import GroupedOptimizer


class SignSGD(GroupedOptimizer):
    """Sign descent, x⁺ = x − η sign(g).

    Arguments: ``params`` tensors or parameter groups; ``lr`` η; ``maximize`` ascends instead.
    Raises InputError for a negative learning rate and for sparse or complex gradients.
    Source: Bernstein et al. 2018, arXiv 1802.04434.

    >>> x = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    >>> x.grad = torch.tensor([0.3, -4.0])
    >>> SignSGD([x], lr=0.5).step(); x.data
    tensor([ 0.5000, -1.5000])
    """

    def __init__(self, params: ParamsT, lr: float = 1e-3, *, maximize: bool = False) -> None:
        check_nonnegative("lr", lr)
        super().__init__(params, {"lr": lr, "maximize": maximize})

    def _update(self, group: dict[str, Any], params: list[Tensor], gradients: list[Tensor]) -> None:
        rate = -float(group["lr"]) if not group["maximize"] else float(group["lr"])
        torch._foreach_add_(params, torch._foreach_sign(gradients), alpha=rate)
