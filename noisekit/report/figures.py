"""Which figures the report shows, each with the sentence that reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import xarray as xr
from matplotlib import pyplot
from matplotlib.figure import Figure

from noisekit import plots
from noisekit.errors import NoisekitError
from noisekit.plots.fits import NoiseOf
from noisekit.plots.groups import has_group, optimizers_in
from noisekit.plots.insights import draw_insight
from noisekit.plots.style import COLUMN_WIDTH, theme
from noisekit.plots.truth import height_for
from noisekit.report import noise_readings as noise
from noisekit.report import optimizer_readings as optimizers
from noisekit.report.svg import to_inline_svg
from noisekit.report.truth import is_study, truth_sentences

NOISE, PATHS, CHECKS = "What the noise is", "What the optimizers do", "When the theory holds"
TRUTH = "Predictions beside real runs"
_QUANTITIES: dict[Literal["gap", "std_ratio"], str] = {
    "gap": "How far the mean is off",
    "std_ratio": "How far the spread is off",
}


@dataclass(frozen=True)
class Sketch:
    """A figure to be drawn: where it stands, how it is drawn and how it is read."""

    name: str
    section: str
    title: str
    draw: Callable[..., Any]
    read: Callable[[xr.DataTree], str]
    height: float = COLUMN_WIDTH[1]
    """Inches."""
    is_whole: bool = False
    """Whether ``draw`` makes the figure itself."""


@dataclass(frozen=True)
class Picture:
    """A figure that was drawn: inline SVG and the sentence below it."""

    name: str
    section: str
    title: str
    svg: str
    reading: str


@dataclass(frozen=True)
class Absence:
    """A figure that could not be drawn, and why."""

    title: str
    reason: str


def draw_figures(tree: xr.DataTree) -> tuple[list[Picture], list[Absence]]:
    """Draw every figure that the tree has data for; the others are returned with the reason."""
    pictures, absences = [], []
    for sketch in _sketches(tree):
        try:
            pictures.append(_draw(tree, sketch))
        except NoisekitError as error:
            absences.append(Absence(sketch.title, str(error)))
        except (ValueError, TypeError, KeyError, IndexError) as error:
            # A file may hold what no figure expects; the rest of the page is still worth reading.
            reason = (
                f"the data could not be drawn ({type(error).__name__}: {' '.join(str(error).split())[:200]})."
            )
            absences.append(Absence(sketch.title, reason))
    return pictures, absences


def _draw(tree: xr.DataTree, sketch: Sketch) -> Picture:
    with theme():
        if sketch.is_whole:
            figure = sketch.draw(tree)
            pyplot.close(figure)
        else:
            figure = Figure(figsize=(COLUMN_WIDTH[0], sketch.height), layout="constrained")
            ax = figure.add_subplot()
            sketch.draw(tree, ax=ax)
            ax.set_title("")  # the page has its own heading
        reading = sketch.read(tree)
        svg = to_inline_svg(figure, sketch.name, f"{sketch.title}. {reading}")
    return Picture(sketch.name, sketch.section, sketch.title, svg, reading)


def _sketches(tree: xr.DataTree) -> Iterator[Sketch]:
    yield from _truth_sketches(tree)
    if is_study(tree):
        return
    yield from _law_sketches(tree)
    yield Sketch("tail", NOISE, "Tail index by layer", plots.plot_tail_index, noise.read_tail_index)
    yield Sketch("hill", NOISE, "Hill plot", plots.plot_hill, noise.read_hill)
    spectrum = plots.plot_covariance_spectrum
    yield Sketch("spectrum", NOISE, "Spectrum of the covariance", spectrum, noise.read_spectrum)
    yield Sketch("scale", NOISE, "Noise scale over training", plots.plot_noise_scale, noise.read_noise_scale)
    ratio = plots.plot_signal_to_noise
    yield Sketch("snr", NOISE, "Signal to noise over training", ratio, noise.read_signal_to_noise)
    yield Sketch("training", NOISE, "The recorded training", plots.plot_training_curve, noise.read_training)
    yield from _path_sketches(tree)
    yield from _check_sketches(tree)


def _truth_sketches(tree: xr.DataTree) -> Iterator[Sketch]:
    names = optimizers_in(tree, "truth")
    height = height_for(len(names))
    if names:
        for quantity, title in _QUANTITIES.items():
            draw = partial(plots.plot_truth, quantity=quantity)
            yield Sketch(f"truth-{quantity}", TRUTH, title, draw, _read_truth, height=height)
    for name in optimizers_in(tree, "insight"):
        title, whole, read = (
            name.replace("_", " "), partial(_draw_insight, name=name), partial(_read_insight, name=name)
        )  # fmt: skip
        yield Sketch(f"insight-{name}", TRUTH, title, whole, read, is_whole=True)


def _read_truth(tree: xr.DataTree) -> str:
    return truth_sentences(tree)[0]


def _draw_insight(tree: xr.DataTree, name: str) -> Figure:
    return draw_insight(tree["insight"].children[name])


def _read_insight(tree: xr.DataTree, name: str) -> str:
    attributes = tree["insight"].children[name].attrs
    return f"{attributes['claim']} {str(attributes['finding']).capitalize()}."


def _law_sketches(tree: xr.DataTree) -> Iterator[Sketch]:
    whose: dict[NoiseOf, str] = {"sample": "one sample"}
    if has_group(tree, "minibatch_noise"):
        batch = tree["minibatch_noise"].attrs.get("batch_size")
        whose["minibatch"] = f"minibatch of {batch}" if batch else "minibatch"
    for of, name in whose.items():
        draw, read = partial(plots.plot_noise_histogram, of=of), partial(noise.read_histogram, of=of)
        yield Sketch(f"histogram-{of}", NOISE, f"Distribution of the noise, {name}", draw, read)
        draw, read = partial(plots.plot_noise_qq, of=of), partial(noise.read_qq, of=of)
        yield Sketch(f"qq-{of}", NOISE, f"Quantiles against both laws, {name}", draw, read)
    for of, name in whose.items():
        draw = partial(plots.plot_degrees_of_freedom, of=of)
        read = partial(noise.read_degrees_of_freedom, of=of)
        yield Sketch(f"df-{of}", NOISE, f"Degrees of freedom by layer, {name}", draw, read)


def _path_sketches(tree: xr.DataTree) -> Iterator[Sketch]:
    names = list(dict.fromkeys([*optimizers_in(tree, "optimizer"), *optimizers_in(tree, "sde")]))
    for i, name in enumerate(names):
        draw = partial(plots.plot_trajectories, optimizer=name)
        read = partial(optimizers.read_trajectory, optimizer=name)
        yield Sketch(f"paths{i}", PATHS, f"{name}: SDE against real runs", draw, read)
    if not names:
        read = partial(optimizers.read_trajectory, optimizer="")
        yield Sketch("paths", PATHS, "SDE against real runs", plots.plot_trajectories, read)
    yield Sketch(
        "floors", PATHS, "How low each optimizer gets", plots.plot_noise_floors, optimizers.read_floors
    )
    yield Sketch("gap", PATHS, "Gap of the prediction", plots.plot_prediction_gap, optimizers.read_gap)


def _check_sketches(tree: xr.DataTree) -> Iterator[Sketch]:
    """What only some files hold is not missed in the others."""
    theories = [name for name in optimizers_in(tree, "theory") if has_group(tree, f"theory/{name}")]
    runs = [name for name in optimizers_in(tree, "theory", "optimizer") if "x" in tree[f"optimizer/{name}"]]
    predicted = [name for name in runs if "stationary_variance" in tree[f"theory/{name}"]]
    for i, name in enumerate(dict.fromkeys([*optimizers_in(tree, "stationary"), *predicted])):
        draw = partial(plots.plot_stationary_law, optimizer=name)
        read = partial(optimizers.read_stationary_law, optimizer=name)
        yield Sketch(f"stationary{i}", CHECKS, f"{name}: stationary variance", draw, read)
    for i, name in enumerate(optimizers_in(tree, "phases")):
        draw = partial(plots.plot_phase_course, optimizer=name)
        read = partial(optimizers.read_phase_course, optimizer=name)
        yield Sketch(f"course{i}", CHECKS, f"{name}: phases along its runs", draw, read)
    if any("phase_fraction" in tree[f"theory/{name}"] for name in theories):
        phases = plots.plot_signsgd_phases
        yield Sketch("phases", CHECKS, "Phases of SignSGD", phases, optimizers.read_phases)
    if any("noise_floor" in tree[f"theory/{name}"] for name in theories):
        floor = plots.plot_floor_against_noise
        yield Sketch("noise-level", CHECKS, "Floor against noise", floor, optimizers.read_floor_against_noise)
    if optimizers_in(tree, "batch_scaling"):
        scaling = plots.plot_batch_scaling
        yield Sketch("scaling", CHECKS, "Batch scaling", scaling, optimizers.read_batch_scaling)
    if optimizers_in(tree, "weak_order"):
        order = plots.plot_weak_order
        yield Sketch("order", CHECKS, "Weak order", order, optimizers.read_weak_order)
