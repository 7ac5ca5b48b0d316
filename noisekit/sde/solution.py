"""The result of an integration or of a real ensemble: the same object, so that they can be compared."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from noisekit._readable import Readable
from noisekit.errors import InputError
from noisekit.gradients.device import in_float64

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True, repr=False)
class Solution(Readable):
    """Trajectories of an optimizer or of its SDE over replicates.

    ``time`` is t = ηk, ``step`` the optimizer step k; both (time,).
    ``state`` holds x and, where the optimizer has them, m and v: (replicate, time, coordinate); empty if
    states were not kept. ``observables`` holds one (replicate, time) tensor a name.
    ``diverged`` (replicate,) is the first bad optimizer step, -1 where there is none.
    ``kind`` is "sde", "surrogate" (an SDE integrated with one step per optimizer step) or "optimizer".
    """

    optimizer: str
    kind: str
    step: Tensor
    time: Tensor
    state: dict[str, Tensor]
    observables: dict[str, Tensor]
    diverged: Tensor
    learning_rate: float
    seed: int
    substeps: int = 1
    settings: dict[str, Any] = field(default_factory=dict)
    """Everything else that repeats the run: hyper-parameters, variant, solver, noise, batch size."""
    statistics: dict[str, Tensor] = field(default_factory=dict)
    """Where states are not kept: x_mean and x_variance (time, coordinate), x_quantile (quantile, time,
    coordinate), over the replicates that are finite; ``settings["quantiles"]`` are the levels."""

    def __str__(self) -> str:
        count, bad = self.diverged.numel(), int((self.diverged >= 0).sum())
        first = f"{self.optimizer} {self.kind}, learning rate {self.learning_rate:g}, {count} replicates"
        if self.kind != "optimizer":
            first += f", {self.substeps} substeps"
        if bad:
            first += f", {bad} of them diverged"
        lines = [f"{first}, {len(self.step)} instants from step {self.step[0]} to {self.step[-1]}"]
        if self.state:
            shapes = ", ".join(f"{name} {tuple(value.shape)}" for name, value in self.state.items())
            lines.append(f"  state: {shapes}")
        for name, value in self.observables.items():
            known = in_float64(value[(self.diverged < 0).to(value.device)]).mean(dim=0)
            lines.append(f"  mean {name}: {known[0]:.4g} → {known[-1]:.4g}")
        return "\n".join(lines)

    def state_at(self, step: int) -> dict[str, Tensor]:
        """Return x and, where kept, m and v after optimizer step ``step``, each (replicate, coordinate).

        This is what ``init_state`` takes, together with ``start_step=step``.
        """
        saved = self.step.tolist()
        if not self.state:
            raise InputError("This solution kept no states; run it with keep_state=True.")
        if step not in saved:
            nearest = min(saved, key=lambda s: abs(s - step))
            raise InputError(f"Step {step} was not saved; the nearest saved step is {nearest}.")
        return {name: value[:, saved.index(step)] for name, value in self.state.items()}

    def to_dataset(self) -> xr.Dataset:
        """Return the solution as an xarray Dataset with axes replicate, time, coordinate."""
        from noisekit.results.convert import solution_to_dataset

        return solution_to_dataset(self)
