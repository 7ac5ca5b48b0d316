"""What the torch optimizers here share: one step is one update of every parameter group."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from noisekit.errors import InputError
from noisekit.optimizers.checks import gradients_of


class GroupedOptimizer(Optimizer):
    """A torch optimizer that updates the parameters of a group together.

    The hyper-parameters of every group are checked when it is added.
    """

    def __init__(self, params: ParamsT, defaults: dict[str, Any]) -> None:
        try:
            super().__init__(params, defaults)
        except InputError:
            raise
        except (TypeError, ValueError) as error:
            raise InputError(
                f"params cannot be optimized ({error}); give model.parameters() or parameter groups."
            ) from error

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, whose own hyper-parameters come before the defaults."""
        if isinstance(param_group, dict):
            self._check({**self.defaults, **param_group})
        super().add_param_group(param_group)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("maximize", False)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; ``closure`` evaluates the loss again and returns it."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params: list[Tensor] = [p for p in group["params"] if p.grad is not None]
            if params:
                self._update(group, params, gradients_of(params, type(self).__name__))
        return loss

    @abstractmethod
    def _check(self, group: dict[str, Any]) -> None:
        """Refuse hyper-parameters out of range."""

    @abstractmethod
    def _update(self, group: dict[str, Any], params: list[Tensor], gradients: list[Tensor]) -> None:
        """Move ``params``, which all have gradients, by one step."""
