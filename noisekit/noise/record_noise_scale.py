"""The noise scale of a recorded run, for each layer and in total, over its steps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from noisekit._readable import Readable, typical
from noisekit.errors import InputError
from noisekit.gradients.record import GradientRecord
from noisekit.noise.noise_scale import NoiseScale, noise_scale_over_steps

TOTAL = "total"
_WINDOW = 16


@dataclass(frozen=True, repr=False)
class RecordNoiseScale(Readable):
    """Noise scale and signal-to-noise ratio over (step, block); the last block is ``total``."""

    step: Tensor
    """(step,)."""
    block: list[str]
    trace: Tensor
    """Tr Σ₁ of one step, unbiased, (step, block)."""
    signal: Tensor
    """|∇f|² of one step, unbiased and so sometimes negative, (step, block)."""
    noise_scale: Tensor
    """Ratio of averages over the ``window`` recorded steps around each, (step, block)."""
    interval: Tensor
    """95 % of ``noise_scale``, (step, block, 2); NaN where there are fewer than 8 recorded steps."""
    signal_to_noise: Tensor
    """|∇f|²/Tr Σ₁ of one sample, over the same windows, (step, block)."""
    identifiable: Tensor
    """Whether the signal of the window is told from 0, (step, block)."""
    window: int
    """Recorded steps in a window."""
    pooled: dict[str, NoiseScale]
    """Over the whole run, one a block and ``total``."""

    def __str__(self) -> str:
        blocks = torch.tensor([scale.value for name, scale in self.pooled.items() if name != TOTAL])
        return (
            f"{len(self.step)} recorded steps, windows of {self.window}\n{TOTAL}: {self.pooled[TOTAL]}\n"
            f"{len(blocks)} blocks: {typical(blocks)}"
        )


def unbiased_signal(record: GradientRecord) -> tuple[Tensor, Tensor]:
    """Return Tr Σ₁ and |∇f|² = |ḡ|² − Tr Σ̂₁/N of each step, (step, block) with ``total`` last, in float64."""
    trace, norm = record.trace.double(), record.mean_squared_norm.double()
    trace = torch.cat([trace, trace.sum(dim=1, keepdim=True)], dim=1)
    norm = torch.cat([norm, norm.sum(dim=1, keepdim=True)], dim=1)
    return trace, norm - trace / record.batch_size


def record_noise_scale(record: GradientRecord, *, window: int = _WINDOW) -> RecordNoiseScale:
    """Return the noise scale of every layer and of all, over time and pooled.

    B_simple = Σ_steps Tr Σ̂₁ / Σ_steps (|ḡ|² − Tr Σ̂₁/N): a ratio of averages over ``window`` neighbouring
    recorded steps, never an average of ratios. Intervals by Fieller from the scatter of the steps.

    Arguments: ``record`` from a GradientNoiseRecorder; ``window`` recorded steps, at least 8 (fewer recorded
    steps are all taken together). Raises InputError for a smaller window or an empty record.
    Source: McCandlish et al. 2018, arXiv 1812.06162.
    """
    if window < 8:
        raise InputError(f"window is {window}; an interval needs at least 8 recorded steps.")
    n = len(record.step)
    if n == 0:
        raise InputError("The record holds no step; record at least one batch.")
    trace, signal = unbiased_signal(record)
    names = [*record.block, TOTAL]
    size = min(window, n)
    starts = [min(max(k - size // 2, 0), n - size) for k in range(n)]
    scales = {
        start: [
            noise_scale_over_steps(trace[start : start + size, j], signal[start : start + size, j])
            for j in range(len(names))
        ]
        for start in sorted(set(starts))
    }
    table = [scales[start] for start in starts]

    def gather(field: str) -> Tensor:
        return torch.tensor([[getattr(scale, field) for scale in row] for row in table])

    return RecordNoiseScale(
        step=record.step,
        block=names,
        trace=trace,
        signal=signal,
        noise_scale=gather("value"),
        interval=gather("interval"),
        signal_to_noise=gather("signal_to_noise"),
        identifiable=gather("identifiable"),
        window=size,
        pooled={name: noise_scale_over_steps(trace[:, j], signal[:, j]) for j, name in enumerate(names)},
    )
