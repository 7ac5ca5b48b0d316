"""One sentence for each figure of the noise, computed from the data it shows."""

from __future__ import annotations

import numpy as np
import xarray as xr

from noisekit.plots.fits import NoiseOf, read_fits
from noisekit.plots.groups import at_step, dataset, step_values
from noisekit.plots.hill_plot import hill_estimates
from noisekit.plots.numbers import format_count, format_interval, format_number, format_percent, plural
from noisekit.plots.pooled_noise import pooled_noise
from noisekit.plots.signal_to_noise import total_signal_to_noise


def read_histogram(tree: xr.DataTree, of: NoiseOf = "sample") -> str:
    """Say how much noise lies far out, and how much each law expects there."""
    noise = pooled_noise(tree, of=of)
    far = 4.0
    share = float(np.mean(np.abs(noise.values) > far))
    at = np.array([-far, far])
    below, above = noise.cumulative(at, "gaussian")
    text = (
        f"Beyond {far:.0f} {noise.unit}s lie {format_percent(share)} of the "
        f"{format_count(noise.values.size)} values from "
        f"{format_count(noise.n_coordinates)} coordinates; the Gaussian fits expect "
        f"{format_percent(below + 1 - above)}"
    )
    if noise.has_fit:
        below, above = noise.cumulative(at, "fitted")
        text += f", the Student-t fits {format_percent(below + 1 - above)}"
    if noise.n_silent:
        text += f"; {format_count(noise.n_silent)} coordinates with no noise or no smooth law are left out"
    return text + "."


def read_qq(tree: xr.DataTree, of: NoiseOf = "sample") -> str:
    """Say how far out the outermost thousandth is, measured and expected."""
    noise = pooled_noise(tree, of=of)
    p = max(1e-3, 1.0 / noise.values.size)
    measured = float(np.quantile(np.abs(noise.values), 1 - p))
    probability = np.array([1 - p / 2])
    gaussian = float(noise.quantile(probability, "gaussian")[0])
    text = (
        f"The outermost {format_percent(p)} of the values lies beyond {format_number(measured, 2)} "
        f"{noise.unit}s, where the Gaussian fits expect {format_number(gaussian, 2)}"
    )
    if noise.has_fit:
        fitted = float(noise.quantile(probability, "fitted")[0])
        text += f" and the Student-t fits {format_number(fitted, 2)}"
    return text + "."


def read_tail_index(tree: xr.DataTree) -> str:
    """Name the block with the heaviest tail, and say whether its variance may be infinite."""
    data = at_step(dataset(tree, "tail_index", "alpha"), None)
    estimator = str(data["estimator"].values[0])
    alpha = data["alpha"].isel(estimator=0).values.astype(float)
    if not np.isfinite(alpha).any():
        return f"The {estimator} estimator found no tail index in any block."
    lowest = int(np.nanargmin(alpha))
    text = (
        f"The heaviest tail is that of {data['block'].values[lowest]}: α = {format_number(alpha[lowest], 2)}"
    )
    if "alpha_interval" not in data:
        return f"{text} ({estimator} estimator)."
    low, high = data["alpha_interval"].isel(estimator=0, block=lowest).values.astype(float)
    text += f" (95 % interval {format_interval(low, high, 2)}, {estimator} estimator)"
    if high < 2:
        return text + ", below 2: a law with such a tail has no variance, though finite data has one."
    if low <= 2:
        return text + ", which does not rule out an infinite variance (α < 2)."
    return text + ", above 2, where the variance is finite."


def read_hill(tree: xr.DataTree) -> str:
    """Say whether the curve has a plateau."""
    values = pooled_noise(tree).values
    n = int(np.count_nonzero(values))
    k = np.array([max(10, int(np.sqrt(n))), max(11, n // 10)])
    early, late = hill_estimates(values, k)
    error = 1.96 * np.hypot(early / np.sqrt(k[0]), late / np.sqrt(k[1]))
    text = (
        f"The estimate is {format_number(early, 2)} from the {format_count(k[0])} largest values and "
        f"{format_number(late, 2)} from the {format_count(k[1])} largest"
    )
    if abs(early - late) <= error:
        return text + ": a plateau, as a power law has."
    return text + ": no plateau, so the index depends on where the tail is taken to begin."


def read_degrees_of_freedom(tree: xr.DataTree, of: NoiseOf = "sample") -> str:
    """Say how many coordinates are heavy-tailed and which block most."""
    fits = read_fits(tree, of)
    medians = {name: float(np.median(fits.df[fits.block == name])) for name in dict.fromkeys(fits.block)}
    heaviest = min(medians, key=lambda name: medians[name])
    middle = float(np.median(fits.df))
    text = f"Median ν is {format_number(middle, 2)} over {plural(fits.df.size, 'coordinate')}"
    if not np.isfinite(middle):
        text = f"Most of {plural(fits.df.size, 'coordinate')} fit a Gaussian best"
    if fits.heavy is not None:
        text += f", and a Gaussian is rejected in {format_percent(fits.heavy_share)} of them"
    if middle < 2:
        # Values of a finite data set have a variance; such a fit means a sharp peak, not a missing moment.
        return f"{text}; ν below 2 here says that most values are close to zero and few are large."
    if len(medians) < 2 or not np.isfinite(medians[heaviest]):
        return text + "."
    return text + f"; heaviest is {heaviest} with a median of {format_number(medians[heaviest], 2)}."


def read_spectrum(tree: xr.DataTree) -> str:
    """Say how many directions share the noise at the last recorded step."""
    data = at_step(dataset(tree, "gradient_noise", "eigenvalue"), None)
    value = np.maximum(np.nan_to_num(data["eigenvalue"].values.astype(float)), 0)
    value = np.sort(value)[::-1]
    if value.sum() <= 0:
        return "No eigenvalue is positive."
    half = 1 + int(np.searchsorted(np.cumsum(value) / value.sum(), 0.5))
    carry = "one carries" if half == 1 else f"{half} carry"
    return (
        f"At the last recorded step the largest of {value.size} eigenvalues has "
        f"{format_percent(value[0] / value.sum())} of the noise, and {carry} half of it."
    )


def read_noise_scale(tree: xr.DataTree) -> str:
    """Set the last noise scale beside the batch size."""
    data = dataset(tree, "gradient_noise", "total_noise_scale")
    value = data["total_noise_scale"].values.astype(float)
    seen = np.flatnonzero(np.isfinite(value) & (value > 0))
    if not seen.size:
        return "The batches were too small to see the signal, so the noise scale cannot be told from them."
    last, step = int(seen[-1]), step_values(data)
    window = int(data.attrs.get("noise_scale_window", 1))  # of a file in which averages over steps stand
    averaged = f", averaged over {window} recorded steps," if window > 1 else ""
    text = f"At step {step[last]} the noise scale{averaged} is {format_number(value[last], 2)} samples"
    interval = ""
    if "total_noise_scale_interval" in data:
        low, high = data["total_noise_scale_interval"].transpose("step", "bound").values[last]
        interval = f" (95 % interval {format_interval(low, high, 2)})"
    text += interval
    batch = data.attrs.get("batch_size", tree.attrs.get("batch_size"))
    if not batch:
        return text + "."
    if value[last] > 2 * batch:
        tail = "well above the batch size, so larger batches would still buy faster steps."
    elif value[last] < 0.5 * batch:
        tail = "well below the batch size, so most of each batch is spent on precision that is not needed."
    else:
        tail = "close to the batch size, where more samples buy about as much as they cost."
    return f"{text}, {tail}"


def read_signal_to_noise(tree: xr.DataTree) -> str:
    """Say how the signal-to-noise ratio changes from the first to the last recorded step."""
    data = dataset(tree, "gradient_noise", "signal_to_noise")
    ratio, step = total_signal_to_noise(data), step_values(data)
    if ratio is None:
        ratio = data["signal_to_noise"].transpose("step", "block").values[:, 0]
    first, last = float(ratio[0]), float(ratio[-1])
    text = (
        f"The ratio of a batch goes from {format_number(first, 2)} at step {step[0]} to "
        f"{format_number(last, 2)} at step {step[-1]}"
    )
    if not last > 0:
        return text + ": at the end no signal is seen above the noise."
    return text + (
        ": most of its squared length is noise." if last < 1 else ": it points mostly the right way."
    )


def read_training(tree: xr.DataTree) -> str:
    """Say from where to where the loss went and how long it took."""
    data = dataset(tree, "training", "loss")
    loss, step = data["loss"].values.astype(float), step_values(data)
    text = (
        f"The loss of the recorded batches goes from {format_number(loss[0])} at step {step[0]} to "
        f"{format_number(loss[-1])} at step {step[-1]}"
    )
    if "elapsed_time" in data:
        text += f", in {format_number(float(data['elapsed_time'].values[-1]), 2)} s with the recorder on"
    return text + "."
