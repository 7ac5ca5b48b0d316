"""``noisekit run``: the whole study of one problem."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Annotated

import tyro

from noisekit.cli.command import Command, log, print_json, print_table, rows
from noisekit.errors import InputError
from noisekit.study.config import StudyConfig
from noisekit.study.presets import with_preset

FOLDER = "noisekit-runs"


@dataclass(frozen=True)
class Run(Command):
    """Train with the recorder on, fit the noise, predict optimizers by SDEs, run them for real, compare.

    Writes one data file and one HTML report, and prints the headline numbers.
    """

    problem: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PROBLEM")] = "fashion-cnn"
    """A name that `noisekit list` shows, or my_module.py:make_problem."""
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
        from noisekit.results.io import save_tree
        from noisekit.results.summary import summary

        study = with_preset(self.problem, self.study)
        study.check()
        command = self.command(study)
        output, page = self._targets()

        from noisekit.study import load_study_problem, run_study

        problem = load_study_problem(self.problem, study)
        log(f"To repeat this: {command}")
        tree = run_study(problem, study, command=command, progress=True)
        if self.output is None:
            output.parent.mkdir(exist_ok=True)
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
        """Return the data file and the page, both of which can be written; asked before the work begins."""
        from noisekit.results.io import check_output, check_place

        folder = Path(FOLDER)
        output = self.output
        if output is None:
            if folder.is_file():
                raise InputError(
                    f"{FOLDER} is a file, and runs go into a folder of that name; give --output."
                )
            check_place(folder, overwrite=True)
            output = free_name(folder, _stem(self.problem), overwrite=self.overwrite)
        # The folder of runs is made only when there is something to put into it.
        made_later = folder if self.output is None and not folder.exists() else None
        if output.parent != made_later:
            check_output(output, overwrite=self.overwrite)
        page = self.report or output.with_suffix(".html")
        if not self.no_report and page.parent != made_later:
            check_output(page, overwrite=self.overwrite, suffixes=(".html", ".htm"))
        return output, page

    def command(self, study: StudyConfig) -> str:
        """Return the line that repeats ``study``; of a user's own file only the name is kept."""
        name = f"{Path(self.problem.rpartition(':')[0]).name}:{self.problem.rpartition(':')[2]}"
        return study.command(shlex.quote(name if ":" in self.problem else self.problem))


def free_name(folder: Path, stem: str, *, overwrite: bool = False) -> Path:
    """Return ``folder/stem.nc``, or with a number after it so that neither data nor report is there yet."""
    names = (f"{stem}.nc" if number == 1 else f"{stem}-{number}.nc" for number in count(1))
    paths = (folder / name for name in names)
    return next(p for p in paths if overwrite or not (p.exists() or p.with_suffix(".html").exists()))


def _stem(problem: str) -> str:
    return problem.rpartition(":")[2]
