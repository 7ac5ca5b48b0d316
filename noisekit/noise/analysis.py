"""Everything about the noise of a recorded run in one table: a row a layer, one in total, with verdicts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from noisekit._readable import Readable, share_of
from noisekit.errors import InputError
from noisekit.gradients.record import GradientRecord
from noisekit.noise.alignment import HessianAlignment, hessian_alignment
from noisekit.noise.dependence import GradientDependence, gradient_dependence
from noisekit.noise.drift import NoiseDrift, noise_drift
from noisekit.noise.fit import NoiseFit, fit_noise
from noisekit.noise.noise_scale import NoiseScale
from noisekit.noise.participation import ParticipationRatio, participation_over_steps
from noisekit.noise.record_noise_scale import TOTAL, record_noise_scale
from noisekit.noise.samples import evenly_spread
from noisekit.noise.symmetry import Skewness, skewness
from noisekit.noise.tails import tail_index
from noisekit.noise.window_samples import window_samples
from noisekit.problems.base import SampledProblem

if TYPE_CHECKING:
    import pandas as pd

_FEWEST_SAMPLES = 20
_FEWEST_FOR_LAWS = 16
_MOST_POOLED = 1_000_000
_NAN2 = (math.nan, math.nan)


@dataclass(frozen=True, repr=False)
class BlockNoise(Readable):
    """The noise of one layer, or of all; every number speaks of one sample's gradient (B = 1)."""

    block: str
    n_coordinates: int
    n_recorded: int
    """Coordinates whose values were recorded; shape and tails are read from them."""
    noise_scale: NoiseScale
    dependence: GradientDependence
    drift: NoiseDrift
    participation: ParticipationRatio
    heavy_tailed: float
    """Share of the tested coordinates that are not Gaussian (false discovery rate 5 %)."""
    df: float
    """Median degrees of freedom (Student-t fit) of those; inf where there are none."""
    df_interval: tuple[float, float]
    """Medians of the ends of their 95 % intervals."""
    tail_index: float
    """Of the standardised coordinates and all steps pooled. α̂ of one step, as ``analyze_tree`` gives it,
    takes a larger share of fewer samples for the tail: it is less certain, and often too high."""
    tail_interval: tuple[float, float]
    asymmetric: float
    """Share of the tested coordinates that are not symmetric (false discovery rate 5 %)."""

    @property
    def verdict(self) -> str:
        """What the numbers say, in words."""
        parts = [self._law(), self.dependence.verdict, self.drift.verdict, str(self.noise_scale)]
        return "; ".join(part for part in parts if part)

    def _law(self) -> str:
        if math.isnan(self.heavy_tailed):
            if self.n_recorded:
                return f"law unknown, no recorded coordinate varies or has {_FEWEST_SAMPLES} values"
            return (
                f"law unknown, none of its {self.n_coordinates} coordinates recorded (they are drawn from "
                "all parameters alike: record more, or give coordinates= their positions)"
            )
        shape = ", asymmetric" if self.asymmetric > 0.5 else ""
        if self.heavy_tailed <= 0.05:
            return f"Gaussian as far as these samples show{shape}"
        low, high = self.tail_interval
        tail = f"tail index of all steps {self.tail_index:.2g}, 95 % {low:.2g} to {high:.2g}"
        if high < 2:
            # Finite data always has a covariance of its own; only a law that goes on beyond them has none.
            meaning = "MinibatchNoise has Σ(x), a fitted law has not"
            return f"as heavy as a law without variance ({tail}): {meaning}{shape}"
        if self.df < 2:
            # The fit follows the centre of a law, where samples that are learnt pile up near 0.
            known = "the variance exists" if low > 2 else "whether the variance exists is open"
            return f"sharply peaked (median df {self.df:.2g}) but {tail}: {known}{shape}"
        df = f", median df {self.df:.2g} there" if math.isfinite(self.df) else ""
        return f"heavy-tailed in {share_of(self.heavy_tailed, 'coordinates')}{df}{shape}"

    def __str__(self) -> str:
        return f"{self.block}: {self.verdict}"


@dataclass(frozen=True, repr=False)
class NoiseAnalysis(Readable):
    """The table an appendix prints: a row a layer, the last one in total."""

    rows: tuple[BlockNoise, ...]
    n_steps: int
    batch_size: int
    """Samples of a recorded step."""
    coverage: float
    """Share of the trainable parameters that are in it."""
    fit: NoiseFit | None
    """Of every recorded coordinate, on noise standardised and pooled over the window."""
    skewness: Skewness | None
    alignment: HessianAlignment | None
    warnings: tuple[str, ...]

    @property
    def total(self) -> BlockNoise:
        """The row of all layers together."""
        return self.rows[-1]

    def to_frame(self) -> pd.DataFrame:
        """Return the table, one row a layer and ``total``, one column a number, ``verdict`` last."""
        import pandas as pd

        return pd.DataFrame([_columns(row) for row in self.rows]).set_index("block")

    def __str__(self) -> str:
        head = (
            f"{self.n_steps} steps of {self.batch_size} samples, {share_of(self.coverage, 'parameters')}; "
            "every number is for one sample (B = 1), laws and tails over all steps together."
        )
        lines = [str(row) for row in self.rows]
        if self.alignment is not None:
            lines.append(f"Hessian: {self.alignment.verdict}")
        return "\n".join([head, *lines, *(f"warning: {w}" for w in self.warnings)])


def analyze(
    record: GradientRecord,
    *,
    level: float = 0.05,
    problem: SampledProblem | None = None,
    x: Tensor | None = None,
    hessian_directions: int = 5,
) -> NoiseAnalysis:
    """Say what the noise of a recorded run is made of, layer by layer and in total.

    Noise scale and signal-to-noise at the last step, law of the coordinates (Student-t against Gaussian,
    Benjamini–Hochberg), tail index (generalised Pareto, pooled after standardising), symmetry, additive or
    multiplicative, drift over the window, participation ratio; with a ``problem`` also the alignment of Σ
    with the sharpest directions of its Hessian.

    Arguments: ``record`` of a GradientNoiseRecorder; ``level`` false discovery rate; ``problem`` and ``x``
    (coordinate,), its x0 if not given, for the Hessian.
    Raises InputError for an empty record, or an x without a problem; NonFiniteError for NaN in the samples.
    """
    if len(record.step) == 0:
        raise InputError("The record holds no step; record at least one batch.")
    if x is not None and problem is None:
        raise InputError("x says where to look at a problem's Hessian; give the problem as well.")
    scale = record_noise_scale(record)
    fit, skew, noise = None, None, None
    if record.coordinate_values is not None and record.coordinate_values.shape[2] > 0:
        noise = window_samples(record)
        if len(noise) >= _FEWEST_SAMPLES:
            fit, skew = fit_noise(noise, level=level), skewness(noise)
    sizes = dict(zip(record.block, record.block_size, strict=True)) | {TOTAL: sum(record.block_size)}
    owner = record.coordinate_block or []
    rows = []
    for j, name in enumerate(scale.block):
        own = torch.tensor([name in (TOTAL, block) for block in owner], dtype=torch.bool)
        shape = _shape(fit, skew, noise, own) if noise is not None and bool(own.any()) else _UNKNOWN
        gram = record.gram if name == TOTAL else None
        rows.append(
            BlockNoise(
                block=name,
                n_coordinates=sizes[name],
                n_recorded=int(own.sum()),
                noise_scale=scale.at_end[name],
                dependence=gradient_dependence(scale.trace[:, j], scale.signal[:, j]),
                drift=noise_drift(record.step, scale.trace[:, j]),
                participation=participation_over_steps(
                    gram, None if noise is None else record.coordinate_values, own, sizes[name]
                ),
                **shape,
            )
        )
    return NoiseAnalysis(
        rows=tuple(rows),
        n_steps=len(record.step),
        batch_size=record.batch_size,
        coverage=record.coverage,
        fit=fit,
        skewness=skew,
        alignment=None
        if problem is None
        else hessian_alignment(problem, problem.x0 if x is None else x, k=hessian_directions),
        warnings=_warnings(record, fit),
    )


_UNKNOWN: dict[str, Any] = {
    "heavy_tailed": math.nan,
    "df": math.nan,
    "df_interval": _NAN2,
    "tail_index": math.nan,
    "tail_interval": _NAN2,
    "asymmetric": math.nan,
}


def _shape(fit: NoiseFit | None, skew: Skewness | None, noise: Tensor, own: Tensor) -> dict[str, Any]:
    """Return the law of the coordinates ``own`` as the fields of a BlockNoise."""
    if fit is None or skew is None:
        return _UNKNOWN
    own = own.to(noise.device)
    tested = own & ~fit.is_constant & ~fit.has_atom
    if not bool(tested.any()):
        return _UNKNOWN
    heavy = fit.is_heavy_tailed & tested
    # The largest of a million numbers already say what the tail is.
    tail = tail_index(
        evenly_spread(noise[:, tested], max(512, _MOST_POOLED // int(tested.sum()))), pooled=True
    )
    low, high = tail.interval.reshape(2).tolist()
    any_heavy = bool(heavy.any())
    df_low, df_high = (
        fit.df_interval[heavy].median(dim=0).values.tolist() if any_heavy else (math.inf, math.inf)
    )
    return {
        "heavy_tailed": float(heavy.sum() / tested.sum()),
        "df": float(fit.df[heavy].median()) if any_heavy else math.inf,
        "df_interval": (df_low, df_high),
        "tail_index": float(tail.alpha.reshape(())),
        "tail_interval": (low, high),
        "asymmetric": float(skew.is_skewed[tested].double().mean()),
    }


def _warnings(record: GradientRecord, fit: NoiseFit | None) -> tuple[str, ...]:
    found = []
    if record.coverage < 1:
        found.append(
            f"{share_of(1 - record.coverage, 'the parameters')} are not covered: "
            f"{', '.join(record.uncovered)}."
        )
    if record.applied is not None and record.applied.sentence:
        found.append(f"{record.applied.sentence}. All numbers here are of the mean gradient.")
    if record.coordinate_values is not None and record.batch_size < _FEWEST_FOR_LAWS:
        found.append(
            f"{record.batch_size} samples a step: taking out their centre bends the law (at 8 samples, "
            "8 % of Gaussian coordinates are called heavy-tailed); record batches of 16 or more."
        )
    if len(record.step) < 8:
        found.append(f"{len(record.step)} recorded steps give no interval over time; record at least 8.")
    if fit is not None:
        found.extend(fit.warnings)
    return tuple(found)


def _columns(row: BlockNoise) -> dict[str, Any]:
    scale, dependence, drift, directions = row.noise_scale, row.dependence, row.drift, row.participation
    return {
        "block": row.block,
        "coordinates": row.n_coordinates,
        "recorded": row.n_recorded,
        "trace": scale.trace,
        "trace_error": scale.trace_error,
        "noise_scale": scale.value,
        "noise_scale_low": scale.interval[0],
        "noise_scale_high": scale.interval[1],
        "signal_to_noise": scale.signal_to_noise,
        "heavy_tailed": row.heavy_tailed,
        "df": row.df,
        "df_low": row.df_interval[0],
        "df_high": row.df_interval[1],
        "tail_index": row.tail_index,
        "tail_index_low": row.tail_interval[0],
        "tail_index_high": row.tail_interval[1],
        "asymmetric": row.asymmetric,
        "gradient_slope": dependence.slope,
        "gradient_slope_low": dependence.interval[0],
        "gradient_slope_high": dependence.interval[1],
        "drift": drift.ratio,
        "drift_low": drift.interval[0],
        "drift_high": drift.interval[1],
        "participation_ratio": directions.value,
        "participation_ratio_low": directions.interval[0],
        "participation_ratio_high": directions.interval[1],
        "verdict": row.verdict,
    }
