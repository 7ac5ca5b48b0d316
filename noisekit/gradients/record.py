"""What the gradient engine returns: statistics of one batch, and a record of many steps."""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from noisekit._readable import Readable
from noisekit.errors import InputError
from noisekit.gradients.applied_gradient import AppliedGradient, applied_gradient
from noisekit.gradients.device import in_float64
from noisekit.gradients.streaming import RunningMoments


@dataclass(frozen=True, repr=False)
class GradientStatistics(Readable):
    """Per-sample gradient statistics of one batch of N samples at one point.

    ``mean`` and ``variance`` (unbiased, of one sample's gradient) are keyed by parameter name and shaped like
    the parameter. What was not asked for is None.
    """

    n_samples: int
    mean: dict[str, Tensor]
    variance: dict[str, Tensor]
    squared_norms: Tensor
    """|g_i|², (sample,)."""
    gram: Tensor | None
    """g_i·g_j, (sample, sample)."""
    coordinate_index: Tensor | None
    """Flat positions of the coordinates in the concatenation of the covered parameters, (coordinate,)."""
    coordinate_values: Tensor | None
    """(sample, coordinate)."""
    sketch: Tensor | None
    """An unbiased sketch of each sample's gradient: E[s_i·s_j] = g_i·g_j, (sample, projection)."""
    coverage: float
    """Fraction of the trainable parameters that the statistics include."""
    uncovered: list[str]
    """Names of the trainable parameters that they do not."""

    @property
    def trace(self) -> dict[str, Tensor]:
        """Trace of the covariance of one sample's gradient, by parameter: the sum of its variances."""
        return {name: variance.sum() for name, variance in self.variance.items()}

    @property
    def total_trace(self) -> Tensor:
        """Trace of the covariance over all covered parameters."""
        return torch.stack([variance.sum() for variance in self.variance.values()]).sum()

    def __str__(self) -> str:
        names = ("gram", "coordinate_values", "sketch")
        return (
            f"{self.n_samples} samples, {_named(self.mean)}, {_share(self.coverage, self.uncovered)}, "
            f"noise trace {self.total_trace:.3g}, {_kept(self, names)}"
        )

    @property
    def eigenvalues(self) -> Tensor:
        """The N − 1 eigenvalues of the covariance that can differ from 0, descending, float64."""
        if self.gram is None:
            raise InputError("The statistics have no Gram matrix: ask for gram=True to get eigenvalues.")
        return covariance_eigenvalues(self.gram)


def centred(gram: Tensor) -> Tensor:
    """Return HGH with H = I − 11ᵀ/N in float64: the Gram matrix of g_i − ḡ."""
    gram = in_float64(gram)
    rows = gram - gram.mean(-1, keepdim=True)
    return rows - rows.mean(-2, keepdim=True)


def covariance_eigenvalues(gram: Tensor) -> Tensor:
    """Return the N − 1 eigenvalues of (1/(N−1)) Σ (g_i−ḡ)(g_i−ḡ)ᵀ from g_i·g_j (…, N, N), descending."""
    n = gram.shape[-1]
    return torch.linalg.eigvalsh(centred(gram)).flip(-1)[..., : n - 1].clamp(min=0) / (n - 1)


@dataclass(frozen=True, repr=False)
class GradientRecord(Readable):
    """Gradient statistics over the recorded steps of one training run. ``block`` is a parameter name."""

    step: Tensor
    """(step,), int64."""
    loss: Tensor
    learning_rate: Tensor
    """Of the optimizer's first parameter group, (step,); ``settings["group_learning_rates"]`` are those of
    all groups at the last step, where they differ."""
    gradient_norm: Tensor
    """Norm of the batch-mean gradient, (step,)."""
    elapsed_time: Tensor
    """Seconds since the recorder was attached, (step,)."""
    block: list[str]
    block_size: list[int]
    """Number of coordinates of each block."""
    trace: Tensor
    """Trace of the per-sample covariance, unbiased, (step, block)."""
    mean_squared_norm: Tensor
    """|ḡ|² of the batch mean, (step, block)."""
    squared_norm: Tensor
    """|g_i|², (step, sample)."""
    gram: Tensor | None
    """Centred or not is said in ``settings``; (step, sample, sample)."""
    eigenvalue: Tensor | None
    """Eigenvalues of the per-sample covariance by the centred Gram matrix, descending, (step, component)."""
    coordinate_index: Tensor | None
    """Flat positions in the concatenation of the blocks, (coordinate,)."""
    coordinate_block: list[str] | None
    """Block of each recorded coordinate."""
    coordinate_values: Tensor | None
    """Per-sample gradients (not centred), (step, sample, coordinate)."""
    sketch: Tensor | None
    """(step, sample, projection)."""
    batch_size: int
    coverage: float
    uncovered: list[str]
    settings: dict[str, Any] = field(default_factory=dict)
    deviation_sum: Tensor | None = None
    """Sum over a block's coordinates of the standard deviation of one sample's gradient, (step, block)."""
    moments: RunningMoments | None = None
    """Mean and variance of every coordinate, accumulated over the recorded steps."""
    applied_scale: Tensor | None = None
    """⟨p, ḡ⟩/|ḡ|², p the gradient that the optimizer was given; NaN where it is not known, (step,)."""
    applied_cosine: Tensor | None = None
    """Cosine of the angle between p and ḡ, (step,)."""

    @property
    def applied(self) -> AppliedGradient | None:
        """What the steps say about the gradient that the optimizer was given; None where no step knows."""
        return applied_gradient(self.applied_scale, self.applied_cosine, self.batch_size, self.settings)

    def minibatch_noise(self) -> Tensor:
        """Return the noise of the batch means at the coordinates, ḡ_k − mean over k, (step, coordinate).

        It is noise alone only where the weights stood still (``GradientNoiseRecorder.repeat``): along a
        training run the drift of the gradient is in it too. Its variance belongs to ``batch_size``.
        """
        if self.coordinate_values is None:
            raise InputError(
                "The record has no coordinates: record with coordinates > 0 for the minibatch noise."
            )
        means = self.coordinate_values.mean(1)
        return means - means.mean(0)

    def __str__(self) -> str:
        n, when = len(self.step), "no steps"
        if n:
            first, last = (int(self.step[i]) for i in (0, -1))
            when = f"step {first}" if n == 1 else f"{n} recorded steps from {first} to {last}"
            when += f", loss {self.loss[0]:.3g}" + ("" if n == 1 else f" to {self.loss[-1]:.3g}")
            when += f", noise trace {self.trace[-1].sum():.3g} at the end"
        names = ("gram", "coordinate_values", "sketch", "moments")
        return (
            f"{when}; batches of {self.batch_size}, {_named(self.block)}, "
            f"{_share(self.coverage, self.uncovered)}, {_kept(self, names)}"
            f"{_given(self.applied)}{_rates(self.settings)}"
        )


def _given(applied: AppliedGradient | None) -> str:
    return f". {applied.sentence}" if applied is not None and applied.sentence else ""


def _rates(settings: dict[str, Any]) -> str:
    rates = settings.get("group_learning_rates")
    if not rates:
        return ""
    return (
        f". The parameter groups have learning rates {', '.join(f'{r:g}' for r in rates)}; the first is kept"
    )


def _named(blocks: Sized) -> str:
    return f"{len(blocks)} parameter tensor" + ("" if len(blocks) == 1 else "s")


def _share(coverage: float, uncovered: list[str]) -> str:
    """Say which share of the parameters is in the statistics, and which is not."""
    if not uncovered:
        return "all of the parameters"
    return f"{100 * coverage:.3g} % of the parameters (without {', '.join(uncovered)})"


def _kept(result: object, names: tuple[str, ...]) -> str:
    """Say which of the large parts are there, with their shapes."""
    parts = {name: getattr(result, name) for name in names}
    shown = [
        f"{name} {tuple(value.shape)}" if isinstance(value, Tensor) else name
        for name, value in parts.items()
        if value is not None
    ]
    return "with " + ", ".join(shown) if shown else "norms alone"
