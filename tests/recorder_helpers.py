"""A small model, and the comparison of a record with explicit gradients."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from noisekit.gradients import GradientRecord


def small() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(inplace=True), nn.Linear(5, 2)).double()
    return model, torch.randn(8, 3).double(), torch.randint(0, 2, (8,))


def assert_rows_equal(record: GradientRecord, rows: Tensor, row: int = 0) -> None:
    assert record.coordinate_values is not None
    assert record.coordinate_index is not None
    assert record.gram is not None
    scale = float(rows.abs().max())
    expected = rows[:, record.coordinate_index]
    assert float((record.coordinate_values[row] - expected).abs().max()) < 1e-9 * scale
    assert float((record.gram[row] - rows @ rows.T).abs().max()) < 1e-9 * scale**2 * rows.shape[1]
    assert torch.allclose(record.squared_norm[row], rows.square().sum(1), rtol=1e-9)
    assert torch.allclose(record.trace[row].sum(), rows.var(0).sum(), rtol=1e-9)
    assert torch.allclose(record.mean_squared_norm[row].sum(), rows.mean(0).square().sum(), rtol=1e-9)
    assert record.deviation_sum is not None
    assert torch.allclose(record.deviation_sum[row].sum(), rows.std(0).sum(), rtol=1e-6)


def flat(gradients: dict[str, Tensor]) -> Tensor:
    return torch.cat([g.flatten(1) for g in gradients.values()], 1)
