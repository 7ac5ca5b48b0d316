"""``noisekit run``: the whole study of one problem."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from noisekit.cli.command import Command, log, print_json, print_table, rows
from noisekit.cli.problem_names import made_later, shown_name, target
from noisekit.study.config import StudyConfig
from noisekit.study.presets import with_preset


@dataclass(frozen=True)
class Run(Command):
    """Train with the recorder on, fit the noise, predict optimizers by SDEs, run them for real, compare.

    Writes one data file and one HTML report, and prints the headline numbers. Under torchrun, as
    `torchrun --nproc-per-node 4 -m noisekit run`, the processes share the work.

    Example: noisekit run digits-mlp --optimizers sgd adamw
    """

    problem: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PROBLEM")] = "fashion-cnn"
    """A name that `noisekit list` shows, my_module.py:make_problem, or a folder of images."""
    study: tyro.conf.OmitArgPrefixes[StudyConfig] = field(default_factory=StudyConfig)
    output: Path | None = None
    """Data file to write, .nc or .zarr; a free name in the folder noisekit-runs if not given."""
    report: Path | None = None
    """Report to write; beside the data file if not given."""
    no_report: tyro.conf.FlagCreatePairsOff[bool] = False
    """Write no report."""
    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False
    """Replace files that exist."""

    def run(self) -> int:
        from noisekit.errors import InputError

        if self.report is not None and self.no_report:
            raise InputError("--report and --no-report contradict each other; give one of them.")
        study = with_preset(self.problem, self.study)
        study.check()
        command = self.command(study)

        from noisekit.study.ranks import from_first, launched

        with launched(study.device) as ranks:
            # Asked before the work begins.
            output, page = from_first(ranks, self._targets)

            from noisekit.study import load_study_problem, run_study

            problem = load_study_problem(self.problem, study)
            first = ranks is None or ranks.rank == 0
            if first:
                log(f"To repeat this: {command}")
            tree = run_study(problem, study, command=command, progress=first, ranks=ranks)
        if tree is None:
            return 0

        from noisekit.results.io import save_tree
        from noisekit.results.summary import summary

        if made_later(output):
            output.parent.mkdir()
        save_tree(tree, output, overwrite=self.overwrite)
        if not self.no_report:
            from noisekit.report import write_report

            log("Writing the report …")
            write_report(tree, page, overwrite=self.overwrite)
        table = summary(tree)
        if self.json:
            files = {"file": str(output), "report": None if self.no_report else str(page)}
            print_json({**files, "command": command, "summary": rows(table)})
            return 0
        print_table(table[table["topic"] != "tail"])
        print()
        for node in tree["comparison"].children.values() if "comparison" in tree.children else ():
            print(f"{node.name}: {node.attrs['verdict_text']}")
        print(f"\nData:   {output}")
        if not self.no_report:
            print(f"Report: {page}")
        return 0

    def _targets(self) -> tuple[Path, Path]:
        """Return the data file and the page, both of which can be written."""
        from noisekit.results.io import check_output

        output = target(self.problem, self.output, overwrite=self.overwrite)
        page = self.report or output.with_suffix(".html")
        if not self.no_report and not made_later(page):
            check_output(page, overwrite=self.overwrite, suffixes=(".html", ".htm"))
        return output, page

    def command(self, study: StudyConfig) -> str:
        """Return the line that repeats ``study``; of a user's own file only the name is kept."""
        return study.command(shown_name(self.problem))
