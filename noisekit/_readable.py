"""How results print: a few readable lines in place of their tensors."""

from __future__ import annotations

from torch import Tensor


class Readable:
    """A result that shows its ``__str__`` at the prompt too; its dataclass is made with ``repr=False``."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}: {self}"


def typical(values: Tensor) -> str:
    """Return the one value, or the median and the range, of all values that are not NaN.

    >>> typical(Tensor([3.0, 1.0, 2.0]))
    'median 2 (1 to 3)'
    """
    known = values[~values.isnan()].cpu().double()
    if len(known) == 0:
        return "unknown"
    low, high = known.aminmax()
    if low == high:
        return f"{low.item():.3g}"
    return f"median {known.median().item():.3g} ({low.item():.3g} to {high.item():.3g})"


def share_of(fraction: float, what: str) -> str:
    """Return which part of ``what`` it is: all and none are said only if they are.

    >>> share_of(1.0, "coordinates"), share_of(0.999, "coordinates"), share_of(0.374, "coordinates")
    ('all coordinates', 'more than 99 % of coordinates', '37 % of coordinates')
    """
    if fraction == 1:
        return f"all {what}"
    if 0.995 <= fraction < 1:
        return f"more than 99 % of {what}"
    if 0 < fraction < 0.005:
        return f"less than 1 % of {what}"
    return f"{100 * fraction:.0f} % of {what}"


def interval_95(low: float, high: float) -> str:
    """Return an interval in words.

    >>> interval_95(1.0, 2.5)
    '95 % 1 to 2.5'
    """
    return f"95 % {low:.3g} to {high:.3g}"
