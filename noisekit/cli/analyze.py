"""``noisekit analyze``: what the noise in a data file is."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from noisekit.cli.command import INTERVALS, PAGE, Command, File, log, print_json, print_table, printable, rows
from noisekit.cli.one_run import one_run

if TYPE_CHECKING:
    import xarray as xr

_TOPICS = ("noise", "fit", "tail")
_TAIL = (
    "A tail index says which moments are finite: those of lower order. Below 2 the variance is infinite.\n"
    "Three estimators see the same values; figures and predictions go by gpd. Values of one step give\n"
    "an index that is often too high, which its interval covers; nk.analyze pools all steps."
)


@dataclass(frozen=True)
class Analyze(Command):
    """Print what the gradient noise in a data file is: its size, its law and its tails.

    A file that was only recorded, by `collect` or by a recorder of your own, is fitted first.

    Example: noisekit analyze record.nc
    """

    file: File
    """A data file that noisekit wrote."""
    seed: int | None = None
    """Which run to read in a file that joins runs of several seeds."""
    output: Path | None = None
    """Data file to write with the fits in it, .nc or .zarr; nothing is written if not given."""
    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False
    """Replace a file that exists."""

    def run(self) -> int:
        from noisekit.results import analyze_tree
        from noisekit.results.io import check_output, open_tree, save_tree
        from noisekit.results.seeds import seeds_of
        from noisekit.results.summary import summary
        from noisekit.results.validate import require_group

        if self.output is not None:
            check_output(self.output, overwrite=self.overwrite)
        with open_tree(self.file) as opened:
            require_group(opened, "/gradient_noise")
            tree = opened if self.seed is None else one_run(opened, self.seed, self.file)
            if "noise_model" not in tree.children and "tail_index" not in tree.children:
                tree = one_run(opened, self.seed, self.file)
                log("Fitting the noise …")
                tree = analyze_tree(tree)
            table = summary(tree)
            sentence = "" if self.json or seeds_of(tree) else _in_words(tree)
            if self.output is not None:
                save_tree(tree, self.output, overwrite=self.overwrite)
        table = table[table["topic"].isin(_TOPICS)]
        if self.json:
            print_json(rows(table))
        else:
            if sentence:
                print(textwrap.fill(printable(sentence), PAGE) + "\n")
            print_table(table)
            print(INTERVALS)
            if "tail" in set(table["topic"]):
                print(_TAIL)
        if self.output is not None:
            log(f"Data: {self.output}")
        return 0


def _in_words(tree: xr.DataTree) -> str:
    """Return the first sentence of the report."""
    from noisekit.report.verdict import noise_sentence

    return noise_sentence(tree)
