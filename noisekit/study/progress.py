"""A progress bar on stderr for each stage, or none."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm


def bar(title: str, total: int, *, show: bool) -> Any:
    """Return a tqdm bar of ``total`` units; a silent one if ``show`` is false."""
    return tqdm(
        total=total,
        desc=f"{title:<32}",
        disable=not show,
        file=sys.stderr,
        bar_format="{desc} {percentage:3.0f}% |{bar:30}| {elapsed} < {remaining}",
        mininterval=0.5,
    )
