"""The verdict in three sentences: what the noise is, who ends lowest, whether the prediction held."""

from __future__ import annotations

import numpy as np
import xarray as xr

from noisekit.plots.fits import has_fits, read_fits
from noisekit.plots.groups import dataset, has_group, optimizers_in, step_values
from noisekit.plots.numbers import (
    format_count,
    format_interval,
    format_number,
    format_percent,
    format_with_error,
    plural,
)
from noisekit.report.floors import final_losses


def verdict(tree: xr.DataTree) -> list[str]:
    """Return the three sentences; one that lacks its data says so."""
    return [noise_sentence(tree), optimizer_sentence(tree), prediction_sentence(tree)]


def noise_sentence(tree: xr.DataTree) -> str:
    """Say whether the noise is heavy-tailed and how large it is."""
    parts = [part for part in (_tails(tree), _scale(tree)) if part]
    if not parts and has_group(tree, "gradient_noise"):
        return (
            "Nothing has been fitted yet to the gradient noise that this file records: noisekit analyze does."
        )
    if not parts:
        return "This file holds no record of the gradient noise."
    text = "; ".join(parts) + "."
    return text[0].upper() + text[1:]


def _tails(tree: xr.DataTree) -> str:
    if not has_fits(tree, "sample"):
        return _tails_of_minibatch(tree, "the noise")
    fits = read_fits(tree)
    when = "" if fits.step is None else f"at step {fits.step} "
    count = f"the {plural(fits.df.size, 'recorded coordinate')}"
    if fits.n_set_aside:
        count = f"{count} that {'has' if fits.df.size == 1 else 'have'} a smooth law"
    batches = _tails_of_minibatch(tree, "that")
    after = f", and {batches}" if batches else ""
    if fits.heavy is None:
        middle = format_number(float(np.median(fits.df)), 2)
        return f"{when}a Student-t with median ν = {middle} fits the noise of {count}{after}"
    if not fits.heavy.any():
        return f"{when}the noise of one sample's gradient looks Gaussian in all of {count}{after}"
    middle = format_number(float(np.median(fits.df[fits.heavy])), 2)
    word = "heavy-tailed" if fits.heavy_share > 0.5 else "heavier-tailed than a Gaussian"
    share = "all" if fits.heavy_share == 1 else format_percent(fits.heavy_share)
    return (
        f"{when}the noise of one sample's gradient is {word} in {share} of {count} "
        f"(Student-t fit, median ν = {middle} there{_peak(fits.df[fits.heavy])}){after}"
    )


def _peak(df: np.ndarray) -> str:
    """Return what a ν below 2 does not say."""
    if not np.median(df) < 2:
        return ""
    return ", by its sharp peak: whether its variance is finite, the tail index says"


def _tails_of_minibatch(tree: xr.DataTree, subject: str) -> str:
    if not has_fits(tree, "minibatch"):
        return ""
    fits = read_fits(tree, "minibatch")
    if fits.heavy is None:
        return ""
    if not fits.heavy.any():
        return f"{subject} of a minibatch of {fits.batch_size} looks Gaussian everywhere"
    share = "all" if fits.heavy_share == 1 else format_percent(fits.heavy_share)
    count = format_count(fits.df.size)
    return f"{subject} of a minibatch of {fits.batch_size} is heavy-tailed in {share} of {count}"


def _scale(tree: xr.DataTree) -> str:
    if not has_group(tree, "gradient_noise") or "total_noise_scale" not in tree["gradient_noise"]:
        return ""
    data = dataset(tree, "gradient_noise")
    value = data["total_noise_scale"].values.astype(float)
    seen = np.flatnonzero(np.isfinite(value) & (value > 0))
    if not seen.size:
        return "the noise scale is too large for the recorded batches to measure"
    last, end, step = int(seen[-1]), len(value) - 1, step_values(data)
    text = f"the noise scale at step {step[last]} is {format_number(value[last], 2)} samples"
    if "total_noise_scale_interval" in data:
        interval = data["total_noise_scale_interval"].transpose("step", "bound").values
        low, high = interval[last]
        text += f" (95 % interval {format_interval(low, high, 2)})"
        if last < end and interval[end, 0] > 0:
            # The signal drowns where training ends; an earlier value would be taken for that of the end.
            least = format_number(interval[end, 0], 2)
            text = f"the noise scale at step {step[end]} is above {least} samples (95 %)"
    batch = data.attrs.get("batch_size", tree.attrs.get("batch_size"))
    return f"{text}, measured from batches of {batch}" if batch else text


def optimizer_sentence(tree: xr.DataTree) -> str:
    """Name the optimizer whose real runs end lowest, if the errors allow to name one."""
    finals = final_losses(tree)
    who = "real runs"
    if not finals:
        finals, who = final_losses(tree, "sde"), "SDE paths"
    if not finals:
        if optimizers_in(tree, "optimizer") or optimizers_in(tree, "sde"):
            return "No replicate of any optimizer stayed finite."
        return "This file holds no runs of an optimizer."
    order = sorted(finals, key=lambda name: finals[name].level)
    best = finals[order[0]]
    reached = format_with_error(best.level, best.error)
    batch = tree.attrs.get("batch_size")
    at = f" at batch size {batch}" if batch else ""
    ending = f"after {plural(best.step, 'step')}{at} (mean of {plural(best.n, who[:-1])}, ± standard error)"
    falling = _falling([name for name in order if finals[name].still_falling], len(order))
    if len(order) == 1:
        return f"{order[0]} ends at a loss of {reached} {ending}{falling}."
    second = finals[order[1]]
    error = float(np.hypot(np.nan_to_num(best.error), np.nan_to_num(second.error)))
    others = "; ".join(f"{n} at {format_with_error(finals[n].level, finals[n].error)}" for n in order[1:])
    if second.level - best.level <= 2 * error:
        tied = [n for n in order if finals[n].level - best.level <= 2 * np.hypot(best.error, finals[n].error)]
        low = f"{_and(tied)} end equally low within their errors"
        return f"{low}: {order[0]} at a loss of {reached} {ending}; {others}{falling}."
    lead = f"Of {len(order)} optimizers {order[0]} ends lowest"
    return f"{lead}, at a loss of {reached} {ending}; {others}{falling}."


def _falling(names: list[str], count: int) -> str:
    """Say whose loss had not levelled off: who ends lowest is then no floor yet."""
    if not names:
        return ""
    everyone = len(names) == count > 1
    who = ("both" if count == 2 else "all") if everyone else _and(names)
    return f"; {who} still falling"


def prediction_sentence(tree: xr.DataTree) -> str:
    """Say for how many optimizers the SDE's prediction of the mean loss held, with the gaps."""
    names = optimizers_in(tree, "comparison")
    words: dict[str, list[str]] = {"held": [], "is unclear": [], "missed": []}
    for name in names:
        gap = headline_gap(tree, name)
        if gap is not None:
            words.setdefault({"unclear": "is unclear"}.get(gap[0], gap[0]), []).append(f"{name} ({gap[1]})")
    count = sum(map(len, words.values()))
    if not count:
        return "This file holds no comparison of a prediction with real runs."
    parts = [f"{word} for {_and(found)}" for word, found in words.items() if found]
    head = f"The SDE's prediction of the mean loss {_and(parts)}"
    if len(words["held"]) == count and count > 1:
        all_of_them = "both" if count == 2 else f"all {count}"
        gaps = _and(words["held"])
        head = f"The SDE's prediction of the mean loss held for {all_of_them} optimizers: {gaps}"
    return f"{head} (mean relative gap ± Monte-Carlo error)."


def headline_gap(tree: xr.DataTree, optimizer: str) -> tuple[str, str] | None:
    """Return the verdict's word and the gap with its error, of the loss or else of the first observable."""
    data = dataset(tree, f"comparison/{optimizer}")
    if "observable" not in data.coords or not {"mean_relative_gap", "verdict"} <= set(data):
        return None
    names = [str(name) for name in data["observable"].values]
    row = data.isel(observable=names.index("loss") if "loss" in names else 0)
    gap = 100 * float(row["mean_relative_gap"])
    error = 100 * float(row["mean_standard_error"]) if "mean_standard_error" in row else _error(row)
    return str(row["verdict"].item()), f"{format_with_error(gap, error)} %"


def _error(row: xr.Dataset) -> float:
    if "relative_gap_error" not in row:
        return float("nan")
    return 100 * float(np.nanmean(row["relative_gap_error"].values))


def _and(words: list[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]
