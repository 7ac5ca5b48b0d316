"""One sentence for each figure of the optimizers, computed from the data it shows."""

from __future__ import annotations

import numpy as np
import xarray as xr

from noisekit.plots.ensembles import ensemble
from noisekit.plots.floor_against_noise import floor_power, predicted_floor
from noisekit.plots.groups import dataset, optimizers_in, step_values
from noisekit.plots.numbers import format_number, format_percent, format_with_error, plural
from noisekit.plots.stationary_law import read_law
from noisekit.report.floors import final_losses


def read_trajectory(tree: xr.DataTree, optimizer: str) -> str:
    """Set the last mean loss of the SDE beside that of the real runs."""
    if optimizer not in optimizers_in(tree, "sde", "optimizer"):
        kind = "sde" if optimizer in optimizers_in(tree, "sde") else "optimizer"
        runs = ensemble(tree, kind, optimizer)
        name = "The SDE paths" if kind == "sde" else "The real runs"
        if runs.n == 0:
            return f"{name} all diverged."
        return f"{name} end at a mean loss of {format_with_error(runs.mean[-1], runs.standard_error[-1])}."
    sde, real = ensemble(tree, "sde", optimizer), ensemble(tree, "optimizer", optimizer)
    if sde.n < 2 or real.n < 2:
        return f"Too few replicates are left to compare: {sde.n} SDE paths and {real.n} real runs."
    gap = sde.mean[-1] - real.mean[-1]
    error = float(np.hypot(sde.standard_error[-1], real.standard_error[-1]))
    spread = sde.values[:, -1].std(ddof=1) / max(real.values[:, -1].std(ddof=1), 1e-300)
    spread_error = spread * np.sqrt(0.5 / (sde.n - 1) + 0.5 / (real.n - 1))
    text = (
        f"At step {real.step[-1]} the real runs have a mean loss of "
        f"{format_with_error(real.mean[-1], real.standard_error[-1])} and the SDE "
        f"{format_with_error(sde.mean[-1], sde.standard_error[-1])}, "
        f"{_in_errors(gap, error)} standard errors apart; "
        f"its spread is {format_with_error(spread, spread_error)} times theirs"
    )
    lost = real.n_diverged + sde.n_diverged
    return text + (
        f"; {plural(lost, 'replicate')} diverged and {'is' if lost == 1 else 'are'} left out."
        if lost
        else "."
    )


def read_floors(tree: xr.DataTree) -> str:
    """Say how much of the final loss the noise alone explains."""
    finals = final_losses(tree)
    floors = {name: predicted_floor(tree, name) for name in optimizers_in(tree, "theory")}
    floors = {name: floor for name, floor in floors.items() if np.isfinite(floor)}
    if not finals:
        lowest = min(floors, key=lambda name: floors[name])
        return f"The lowest predicted noise floor is that of {lowest}: {format_number(floors[lowest], 2)}."
    best = min(finals, key=lambda name: finals[name].level)
    text = f"Lowest is {best} at {format_with_error(finals[best].level, finals[best].error)}"
    if best in floors:
        share = floors[best] / finals[best].level if finals[best].level > 0 else np.nan
        text += f", of which the noise alone would keep up {format_number(floors[best], 2)}"
        if 0 < share < 1:
            text += f" ({format_percent(share)})"
    falling = [name for name, final in finals.items() if final.still_falling]
    if falling:
        text += f"; still falling when the runs end: {', '.join(falling)}"
    return text + "."


def read_gap(tree: xr.DataTree) -> str:
    """Say where the gap is largest and how many optimizers stay within 5 %."""
    largest, where, at, inside, names = -1.0, "", 0, 0, optimizers_in(tree, "comparison")
    for name in names:
        data = dataset(tree, f"comparison/{name}", "relative_gap").isel(observable=0)
        gap = np.abs(np.nan_to_num(data["relative_gap"].values.astype(float)))
        step = data["step"].values if "step" in data.variables else step_values(data, "time")
        inside += int(gap.max() <= 0.05)
        if gap.max() > largest:
            largest, where, at = float(gap.max()), name, int(step[gap.argmax()])
    stay = f"{plural(len(names), 'optimizer')} {'stays' if inside == 1 else 'stay'}"
    return (
        f"The largest gap of the mean is {format_percent(largest)} ({where}, step {at}); "
        f"{inside} of {stay} within 5 % throughout."
    )


def read_stationary_law(tree: xr.DataTree, optimizer: str) -> str:
    """Give the ratio of measured to predicted variances, and how often the law is within its interval."""
    _, law = read_law(tree, optimizer)
    predicted, measured = law.predicted, law.measured
    if measured is None or law.error is None:
        spread = predicted[predicted > 0]
        return (
            f"The predicted variances of {plural(predicted.size, 'coordinate')} lie between "
            f"{format_number(spread.min(), 2)} and {format_number(spread.max(), 2)}; "
            "this file holds no parameters of real runs to check them."
        )
    usable = (predicted > 0) & (measured > 0)
    low, middle, high = np.quantile(measured[usable] / predicted[usable], [0.25, 0.5, 0.75])
    inside = np.abs(measured - predicted)[usable] <= 1.96 * law.error[usable]
    within = "all" if inside.all() else str(int(inside.sum()))
    return (
        f"Over {plural(inside.size, 'coordinate')} the variance of {law.n} real runs is "
        f"{format_number(middle, 2)} times the predicted one "
        f"(middle half {format_number(low, 2)} to {format_number(high, 2)}); the prediction lies within the "
        f"95 % interval of {within} of them."
    )


def read_phase_course(tree: xr.DataTree, optimizer: str) -> str:
    """Say where the coordinates are when the runs begin and when they end, and what is left of the loss."""
    data = dataset(tree, f"phases/{optimizer}", "phase_fraction")
    share = data["phase_fraction"].transpose("phase", "time").values.astype(float)
    step = data["step"].values if "step" in data.variables else step_values(data, "time")
    phases = [int(p) for p in data["phase"].values]

    def inside(at: int) -> str:
        return format_percent(float(share[phases.index(3), at])) if 3 in phases else "an unknown share"

    text = (
        f"{inside(0)} of the coordinates are inside the noise (phase 3) at step {int(step[0])} and "
        f"{inside(-1)} at step {int(step[-1])}"
    )
    if "excess_loss" not in data:
        return f"{text}."
    excess = data["excess_loss"].values.astype(float)
    if not excess[0] > 0:
        return f"{text}."
    return f"{text}, where {format_percent(float(excess[-1] / excess[0]))} of the first excess loss is left."


def read_phases(tree: xr.DataTree) -> str:
    """Say in which phase most coordinates are."""
    name = next(n for n in optimizers_in(tree, "theory") if "phase_fraction" in tree[f"theory/{n}"])
    data = dataset(tree, f"theory/{name}", "phase_fraction")
    share = data["phase_fraction"].values.astype(float)
    phase = int(data["phase"].values[int(np.nanargmax(share))])
    meaning = {
        1: "far from the noise, where SignSGD moves at full speed",
        2: "near the noise, where SignSGD begins to slow down",
        3: "inside the noise, where SignSGD slows down in proportion to the gradient",
    }[phase]
    return f"{format_percent(float(np.nanmax(share)))} of the coordinates are {meaning}."


def read_floor_against_noise(tree: xr.DataTree) -> str:
    """Say which optimizer has the lowest floor here and at which noise the order changes."""
    floors = {name: predicted_floor(tree, name) for name in optimizers_in(tree, "theory")}
    floors = {name: floor for name, floor in floors.items() if floor > 0}
    best = min(floors, key=lambda name: floors[name])
    text = (
        f"At the noise of this file {best} has the lowest predicted floor, {format_number(floors[best], 2)}"
    )
    others = [name for name in floors if floor_power(name) != floor_power(best)]
    if not others:
        return text + "."
    rival = min(others, key=lambda name: floors[name])
    crossing = (floors[rival] / floors[best]) ** (1 / (floor_power(best) - floor_power(rival)))
    if 0.8 < crossing < 1.25:
        return f"{text}, and {rival} is about as low."
    side = "above" if crossing > 1 else "below"
    return text + f"; {side} {format_number(crossing, 2)} times this noise it would be {rival}."


def read_batch_scaling(tree: xr.DataTree) -> str:
    """Say how much each rule changes the loss over the batch ratios."""
    name = optimizers_in(tree, "batch_scaling")[0]
    data = dataset(tree, f"batch_scaling/{name}", "loss").transpose("preset", "batch_ratio")
    loss = data["loss"].values.astype(float)
    change = (loss.max(axis=1) - loss.min(axis=1)) / np.abs(loss.mean(axis=1))
    rules = ", ".join(
        f"{format_percent(c)} under {preset}" for preset, c in zip(data["preset"].values, change, strict=True)
    )
    ratio = data["batch_ratio"].values
    return (
        f"From {ratio.min():g} to {ratio.max():g} times the batch the final loss of {name} varies by {rules}."
    )


def read_weak_order(tree: xr.DataTree) -> str:
    """Give the slopes; 1 is what an SDE of weak order 1 must show."""
    slopes = []
    for name in optimizers_in(tree, "weak_order"):
        data = dataset(tree, f"weak_order/{name}", "gap")
        if "slope" in data:
            error = float(data["slope_error"]) if "slope_error" in data else np.nan
            slopes.append(f"{format_with_error(float(data['slope']), error)} ({name})")
    return (
        f"The gap shrinks with the learning rate with slope {', '.join(slopes)}; weak order 1 means slope 1."
    )


def _in_errors(gap: float, error: float) -> str:
    if not error > 0:
        return "0" if gap == 0 else "many"
    return "less than 0.1" if abs(gap) < 0.1 * error else format_number(abs(gap) / error, 2)
