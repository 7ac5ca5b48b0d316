"""``noisekit study``: is it true, over a grid of problems, optimizers and noise."""

from __future__ import annotations

import shlex
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from noisekit.cli.command import PAGE, Command, log, print_json, print_rows, rows
from noisekit.cli.problem_names import FOLDER

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Study(Command):
    """Set predictions of every kind beside real training, on many problems, and say where they hold.

    Each optimizer runs for real; SDE variants, noise fitted under another seed and controls that must fail
    are set beside it. Cells that are finished are kept: an interrupted study goes on where it was.

    Example: noisekit study --preset quick
    """

    preset: Literal["quick", "full", "gpu"] = "quick"
    """quick: two minutes on two cores; full: most of an hour; gpu: the full sizes of the catalog."""
    only: str = ""
    """Regular expression: experiments and insights whose name it finds."""
    output: Path | None = None
    """Data file to write, .nc or .zarr; study-PRESET.nc in the folder noisekit-runs if not given."""
    cells: Path | None = None
    """Folder of finished cells; beside the data file if not given."""
    workers: int | None = None
    """Processes of one thread each; as many as there are cores if not given."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where to compute."""
    seed: int = 0
    """Seed of every random number."""
    list: tyro.conf.FlagCreatePairsOff[bool] = False
    """Only print what would be computed."""
    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False
    """Replace the data file if it exists."""

    def run(self) -> int:
        from noisekit.errors import InputError
        from noisekit.results.io import check_output, save_tree
        from noisekit.study.device import check_device
        from noisekit.truth import headline, insight_table, plan, run_truth_study, table
        from noisekit.truth.ranks import Rank

        if self.workers is not None and self.workers < 1:
            raise InputError(f"--workers is {self.workers}; it needs to be at least 1.")
        study = plan(self.preset, only=self.only, seed=self.seed, device=self.device)
        if self.list:
            for row in study.experiments:
                print(f"{row.name}: {', '.join(row.arms)}")
            for cell in study.insights:
                print(cell.label)
            return 0
        check_device(self.device)
        output = self.output or Path(FOLDER) / f"study-{self.preset}.nc"
        if self.output is None:
            Path(FOLDER).mkdir(exist_ok=True)
        rank = Rank.here()
        if rank.is_first:
            check_output(output, overwrite=self.overwrite)
        folder = self.cells or output.with_suffix(".cells")
        log(f"To repeat this: {self.command()}")
        log(f"{len(study.cells)} cells in {folder}; interrupt at will, what is finished stays.")
        tree = run_truth_study(study, folder, workers=self.workers, command=self.command(), progress=True)
        if tree is None:
            log(f"Rank {rank.number} of {rank.size} has finished its cells; rank 0 writes {output}.")
            return 0
        save_tree(tree, output, overwrite=self.overwrite)
        if self.json:
            found = {
                "file": str(output),
                "predictions": rows(table(tree)),
                "insights": rows(insight_table(tree)),
            }
            print_json(found)
            return 0
        if study.experiments:
            print_rows(_lines(headline(tree)))
            print(
                "\nThe gap is that of the mean loss, averaged over time, and at worst that of one instant;"
                "\n± is its Monte-Carlo error. Spread: ratio of the standard deviations of the loss."
                "\nThe ODE, without noise, must be worse.\n"
            )
        for insight in insight_table(tree).to_dict("records"):
            text = f"{insight['insight']}: {insight['finding']}. {insight['verdict']}"
            print(textwrap.fill(text, PAGE) + "\n")
        print(f"Data: {output}")
        return 0

    def command(self) -> str:
        """Return the line that repeats this study."""
        words = [f"noisekit study --preset {self.preset}"]
        if self.only:
            words.append(f"--only {shlex.quote(self.only)}")
        if self.device != "cpu":
            words.append(f"--device {self.device}")
        return " ".join([*words, f"--seed {self.seed}"])


def _lines(table: pd.DataFrame) -> list[list[str]]:
    head = ["experiment", "gap of the SDE", "at worst", "from dt", "spread", "gap of the ODE", "its spread"]
    lines = [head]
    for row in table.to_dict("records"):
        if row["refusal"]:
            lines.append([row["experiment"], "no SDE: infinite variance", "", "", "", "", ""])
            continue
        gap = f"{row['gap']:.2f} ± {row['gap_error']:.2f} %"
        worst = f"{row['worst_gap']:.2f} ± {row['worst_gap_error']:.2f} %"
        spread = f"{row['std_ratio']:.2f} ± {row['std_ratio_error']:.2f}"
        ode = "" if row["ode_gap"] != row["ode_gap"] else f"{row['ode_gap']:.2f} %"
        other = "" if row["ode_std_ratio"] != row["ode_std_ratio"] else f"{row['ode_std_ratio']:.2f}"
        step = row["discretisation_error"]
        moved = f"{step:.2f} %" if step == step else ""
        lines.append([row["experiment"], gap, worst, moved, spread, ode, other])
    return lines
