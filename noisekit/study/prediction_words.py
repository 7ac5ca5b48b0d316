"""A prediction in sentences: what it says, and what it cannot say."""

from __future__ import annotations

import math
from collections.abc import Sequence

from noisekit._readable import share_of
from noisekit.study.curvature import Curvature
from noisekit.study.prediction_figures import Figure
from noisekit.study.setting import Setting, Tail
from noisekit.theory import Gauge


def verdict_of(
    asked: Setting, shown: Setting, figures: Sequence[Figure], gauges: Sequence[Gauge], measured: str
) -> tuple[str, ...]:
    """Return the prediction in a few sentences, the most important first."""
    by_name = {figure.quantity: figure for figure in figures}
    floor, stability = _floor(by_name, shown), _stability(shown, gauges)
    unstable = any(g.name == "eta_lambda_max" and g.verdict == "refused" for g in gauges)
    middle = [stability, floor] if unstable else [floor, stability]
    parts = [_existence(asked, shown, gauges), *middle, _batch(shown)]
    return tuple(part for part in [*parts, measured] if part)


def unknown_of(setting: Setting, curvature: Curvature | None, tail: Tail | None) -> tuple[str, ...]:
    """Return what the file cannot tell, with what to do about it."""
    noise, batch = setting.noise, setting.batch_size
    rows = []
    if curvature is None:
        rows.append(
            "Stability and the time to the floor need the largest curvature, which this file does not hold: "
            "record with noisekit collect, which measures it, or give --sharpness."
        )
    if noise.noise is None and setting.hyper.optimizer != "sgd":
        rows.append(
            f"The floor of {setting.hyper.optimizer} needs the noise of single coordinates, which this file "
            "does not hold: record with --coordinates 512."
        )
    if setting.infinite and setting.slope is None:
        rows.append(
            f"The floor of signsgd needs the law of minibatches of {batch}, which heavy tails do not give "
            f"from one sample's: record batches of at least {20 * batch} samples, or more steps."
        )
    if not noise.scale.identifiable:
        low = noise.scale.interval[0]
        above = f" (it is above {short(low)})" if low > 0 else ""
        rows.append(
            f"The noise scale is not told from the record{above}, so no batch can be named: record more "
            "steps, or larger batches."
        )
    if tail is None:
        rows.append(
            "Whether the variance of the noise is finite is not known, because too few samples are kept: "
            "record at least 20 samples a batch, with --coordinates 512."
        )
    if noise.coverage < 1:
        rows.append(
            f"The record covers {share_of(noise.coverage, 'the parameters')}; the floor is theirs alone."
        )
    if decays(setting):
        rows.append(
            "What weight decay adds to the floor is not in it: it pulls the parameters away from the minimum "
            "of the loss, a bias that can be many times the floor and that no learning rate takes away. "
            "Where Hessian and minimum are known, nk.stationary_law(…, weight_decay=…, minimum=…) has both."
        )
    return tuple(rows)


def decays(setting: Setting) -> bool:
    """Return whether weight decay, of either kind, pulls the parameters to 0."""
    return setting.hyper.coupled_decay + setting.hyper.decoupled_decay > 0


def short(value: float) -> str:
    """Return two significant digits, without an exponent in the hundreds and thousands.

    >>> short(114.6), short(0.00123)
    ('115', '0.0012')
    """
    return f"{value:,.0f}" if 100 <= value < 1e6 else f"{value:.2g}"


def _existence(asked: Setting, shown: Setting, gauges: Sequence[Gauge]) -> str:
    if not asked.infinite:
        return ""
    tail = next(g for g in gauges if g.name == "tail")
    symbol = tail.symbol.split(",")[0]
    law = f"The noise is as heavy as a law without variance ({symbol} ≤ 2)"
    if shown is asked:
        return f"{law}; signsgd goes on, because signs need no variance."
    return (
        f"{law}: {asked.hyper.optimizer} has no SDE and no floor under it. The figures are those of signsgd "
        f"at a learning rate of {short(shown.hyper.learning_rate)}, which moves about as fast."
    )


def _floor(figures: dict[str, Figure], setting: Setting) -> str:
    if "noise floor" not in figures:
        return ""
    floor = figures["noise floor"]
    between = f" ({short(floor.lower)} to {short(floor.upper)})" if math.isfinite(floor.lower) else ""
    text = (
        f"{setting.hyper.optimizer} at learning rate {setting.hyper.learning_rate:g} and batch "
        f"{setting.batch_size}: the noise keeps up a loss of {short(floor.value)}{between}"
    )
    if decays(setting):
        text += ", beside the bias of weight decay, which is not in it"
    share = figures.get("floor over training loss")
    if share is None:
        return f"{text}."
    percent = f"{short(100 * share.value)} % of the training loss, {short(setting.noise.loss)}"
    if share.value < 0.1:
        return f"{text}, {percent}: it is not the noise that holds the loss up."
    if share.value < 1:
        return f"{text}, {percent}: part of the loss is noise, and a lower learning rate would show it."
    times = f"{short(share.value)} times the training loss"
    return f"{text}, {times}: the loss would rise towards it; lower the learning rate."


def _stability(setting: Setting, gauges: Sequence[Gauge]) -> str:
    gauge = next((g for g in gauges if g.name == "eta_lambda_max"), None)
    if gauge is None or gauge.verdict == "ok":
        return ""
    head = "It is near instability"
    if gauge.verdict == "refused":
        head = f"{setting.hyper.optimizer} is unstable at learning rate {setting.hyper.learning_rate:g}"
    between = f" ({short(gauge.lower)} to {short(gauge.upper)})" if gauge.lower < gauge.upper else ""
    return f"{head}: {gauge.symbol} = {short(gauge.value)}{between}, {gauge.meaning}."


def _batch(setting: Setting) -> str:
    scale, batch = setting.noise.scale, setting.batch_size
    if not scale.identifiable or setting.infinite:
        return ""
    low, high = scale.interval
    text = f"The noise scale is {short(scale.value)} samples ({short(low)} to {short(high)})"
    if batch < scale.value / 2:
        return f"{text}: a larger batch would save steps almost one for one."
    if batch > 2 * scale.value:
        return f"{text}: most of a batch of {batch} is spent on precision; a smaller one would do."
    return f"{text}, near this batch, where more samples buy about as much as they cost."
