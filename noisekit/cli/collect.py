"""``noisekit collect``: the gradient noise of one training run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from noisekit.cli.command import Command, log, print_json, print_table, rows
from noisekit.cli.problem_names import made_later, shown_name, target
from noisekit.study.collect_config import CollectConfig


@dataclass(frozen=True)
class Collect(Command):
    """Train a network with the recorder on and keep what it saw, without fitting or predicting anything.

    Writes one data file for `analyze`, `predict`, `report` and `export`.

    Example: noisekit collect digits-mlp --output record.nc
    """

    problem: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PROBLEM")]
    """A name that `noisekit list` shows, my_module.py:make_problem, or a folder of images."""
    training: tyro.conf.OmitArgPrefixes[CollectConfig] = field(default_factory=CollectConfig)
    output: Path | None = None
    """Data file to write, .nc or .zarr; a free name in the folder noisekit-runs if not given."""
    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False
    """Replace a file that exists."""

    def run(self) -> int:
        from noisekit.results.io import save_tree
        from noisekit.results.summary import summary

        self.training.check()
        command = self.training.command(shown_name(self.problem))
        output = target(self.problem, self.output, overwrite=self.overwrite, suffix="-record")

        from noisekit.study import collect, load_study_problem

        problem = load_study_problem(self.problem, self.training)
        log(f"To repeat this: {command}")
        tree = collect(problem, self.training, command=command, progress=True)
        if made_later(output):
            output.parent.mkdir()
        save_tree(tree, output, overwrite=self.overwrite)
        table = summary(tree)
        if self.json:
            print_json({"file": str(output), "command": command, "summary": rows(table)})
            return 0
        print_table(table)
        print(f"\nData: {output}")
        return 0
