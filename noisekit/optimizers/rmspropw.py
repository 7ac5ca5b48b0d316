"""RMSprop with decoupled weight decay as a torch optimizer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from noisekit.noise.base import check_flag
from noisekit.optimizers.checks import check_average, check_nonnegative
from noisekit.optimizers.grouped import GroupedOptimizer


class RMSpropW(GroupedOptimizer):
    """RMSprop whose weight decay does not pass through the gradient.

    v⁺ = αv + (1 − α)g²,  x⁺ = x − ηg/(√v⁺ + ε) − ηθx. With θ = 0 it is torch's RMSprop.

    Arguments: ``params`` tensors or parameter groups; ``lr`` η; ``alpha`` α in [0, 1); ``eps`` ε;
    ``weight_decay`` θ; ``maximize`` ascends instead. The state of a parameter is ``step`` and ``square_avg``.
    Raises InputError for values out of range and for sparse or complex gradients.
    Source: Compagnoni et al. 2025, arXiv 2411.15958; Loshchilov, Hutter 2019, arXiv 1711.05101.

    >>> x = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    >>> x.grad = torch.tensor([0.5, 4.0])
    >>> RMSpropW([x], lr=0.1, alpha=0.75, weight_decay=1.0).step(); x.data  # v = g²/4
    tensor([ 0.7000, -2.0000])
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {"lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, defaults)

    def _check(self, group: dict[str, Any]) -> None:
        check_nonnegative("lr", group["lr"])
        check_average("alpha", group["alpha"])
        check_nonnegative("eps", group["eps"])
        check_nonnegative("weight_decay", group["weight_decay"])
        check_flag("maximize", group["maximize"])

    def _update(self, group: dict[str, Any], params: list[Tensor], gradients: list[Tensor]) -> None:
        for p in params:
            state = self.state[p]
            if not state:
                state["step"] = torch.tensor(0.0)
                state["square_avg"] = torch.zeros_like(p, memory_format=torch.preserve_format)
            state["step"] += 1
        averages = [self.state[p]["square_avg"] for p in params]
        rate, alpha = float(group["lr"]), group["alpha"]
        torch._foreach_mul_(averages, alpha)
        torch._foreach_addcmul_(averages, gradients, gradients, value=1 - alpha)
        divisors = torch._foreach_sqrt(averages)
        torch._foreach_add_(divisors, group["eps"])
        if group["weight_decay"]:
            torch._foreach_mul_(params, 1 - rate * group["weight_decay"])
        torch._foreach_addcdiv_(params, gradients, divisors, value=rate if group["maximize"] else -rate)
