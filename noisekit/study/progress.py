"""Progress on stderr: a bar for each stage on a terminal, a line for each stage elsewhere."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm


def bar(title: str, total: int, *, show: bool) -> Any:
    """Return a tqdm bar of ``total`` units; a silent one if ``show`` is false or stderr is no terminal.

    A log that is read later has no use for a line that is drawn again and again.
    """
    drawn = show and sys.stderr.isatty()
    if show and not drawn:
        print(f"{title} …", file=sys.stderr, flush=True)
    return tqdm(
        total=total,
        desc=f"{title:<32}",
        disable=not drawn,
        file=sys.stderr,
        bar_format="{desc} {percentage:3.0f}% |{bar:30}| {elapsed} < {remaining}",
        mininterval=0.5,
    )
