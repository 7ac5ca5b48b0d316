"""What the problems here share: a starting point, and how they print."""

from __future__ import annotations

import torch
from torch import Tensor


class Shown:
    """A problem that prints in one line: name, sizes, and precision and device where they are not the usual.

    >>> from noisekit.problems import Quadratic
    >>> Quadratic(torch.ones(3))
    Quadratic('quadratic', parameters=3)
    """

    name: str
    _x0: Tensor

    @property
    def x0(self) -> Tensor:
        """The starting point, (coordinate,)."""
        return self._x0

    def __repr__(self) -> str:
        x0 = self.x0
        parts = [repr(self.name), f"parameters={len(x0)}"]
        n_samples = getattr(self, "n_samples", None)
        if n_samples is not None:
            parts.append(f"samples={n_samples}")
        if x0.dtype != torch.float32:
            parts.append(str(x0.dtype).removeprefix("torch."))
        if x0.device.type != "cpu":
            parts.append(str(x0.device))
        return f"{type(self).__name__}({', '.join(parts)})"
