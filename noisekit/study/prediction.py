"""What an optimizer will do, as far as a recorded file can tell."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from noisekit._readable import Readable
from noisekit.study.applied import groups_differ
from noisekit.study.curvature import Curvature, curvature_of
from noisekit.study.measured import floor_in_file, measured_sentence
from noisekit.study.prediction_figures import Figure, figures_of
from noisekit.study.prediction_gauges import gauges_of
from noisekit.study.prediction_words import short, unknown_of, verdict_of
from noisekit.study.setting import Setting, sign_slopes, tail_of
from noisekit.study.stored_noise import stored_noise
from noisekit.study.trials import Trial, trials
from noisekit.theory import Gauge, regimes
from noisekit.theory.hyperparameters import Hyperparameters, check_hyperparameters
from noisekit.theory.inputs import check_count, check_positive

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True, repr=False)
class Prediction(Readable):
    """What ``predict`` finds: figures, gauges that say whether theory applies, and settings to try.

    ``exists`` is False where the noise has no variance and the optimizer no SDE; the figures are then those
    of SignSGD, as ``figures_of`` says.
    """

    optimizer: str
    learning_rate: float
    batch_size: int
    exists: bool
    figures_of: str
    figures: tuple[Figure, ...]
    gauges: tuple[Gauge, ...]
    trials: tuple[Trial, ...]
    verdict: tuple[str, ...]
    unknown: tuple[str, ...]
    """What the file cannot tell, and what to do about it."""

    def __str__(self) -> str:
        figures = [_line(figure) for figure in self.figures]
        doubts = [f"{g.verdict}: {g.symbol} = {short(g.value)}, {g.meaning}" for g in self.gauges]
        doubts = [text for text in doubts if not text.startswith("ok")]
        head = f"{self.optimizer}, learning rate {self.learning_rate:g}, batch {self.batch_size}"
        unknown = [f"not known: {sentence}" for sentence in self.unknown]
        return "\n".join([head, *self.verdict, *figures, *doubts, *unknown])

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)


def predict(
    tree: xr.DataTree,
    optimizer: str,
    *,
    learning_rate: float,
    batch_size: int | None = None,
    betas: tuple[float, float] = (0.9, 0.999),
    beta: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    sharpness: float | None = None,
) -> Prediction:
    """Say what an optimizer will do under the noise that a file recorded, without training.

    The floor (stationary excess loss set by the noise), the time to reach it, stability, whether theory
    applies, and which batch and hyper-parameters to try. It speaks of where the record ends and takes the
    noise there as constant. Where the recorded optimizer was given a constant factor on the mean gradient, as
    by a loss that is a sum over the samples, the figures are for that factor too; where it was clipped they
    are for the unclipped gradient, and the verdict says so. What the file does not hold is named in
    ``unknown``, never made up.

    Args:
        tree: a result tree, as ``open_tree`` returns it, best of ``collect`` or ``run_study``.
        optimizer: "sgd", "signsgd", "rmsprop", "rmspropw", "adam" or "adamw".
        learning_rate: η.
        batch_size: B; the one that was recorded if not given.
        betas, beta, eps, weight_decay, momentum: as in torch, of the optimizers that have them.
        sharpness: λ_max, the largest eigenvalue of the Hessian, if it is known better than in the file.

    Raises:
        InputError: a value out of range, an unknown optimizer.
        FileFormatError: the tree knows nothing of the noise, nor a floor of this optimizer.

    Source: floors and rates after Compagnoni et al. 2025, arXiv 2411.15958; noise scale McCandlish et al.
        2018, arXiv 1812.06162.
    """
    hyper = check_hyperparameters(
        optimizer,
        learning_rate,
        betas=betas,
        beta=beta,
        eps=eps,
        weight_decay=weight_decay,
        momentum=momentum,
    )
    if sharpness is not None:
        check_positive("sharpness", sharpness)
    if batch_size is not None:
        check_count("batch_size", batch_size)
    noise = stored_noise(tree)
    recorded = noise.batch_size if noise is not None else int(tree.attrs.get("batch_size") or 0)
    size = int(batch_size or recorded or 1)
    curvature = curvature_of(tree, hyper.optimizer, sharpness)
    measured = measured_sentence(tree, hyper.optimizer, hyper.learning_rate, size)
    if noise is None:
        return _without_record(tree, hyper, size, curvature, measured)
    tail = tail_of(tree, noise, size)
    infinite = tail is not None and tail.infinite_variance
    slopes = sign_slopes(tree, noise, size) if infinite else None
    asked = Setting(hyper, size, noise, infinite, *(slopes or (None, None)))
    shown = asked
    if infinite and hyper.optimizer != "signsgd":
        shown = replace(asked, hyper=_as_signsgd(asked))
    figures = figures_of(shown, curvature)
    gauges = gauges_of(asked, curvature, tail)
    verdict = verdict_of(asked, shown, figures, gauges, measured)
    given = noise.applied.sentence(size)
    return Prediction(
        optimizer=hyper.optimizer,
        learning_rate=hyper.learning_rate,
        batch_size=size,
        exists=shown is asked,
        figures_of=shown.hyper.optimizer,
        figures=figures,
        gauges=gauges,
        trials=trials(tree, shown, curvature),
        verdict=(given, *verdict) if given else verdict,
        unknown=(*unknown_of(shown, curvature, tail), *groups_differ(tree)),
    )


def _line(figure: Figure) -> str:
    """Return a figure with its unit, interval and note."""
    unit = "" if figure.units == "1" else f" {figure.units}"
    value = short(figure.value) if math.isfinite(figure.value) else "not told"
    if figure.value == math.inf and figure.units == "steps":
        value = "never"
    known = not (math.isnan(figure.lower) or math.isnan(figure.upper))
    between = f" (95 % {short(figure.lower)} to {short(figure.upper)})" if known else ""
    return f"{figure.quantity}: {value}{unit if value[0].isdigit() else ''}{between}, {figure.note}"


def _as_signsgd(asked: Setting) -> Hyperparameters:
    """Return SignSGD with the learning rate at which it moves about as fast as the optimizer asked for."""
    rate = asked.hyper.learning_rate
    if asked.hyper.optimizer == "sgd":
        slope = 1 / asked.noise.typical_deviation(asked.batch_size)
        if asked.slope is not None:
            slope = float(np.median(asked.slope))
        rate = float(f"{asked.rate / slope:.2g}")
    return check_hyperparameters("signsgd", rate)


def _without_record(
    tree: xr.DataTree, hyper: Hyperparameters, size: int, curvature: Curvature | None, measured: str
) -> Prediction:
    """Return the floor that the file computed for this optimizer, scaled to the learning rate."""
    floor = floor_in_file(tree, hyper, size)
    figures = () if floor is None else (floor,)
    gauges = tuple(
        regimes(
            hyper.optimizer,
            hyper.learning_rate,
            betas=(hyper.momentum, hyper.beta),
            beta=hyper.beta,
            eps=hyper.eps,
            weight_decay=hyper.decoupled_decay,
            momentum=hyper.momentum,
            sharpness=curvature.value if curvature is not None and hyper.optimizer == "sgd" else None,
        )
    )
    unknown = (
        "The file holds no record of gradient noise, so the noise scale, the tails and what another batch "
        "would do are not known: record a network with noisekit collect.",
    )
    return Prediction(
        optimizer=hyper.optimizer,
        learning_rate=hyper.learning_rate,
        batch_size=size,
        exists=True,
        figures_of=hyper.optimizer,
        figures=figures,
        gauges=gauges,
        trials=(),
        verdict=tuple(filter(None, [measured])),
        unknown=unknown,
    )
