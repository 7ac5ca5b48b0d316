"""Confidence interval of a ratio of two correlated estimates."""

from __future__ import annotations

import math


def fieller_interval(
    numerator: float, denominator: float, covariance: tuple[float, float, float], quantile: float
) -> tuple[float, float]:
    """Return the confidence set of a ratio R = a/b of two quantities that are not negative.

    {R ≥ 0 : (â − R b̂)² ≤ q² (V_aa − 2R V_ab + R² V_bb)}. Where b̂ is within q standard errors of 0 the set has
    no upper end and ``inf`` is returned for it; where nothing is excluded the answer is (0, inf).

    Arguments: ``covariance`` (V_aa, V_ab, V_bb) of the two estimates; ``quantile`` q, 1.96 for 95 %.
    Source: Fieller 1954, JRSS B 16:175.

    >>> fieller_interval(10.0, 2.0, (0.0, 0.0, 0.0), 1.96)
    (5.0, 5.0)
    """
    v_aa, v_ab, v_bb = covariance
    square = quantile**2
    a = denominator**2 - square * v_bb
    b = numerator * denominator - square * v_ab
    c = numerator**2 - square * v_aa
    discriminant = max(b * b - a * c, 0.0) if a > 0 else b * b - a * c
    if a > 0 and denominator > 0:
        root = math.sqrt(discriminant)
        return max((b - root) / a, 0.0), max((b + root) / a, 0.0)
    if a > 0:
        # A denominator that is negative beyond its error: no ratio is consistent, so none is excluded.
        return 0.0, math.inf
    if discriminant < 0 or c <= 0:
        return 0.0, math.inf
    # a ≤ 0: the set is the outside of an interval; its part above the numerator's error is [root, ∞).
    root = math.sqrt(discriminant)
    ends = [c / (2 * b)] if a == 0 and b != 0 else [(b - root) / a, (b + root) / a] if a < 0 else []
    positive = [end for end in ends if end > 0]
    return (max(positive) if positive else 0.0), math.inf
