"""Fit a noise law to samples, coordinate by coordinate, and say which coordinates are heavy-tailed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from noisekit._readable import Readable
from noisekit.errors import unknown_name
from noisekit.noise.gaussian import GaussianNoise
from noisekit.noise.samples import as_samples, repeated_share, scale_drift
from noisekit.noise.selection import is_student_t, weakest_visible_df
from noisekit.noise.student_t import StudentTNoise
from noisekit.noise.student_t_fit import StudentTFit, fit_student_t

Family = Literal["auto", "gaussian", "student_t"]


@dataclass(frozen=True, repr=False)
class NoiseFit(Readable):
    """The law fitted to each coordinate; tensors are (coordinate,) unless said otherwise.

    p-values, q-values and log-likelihoods are float64 and NaN in coordinates that were set aside.
    """

    model: GaussianNoise | StudentTNoise
    """The noise model; location-free, because gradient noise has mean zero."""
    location: Tensor
    """Location, in units of the samples."""
    scale: Tensor
    """Scale, in units of the samples: the standard deviation of a Gaussian, s of a Student-t."""
    df: Tensor
    """Degrees of freedom (Student-t fit); inf where the law is Gaussian."""
    df_interval: Tensor
    """95 % interval for df, (coordinate, 2); reaches inf wherever the Gaussian was not rejected."""
    log_likelihood: Tensor
    p_value: Tensor
    """Of the likelihood ratio of Student-t against Gaussian, one coordinate at a time."""
    q_value: Tensor
    """Benjamini–Hochberg adjusted over the coordinates."""
    is_heavy_tailed: Tensor
    """q ≤ level."""
    is_constant: Tensor
    """Dead or constant coordinates: scale 0, set aside."""
    has_atom: Tensor
    """Coordinates that repeat one exact value (zeros behind a ReLU): moments only, set aside."""
    student_t: StudentTFit
    """Both fits of every coordinate with their standard errors, before the choice."""
    family: Family
    level: float
    n_samples: int
    batch_size: int | None
    warnings: tuple[str, ...]

    @property
    def n_constant(self) -> int:
        """How many coordinates are constant."""
        return int(self.is_constant.sum())

    @property
    def n_with_atom(self) -> int:
        """How many coordinates repeat one exact value."""
        return int(self.has_atom.sum())

    @property
    def weakest_visible_df(self) -> float:
        """The largest ν that so many samples tell from a Gaussian (power 80 %, one coordinate, level 5 %)."""
        return weakest_visible_df(self.n_samples)

    def summary(self) -> str:
        """Return two or three plain sentences about the fit."""
        d = len(self.df)
        tested = d - self.n_constant - self.n_with_atom
        heavy = self.df[self.is_heavy_tailed]
        lines = [
            f"{self.n_samples} samples of {d} coordinates ({self.n_constant} constant and {self.n_with_atom} "
            "with a repeated value set aside).",
            f"{len(heavy)} of {tested} coordinates are heavy-tailed (false discovery rate {self.level:g})"
            + (f"; their median df is {heavy.median().item():.3g}." if len(heavy) else "."),
            f"{self.n_samples} samples show df up to {self.weakest_visible_df:.3g} in a single coordinate.",
        ]
        return "\n".join([*lines, *self.warnings])

    def __str__(self) -> str:
        return self.summary()


def fit_noise(
    samples: object, *, family: Family = "auto", level: float = 0.05, batch_size: int | None = None
) -> NoiseFit:
    """Fit a Gaussian or a Student-t to every coordinate of gradient noise by maximum likelihood.

    auto: the Student-t where the likelihood ratio rejects the Gaussian at false discovery rate ``level``,
    else the Gaussian. Samples must be draws at one point: a drift of their scale over the window looks like ν
    ≈ 5.

    Args:
        samples: (sample, coordinate), a tensor of any device or anything NumPy reads; at least 8 samples.
        family: ``"auto"``, ``"gaussian"`` (df = inf everywhere) or ``"student_t"`` (df as fitted everywhere).
        level: false discovery rate over the coordinates.
        batch_size: number of training examples behind one sample, kept with the model. Student-t noise does
            not rescale with the batch size (t₃ of single examples is ν ≈ 9.4 after averaging 32): refit
            instead.

    Returns:
        NoiseFit on the device and in the dtype of the samples (half precisions become float32).

    Raises:
        InputError: unknown family, wrong dtype or axes, too few samples. NonFiniteError: NaN or inf.

    Source: Benjamini, Hochberg 1995 (false discovery rate).

    >>> fit = fit_noise(torch.randn(1000, 4))
    >>> fit.df.shape, fit.df_interval.shape
    (torch.Size([4]), torch.Size([4, 2]))
    """
    if family not in ("auto", "gaussian", "student_t"):
        raise unknown_name("noise family", family, ["auto", "gaussian", "student_t"])
    x = as_samples(samples)
    both = fit_student_t(x)
    p, q, heavy = is_student_t(both, level=level)
    use_t = {"auto": heavy, "gaussian": torch.zeros_like(heavy), "student_t": both.is_fitted}[family]

    location = torch.where(use_t, both.location, both.gaussian_location).to(x.dtype)
    scale = torch.where(use_t, both.scale, both.gaussian_scale).to(x.dtype)
    df = torch.where(use_t, both.df, torch.inf).to(x.dtype)
    interval = both.df_interval()
    gaussian = both.is_fitted & ~use_t
    upper = torch.where(gaussian, torch.inf, interval[:, 1])
    return NoiseFit(
        model=_model(scale, df, batch_size),
        location=location,
        scale=scale,
        df=df,
        df_interval=torch.stack([interval[:, 0], upper], dim=1).to(x.dtype),
        log_likelihood=torch.where(use_t, both.log_likelihood, both.gaussian_log_likelihood),
        p_value=p,
        q_value=q,
        is_heavy_tailed=heavy,
        is_constant=both.is_constant,
        has_atom=both.has_atom,
        student_t=both,
        family=family,
        level=level,
        n_samples=len(x),
        batch_size=batch_size,
        warnings=_warnings(both, x),
    )


def _model(scale: Tensor, df: Tensor, batch_size: int | None) -> GaussianNoise | StudentTNoise:
    if torch.isinf(df).all():
        return GaussianNoise(scale=scale, batch_size=batch_size)
    return StudentTNoise(scale=scale, df=df, batch_size=batch_size)


def _warnings(fit: StudentTFit, x: Tensor) -> tuple[str, ...]:
    warnings = []
    if fit.is_constant.any():
        warnings.append(f"{int(fit.is_constant.sum())} coordinates are constant: no noise there, scale 0.")
    if fit.has_atom.any():
        warnings.append(
            f"{int(fit.has_atom.sum())} coordinates repeat one exact value in over 5 % of the samples (zeros "
            "behind a ReLU?): no smooth law fits them, their scale is the plain standard deviation."
        )
    if not fit.is_fitted.any():
        warnings.append("Every coordinate is constant or repeats a value: nothing was fitted or tested.")
    drift, chance = scale_drift(x)
    if drift > max(1.2, chance):
        warnings.append(
            f"The scale changes {drift:.2g}-fold over the window: a mixture of scales looks heavy-tailed, so "
            "df says little about the noise at one point. Use a shorter window or samples of one step."
        )
    repeats = repeated_share(x)
    if repeats > 0.05:
        warnings.append(
            f"{repeats:.0%} of the samples repeat earlier ones: intervals and p-values assume independent "
            "samples and are too optimistic. Pass each training example once."
        )
    return tuple(warnings)
