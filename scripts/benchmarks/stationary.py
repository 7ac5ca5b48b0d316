"""Compare stationary laws with the optimizers themselves and write the tables that docs/theory.md shows.

    python scripts/benchmarks/stationary.py                  # about three minutes on one core
    python scripts/benchmarks/stationary.py --only adamw     # rows whose name contains one of the words

f(x) = ½xᵀHx with constant noise, once in one dimension with λ = σ = 1 (or scale s = 1 of a Student-t), once
in four with random H and Σ that do not commute. torch's optimizers (and noisekit's SignSGD and RMSpropW) run
from a draw of the predicted law with m = 0 and v = V∞, are left alone for a while, and are then averaged over
time and replicates. Each ± is one standard error over the replicates.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

import noisekit as nk
from noisekit.optimizers.named import build_optimizer

REPLICATES = 4096
BURN_IN = 600
STEPS = 1500
EVERY = 10
OUTPUT = Path(__file__).with_suffix(".md")


@dataclass(frozen=True)
class Row:
    """An optimizer with its hyper-parameters; ``df`` of Student-t noise, None for Gaussian."""

    label: str
    optimizer: str
    hyper: dict[str, Any] = field(default_factory=dict)
    df: float | None = None

    def make(self, rate: float) -> Callable[[list], torch.optim.Optimizer]:
        return build_optimizer(self.optimizer, rate, **self.hyper)


@dataclass(frozen=True)
class Setting:
    """H, Σ and η, all that the rows of one table share."""

    title: str
    hessian: np.ndarray
    covariance: np.ndarray
    rate: float


def random_spd(seed: int, low: float, high: float, dimension: int = 4) -> np.ndarray:
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.normal(size=(dimension, dimension)))
    return basis @ np.diag(np.geomspace(low, high, dimension)) @ basis.T


def settings() -> list[Setting]:
    one = np.ones((1, 1))
    h, s = random_spd(1, 0.5, 2.0), random_spd(2, 0.3, 2.0)
    apart = np.linalg.norm(h @ s - s @ h) / np.linalg.norm(h @ s)
    matrices = f"Four dimensions, ‖HΣ − ΣH‖ = {apart:.2f} ‖HΣ‖"
    return [Setting("One dimension, λ = σ = 1", one, one, 0.01), Setting(matrices, h, s, 0.02)]


def rows() -> list[Row]:
    found = [
        Row("SGD", "sgd"),
        Row("SGD, momentum .8", "sgd", {"momentum": 0.8}),
        Row("SignSGD, Gaussian", "signsgd"),
        *(Row(f"SignSGD, ν = {df:g}", "signsgd", df=df) for df in (1.0, 2.0, 3.0)),
        Row("SignSGD, θ = 1", "signsgd", {"weight_decay": 1.0}),
        Row("RMSprop", "rmsprop"),
        Row("RMSprop, β = .9", "rmsprop", {"beta": 0.9}),
        Row("RMSprop, L2 θ = 1", "rmsprop", {"weight_decay": 1.0}),
        *(Row(f"RMSpropW, θ = {d:g}", "rmspropw", {"weight_decay": d}) for d in (1.0, 4.0)),
    ]
    for first in (0.5, 0.9, 0.99):
        betas = (first, 0.999)
        found.append(Row(f"Adam, β₁ = {first:g}", "adam", {"betas": betas}))
        for decay in (1.0, 4.0):
            hyper = {"betas": betas, "weight_decay": decay}
            found.append(Row(f"AdamW, β₁ = {first:g}, θ = {decay:g}", "adamw", hyper))
    return [*found, Row("Adam, L2 θ = 1", "adam", {"weight_decay": 1.0})]


def noise_of(row: Row, setting: Setting) -> nk.NoiseModel:
    """Student-t noise has independent coordinates with the scales √diag Σ."""
    if row.df is None:
        return nk.GaussianNoise(factor=torch.as_tensor(np.linalg.cholesky(setting.covariance)))
    return nk.StudentTNoise(scale=torch.as_tensor(np.sqrt(np.diag(setting.covariance))), df=row.df)


def simulate(row: Row, setting: Setting, law: nk.theory.StationaryLaw) -> tuple[np.ndarray, np.ndarray]:
    """Return xxᵀ averaged over late steps, of each replicate: (replicate, coordinate, coordinate)."""
    root = np.linalg.cholesky(law.covariance)
    start = np.random.default_rng(3).normal(size=(REPLICATES, len(root))) @ root.T
    x0 = torch.as_tensor(start)
    state = {"v": torch.as_tensor(law.second_moment)} if law.second_moment.size else None
    solution = nk.simulate_optimizer(
        nk.Quadratic(torch.as_tensor(setting.hessian)),
        row.make(setting.rate),
        x0,
        steps=BURN_IN + STEPS,
        replicates=REPLICATES,
        noise=noise_of(row, setting),
        save_every=EVERY,
        start_step=10_000,
        init_state=state,
    )
    late = solution.state["x"][:, BURN_IN // EVERY :]
    return torch.einsum("rti,rtj->rij", late, late).numpy() / late.shape[1]


def laws(row: Row, setting: Setting) -> dict[str, nk.theory.StationaryLaw | None]:
    def law(**options: Any) -> nk.theory.StationaryLaw | None:
        try:
            return nk.stationary_law(
                row.optimizer,
                setting.hessian,
                noise_of(row, setting),
                setting.rate,
                **row.hyper,
                **options,
            )
        except nk.errors.InputError:  # nothing is published for some
            return None

    found = {source: law(source=source) for source in ("discrete", "sde", "published")}
    lag = row.optimizer == "adamw"
    return found | {"lag": law(source="published", variant="lag") if lag else None}


def measure(row: Row, setting: Setting) -> str:
    """Return one line of the table: ½Tr(HC), and how far C is in the Frobenius norm."""
    predicted = laws(row, setting)
    assert predicted["discrete"] is not None
    squares = simulate(row, setting, predicted["discrete"])
    covariance = squares.mean(0)
    losses = np.einsum("rij,ij->r", squares, setting.hessian) / 2
    loss, error = losses.mean(), losses.std() / np.sqrt(len(losses))
    size = np.linalg.norm(covariance)
    doubt = np.sqrt(squares.var(0).sum() / len(squares)) / size
    cells = [row.label, f"{loss:.4g} ± {error / loss:.1%}"]
    for law in predicted.values():
        if law is None:
            cells.append("")
            continue
        ratio = np.trace(setting.hessian @ law.covariance) / 2 / loss - 1
        text = f"{ratio:+.1%}"
        if len(covariance) > 1:
            text += f" ({np.linalg.norm(law.covariance - covariance) / size:.1%})"
        cells.append(text)
    if len(covariance) > 1:
        cells[1] += f" ({doubt:.1%})"
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=[], help="measure rows whose name contains one of these")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = []
    for setting in settings():
        lines += [
            f"{setting.title}, η = {setting.rate:g}:",
            "",
            "| optimizer | simulated ½Tr(HC) | discrete | SDE | published | with lag |",
            "|---|---|---|---|---|---|",
        ]
        print("\n".join(lines[-4:]), flush=True)
        for row in rows():
            if options.only and not any(word.lower() in row.label.lower() for word in options.only):
                continue
            began = time.perf_counter()
            lines.append(measure(row, setting))
            print(lines[-1], f"  {time.perf_counter() - began:.1f} s", flush=True)
        lines.append("")
        print(flush=True)
    if not options.only:
        options.output.write_text("\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    main()
