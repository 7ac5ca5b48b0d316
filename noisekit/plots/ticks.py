"""Ticks that a person reads: plain numbers on logarithmic axes, whole numbers for steps."""

from __future__ import annotations

import numpy as np
from matplotlib.axis import Axis
from matplotlib.ticker import MaxNLocator, NullLocator

_MOST, _MOST_WIDE = 7, 5


def plain_log_ticks(axis: Axis) -> None:
    """Label a logarithmic axis at 1, 2, 5 or at powers of ten, plainly where short.

    At most seven times, or five times where a label has an exponent, which is wider.
    """
    low, high = sorted(axis.get_view_interval())
    decades = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    for steps in ((1, 1.5, 2, 3, 4, 5, 6, 8), (1, 2, 5), (1, 3), (1,)):
        ticks = np.array([s * 10.0**k for k in decades for s in steps])
        ticks = ticks[(ticks >= low) & (ticks <= high)]
        most = _MOST if all(map(_is_plain, ticks)) else _MOST_WIDE
        if ticks.size <= most:
            break
    if ticks.size > most:
        ticks = ticks[:: -(-ticks.size // most)]
    axis.set_ticks(ticks.tolist(), [_label(t) for t in ticks])
    axis.set_minor_locator(NullLocator())


def whole_ticks(axis: Axis) -> None:
    """Put the ticks of an axis of steps at whole numbers."""
    axis.set_major_locator(MaxNLocator(nbins="auto", integer=True, steps=[1, 2, 5, 10]))


def _is_plain(value: float) -> bool:
    return 0.99e-4 <= value < 1e4


def _label(value: float) -> str:
    if _is_plain(value):
        return f"{value:.6g}"
    power = int(np.floor(np.log10(value) + 1e-9))
    leading = value / 10.0**power
    return f"$10^{{{power}}}$" if abs(leading - 1) < 1e-6 else f"${leading:.2g}\\times 10^{{{power}}}$"
