"""Scales, laws, tails and spectra of a recorded file, computed piece by piece: the file may exceed memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from noisekit.errors import InputError
from noisekit.results.labelled import array, dataset
from noisekit.results.records import BOUNDS, smoothed_scales
from noisekit.results.seeds import require_one_run
from noisekit.results.validate import reading, require_group

if TYPE_CHECKING:
    import torch

    from noisekit.noise.student_t_fit import StudentTFit

ESTIMATORS = ("gpd", "moment", "hill")
_FEWEST_SAMPLES = 20
_POOLED = 2**16
"""Largest number of values behind one tail index, which costs a second."""
_WORK = 24
"""Bytes that a fit takes for each byte of its float32 samples, roughly."""


def analyze_tree(
    tree: xr.DataTree, *, steps: int = 3, level: float = 0.05, memory: int = 2**26
) -> xr.DataTree:
    """Return ``tree`` with what its recorded values say: noise scales, laws, tail indices, spectrum.

    Per-sample values are read one step and one range of coordinates at a time, so that a file opened by
    ``open_tree`` may be larger than memory; what is not touched stays on disk. The results are those of the
    whole at once: every coordinate is fitted by itself, and the false discovery rate is taken over all.

    - ``/gradient_noise``: noise scale and signal-to-noise at every step with 95 % intervals, and
      ``eigenvalue`` from the sketches where the file has no eigenvalues of Gram matrices;
    - ``/noise_model``: Gaussian or Student-t fit of every coordinate at a few steps;
    - ``/tail_index``: of every block at these steps, the middle of its coordinates' own, over at most
      65,536 values of evenly spread coordinates. ``nk.analyze`` takes the steps together: its interval is
      narrower.

    Args:
        tree: a result tree with ``/gradient_noise``.
        steps: number of recorded steps at which laws are fitted: the first, the last, and those between.
        level: false discovery rate of the heavy-tailed coordinates.
        memory: bytes to work in, roughly.

    Raises:
        FileFormatError: if the tree has no recorded gradient noise.
        InputError: if nothing was recorded, or ``steps`` or ``memory`` is no positive number.
        NonFiniteError: if recorded noise is NaN or infinite.
    """
    require_group(tree, "/gradient_noise")
    if steps < 1 or memory < 1:
        raise InputError(f"steps = {steps} and memory = {memory}; both must be 1 or more.")
    if tree["gradient_noise"].sizes.get("step", 0) == 0:
        raise InputError("The file holds no recorded step; record at least one batch.")
    require_one_run(tree)
    result = tree.copy()
    node = result.children["gradient_noise"]
    noise = _with_scales(node.to_dataset(inherit=False))
    samples = node.children["samples"].to_dataset() if "samples" in node.children else None
    if samples is not None and "eigenvalue" not in noise and "sketch" in samples:
        noise = _with_spectrum(noise, samples["sketch"])
    node.dataset = noise
    if samples is not None and "noise" in samples and samples.sizes["sample"] >= _FEWEST_SAMPLES:
        model, tail = _laws(samples, [str(b) for b in noise["block"].values], steps, level, memory)
        result["noise_model"] = xr.DataTree(model)
        result["tail_index"] = xr.DataTree(tail)
    return result


def _with_scales(noise: xr.Dataset) -> xr.Dataset:
    """Add noise scales at every step, from traces and squared norms."""
    import torch

    from noisekit.gradients.record import GradientRecord
    from noisekit.noise import record_noise_scale

    if not {"trace", "mean_squared_norm", "block"} <= set(noise.variables) or "batch_size" not in noise.attrs:
        return noise
    trace, squared = (
        torch.tensor(noise[name].transpose("step", "block").values, dtype=torch.float64)
        for name in ("trace", "mean_squared_norm")
    )
    nothing = torch.full((len(trace),), torch.nan)
    record = GradientRecord(
        step=torch.tensor(noise["step"].values),
        loss=nothing,
        learning_rate=nothing,
        gradient_norm=nothing,
        elapsed_time=nothing,
        block=[str(b) for b in noise["block"].values],
        block_size=[1] * trace.shape[1],
        trace=trace,
        mean_squared_norm=squared,
        squared_norm=nothing[:, None],
        gram=None,
        eigenvalue=None,
        coordinate_index=None,
        coordinate_block=None,
        coordinate_values=None,
        sketch=None,
        batch_size=int(noise.attrs["batch_size"]),
        coverage=1.0,
        uncovered=[],
    )
    scale = record_noise_scale(record)
    found = dataset("/gradient_noise", smoothed_scales(scale, record.batch_size))
    noise = noise.drop_vars([n for n in found.variables if n in noise.variables])
    noise = noise.assign_coords(found.coords).assign(found.data_vars)
    noise.attrs.pop("noise_scale_window", None)
    noise.attrs["noise_scale_records"] = len(record.step)
    return noise


def _with_spectrum(noise: xr.Dataset, sketch: xr.DataArray) -> xr.Dataset:
    """Add eigenvalues of the per-sample covariance by the Gram matrix of the sketches, step by step."""
    import torch

    from noisekit.gradients.record import covariance_eigenvalues

    sketch = sketch.transpose("step", "sample", "projection")
    rank = min(sketch.sizes["sample"] - 1, sketch.sizes["projection"])
    rows = []
    for i in range(sketch.sizes["step"]):
        s = torch.tensor(sketch[i].values, dtype=torch.float64)
        rows.append(array(covariance_eigenvalues(s @ s.T))[:rank])
    found = dataset("/gradient_noise", {"component": np.arange(1, rank + 1), "eigenvalue": np.array(rows)})
    noise = noise.assign_coords(found.coords).assign(found.data_vars)
    noise.attrs["eigenvalue_source"] = "sketch"
    return noise


def _laws(
    samples: xr.Dataset, blocks: list[str], steps: int, level: float, memory: int
) -> tuple[xr.Dataset, xr.Dataset]:
    """Return ``/noise_model`` and ``/tail_index`` at a few steps."""
    noise = samples["noise"].transpose("step", "sample", "coordinate")
    rows = np.unique(np.linspace(0, noise.sizes["step"] - 1, steps).round().astype(int))
    owner = samples["coordinate_block"].values.astype(str)
    wanted = _tail_columns(owner, blocks, noise.sizes["sample"], memory)
    fits, tails = [], []
    for row in rows:
        both, columns = _one_pass(noise[int(row)], wanted, memory)
        fits.append(_chosen(both, level))
        tails.append([_tails(columns[:, owner[wanted] == block]) for block in blocks])
    step = noise["step"].values[rows]
    known = {"batch_size": 1, "n_samples": noise.sizes["sample"]}
    coordinates = {name: samples[name].values for name in ("coordinate", "coordinate_block")}
    values = {name: np.stack([fit[name] for fit in fits]) for name in fits[0]}
    model = dataset("/noise_model", {"step": step, "bound": BOUNDS, **coordinates, **values}, known)
    alpha, interval, k = (
        np.array([[[found[i] for found in block] for block in tail] for tail in tails]) for i in range(3)
    )
    tail = dataset(
        "/tail_index",
        {
            "step": step,
            "block": np.array(blocks),
            "estimator": np.array(ESTIMATORS),
            "bound": BOUNDS,
            "alpha": alpha,
            "alpha_interval": interval,
            "k": k.astype(np.int64),
        },
        known,
    )
    return model, tail


def _tail_columns(owner: NDArray[np.str_], blocks: list[str], n: int, memory: int) -> NDArray[np.int64]:
    """Return evenly spread coordinates of each block, as many as a tail index takes and memory holds."""
    present = [np.flatnonzero(owner == block) for block in blocks]
    share = memory // (8 * n * max(1, sum(len(p) > 0 for p in present)))
    most = max(1, min(_POOLED // n, share))
    chosen = [p[np.linspace(0, len(p) - 1, min(len(p), most)).round().astype(int)] for p in present if len(p)]
    return np.sort(np.concatenate([*chosen, np.zeros(0, dtype=np.int64)]))


def _one_pass(
    noise: xr.DataArray, wanted: NDArray[np.int64], memory: int
) -> tuple[StudentTFit, torch.Tensor]:
    """Return both fits of every coordinate of one step, and the values of the columns ``wanted``."""
    import torch

    from noisekit.noise.samples import as_samples
    from noisekit.noise.student_t_fit import StudentTFit, fit_student_t

    fits, columns = [], []
    for start, part in _ranges(noise, memory):
        x = as_samples(torch.from_numpy(part))
        fits.append(fit_student_t(x))
        inside = wanted[(wanted >= start) & (wanted < start + part.shape[1])] - start
        columns.append(x[:, torch.from_numpy(inside)])
    joined = {
        name: torch.cat([getattr(fit, name) for fit in fits])
        for name, value in vars(fits[0]).items()
        if isinstance(value, torch.Tensor)
    }
    return StudentTFit(**joined, n_samples=fits[0].n_samples), torch.cat(columns, dim=1)


def _ranges(noise: xr.DataArray, memory: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield (first coordinate, values (sample, range)) over all coordinates of one step."""
    n, d = noise.sizes["sample"], noise.sizes["coordinate"]
    width = max(1, memory // (4 * _WORK * n))
    for start in range(0, d, width):
        with reading("/gradient_noise/samples"):
            values = noise.isel(coordinate=slice(start, start + width)).values
        yield start, np.array(values, dtype=np.float32, order="C")


def _chosen(both: StudentTFit, level: float) -> dict[str, Any]:
    """Return the Student-t where the likelihood ratio rejects the Gaussian, over all coordinates."""
    import torch

    from noisekit.noise.selection import is_student_t

    p, q, heavy = is_student_t(both, level=level)
    interval = both.df_interval()
    gaussian = both.is_fitted & ~heavy
    values = {
        "location": torch.where(heavy, both.location, both.gaussian_location),
        "scale": torch.where(heavy, both.scale, both.gaussian_scale),
        "df": torch.where(heavy, both.df, torch.inf),
        "df_interval": torch.stack([interval[:, 0], torch.where(gaussian, torch.inf, interval[:, 1])], dim=1),
        "log_likelihood": torch.where(heavy, both.log_likelihood, both.gaussian_log_likelihood),
        "p_value": p,
        "q_value": q,
        "is_heavy_tailed": heavy,
        "is_set_aside": ~both.is_fitted,
    }
    return {name: array(value) for name, value in values.items()}


def _tails(columns: torch.Tensor) -> list[tuple[float, tuple[float, float], int]]:
    """Return (α, interval, k) of one block for each estimator; NaN where there is no tail to speak of."""
    from noisekit.noise import tail_index

    found = []
    for estimator in ESTIMATORS:
        try:
            if columns.shape[1] == 0:
                raise InputError("no coordinate of this block was recorded")
            tail = tail_index(columns, estimator=estimator, pooled=True)  # type: ignore[arg-type]
            low, high = tail.interval.reshape(2).tolist()
            found.append((float(tail.alpha), (low, high), int(tail.k)))
        except InputError:
            found.append((np.nan, (np.nan, np.nan), 0))
    return found
