"""What every command has: its common options and how it prints."""

from __future__ import annotations

import json
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import tyro

if TYPE_CHECKING:
    import pandas as pd


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


def print_table(table: pd.DataFrame) -> None:
    """Print a table in full: text to the left, numbers to the right, what is missing as nothing."""
    cells = [[_cell(v) for v in row] for row in table.astype(object).itertuples(index=False)]
    heads = [str(c) for c in table.columns]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    left = [any(isinstance(v, str) and v for v in table[c]) for c in table.columns]
    for line in [heads, *cells]:
        padded = (
            w.ljust(n) if is_text else w.rjust(n) for w, n, is_text in zip(line, widths, left, strict=True)
        )
        print("  ".join(padded).rstrip())


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
