"""The learning rate at which gradient descent itself becomes unstable."""

from __future__ import annotations

import math


def stability_limit(curvature: float, momentum: float = 0.0) -> float:
    """Return 2(1 + μ)/λ, beyond which x⁺ = x − ηm, m⁺ = μm + λx diverges; inf where λ is not positive.

    Arguments: ``curvature`` λ, with weight decay of L2 kind in it; ``momentum`` μ, heavy ball as in torch.
    Source: Polyak 1964, USSR Comput. Math. Math. Phys. 4(5):1-17.

    >>> stability_limit(10.0), stability_limit(10.0, momentum=0.5)
    (0.2, 0.3)
    """
    return 2 * (1 + momentum) / curvature if curvature > 0 else math.inf
