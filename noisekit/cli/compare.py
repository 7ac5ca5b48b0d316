"""``noisekit compare``: predictions beside real runs, from one or more data files."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from noisekit.cli.command import Command, log, number, print_json, print_rows, printable
from noisekit.cli.one_run import one_run

if TYPE_CHECKING:
    from noisekit.study.stored_comparisons import ComparisonRow

_ERRORS = ["gap", "MC error", "dt error", "spread ratio"]
_HEAD = ["file", "optimizer", "observable", *_ERRORS, "paths / runs", "verdict"]


@dataclass(frozen=True)
class Compare(Command):
    """Print how far the SDE's prediction is from real runs, for each optimizer in the files.

    Of two files, the paths of the first are also set beside the runs of the second.

    Example: noisekit compare digits.nc
    """

    files: Annotated[
        tuple[Path, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="FILE …", help_behavior_hint="(required)"),
    ]
    """Data files that noisekit wrote."""
    tolerance: float | None = None
    """Largest mean relative gap that counts as agreement, to judge anew; files were judged at 0.05."""
    seed: int | None = None
    """Which run to read in a file that joins runs of several seeds."""

    def run(self) -> int:
        from noisekit.errors import FileFormatError, InputError
        from noisekit.results.io import open_tree
        from noisekit.study.stored_comparisons import comparisons_in, cross_comparisons

        if not self.files:
            raise InputError("noisekit compare needs a FILE; give one or more that noisekit wrote.")
        found: list[tuple[str, ComparisonRow]] = []
        with ExitStack() as stack:
            trees = [one_run(stack.enter_context(open_tree(path)), self.seed, path) for path in self.files]
            for path, tree in dict(zip(self.files, trees, strict=True)).items():
                found += [(path.name, row) for row in comparisons_in(tree, tolerance=self.tolerance)]
            if len(trees) == 2:
                crossed, reasons = cross_comparisons(*trees, tolerance=self.tolerance or 0.05)
                name = " → ".join(path.name for path in self.files)
                found += [(name, row) for row in crossed]
                for reason in reasons:
                    log(f"{name}: {reason}")
        if not found:
            raise FileFormatError(
                f"{', '.join(map(str, self.files))}: no comparison of a prediction with real runs is there; "
                "make one with noisekit run."
            )
        if self.json:
            print_json([{"file": name, **asdict(row)} for name, row in found])
            return 0
        several = len({name for name, _ in found}) > 1
        table = [_HEAD, *([name, *_cells(row)] for name, row in found)]
        print_rows(table if several else [line[1:] for line in table])
        print("\nGaps and errors are means over time, relative to the mean size of the observable.")
        if any(row.observable == "squared_distance" for _, row in found):
            print("squared_distance is |x − x₀|², how far the parameters have moved.")
        print()
        for name, row in found:
            file = f"{name}, " if several else ""
            print(printable(f"{file}{row.optimizer}{_where(row)}: {row.text}"))
        return 0


def _cells(row: ComparisonRow) -> list[str]:
    shares = [_percent(value) for value in (row.gap, row.error, row.discretisation)]
    counts = f"{row.n_prediction} / {row.n_reference}"
    spread = f"{row.spread_ratio:.2f} ± {row.spread_error:.2f}" if math.isfinite(row.spread_ratio) else ""
    return [row.optimizer, row.observable, *shares, spread, counts, row.verdict]


def _percent(value: float) -> str:
    return f"{number(100 * value, 2)} %" if math.isfinite(value) else ""


def _where(row: ComparisonRow) -> str:
    parts: list[Any] = []
    if math.isfinite(row.learning_rate):
        parts.append(f"learning rate {row.learning_rate:g}")
    if row.batch_size:
        parts.append(f"batch {row.batch_size}")
    return f" ({', '.join(parts)}, to step {row.last_step})" if parts else ""
