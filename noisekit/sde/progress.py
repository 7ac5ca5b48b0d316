"""A progress bar on stderr where it is asked for."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any


def progress_bar(wanted: bool, total: int, done: int, label: str) -> Any:
    """Return a context manager that gives a tqdm bar over optimizer steps, or None."""
    if not wanted:
        return nullcontext()
    from tqdm import tqdm

    return tqdm(total=total, initial=done, unit="step", desc=label)
