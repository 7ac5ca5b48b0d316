"""What the gradient engine returns: statistics of one batch, and a record of many steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class GradientStatistics:
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
    """Flat positions of the recorded coordinates in the concatenation of the covered parameters, (coordinate,)."""
    coordinate_values: Tensor | None
    """(sample, coordinate)."""
    sketch: Tensor | None
    """An unbiased sketch of each sample's gradient: E[s_i·s_j] = g_i·g_j, (sample, projection)."""
    coverage: float
    """Fraction of the trainable parameters that the statistics include."""
    uncovered: list[str]
    """Names of the trainable parameters that they do not."""


@dataclass(frozen=True)
class GradientRecord:
    """Gradient statistics over the recorded steps of one training run. ``block`` is a parameter name."""

    step: Tensor
    """(step,), int64."""
    loss: Tensor
    learning_rate: Tensor
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
    """Eigenvalues of the per-sample covariance from the centred Gram matrix, descending, (step, component)."""
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
