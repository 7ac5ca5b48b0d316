"""Two trainings with the recorder on, in bf16 with float32 statistics, each a small file."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from settings import Settings
from torch import Tensor, nn
from torch.nn import functional

import noisekit as nk
from noisekit.problems.datasets import Dataset, fashion_mnist, shakespeare
from noisekit.problems.gpt import GPT, GPTConfig, next_token_loss
from noisekit.problems.models import resnet
from noisekit.results import provenance
from noisekit.study.training import mean_gradient_error, minibatches

MOST_BYTES = 5_000_000


@dataclass(frozen=True)
class Run:
    """How a network is trained and what is recorded."""

    steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    per_decade: int
    """Recorded steps to a factor of ten."""
    coordinates: int = 128
    sketch: int = 64


@dataclass(frozen=True)
class GPTSize:
    """A GPT, and the blocks of text that it is trained on."""

    layers: int
    heads: int
    width: int
    context: int
    n_samples: int


GPT_SIZES = {
    "10m": (GPTSize(6, 6, 384, 256, 3800), Run(2000, 64, 1e-3, 0.1, 16)),
    "100m": (GPTSize(12, 12, 768, 256, 3800), Run(600, 64, 3e-4, 0.1, 16)),
    "smoke": (GPTSize(2, 2, 16, 16, 64), Run(6, 8, 1e-3, 0.1, 8, coordinates=32, sketch=8)),
}
RESNET = Run(1500, 128, 1e-3, 0.05, 12)
SMOKE_RESNET = Run(4, 16, 1e-3, 0.05, 8, coordinates=32, sketch=8)


def train_resnet(settings: Settings, path: Path) -> None:
    """Train a ResNet-20 with GroupNorm on Fashion-MNIST by AdamW."""
    data = fashion_mnist()
    sizes: dict[str, Any] = {"widths": (16, 32, 64), "blocks": 3, "stem_stride": 1}
    model = seeded(settings.seed, lambda: resnet(1, data.n_classes, **({} if settings.smoke else sizes)))
    run = SMOKE_RESNET if settings.smoke else RESNET
    train("fashion-resnet", model, functional.cross_entropy, data, run, settings, path)


def train_small_gpt(settings: Settings, path: Path) -> None:
    """Train a character GPT of 10 million parameters on Shakespeare by AdamW."""
    train_gpt(settings, path, "10m")


def train_large_gpt(settings: Settings, path: Path) -> None:
    """Train a character GPT of 85 million parameters on Shakespeare by AdamW."""
    train_gpt(settings, path, "100m")


def train_gpt(settings: Settings, path: Path, size: str) -> None:
    """Train a GPT of one of the sizes."""
    shape, run = GPT_SIZES["smoke" if settings.smoke else size]
    data = shakespeare(context=shape.context, n_samples=shape.n_samples)
    model = seeded(settings.seed, lambda: gpt(shape, data.n_classes))
    train(f"shakespeare-gpt-{size}", model, next_token_loss, data, run, settings, path)


def gpt(shape: GPTSize, vocabulary: int) -> nn.Module:
    """Return a GPT of this shape."""
    return GPT(GPTConfig(vocabulary, shape.context, shape.layers, shape.heads, shape.width))


def seeded(seed: int, build: Callable[[], nn.Module]) -> nn.Module:
    """Return a network whose parameters depend on the seed alone, also of another kind of device."""
    torch.manual_seed(seed)
    return build()


def train(
    name: str,
    model: nn.Module,
    loss_fn: Callable[[Tensor, Tensor], Tensor],
    data: Dataset,
    run: Run,
    settings: Settings,
    path: Path,
) -> None:
    """Train ``model`` with the recorder on, until the last step or the deadline, and write the file."""
    device = settings.device
    model = model.to(device)
    inputs, targets = data.inputs.to(device), data.targets.to(device)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=run.learning_rate, weight_decay=run.weight_decay, betas=(0.9, 0.95)
    )
    schedule = nk.logarithmic(run.per_decade)
    options = {"coordinates": run.coordinates, "sketch": run.sketch, "seed": settings.seed}
    recorder = nk.GradientNoiseRecorder(model, loss_fn, optimizer, schedule=schedule, **options)
    trained = dict(model.named_parameters())
    gradients: dict[int, dict[str, Tensor]] = {}
    steps = 0
    batches = minibatches(len(inputs), run.batch_size, settings.seed, device)
    with recorder:
        while steps < run.steps and not settings.late:
            index = next(batches)
            optimizer.zero_grad()
            with torch.autocast(device.type, dtype=torch.bfloat16):
                outputs = model(inputs[index])
            loss = loss_fn(outputs.float(), targets[index])
            loss.backward()
            if schedule(steps):
                gradients = {steps: {n: p.grad.detach().clone() for n, p in trained.items()}}
            optimizer.step()
            steps += 1
    record = recorder.result()
    tree = nk.to_datatree(
        record=record,
        noise_scale=nk.record_noise_scale(record),
        mean_gradient_error=mean_gradient_error(record, gradients),
        provenance=provenance(
            problem=name,
            seed=settings.seed,
            title=f"Gradient noise of {name}, trained in bf16",
            config={"run": asdict(run), "steps_done": steps} | settings.facts,
            command="python scripts/gpu_study " + " ".join(a for a in sys.argv[1:] if a in ("--smoke",)),
            dataset=data.name,
            dataset_sha256=data.sha256,
            device=device.type,
            dtype="float32",
            deterministic=torch.are_deterministic_algorithms_enabled(),
            sampling="without-replacement",
            batch_size=run.batch_size,
            n_samples=len(inputs),
            n_parameters=sum(p.numel() for p in trained.values()),
        ),
    )
    tree["training"].attrs["optimizer"] = "adamw"
    nk.save_tree(tree, path)
    size = path.stat().st_size
    test = evaluate(model, loss_fn, data, device)
    print(f"{name}: {steps} steps, {len(record.step)} recorded, loss {float(record.loss[0]):.3f} → ", end="")
    print(f"{float(record.loss[-1]):.3f}, test loss {test:.3f}, {size / 1e6:.2f} MB", flush=True)
    if size > MOST_BYTES:
        raise ValueError(f"{path.name} has {size} bytes, more than {MOST_BYTES}; record fewer steps.")


@torch.no_grad()
def evaluate(model: nn.Module, loss_fn: Any, data: Dataset, device: torch.device) -> float:
    """Return the mean loss on the test data."""
    total, count = 0.0, 0
    for x, y in zip(data.test_inputs.split(100), data.test_targets.split(100), strict=True):
        total += float(loss_fn(model(x.to(device)), y.to(device))) * len(x)
        count += len(x)
    return total / count
