"""``noisekit analyze``: what the noise in a data file is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from noisekit.cli.command import Command, print_json, print_table, rows

_TOPICS = ("noise", "fit", "tail")


@dataclass(frozen=True)
class Analyze(Command):
    """Print what the gradient noise in a data file is: its size, its law and its tails."""

    file: tyro.conf.Positional[Path]
    """A data file that noisekit wrote."""

    def run(self) -> int:
        from noisekit.results.io import open_tree
        from noisekit.results.summary import summary
        from noisekit.results.validate import require_group

        with open_tree(self.file) as tree:
            require_group(tree, "/gradient_noise")
            table = summary(tree)
        table = table[table["topic"].isin(_TOPICS)]
        if self.json:
            print_json(rows(table))
        else:
            print_table(table)
        return 0
