"""Write the tables and figures of docs/truth.md from the study of truth in data/truth_study.

python scripts/make_truth_tables.py

The study itself: noisekit study --preset full --output data/truth_study/full.nc
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import xarray as xr

from noisekit.plots import plot_truth
from noisekit.plots.groups import optimizers_in
from noisekit.plots.insights import draw_insight
from noisekit.plots.style import theme
from noisekit.results import open_tree
from noisekit.truth import headline, insight_table, table

ROOT = Path(__file__).parents[1]
DATA = ROOT / "data" / "truth_study"
FIGURES = ROOT / "docs" / "truth"

TARGETS = {"sgd": 0.3, "signsgd": 0.5}
"""Largest mean relative gap asked for on real minibatches, in per cent; .5 for adaptive optimizers."""
FROM_ZERO = 1.2
ARMS = (
    "consistent",
    "surrogate",
    "order_two",
    "published",
    "malladi",
    "gaussian_law",
    "fitted_covariance",
    "fitted_gaussian",
    "fitted_student_t",
    "double_covariance",
    "isotropic",
    "ode",
    "no_diffusion",
    "no_v_noise",
    "independent_signs",
)
SHORT_MEMORY = ("consistent", "order_two", "order_two_no_v_noise")


def main() -> None:
    with open_tree(DATA / "full.nc") as tree:
        for name, text in tables(tree).items():
            (DATA / f"{name}.md").write_text(text)
            print(DATA / f"{name}.md")
        draw(tree)


def tables(tree: xr.DataTree) -> dict[str, str]:
    """Return the tables of the page in markdown, by the names of their files."""
    rows = table(tree)
    own = headline(tree).merge(rows[["experiment", "problem", "optimizer", "noise"]].drop_duplicates())
    real = own[own["noise"] == "minibatch"]
    small = rows[rows["problem"].eq("breast-cancer-mlp")]
    warm = small[~small["experiment"].str.endswith("from-zero")]
    zero = rows[rows["experiment"].str.endswith("from-zero") & rows["noise"].eq("minibatch")]
    return {
        "headline": _headline(tree, real),
        "laws": _laws(real),
        "ablation": _grid(warm, ARMS),
        "from_zero": _grid(zero, ("consistent", "whole_start", "published", "malladi")),
        "short_memory": _short_memory(rows[rows["experiment"].str.endswith("short-memory")]),
        "order_two": _order_two(rows),
        "synthetic": _synthetic(own[own["noise"] != "minibatch"]),
        "insights": _insights(insight_table(tree)),
    }


def _headline(tree: xr.DataTree, real: pd.DataFrame) -> str:
    head = ["experiment", "runs × steps", "samples", "gap of the mean loss", "asked", "dt → 0", "at worst"]
    lines = [[*head, "spread", "without noise"]]
    for row in real.to_dict("records"):
        attributes = tree["truth"][row["experiment"]].attrs
        zero = row["experiment"].endswith("from-zero")
        most = FROM_ZERO if zero else TARGETS.get(row["optimizer"], 0.5)
        known = row["ode_gap"] == row["ode_gap"]
        lines.append(
            [
                f"`{row['experiment']}`",
                f"{attributes['replicates']} × {attributes['steps']}",
                str(attributes["n_samples"]),
                _figure(row["gap"], row["gap_error"]) + _lost(row),
                f"≤ {most:g}: {asked(row['gap'], row['gap_error'], most)}",
                _figure(row["limit_gap"], row["limit_gap_error"]),
                _figure(row["worst_gap"], row["worst_gap_error"]),
                f"{row['std_ratio']:.2f} ± {row['std_ratio_error']:.2f}",
                f"{row['ode_gap']:.2f} %, {row['ode_std_ratio']:.2f}" if known else "",
            ]
        )
    return markdown(lines)


def _laws(real: pd.DataFrame) -> str:
    """Return how the laws of the last loss, of passages and of the parameters differ from the runs'."""
    head = ["experiment", "Wasserstein", "first passage, p", "mean of x", "variance of x", "covariance of x"]
    lines = [head]
    for row in real.to_dict("records"):
        known = row["covariance_distance"] == row["covariance_distance"]
        lines.append(
            [
                f"`{row['experiment']}`",
                f"{row['wasserstein']:.3f} ({row['wasserstein_null']:.3f})",
                f"{row['hitting_distance']:.3f}, {row['hitting_p_value']:.2g}",
                f"{row['parameter_mean_distance']:.3f} ({row['parameter_mean_null']:.3f})",
                f"{row['parameter_variance_ratio']:.3f}",
                f"{row['covariance_distance']:.3f} ({row['covariance_null']:.3f})" if known else "",
            ]
        )
    return markdown(lines)


def _grid(rows: pd.DataFrame, arms: Iterable[str]) -> str:
    """Return gap and spread of predictions, a row a prediction and a column an optimizer."""
    names = list(dict.fromkeys(rows["optimizer"]))
    lines = [["prediction", *names]]
    for arm in arms:
        cells = []
        for name in names:
            found = rows[rows["optimizer"].eq(name) & rows["prediction"].eq(arm)].to_dict("records")
            if not found:
                cells.append("")
            elif found[0]["refusal"]:
                cells.append("no SDE")
            else:
                row = found[0]
                cells.append(f"{_figure(row['gap'], row['gap_error'])}, {row['std_ratio']:.2f}{_lost(row)}")
        if any(cells):
            lines.append([arm.replace("_", " "), *cells])
    return markdown(lines)


def _order_two(rows: pd.DataFrame) -> str:
    """Return the SDEs of weak order 1 and 2 beside each other."""
    head = ["experiment", "order 1", "order 1, dt → 0", "order 2", "at worst, order 1", "at worst, order 2"]
    lines = [[*head, "spread, order 1", "spread, order 2"]]
    for name, group in rows.groupby("experiment", sort=False):
        known = group.set_index("prediction")
        if "order_two" not in known.index:
            continue
        one, two = known.loc["consistent"], known.loc["order_two"]
        gaps = [(one, "gap"), (one, "limit_gap"), (two, "gap"), (one, "worst_gap"), (two, "worst_gap")]
        figures = [_figure(row[which], row[f"{which}_error"]) for row, which in gaps]
        lines.append([f"`{name}`", *figures, *(f"{row['std_ratio']:.2f}" for row in (one, two))])
    return markdown(lines)


def _short_memory(rows: pd.DataFrame) -> str:
    """Return what the noise of V is worth where V fluctuates."""
    lines = [["experiment", "prediction", "gap of the mean loss", "at worst", "spread"]]
    for row in rows[rows["prediction"].isin(SHORT_MEMORY)].to_dict("records"):
        lines.append(
            [
                f"`{row['experiment']}`",
                row["prediction"].replace("_", " "),
                _figure(row["gap"], row["gap_error"]),
                _figure(row["worst_gap"], row["worst_gap_error"]),
                f"{row['std_ratio']:.3f} ± {row['std_ratio_error']:.3f}",
            ]
        )
    return markdown(lines)


def _synthetic(rows: pd.DataFrame) -> str:
    lines = [["experiment", "gap of the mean loss", "at worst", "from dt", "spread", "without noise"]]
    for row in rows.to_dict("records"):
        if row["refusal"]:
            lines.append([f"`{row['experiment']}`", "no SDE: infinite variance", "", "", "", ""])
            continue
        known = row["ode_gap"] == row["ode_gap"]
        step = row["discretisation_error"]
        lines.append(
            [
                f"`{row['experiment']}`",
                _figure(row["gap"], row["gap_error"]) + _lost(row),
                _figure(row["worst_gap"], row["worst_gap_error"]),
                f"{step:.2f} %" if step == step else "",
                f"{row['std_ratio']:.2f} ± {row['std_ratio_error']:.2f}",
                f"{row['ode_gap']:.2g} %, {row['ode_std_ratio']:.2f}" if known else "",
            ]
        )
    return markdown(lines)


def _insights(rows: pd.DataFrame) -> str:
    lines = [["insight", "finding", "in numbers"]]
    lines += [[r["insight"].replace("_", " "), r["finding"], r["verdict"]] for r in rows.to_dict("records")]
    return markdown(lines)


def asked(gap: float, error: float, most: float) -> str:
    """Say whether a gap is at most ``most``, all in per cent, with an error of at most half of that."""
    if error > most / 2:
        return "error too large to say"
    if gap <= most:
        return "held"
    return "on the edge" if gap - 2 * error <= most else "missed"


def _lost(row: dict[str, Any]) -> str:
    return f" ({row['n_diverged']} paths lost)" if row["n_diverged"] else ""


def _figure(value: float, error: float) -> str:
    digits = 2 if value < 10 else 1
    return f"{value:.{digits}f} ± {error:.{digits}f} %"


def markdown(lines: list[list[str]]) -> str:
    """Return lines of cells as a table in markdown, the first being its head."""
    head, *body = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    return "\n".join([head, "|---" * len(lines[0]) + "|", *body]) + "\n"


def draw(tree: xr.DataTree) -> None:
    """Draw the figures of the page."""
    FIGURES.mkdir(exist_ok=True)
    small = "breast-cancer-mlp|digits"
    rows = sum(bool(re.search(small, name)) for name in tree["truth"].children)
    with theme():
        figure, (left, right) = plt.subplots(
            1, 2, figsize=(8.6, 1.2 + 0.5 * rows), sharey=True, layout="constrained"
        )
        plot_truth(tree, only=small, ax=left)
        plot_truth(tree, only=small, quantity="std_ratio", ax=right)
        handles, labels = left.get_legend_handles_labels()
        for ax in (left, right):
            ax.get_legend().remove()
        figure.legend(handles, labels, loc="outside lower center", ncols=4)
        figure.savefig(FIGURES / "predictions.png", dpi=150)
        plt.close(figure)
    for name in optimizers_in(tree, "insight"):
        figure = draw_insight(tree["insight"][name])
        figure.savefig(FIGURES / f"{name}.png", dpi=150)
        plt.close(figure)


if __name__ == "__main__":
    main()
