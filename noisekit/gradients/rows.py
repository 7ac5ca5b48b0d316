"""One recorded step, and the record that many of them make."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from noisekit.errors import InputError, NonFiniteError
from noisekit.gradients.applied_gradient import compared
from noisekit.gradients.collector import Sums
from noisekit.gradients.record import GradientRecord, covariance_eigenvalues
from noisekit.gradients.selection import Selection
from noisekit.gradients.streaming import RunningMoments


@dataclass(frozen=True)
class RowContext:
    """What all rows of a record share."""

    selection: Selection
    coverage: float
    uncovered: list[str]
    seed: int
    settings: dict[str, Any] = field(default_factory=dict)
    """What else the record says of how it was made."""


@dataclass(frozen=True)
class Row:
    """The statistics of one recorded step; tensors stay on the device until the record is made."""

    step: int
    n_samples: int
    loss: Tensor
    learning_rates: Sequence[float | Tensor]
    """Of each parameter group."""
    elapsed: float
    trace: Tensor
    mean_squared_norm: Tensor
    deviation_sum: Tensor
    squared_norms: Tensor
    gram: Tensor | None
    values: Tensor | None
    sketch: Tensor | None
    applied: Tensor
    """Scale and cosine of the gradient that the optimizer was given, see ``applied_gradient.compared``."""
    finite: Tensor
    """Whether all is finite, on the CPU once ``arrived``."""
    arrived: torch.cuda.Event | None

    @classmethod
    def of(
        cls,
        sums: Sums,
        means: dict[str, Tensor],
        variances: dict[str, Tensor],
        step: int,
        loss: Tensor,
        learning_rates: Sequence[float | Tensor],
        elapsed: float,
        given: Mapping[str, Tensor | None] | None = None,
    ) -> Row:
        """Return the row of a step with these sums, and the means and variances that they make.

        ``given`` are the gradients that the optimizer was given, if they are known.
        """
        squares = [mean.square().sum() for mean in means.values()]
        return cls(
            step,
            sums.n_samples,
            loss.detach(),
            learning_rates,
            elapsed,
            torch.stack([v.sum() for v in variances.values()]),
            torch.stack(squares),
            torch.stack([v.sqrt().sum() for v in variances.values()]),
            sums.squared_norms,
            sums.gram,
            sums.values,
            sums.sketch,
            compared(means, squares, given),
            *_on_its_way(sums.squared_norms.isfinite().all()),
        )

    def check_finite(self, blocks: Sequence[str]) -> None:
        """Raise NonFiniteError naming step, parameter and sample; waits for the device to end this step."""
        if self.arrived is not None:
            self.arrived.synchronize()
        if bool(self.finite):
            return
        sample = int((~self.squared_norms.isfinite()).nonzero()[0])
        bad = [
            name for name, size in zip(blocks, self.trace.tolist(), strict=True) if not math.isfinite(size)
        ]
        raise NonFiniteError(
            f"The gradient of sample {sample} of the batch is NaN or infinite at step {self.step}, in "
            f"{', '.join(bad)}: look at that sample, lower the learning rate, or check the loss for log(0)."
        )

    def summary(self) -> dict[str, float]:
        """Return the numbers a logger wants."""
        trace, squared = float(self.trace.sum()), float(self.mean_squared_norm.sum())
        signal = squared - trace / self.n_samples
        return {
            "step": float(self.step),
            "loss": float(self.loss),
            "learning_rate": float(self.learning_rates[0]),
            "gradient_norm": squared**0.5,
            "noise_trace": trace,
            "signal_squared": signal,
        }


def _on_its_way(flag: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """Return ``flag`` on the CPU, and where it comes from a GPU the event after which it is there.

    To ask the GPU itself later would wait for all that it has been given to do since.
    """
    if flag.device.type != "cuda":
        return flag, None
    copied, arrived = flag.to("cpu", non_blocking=True), torch.cuda.Event()
    arrived.record(torch.cuda.current_stream(flag.device))
    return copied, arrived


def join_rows(
    rows: Sequence[Row], context: RowContext, moments: RunningMoments | None, skipped: list[int]
) -> GradientRecord:
    """Return the record of ``rows``, on the CPU."""
    selection = context.selection

    def stacked(tensors: list[Tensor | None]) -> Tensor | None:
        present = [t.detach().cpu() for t in tensors if t is not None]
        return torch.stack(present) if present else None

    squared = torch.stack([row.mean_squared_norm for row in rows]).cpu()
    gram = stacked([row.gram for row in rows])
    applied = torch.stack([row.applied for row in rows]).cpu()
    return GradientRecord(
        step=torch.tensor([row.step for row in rows]),
        loss=torch.stack([row.loss for row in rows]).float().cpu(),
        learning_rate=torch.tensor([float(row.learning_rates[0]) for row in rows]),
        gradient_norm=squared.sum(1).sqrt(),
        elapsed_time=torch.tensor([row.elapsed for row in rows], dtype=torch.float64),
        block=list(selection.sizes),
        block_size=list(selection.sizes.values()),
        trace=torch.stack([row.trace for row in rows]).cpu(),
        mean_squared_norm=squared,
        squared_norm=torch.stack([row.squared_norms for row in rows]).cpu(),
        gram=gram,
        eigenvalue=None if gram is None else covariance_eigenvalues(gram),
        coordinate_index=selection.index,
        coordinate_block=None if selection.index is None else selection.blocks(),
        coordinate_values=stacked([row.values for row in rows]),
        sketch=stacked([row.sketch for row in rows]),
        batch_size=rows[0].n_samples,
        coverage=context.coverage,
        uncovered=context.uncovered,
        settings={
            "gram_centred": False,
            "seed": context.seed,
            "skipped_steps": skipped,
            **context.settings,
            **_of_groups([float(rate) for rate in rows[-1].learning_rates]),
        },
        deviation_sum=torch.stack([row.deviation_sum for row in rows]).cpu(),
        moments=moments,
        applied_scale=applied[:, 0],
        applied_cosine=applied[:, 1],
    )


def _of_groups(rates: list[float]) -> dict[str, Any]:
    """Return the learning rates of the parameter groups as a setting, if they differ."""
    return {"group_learning_rates": rates} if len(set(rates)) > 1 else {}


def merge_records(first: GradientRecord, second: GradientRecord) -> GradientRecord:
    """Return one record with the steps of both, in their order; moments merge exactly.

    Raises InputError, naming what differs, where the two do not record the same things.
    """
    differ = _differences(first, second)
    if differ:
        raise InputError(f"The records differ in {', '.join(differ)}: only like records merge.")
    joined: dict[str, Any] = {
        name: None
        if getattr(first, name) is None or getattr(second, name) is None
        else torch.cat([getattr(first, name), getattr(second, name)])
        for name in ALONG_STEPS
    }
    moments = None
    if first.moments is not None and second.moments is not None:
        moments = first.moments.merge(second.moments)
    skipped = [step for record in (first, second) for step in record.settings.get("skipped_steps", [])]
    settings = {**first.settings, "skipped_steps": skipped}
    return replace(first, **joined, moments=moments, settings=settings)


ALONG_STEPS = (
    "step",
    "loss",
    "learning_rate",
    "gradient_norm",
    "elapsed_time",
    "trace",
    "mean_squared_norm",
    "squared_norm",
    "gram",
    "eigenvalue",
    "coordinate_values",
    "sketch",
    "deviation_sum",
    "applied_scale",
    "applied_cosine",
)
"""The fields of a record that grow with its steps."""


def _differences(first: GradientRecord, second: GradientRecord) -> list[str]:
    """Return what keeps two records from being one."""
    found = [
        what.replace("_", " ")
        for what in ("block", "block_size", "batch_size", "uncovered")
        if getattr(first, what) != getattr(second, what)
    ]
    found += [
        f"{what.replace('_', ' ')} (only one has it)"
        for what in ("gram", "coordinate_values", "sketch", "deviation_sum", "moments")
        if (getattr(first, what) is None) != (getattr(second, what) is None)
    ]
    one, other = first.coordinate_index, second.coordinate_index
    if one is not None and other is not None and not torch.equal(one, other):
        found.append("coordinates")
    if first.sketch is not None and second.sketch is not None:
        same_size = first.sketch.shape[-1] == second.sketch.shape[-1]
        if not same_size or first.settings.get("seed") != second.settings.get("seed"):
            found.append("the seed or size of the sketch")
    return found
