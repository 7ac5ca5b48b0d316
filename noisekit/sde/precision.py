"""Products of float32 matrices as they are, whatever a training script allows for its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


@contextmanager
def full_precision(x: Tensor) -> Iterator[None]:
    """Let a GPU round no factor of a product to TF32 inside the block.

    ``torch.set_float32_matmul_precision("high")`` allows it that, and normals that lose their last digits
    have a variance that is too small by some 10⁻³.
    """
    if x.device.type == "cpu":
        yield
        return
    products: Any = torch.backends.cuda.matmul
    if not hasattr(products, "fp32_precision"):  # before torch 2.9
        allowed = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(allowed)
        return
    before, products.fp32_precision = products.fp32_precision, "ieee"
    try:
        yield
    finally:
        products.fp32_precision = before
