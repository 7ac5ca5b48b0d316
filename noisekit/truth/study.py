"""The whole study of truth: run its cells, measure, and put everything into one tree."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import xarray as xr

from noisekit.errors import InputError
from noisekit.results.provenance import provenance
from noisekit.truth.cells import Cell, cells_of, cpu_seconds, makers, run_cells, wait_for
from noisekit.truth.experiment import Experiment
from noisekit.truth.grid import Preset, experiments, with_seed
from noisekit.truth.insight_cells import InsightCell, insight_cells
from noisekit.truth.measure import measure
from noisekit.truth.ranks import Rank


@dataclass(frozen=True)
class Plan:
    """What a study computes."""

    experiments: Sequence[Experiment]
    insights: Sequence[InsightCell] = ()
    device: str = "cpu"

    @property
    def cells(self) -> list[Cell]:
        """Every cell of the study."""
        return [*cells_of(self.experiments, self.device), *self.insights]


def plan(preset: Preset, *, only: str = "", seed: int = 0, device: str = "cpu") -> Plan:
    """Return the experiments and insights of ``preset`` whose name matches the regular expression ``only``.

    Raises InputError for an unknown preset, and where nothing matches.
    """
    rows = with_seed(experiments(preset), seed)
    insights = [] if preset == "gpu" else insight_cells(preset, seed)
    try:
        matches = re.compile(only).search
    except re.error as error:
        raise InputError(f"{only!r} is not a regular expression: {error}.") from error
    chosen = Plan(
        [row for row in rows if matches(row.name)], [c for c in insights if matches(c.label)], device
    )
    if not chosen.cells:
        names = ", ".join([*(row.name for row in rows), *(c.label for c in insights)])
        raise InputError(f"No experiment of the preset {preset!r} matches {only!r}; there are {names}.")
    return chosen


def run_truth_study(
    study: Plan,
    folder: str | Path,
    *,
    workers: int | None = None,
    command: str = "",
    progress: bool = False,
) -> xr.DataTree | None:
    """Run a study, set every prediction beside its truth, and return one tree with a group for each.

    ``folder`` keeps one file a cell: what is there is not computed again, so that an interrupted study goes
    on, and the same numbers come out. Cells run in ``workers`` processes, as many as there are cores if not
    given. Under torchrun each rank takes its share of them; rank 0 waits for the others and returns the tree,
    the others return None. Raises NoisekitError, naming the cell, if one fails, and InputError for a folder
    that cannot be written.
    """
    folder, rank = Path(folder), Rank.here()
    _make_folder(folder)
    run_cells(study.cells, folder, workers=workers, progress=progress)
    if not rank.is_first:
        return None
    if rank.size > 1:
        wait_for(study.cells, folder)
    return collect(study, folder, command=command)


def _make_folder(folder: Path) -> None:
    """Make ``folder`` if need be, and refuse now what would be found out after the first cell."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"Cells cannot be kept in {folder}: {error.strerror}; name a folder that can be made."
        ) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"Cells cannot be kept in {folder}: it is not writable; name another folder.")


def collect(study: Plan, folder: Path, *, command: str = "") -> xr.DataTree:
    """Return the tree of a study all of whose cells are finished."""
    groups = {f"/truth/{row.name}": measure(row, folder, study.device) for row in study.experiments}
    groups |= {f"/insight/{cell.name}": cell.open(folder) for cell in study.insights}
    tree = xr.DataTree.from_dict(groups)
    problems = dict.fromkeys(row.problem for row in study.experiments)
    first = study.cells[0]
    tree.attrs = provenance(
        problem=", ".join(problems),
        seed=first.seed if isinstance(first, InsightCell) else study.experiments[0].seed,
        title="Real training beside the predictions of stochastic differential equations",
        command=command,
        device=study.device,
        dtype="float32",
        sampling="with-replacement",
        cells_made_with="; ".join(makers(study.cells, folder)),
        total_cpu_seconds=round(cpu_seconds(study.cells, folder)),
    )
    return tree
