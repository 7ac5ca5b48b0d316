"""``noisekit report``: a data file as one HTML page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from noisekit.cli.command import Command, File, log, print_json
from noisekit.cli.one_run import one_run


@dataclass(frozen=True)
class Report(Command):
    """Write the HTML report of a data file.

    A file that was only recorded is fitted first, as by `analyze`.

    Example: noisekit report record.nc
    """

    file: File
    """A data file that noisekit wrote."""
    seed: int | None = None
    """Which run to read in a file that joins runs of several seeds."""
    output: Path | None = None
    """Page to write; beside the data file if not given."""
    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False
    """Replace a page that exists."""

    def run(self) -> int:
        from noisekit.results.io import check_output, open_tree

        with open_tree(self.file) as opened:
            tree = one_run(opened, self.seed, self.file)
            fitted = {"noise_model", "tail_index", "minibatch_noise"} & set(tree.children)
            page = self.output or self.file.with_suffix(".html")
            check_output(page, overwrite=self.overwrite, suffixes=(".html", ".htm"))

            from noisekit.report import write_report

            if "gradient_noise" in tree.children and not fitted:
                from noisekit.results import analyze_tree

                log("Fitting the noise …")
                tree = analyze_tree(tree)
            log("Writing the report …")
            write_report(tree, page, overwrite=self.overwrite)
        if self.json:
            print_json({"report": str(page)})
        else:
            print(page)
        return 0
