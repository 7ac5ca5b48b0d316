"""The whole report as one HTML page."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import jinja2
import xarray as xr
from markupsafe import Markup

from noisekit import __version__
from noisekit.errors import InputError
from noisekit.plots.groups import dataset, optimizers_in, small_loaded
from noisekit.report import tables
from noisekit.report.figures import draw_figures
from noisekit.report.truth import insights_table, is_study, truth_sentences, truth_table
from noisekit.report.verdict import verdict


def render_report(tree: xr.DataTree) -> str:
    """Return the page: verdict, tables, figures with a reading each, provenance and the command.

    Everything is inline, nothing is loaded and no script runs. Text from the file is escaped.
    Raises InputError where ``tree`` is no DataTree.
    """
    if not isinstance(tree, xr.DataTree):
        raise InputError(
            f"A report is written from a DataTree, not from {type(tree).__name__}; "
            "open a file with nk.open_tree."
        )
    tree = small_loaded(tree)
    pictures, absences = draw_figures(tree)
    sections = [(name, list(group)) for name, group in groupby(pictures, key=lambda picture: picture.section)]
    covered, uncovered = tables.coverage(tree)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_keep_together,
    )
    return environment.get_template("page.html.j2").render(
        title=str(tree.attrs.get("title") or "Gradient noise report"),
        facts=_facts(tree),
        verdict=truth_sentences(tree) if is_study(tree) else verdict(tree),
        truth_table=truth_table(tree),
        insights_table=insights_table(tree),
        optimizer_table=tables.optimizer_table(tree),
        noise_table=tables.noise_table(tree),
        regime_table=tables.regime_table(tree),
        verdict_texts=_verdict_texts(tree),
        sections=sections,
        absences=absences,
        covered=covered,
        uncovered=uncovered,
        provenance=tables.provenance_rows(tree),
        configuration=tables.configuration(tree),
        command=str(tree.attrs.get("command", "")),
        version=__version__,
        svg=Markup,
    )


def _facts(tree: xr.DataTree) -> list[str]:
    """Return the line under the title: problem, data, size, batch."""
    attrs = tree.attrs
    facts = [str(attrs[name]) for name in ("problem", "dataset") if attrs.get(name)]
    if attrs.get("n_parameters"):
        facts.append(f"{tables.format_count(int(attrs['n_parameters']))} parameters")
    total, part = (int(attrs.get(name) or 0) for name in ("n_training_samples", "n_samples"))
    if total or part:
        facts.append(f"{tables.format_count(total or part)} training samples")
    if 0 < part < total:
        facts.append(f"optimizers compared on {tables.format_count(part)} of them")
    if attrs.get("batch_size"):
        facts.append(f"batch size {tables.format_count(int(attrs['batch_size']))}")
    return facts


def _verdict_texts(tree: xr.DataTree) -> list[tuple[str, str]]:
    texts = []
    for name in optimizers_in(tree, "comparison"):
        data = dataset(tree, f"comparison/{name}")
        text = data.attrs.get("verdict_text") or (
            " ".join(map(str, data["verdict_text"].values.ravel())) if "verdict_text" in data else ""
        )
        if text:
            texts.append((name, str(text)))
    return texts


def _keep_together(value: object) -> object:
    """Join a number to its sign, error and unit, so that no line ends between them."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    for mark in (" ± ", " = "):
        value = value.replace(mark, mark.replace(" ", "\u00a0"))
    return value.replace(" %", "\u00a0%")
