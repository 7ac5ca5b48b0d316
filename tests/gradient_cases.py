"""Layers that per-sample gradients must be right for, each with a batch, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

N = 5
Case = tuple[nn.Module, Any, Any, Any]
CASES: dict[str, Callable[[], Case]] = {}


def case(build: Callable[[], Case]) -> Callable[[], Case]:
    CASES[build.__name__] = build
    return build


def mse(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.mse_loss(outputs, targets)


def sequential(x: Tensor, *layers: nn.Module) -> Case:
    model = nn.Sequential(*layers).double()
    with torch.no_grad():
        shape = model(x).shape
    return model, mse, x, torch.randn(shape, dtype=torch.float64)


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@case
def mlp() -> Case:
    return sequential(randn(N, 4), nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


@case
def linear_on_sequences() -> Case:
    return sequential(randn(N, 7, 4), nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 3, bias=False))


@case
def linear_on_two_axes() -> Case:
    return sequential(randn(N, 2, 3, 4), nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))


@case
def conv1d() -> Case:
    return sequential(randn(N, 3, 9), nn.Conv1d(3, 4, 3, stride=2, padding=1), nn.Tanh(), nn.Conv1d(4, 2, 1))


@case
def conv2d_strides_groups_dilation() -> Case:
    return sequential(
        randn(N, 4, 9, 8),
        nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2),
        nn.ReLU(inplace=True),
        nn.Conv2d(6, 3, 1, bias=False),
        nn.Flatten(),
        nn.LazyLinear(2),
    )


@case
def conv2d_padding_modes() -> Case:
    return sequential(
        randn(N, 2, 6, 7),
        nn.Conv2d(2, 3, 3, padding="same"),
        nn.Conv2d(3, 3, (3, 1), padding="same", dilation=2),
        nn.Conv2d(3, 2, 3, padding=1, padding_mode="circular"),
        nn.Conv2d(2, 2, 3, padding=(1, 2), padding_mode="reflect"),
        nn.Conv2d(2, 2, 3, padding="valid"),
    )


@case
def conv2d_pointwise() -> Case:
    return sequential(
        randn(N, 3, 4, 4),
        nn.Conv2d(3, 5, 1),
        nn.Tanh(),
        nn.Conv2d(5, 2, 1, stride=2),
        nn.Conv2d(2, 2, 1, groups=2),
    )


@case
def conv3d() -> Case:
    return sequential(
        randn(N, 2, 4, 5, 4), nn.Conv3d(2, 3, 2, padding=1), nn.Tanh(), nn.Conv3d(3, 2, 2, stride=2)
    )


@case
def depthwise() -> Case:
    return sequential(randn(N, 4, 5, 5), nn.Conv2d(4, 8, 3, groups=4), nn.Tanh(), nn.Conv2d(8, 2, 3))


@case
def transposed_convolutions() -> Case:
    return sequential(
        randn(N, 4, 5),
        nn.ConvTranspose1d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
        nn.Unflatten(2, (2, 5)),
        nn.ConvTranspose2d(6, 2, 3, stride=2, dilation=2),
        nn.Unflatten(3, (1, 13)),
        nn.ConvTranspose3d(2, 1, 2),
    )


@case
def normalizations() -> Case:
    return sequential(
        randn(N, 6, 4, 3),
        nn.GroupNorm(3, 6),
        nn.Conv2d(6, 4, 2),
        nn.InstanceNorm2d(4, affine=True),
        nn.PReLU(),
        nn.LayerNorm([3, 2]),
        nn.PReLU(4),
        nn.RMSNorm([2]),
        nn.Flatten(),
        nn.Linear(24, 6),
        nn.GroupNorm(2, 6),
    )


@case
def batch_norm_in_eval_mode() -> Case:
    model, loss, x, y = sequential(
        randn(N, 3, 4, 4),
        nn.Conv2d(3, 4, 2),
        nn.BatchNorm2d(4),
        nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
        nn.Flatten(),
        nn.BatchNorm1d(36),
        nn.Linear(36, 2),
    )
    return model.eval(), loss, x, y


@case
def embedding_with_padding() -> Case:
    model = nn.Sequential(nn.Embedding(7, 4, padding_idx=2), nn.Linear(4, 3)).double()
    return model, mse, torch.randint(0, 7, (N, 6)), randn(N, 6, 3)
