"""SignSGD as a torch optimizer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from noisekit.noise.base import check_flag
from noisekit.optimizers.checks import check_nonnegative
from noisekit.optimizers.grouped import GroupedOptimizer


class SignSGD(GroupedOptimizer):
    """Sign descent with decoupled weight decay, x⁺ = x − η sign(g) − ηθx.

    Arguments: ``params`` tensors or parameter groups; ``lr`` η; ``weight_decay`` θ; ``maximize`` ascends
    instead.
    Raises InputError for a negative learning rate or decay and for sparse or complex gradients.
    Source: Bernstein et al. 2018, arXiv 1802.04434.

    >>> x = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    >>> x.grad = torch.tensor([0.3, -4.0])
    >>> SignSGD([x], lr=0.5).step(); x.data
    tensor([ 0.5000, -1.5000])
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "maximize": maximize})

    def _check(self, group: dict[str, Any]) -> None:
        check_nonnegative("lr", group["lr"])
        check_nonnegative("weight_decay", group["weight_decay"])
        check_flag("maximize", group["maximize"])

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("weight_decay", 0.0)

    def _update(self, group: dict[str, Any], params: list[Tensor], gradients: list[Tensor]) -> None:
        rate = -float(group["lr"]) if not group["maximize"] else float(group["lr"])
        if group["weight_decay"]:
            torch._foreach_mul_(params, 1 - float(group["lr"]) * group["weight_decay"])
        torch._foreach_add_(params, torch._foreach_sign(gradients), alpha=rate)
