"""Ticks that a person reads: plain numbers on logarithmic axes, whole numbers for steps."""

from __future__ import annotations

import numpy as np
from matplotlib.axis import Axis
from matplotlib.ticker import MaxNLocator, NullLocator

_MOST = 7


def plain_log_ticks(axis: Axis) -> None:
    """Label a logarithmic axis at 1, 2, 5 or at powers of ten, at most seven times, plainly where short."""
    low, high = sorted(axis.get_view_interval())
    decades = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    for steps in ((1, 1.5, 2, 3, 4, 5, 6, 8), (1, 2, 5), (1, 3), (1,)):
        ticks = np.array([s * 10.0**k for k in decades for s in steps])
        ticks = ticks[(ticks >= low) & (ticks <= high)]
        if ticks.size <= _MOST:
            break
    if ticks.size > _MOST:
        ticks = ticks[:: -(-ticks.size // _MOST)]
    axis.set_ticks(ticks.tolist(), [_label(t) for t in ticks])
    axis.set_minor_locator(NullLocator())


def whole_ticks(axis: Axis) -> None:
    """Put the ticks of an axis of steps at whole numbers."""
    axis.set_major_locator(MaxNLocator(nbins="auto", integer=True, steps=[1, 2, 5, 10]))


def _label(value: float) -> str:
    if 1e-4 <= value < 1e4:
        return f"{value:.3g}"
    power = int(np.floor(np.log10(value) + 1e-9))
    leading = value / 10.0**power
    return f"$10^{{{power}}}$" if abs(leading - 1) < 1e-6 else f"${leading:.2g}\\times 10^{{{power}}}$"
