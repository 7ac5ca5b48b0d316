"""One function a problem of the catalog: what it trains, and its two sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from noisekit.errors import InputError
from noisekit.problems import datasets
from noisekit.problems.datasets import Dataset
from noisekit.problems.gpt import GPT, GPTConfig, next_token_loss
from noisekit.problems.landscapes import EmbeddedSaddle, Quartic, Rosenbrock
from noisekit.problems.linear_regression import LinearRegression, gaussian_linear_regression
from noisekit.problems.models import cnn, mlp, resnet
from noisekit.problems.network import ModelProblem
from noisekit.problems.quadratic import Quadratic

Device = torch.device | str | None


def quadratic(
    *,
    seed: int = 0,
    size: str = "small",
    dimension: int | None = None,
    condition: float = 100.0,
    dtype: torch.dtype = torch.float32,
    device: Device = None,
) -> Quadratic:
    """H = Q diag(λ) Qᵀ with λ from 1 to 1/condition and a random rotation Q."""
    dimension = _dimension(dimension, 10 if size == "small" else 1000)
    if condition < 1:
        raise InputError(f"condition is {condition}; it needs to be 1 or more.")
    generator = torch.Generator().manual_seed(seed)
    rotation, _ = torch.linalg.qr(torch.randn(dimension, dimension, generator=generator, dtype=torch.float64))
    eigenvalues = torch.logspace(0, -1, dimension, base=condition, dtype=torch.float64)
    hessian = rotation * eigenvalues @ rotation.T
    start = torch.randn(dimension, generator=generator, dtype=torch.float64)
    return Quadratic(((hessian + hessian.T) / 2).to(device, dtype), x0=start)


def embedded_saddle(
    *,
    seed: int = 0,
    size: str = "small",
    dimension: int | None = None,
    dtype: torch.dtype = torch.float32,
    device: Device = None,
) -> EmbeddedSaddle:
    """λ = (−1, 2, 2, …), started beside the saddle."""
    dimension = _dimension(dimension, 2 if size == "small" else 100)
    curvature = torch.full((dimension,), 2.0, dtype=dtype, device=device)
    curvature[0] = -1.0
    return EmbeddedSaddle(curvature)


def rosenbrock(
    *,
    seed: int = 0,
    size: str = "small",
    dimension: int | None = None,
    dtype: torch.dtype = torch.float32,
    device: Device = None,
) -> Rosenbrock:
    """The usual a = 1, b = 100."""
    dimension = _dimension(dimension, 2 if size == "small" else 100)
    return Rosenbrock(dimension, dtype=dtype, device=device)


def quartic(
    *,
    seed: int = 0,
    size: str = "small",
    dimension: int | None = None,
    dtype: torch.dtype = torch.float32,
    device: Device = None,
) -> Quartic:
    """c = 1 everywhere."""
    dimension = _dimension(dimension, 10 if size == "small" else 1000)
    return Quartic(torch.ones(dimension, dtype=dtype, device=device))


def linear_regression(
    *,
    seed: int = 0,
    size: str = "small",
    dimension: int | None = None,
    n_samples: int | None = None,
    noise: float = 0.5,
    dtype: torch.dtype = torch.float32,
    device: Device = None,
) -> LinearRegression:
    """A Gaussian design, and a response with noise."""
    small = size == "small"
    dimension = (20 if small else 200) if dimension is None else dimension
    n_samples = (1000 if small else 50_000) if n_samples is None else n_samples
    return gaussian_linear_regression(
        dimension, n_samples, noise=noise, seed=seed, dtype=dtype, device=device
    )


def breast_cancer_mlp(
    *,
    seed: int = 0,
    size: str = "small",
    n_samples: int | None = None,
    dtype: torch.dtype = torch.float32,
    device: Device = None,
) -> ModelProblem:
    """30-16-2 with tanh; full: 30-64-64-2."""
    widths = (30, 16, 2) if size == "small" else (30, 64, 64, 2)
    model = _seeded(seed, lambda: mlp(widths))
    data = datasets.breast_cancer()
    return _network("breast-cancer-mlp", model, data, n_samples, dtype=dtype, device=device)


def breast_cancer_deep_mlp(
    *,
    seed: int = 0,
    size: str = "small",
    n_samples: int | None = None,
    dtype: torch.dtype = torch.float32,
    device: Device = None,
) -> ModelProblem:
    """Ten hidden ReLU layers of width 20."""
    model = _seeded(seed, lambda: mlp((30, *[20] * 10, 2), activation=nn.ReLU))
    data = datasets.breast_cancer()
    return _network("breast-cancer-deep-mlp", model, data, n_samples, dtype=dtype, device=device)


def digits_mlp(
    *,
    seed: int = 0,
    size: str = "small",
    n_samples: int | None = None,
    dtype: torch.dtype = torch.float32,
    device: Device = None,
) -> ModelProblem:
    """64-32-10 with tanh; full: 64-128-64-10."""
    widths = (64, 32, 10) if size == "small" else (64, 128, 64, 10)
    model = _seeded(seed, lambda: mlp(widths))
    return _network("digits-mlp", model, datasets.digits(), n_samples, dtype=dtype, device=device)


def fashion_cnn(
    *,
    seed: int = 0,
    size: str = "small",
    n_samples: int | None = None,
    folder: str | Path | None = None,
    dtype: torch.dtype = torch.float32,
    device: Device = None,
) -> ModelProblem:
    """8 and 16 channels on 512 images; full: 32 and 64 channels on all."""
    data = _images(folder)
    widths = (8, 16) if size == "small" else (32, 64)
    channels, side = data.inputs.shape[1], data.inputs.shape[2]
    model = _seeded(seed, lambda: cnn(channels, side, data.n_classes, widths=widths))
    n_samples = min(512, len(data.inputs)) if n_samples is None and size == "small" else n_samples
    return _network(_image_name(data, "cnn"), model, data, n_samples, dtype=dtype, device=device)


def fashion_resnet(
    *,
    seed: int = 0,
    size: str = "small",
    n_samples: int | None = None,
    folder: str | Path | None = None,
    dtype: torch.dtype = torch.float32,
    device: Device = None,
) -> ModelProblem:
    """One block a stage of 8, 16, 32 channels on 512 images; full: ResNet-20 on all."""
    data = _images(folder)
    small = size == "small"
    sizes: dict[str, Any] = {} if small else {"widths": (16, 32, 64), "blocks": 3, "stem_stride": 1}
    model = _seeded(seed, lambda: resnet(data.inputs.shape[1], data.n_classes, **sizes))
    n_samples = min(512, len(data.inputs)) if n_samples is None and small else n_samples
    return _network(_image_name(data, "resnet"), model, data, n_samples, dtype=dtype, device=device)


def shakespeare_gpt(
    *,
    seed: int = 0,
    size: str = "small",
    n_samples: int | None = None,
    context: int | None = None,
    tied: bool = True,
    dtype: torch.dtype = torch.float32,
    device: Device = None,
) -> ModelProblem:
    """2 layers of width 32 on 128 blocks of 32 characters; full: 4 layers of width 128, context 128."""
    small = size == "small"
    context = (32 if small else 128) if context is None else context
    if context < 1:
        raise InputError(f"context is {context}; it needs to be at least 1 character.")
    n_samples = (128 if small else 4096) if n_samples is None else n_samples
    data = datasets.shakespeare(context=context, n_samples=n_samples)
    sizes = {"layers": 2, "heads": 2, "width": 32} if small else {"layers": 4, "heads": 4, "width": 128}
    config = GPTConfig(vocabulary=data.n_classes, context=context, tied=tied, **sizes)
    model = _seeded(seed, lambda: GPT(config))
    return _network("shakespeare-gpt", model, data, None, dtype=dtype, device=device, loss_fn=next_token_loss)


def _network(
    name: str,
    model: nn.Module,
    data: Dataset,
    n_samples: int | None,
    *,
    dtype: torch.dtype,
    device: Device,
    loss_fn: Any = None,
) -> ModelProblem:
    n = len(data.inputs) if n_samples is None else n_samples
    if not 1 <= n <= len(data.inputs):
        raise InputError(f"n_samples is {n}; {data.name} has 1 to {len(data.inputs)} training samples.")
    return ModelProblem(
        model,
        loss_fn or nn.CrossEntropyLoss(),
        data.inputs[:n],
        data.targets[:n],
        name=name,
        dtype=dtype,
        device=device,
        test_inputs=data.test_inputs,
        test_targets=data.test_targets,
        metadata={"dataset": data.name, "dataset_sha256": data.sha256},
    )


def _images(folder: str | Path | None) -> Dataset:
    return datasets.fashion_mnist() if folder is None else datasets.images_from_folder(folder)


def _image_name(data: Dataset, kind: str) -> str:
    return f"{'fashion' if data.name == 'fashion_mnist' else data.name}-{kind}"


def _seeded(seed: int, build: Any) -> Any:
    """Build a model whose parameters depend on ``seed`` alone, leaving torch's own generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def _dimension(given: int | None, default: int) -> int:
    if given is not None and given < 1:
        raise InputError(f"dimension is {given}; it needs to be at least 1.")
    return default if given is None else given
