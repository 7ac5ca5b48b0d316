"""What is kept of a run: states or their statistics at the saved steps, observables, first bad steps."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from noisekit._typing import Observable, State
from noisekit.errors import InputError
from noisekit.gradients.device import in_float64


def saved_steps(start_step: int, steps: int, save_every: int) -> list[int]:
    """Return the steps that are saved: the start, every ``save_every`` steps, and the last one."""
    saved = list(range(start_step, start_step + steps + 1, save_every))
    if saved[-1] != start_step + steps:
        saved.append(start_step + steps)
    return saved


class Trajectory:
    """The record of a run, filled as it goes.

    With ``keep_state`` every tensor of the state is kept, (replicate, time, coordinate). Without it, x is
    reduced at every saved step to its mean, variance (unbiased) and quantiles over the replicates that are
    finite, so that memory does not grow with the number of replicates.
    """

    def __init__(
        self,
        steps: list[int],
        state: State,
        observables: Mapping[str, Observable],
        *,
        keep_state: bool,
        quantiles: tuple[float, ...],
    ) -> None:
        x = state["x"]
        self.steps = steps
        self.observable_functions = dict(observables)
        self.keep_state = keep_state
        replicates, dimension = x.shape
        n = len(steps)
        self.states = {
            name: value.new_empty(replicates, n, dimension) for name, value in state.items() if keep_state
        }
        self.observables = {name: x.new_empty(replicates, n) for name in observables}
        self.finite_steps = torch.zeros(replicates, dtype=torch.int64, device=x.device)
        self._ones = x.new_ones(dimension)
        self.quantiles = x.new_tensor(quantiles)
        self.statistics: dict[str, Tensor] = {}
        if not keep_state:
            self.statistics = {"x_mean": x.new_empty(n, dimension), "x_variance": x.new_empty(n, dimension)}
            if quantiles:
                self.statistics["x_quantile"] = x.new_empty(len(quantiles), n, dimension)

    def save_rows(self, index: int, rows: slice, state: State) -> None:
        """Record the replicates ``rows``, whose state is ``state``, at saved step number ``index``."""
        x = state["x"]
        for name, kept in self.states.items():
            kept[rows, index] = state[name]
        for name, function in self.observable_functions.items():
            value = function(x)
            if not isinstance(value, Tensor) or value.shape != x.shape[:1]:
                shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise InputError(
                    f"Observable {name!r} returned {shape} for x of shape {tuple(x.shape)}; "
                    f"it must return one number a replicate, ({x.shape[0]},)."
                )
            self.observables[name][rows, index] = value.detach()

    def save_statistics(self, index: int, x: Tensor) -> None:
        """Record the statistics over all replicates at saved step number ``index``."""
        if self.keep_state:
            return
        # A sum is finite only where every term is, and takes less time than looking at each.
        x = x[x.sum(dim=1).isfinite()]
        if len(x) == 0:
            for value in self.statistics.values():
                value[..., index, :] = torch.nan
            return
        mean = x.mean(dim=0)
        self.statistics["x_mean"][index] = mean
        if "x_quantile" in self.statistics:
            self.statistics["x_quantile"][:, index] = quantiles_over_rows(x, self.quantiles)
        # x is a copy here. Two passes along the rows are faster than torch's own variance down the columns.
        squares = x.sub_(mean).square_().sum(dim=0)
        self.statistics["x_variance"][index] = squares / (len(x) - 1) if len(x) > 1 else torch.nan

    def total(self, x: Tensor, out: Tensor) -> None:
        """Write the sum over coordinates: finite only if every term is (overflow is a divergence as well)."""
        torch.mv(x, self._ones, out=out)

    def count_finite(self, rows: slice, totals: Tensor) -> None:
        """Count the steps after which the replicates were finite; ``totals`` is (step, replicate)."""
        self.finite_steps[rows] += ((totals - totals) == 0).sum(dim=0)

    def diverged(self) -> Tensor:
        """Return the first bad step of each replicate, -1 where there is none; infinite states stay so."""
        first = self.steps[0] + 1 + self.finite_steps
        return torch.where(first > self.steps[-1], -1, first)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Return everything recorded so far, for a checkpoint."""
        return {
            "states": self.states,
            "observables": self.observables,
            "statistics": self.statistics,
            "finite_steps": {"": self.finite_steps},
        }

    def load(self, saved: dict[str, dict[str, Tensor]]) -> None:
        """Take over what a checkpoint recorded."""
        for group, tensors in self.tensors().items():
            for name, value in tensors.items():
                value.copy_(saved[group][name])


def quantiles_over_rows(x: Tensor, q: Tensor) -> Tensor:
    """Return linear-interpolation quantiles over replicates, (quantile, coordinate), without a size limit."""
    ordered = x.sort(dim=0).values
    place = in_float64(q) * (len(x) - 1)
    low = place.floor().long()
    high = place.ceil().long()
    return torch.lerp(ordered[low], ordered[high], (place - low).to(x)[:, None])
