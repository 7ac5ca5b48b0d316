"""The noise scale of a recorded run, for each layer and in total, over its steps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from noisekit._readable import Readable, typical
from noisekit.errors import InputError
from noisekit.gradients.record import GradientRecord
from noisekit.noise.noise_scale import NoiseScale, noise_scale_over_steps
from noisekit.noise.noise_scale_course import FEWEST_RECORDS, NoiseScaleCourse, noise_scale_course

TOTAL = "total"


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
    """B_simple at the step itself, (step, block); inf where no signal is seen."""
    interval: Tensor
    """95 % of ``noise_scale``, (step, block, 2); NaN where there are fewer than 8 recorded steps. The upper
    end is inf where |∇f|² is not told from 0."""
    signal_to_noise: Tensor
    """|∇f|²/Tr Σ₁ of one sample at the step, (step, block)."""
    identifiable: Tensor
    """Whether |∇f|² at the step is told from 0, (step, block)."""
    pooled: dict[str, NoiseScale]
    """Ratio of averages over the whole run, one a block and ``total``: where the gradient shrinks, the early
    steps decide it."""
    at_end: dict[str, NoiseScale]
    """At the last recorded step, one a block and ``total``."""

    def __str__(self) -> str:
        blocks = torch.tensor([scale.value for name, scale in self.at_end.items() if name != TOTAL])
        return (
            f"{len(self.step)} recorded steps\nat the last, {TOTAL}: {self.at_end[TOTAL]}\n"
            f"{len(blocks)} blocks: {typical(blocks)}"
        )


def unbiased_signal(record: GradientRecord) -> tuple[Tensor, Tensor]:
    """Return Tr Σ₁ and |∇f|² = |ḡ|² − Tr Σ̂₁/N of each step, (step, block) with ``total`` last, in float64."""
    trace, norm = record.trace.double(), record.mean_squared_norm.double()
    trace = torch.cat([trace, trace.sum(dim=1, keepdim=True)], dim=1)
    norm = torch.cat([norm, norm.sum(dim=1, keepdim=True)], dim=1)
    return trace, norm - trace / record.batch_size


def record_noise_scale(record: GradientRecord) -> RecordNoiseScale:
    """Return the noise scale of every layer and of all, at every recorded step and pooled.

    B_simple = Tr Σ₁/|∇f|² at the step, not over a window: |∇f|² may fall a hundredfold during a run, and an
    average over neighbours then follows late. Tr Σ̂₁ and |ḡ|² − Tr Σ̂₁/N of all steps are smoothed by a
    model of levels that move, at a pace that the data choose (``noise_scale_course``); a lone step enters
    with its own error, and the interval holds what the movement may hide. On digits-mlp (5 seeds, SGD at
    .1, B = 64 and 128) the 95 % intervals held B_simple of all data at 98 % of the steps, those of single
    layers at 95 %. Records of one point (``recorder.repeat``) are pooled.

    Arguments: ``record`` from a GradientNoiseRecorder. Raises InputError for an empty record.
    Source: McCandlish et al. 2018, arXiv 1812.06162; Kitagawa 1987, JASA 82:1032.
    """
    n = len(record.step)
    if n == 0:
        raise InputError("The record holds no step; record at least one batch.")
    trace, signal = unbiased_signal(record)
    names = [*record.block, TOTAL]
    pooled = [noise_scale_over_steps(trace[:, j], signal[:, j]) for j in range(len(names))]
    if not _moves(record.step):
        course = _same_everywhere(pooled, n)
        at_end = pooled
    else:
        course = noise_scale_course(trace, signal, record.batch_size)
        at_end = [course.at(-1, j) for j in range(len(names))]
    return RecordNoiseScale(
        step=record.step,
        block=names,
        trace=trace,
        signal=signal,
        noise_scale=course.value,
        interval=course.interval,
        signal_to_noise=1 / course.value,
        identifiable=course.identifiable,
        pooled=dict(zip(names, pooled, strict=True)),
        at_end=dict(zip(names, at_end, strict=True)),
    )


def noise_scale_at_end(step: Tensor, trace: Tensor, signal: Tensor, batch_size: int) -> NoiseScale:
    """Return the noise scale at the last step from unbiased ``trace`` and ``signal``, each (step,)."""
    if not _moves(step):
        return noise_scale_over_steps(trace, signal)
    return noise_scale_course(trace[:, None], signal[:, None], batch_size).at(-1, 0)


def _moves(step: Tensor) -> bool:
    """Return whether there are enough records, and not all of one point."""
    return len(step) >= FEWEST_RECORDS and bool((step != step[0]).any())


def _same_everywhere(scales: list[NoiseScale], n: int) -> NoiseScaleCourse:
    """Return one noise scale a series at all of ``n`` steps."""

    def over_steps(values: list[object]) -> Tensor:
        row = torch.tensor(values)
        return row.expand(n, *row.shape).clone()

    return NoiseScaleCourse(
        value=over_steps([s.value for s in scales]),
        interval=over_steps([s.interval for s in scales]),
        trace=over_steps([s.trace for s in scales]),
        trace_error=over_steps([s.trace_error for s in scales]),
        identifiable=over_steps([s.identifiable for s in scales]),
    )
