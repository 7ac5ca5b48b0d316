"""How a problem prints."""

from __future__ import annotations

import torch

from noisekit.problems.base import Problem


def shown(problem: Problem) -> str:
    """Return a problem in one line: its name, sizes, and precision and device where they are not the usual.

    >>> from noisekit.problems import Quadratic
    >>> Quadratic(torch.ones(3))
    Quadratic('quadratic', parameters=3)
    """
    x0 = problem.x0
    parts = [repr(problem.name), f"parameters={len(x0)}"]
    n_samples = getattr(problem, "n_samples", None)
    if n_samples is not None:
        parts.append(f"samples={n_samples}")
    if x0.dtype != torch.float32:
        parts.append(str(x0.dtype).removeprefix("torch."))
    if x0.device.type != "cpu":
        parts.append(str(x0.device))
    return f"{type(problem).__name__}({', '.join(parts)})"
