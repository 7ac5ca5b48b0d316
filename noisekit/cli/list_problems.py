"""``noisekit list``: the problems that can be studied."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from noisekit.cli.command import Command, print_json, print_table


@dataclass(frozen=True)
class ListProblems(Command):
    """List the problems that `noisekit run` knows by name."""

    def run(self) -> int:
        import pandas as pd

        from noisekit.problems import list_problems

        found = [asdict(info) for info in list_problems()]
        if self.json:
            print_json(found)
        else:
            print_table(pd.DataFrame(found, dtype=object))
        return 0
