"""What every command has: its common options and how it prints."""

from __future__ import annotations

import json
import sys
import textwrap
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import tyro

if TYPE_CHECKING:
    import pandas as pd

PAGE = 120
"""Characters of a line of output, where it is text."""

File: TypeAlias = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
"""A data file that a command reads."""


@dataclass(frozen=True, kw_only=True)
class Command(ABC):
    """Options of every command."""

    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print JSON for machines instead of text."""
    debug: tyro.conf.FlagCreatePairsOff[bool] = False
    """Show the traceback of an expected error too."""

    @abstractmethod
    def run(self) -> int:
        """Do the work and return the exit code."""


def log(text: str) -> None:
    """Print progress, which is not data, to stderr."""
    print(text, file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """Print ``value`` as JSON; NaN and infinities, which JSON does not have, as null and text."""
    print(json.dumps(_plain(value), ensure_ascii=False, indent=2))


def number(value: Any, digits: int = 6) -> str:
    """Return a number as a person writes it: ``digits`` significant ones, no exponent in the thousands.

    >>> number(12345.678, 2), number(0.00012345, 2), number((0.9, 0.996))
    ('12,346', '0.00012', '0.9 0.996')
    """
    if isinstance(value, tuple | list):
        return " ".join(number(v, digits) for v in value)
    if isinstance(value, int) or not abs(value) < float("inf"):
        return "" if value != value else f"{value:,}"
    if 10**digits <= abs(value) < 10**9 or (abs(value) >= 1000 and digits < 6):
        return f"{value:,.0f}" if abs(value) < 10**9 else f"{value:.{digits}g}"
    return f"{value:.{digits}g}"


def between(low: float, high: float, *, never: bool = False) -> str:
    """Return an interval in words; ends at 0 and infinity are none, and steps without end are never done.

    >>> between(1.25, 3.0), between(0.0, 3.0), between(89.0, float("inf")), between(2.0, 2.0)
    ('1.2 to 3', 'below 3', 'above 89', 'exact')
    """
    if low != low or high != high:
        return "not known"
    if low == high:
        return "never" if low == float("inf") else "exact"
    if high == float("inf"):
        return f"{number(low, 2)} to never" if never else f"above {number(low, 2)}"
    return f"{number(low, 2)} to {number(high, 2)}" if low > 0 else f"below {number(high, 2)}"


def printable(text: str) -> str:
    """Return ``text`` without control characters, with which a file could play tricks on a terminal.

    >>> printable("red \x1b[31m alert")
    'red ?[31m alert'
    """
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


def print_rows(lines: list[list[str]]) -> None:
    """Print lines of cells in columns: numbers to the right, text to the left, the last column folded."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    right = [all(not cell or _is_number(cell) for cell in column[1:]) for column in zip(*lines, strict=True)]
    before = sum(widths[:-1]) + 2 * (len(widths) - 1)
    for line in lines:
        cells = [c.rjust(n) if r else c.ljust(n) for c, n, r in zip(line, widths, right, strict=True)]
        folded = textwrap.wrap(line[-1], max(PAGE - before, 30)) if before + len(line[-1]) > PAGE else []
        print(printable("  ".join([*cells[:-1], folded[0] if folded else cells[-1]]).rstrip()))
        for more in folded[1:]:
            print(printable(" " * before + more))


def _is_number(cell: str) -> bool:
    return cell in ("—", "never") or (cell[0].isdigit() and " to " not in cell and "/" not in cell)


def print_table(table: pd.DataFrame) -> None:
    """Print a table: text to the left, numbers to the right, what is missing and the unit 1 as nothing."""
    if "units" in table:
        table = table.assign(units=table["units"].replace("1", ""))
    cells = [[_cell(v) for v in row] for row in table.astype(object).itertuples(index=False)]
    heads = [str(c) for c in table.columns]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    left = [any(isinstance(v, str) and v for v in table[c]) for c in table.columns]
    for line in [heads, *cells]:
        padded = (
            w.ljust(n) if is_text else w.rjust(n) for w, n, is_text in zip(line, widths, left, strict=True)
        )
        print(printable("  ".join(padded).rstrip()))


INTERVALS = "\nlower and upper are the ends of a 95 % interval, where the note says nothing else."
"""What stands below a table of the summary."""


def _cell(value: Any) -> str:
    if value is None or str(value) in ("nan", "<NA>"):
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a table as plain rows, for JSON."""
    return [{str(k): v for k, v in row.items()} for row in table.astype(object).to_dict("records")]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        if value != value:
            return None
        return value if abs(value) != float("inf") else str(value)
    if value is None or isinstance(value, str | int | bool):
        return value
    text = str(value)
    return None if text == "<NA>" else text
