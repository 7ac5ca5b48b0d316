"""Simulate the null law of the likelihood ratio of Student-t to Gaussian and write the shipped table.

The ratio does not depend on the location and the scale of Gaussian samples, only on their number n. For each
n on a grid, Gaussian samples are fitted and the root of the ratio is tabulated at fixed tail probabilities p.
Where fewer than 100 replicates lie beyond p, the line through the tail on normal paper (root against Φ⁻¹(1 −
p), which is the identity for n → ∞) is used instead. About five minutes on one core.

    python scripts/make_likelihood_ratio_null.py
"""

from pathlib import Path

import numpy as np
import torch
from scipy.stats import norm

from noisekit.noise.student_t_fit import fit_student_t

OUTPUT = Path(__file__).parents[1] / "noisekit" / "noise" / "likelihood_ratio_null.csv"
SAMPLE_SIZES = [8, 12, 16, 24, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384]
TAIL_PROBABILITIES = [0.4, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005, 0.0002]
MOST_REPLICATES = 200_000
MOST_ELEMENTS = 200_000_000
SEED = 20251


def simulated_roots(n: int, generator: torch.Generator) -> np.ndarray:
    """Return roots of the likelihood ratio of Gaussian samples, in falling order."""
    remaining = min(MOST_REPLICATES, MOST_ELEMENTS // n)
    roots = []
    while remaining > 0:
        d = min(remaining, max(1, 20_000_000 // n))
        ratio = fit_student_t(torch.randn(n, d, generator=generator)).likelihood_ratio
        roots.append(ratio.clamp_min(0).sqrt().numpy())
        remaining -= d
    return -np.sort(-np.concatenate(roots))


def tabulate(roots: np.ndarray) -> list[float]:
    """Return the probability of a positive ratio and the root at each tail probability."""
    replicates = len(roots)
    fitted = np.geomspace(100 / replicates, 0.02, 20)
    slope, intercept = np.polyfit(norm.isf(fitted), roots[(fitted * replicates).astype(int)], 1)
    row = [float(np.mean(roots > 0.01))]
    for p in TAIL_PROBABILITIES:
        simulated = roots[int(p * replicates)]
        row.append(float(simulated if p * replicates >= 100 else intercept + slope * norm.isf(p)))
    return row


def main() -> None:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(SEED)
    lines = ["n,positive," + ",".join(str(p) for p in TAIL_PROBABILITIES)]
    for n in SAMPLE_SIZES:
        row = tabulate(simulated_roots(n, generator))
        lines.append(f"{n}," + ",".join(f"{v:.4f}" for v in row))
        print(lines[-1], flush=True)
    lines.append("inf,0.5000," + ",".join(f"{norm.isf(p):.4f}" for p in TAIL_PROBABILITIES))
    OUTPUT.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
