"""The findings of a study as tables, each figure with its error."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import xarray as xr

PERCENTS = (
    "gap", "gap_error", "limit_gap", "limit_gap_error", "worst_gap", "worst_gap_error", "discretisation_error"
)  # fmt: skip
LAWS = (
    "wasserstein", "wasserstein_null", "hitting_distance", "hitting_p_value", "parameter_mean_distance",
    "parameter_mean_null", "parameter_variance_ratio", "covariance_distance", "covariance_null",
)  # fmt: skip
COLUMNS = (*PERCENTS, "std_ratio", "std_ratio_error", "gap_in_std", *LAWS)


def table(tree: xr.DataTree, *, observable: str = "loss") -> pd.DataFrame:
    """Return one row for each prediction of each experiment: gaps of the mean in per cent, and spreads.

    ``limit_gap`` is the gap extrapolated to dt → 0; ``worst_gap`` the largest at one saved instant, over
    the reference there. Means are over the pairs that did not diverge; ``n_diverged`` counts the paths that
    did. A prediction that does not exist has its reason in ``refusal``.
    """
    rows = []
    for name, data in truths(tree):
        at = data.sel(observable=observable)
        for arm in data["arm"].values:
            one = at.sel(arm=arm)
            row = {"experiment": name, "problem": data.attrs["problem"], "optimizer": data.attrs["optimizer"]}
            row |= {"noise": data.attrs["noise"], "prediction": str(arm), "kind": str(one["arm_kind"].item())}
            row |= {column: float(one[column]) if column in one else np.nan for column in COLUMNS}
            row["n_diverged"] = int(one["n_diverged"])
            row["refusal"] = str(one["refusal"].item())
            rows.append(row)
    found = pd.DataFrame(rows)
    if len(found):
        found[list(PERCENTS)] *= 100
    return found


def headline(tree: xr.DataTree) -> pd.DataFrame:
    """Return the row of the SDE itself for each experiment, with what the ODE without noise would miss."""
    rows = table(tree)
    if rows.empty:
        return rows
    ode = rows[rows["prediction"] == "ode"].set_index("experiment")
    own = rows[rows["prediction"] == "consistent"].set_index("experiment")
    result = own[[*PERCENTS, *LAWS, "std_ratio", "std_ratio_error", "n_diverged", "refusal"]]
    return result.assign(ode_gap=ode["gap"], ode_std_ratio=ode["std_ratio"]).reset_index()


def insight_table(tree: xr.DataTree) -> pd.DataFrame:
    """Return one row for each insight: whether it held, and the sentence that says how far."""
    nodes = tree["insight"].children.values() if "insight" in tree.children else ()
    return pd.DataFrame(
        [
            {"insight": node.name, "finding": node.attrs["finding"], "verdict": node.attrs["verdict"]}
            for node in nodes
        ]
    )


def truths(tree: xr.DataTree) -> Iterator[tuple[str, xr.Dataset]]:
    """Yield the name and the data of every experiment in ``tree``."""
    for name, node in tree["truth"].children.items() if "truth" in tree.children else ():
        yield str(name), node.to_dataset().load()
