"""An axis that is linear near zero and logarithmic in both tails, for noise that reaches very far out."""

from __future__ import annotations

from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

FAR = 30.0
"""Where a linear axis ends; what reaches farther is drawn on a wide one."""

_LINEAR = 3.0


def set_wide(ax: Axes, which: Literal["x", "y"], reach: float) -> None:
    """Make an axis linear within ±3 and logarithmic out to ±``reach``, with at most nine ticks."""
    getattr(ax, f"set_{which}scale")("symlog", linthresh=_LINEAR, linscale=0.6)
    getattr(ax, f"set_{which}lim")(-reach, reach)
    last = int(np.floor(np.log10(reach)))
    powers = np.arange(1, last + 1)[:: -(-last // 3)]
    ticks = [*(-(10.0 ** powers[::-1])), 0.0, *(10.0**powers)]
    labels = [f"$-10^{{{p}}}$" for p in powers[::-1]] + ["0"] + [f"$10^{{{p}}}$" for p in powers]
    getattr(ax, f"set_{which}ticks")(ticks, labels)
    getattr(ax, f"{which}axis").set_minor_locator(NullLocator())


def wide_grid(reach: float, n: int) -> np.ndarray:
    """Return ``n`` points from −reach to reach, even in the middle and geometric outside."""
    end = np.arcsinh(reach / _LINEAR)
    return _LINEAR * np.sinh(np.linspace(-end, end, n))
