"""``noisekit summary``: the headline numbers of a data file."""

from __future__ import annotations

from dataclasses import dataclass

from noisekit.cli.command import INTERVALS, Command, File, print_json, print_table, rows


@dataclass(frozen=True)
class Summary(Command):
    """Print the headline numbers of a data file, with their intervals, units and batch sizes.

    Example: noisekit summary record.nc
    """

    file: File
    """A data file that noisekit wrote."""

    def run(self) -> int:
        from noisekit.results.io import open_tree
        from noisekit.results.summary import summary

        with open_tree(self.file) as tree:
            table = summary(tree)
        if self.json:
            print_json(rows(table))
        else:
            print_table(table)
            print(INTERVALS)
        return 0
