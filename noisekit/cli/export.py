"""``noisekit export``: a data file in another format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import tyro

from noisekit.cli.command import Command, File, print_json


@dataclass(frozen=True)
class Export(Command):
    """Write a data file in another format: csv and parquet make a folder of tables.

    Example: noisekit export record.nc --to csv
    """

    file: File
    """A data file that noisekit wrote."""
    to: str
    """csv, parquet, zarr or netcdf."""
    output: Path | None = None
    """What to write; beside the data file if not given."""
    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False
    """Replace what exists there."""

    def run(self) -> int:
        from noisekit.errors import unknown_name
        from noisekit.results.export import FORMATS, Format, export_tree
        from noisekit.results.io import open_tree

        if self.to not in FORMATS:
            raise unknown_name("format", self.to, FORMATS)
        suffix = FORMATS[self.to] or f"-{self.to}"
        output = self.output or self.file.with_name(self.file.stem + suffix)
        with open_tree(self.file) as tree:
            written = export_tree(tree, output, cast(Format, self.to), overwrite=self.overwrite)
        if self.json:
            print_json({"output": str(written), "format": self.to})
        else:
            print(written)
        return 0
