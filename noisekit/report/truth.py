"""What the report says of a study of truth: predictions beside real runs, and insights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from noisekit.plots.groups import optimizers_in
from noisekit.plots.numbers import format_number, format_with_error, plural
from noisekit.report.tables import Cell, Table
from noisekit.truth.tables import headline, insight_table

_MOODS = {"held": "good", "held in part": "warn", "failed": "bad"}
_UNREADABLE = (KeyError, ValueError, TypeError, AttributeError, IndexError)
"""What groups raise that have the names of a study and not its contents."""


def is_study(tree: xr.DataTree) -> bool:
    """Return whether ``tree`` holds a study of truth and nothing else."""
    return bool(tree.children) and set(tree.children) <= {"truth", "insight"}


def truth_table(tree: xr.DataTree) -> Table | None:
    """Return one row an experiment: gap and spread of the SDE, and of the equation without noise."""
    known = _experiments(tree)
    if known.empty:
        return None
    head = ["experiment", "gap of the mean loss", "at worst", "from dt", "spread", "gap without noise"]
    return Table(head, [[Cell(text) for text in _line(row)] for row in known.to_dict("records")])


def insights_table(tree: xr.DataTree) -> Table | None:
    """Return one row an insight: whether it held, and the sentence that says how far."""
    rows = [
        [Cell(name.replace("_", " ")), Cell(finding, _MOODS.get(finding, "")), Cell(verdict)]
        for name, finding, verdict in _insights(tree)
    ]
    return Table(["insight", "finding", "what it says"], rows) if rows else None


def truth_sentences(tree: xr.DataTree) -> list[str]:
    """Say how far predictions are off over all experiments, and how many insights held."""
    sentences = []
    known = _experiments(tree)
    exists = known[known["gap"].notna()] if len(known) else known
    if len(exists):
        gap, spread, without = (exists[name] for name in ("gap", "std_ratio", "ode_gap"))
        text = (
            f"In {plural(len(exists), 'experiment')} the mean loss of the SDE is off by {_range(gap)} %, "
            f"median {format_number(gap.median(), 2)} %, and its standard deviation is {_range(spread)} "
            "times that of the runs"
        )
        if without.notna().any():
            text += f"; without noise the mean is off by {_range(without.dropna())} %"
        sentences.append(f"{text}.")
    refused = len(known) - len(exists)
    if refused:
        sentences.append(f"In {plural(refused, 'experiment')} the noise has no variance, so no SDE exists.")
    findings = [finding for _, finding, _ in _insights(tree)]
    if findings:
        counts = [f"{findings.count(word)} {word}" for word in _MOODS if word in findings]
        sentences.append(f"Of {plural(len(findings), 'published insight')} {', '.join(counts)}.")
    return sentences or ["This file holds no finished experiment."]


def _experiments(tree: xr.DataTree) -> pd.DataFrame:
    try:
        return headline(tree)
    except _UNREADABLE:
        return pd.DataFrame()


def _insights(tree: xr.DataTree) -> Iterator[tuple[str, str, str]]:
    if optimizers_in(tree, "insight"):
        try:
            for row in insight_table(tree).to_dict("records"):
                yield str(row["insight"]), str(row["finding"]), str(row["verdict"])
        except _UNREADABLE:
            return


def _line(row: dict[Any, Any]) -> list[str]:
    if row["refusal"]:
        return [row["experiment"], "no SDE: infinite variance", "", "", "", ""]
    lost = f", {row['n_diverged']} paths lost" if row["n_diverged"] else ""
    return [
        row["experiment"],
        f"{format_with_error(row['gap'], row['gap_error'])} %{lost}",
        _percent(row["worst_gap"], row["worst_gap_error"]),
        _percent(row["discretisation_error"]),
        format_with_error(row["std_ratio"], row["std_ratio_error"]),
        _percent(row["ode_gap"]),
    ]


def _percent(value: float, error: float = float("nan")) -> str:
    if not np.isfinite(value):
        return ""
    return f"{format_with_error(value, error) if np.isfinite(error) else format_number(value, 2)} %"


def _range(values: pd.Series[float]) -> str:
    low, high = format_number(values.min(), 2), format_number(values.max(), 2)
    return low if low == high else f"{low} to {high}"
