"""Accuracy and speed of the noise fits and the tail index, on simulated truth.

    python scripts/benchmarks/noise.py             # every table, about three minutes on one core
    python scripts/benchmarks/noise.py fit speed   # some, by their names at the end of this file

Every table names its sample sizes. Times are CPU times of one thread; scipy's loop runs on a few coordinates,
alternating with noisekit, and is scaled up.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.stats
import torch
from numpy.typing import NDArray

from noisekit.noise import fit_multivariate_student_t, fit_noise, fit_student_t, tail_index

Array = NDArray[np.float64]


def student(df: float, n: int, d: int, seed: int) -> Array:
    """Return Student-t samples (n, d)."""
    return np.random.default_rng(seed).standard_t(df, (n, d))


def fit_table() -> None:
    print("\nRMSE of the fitted df, float32 (512 coordinates; 100 at n = 100,000)")
    print("    df" + "".join(f"{f'n={n}':>12}" for n in (1000, 10_000, 100_000)))
    for df in (1, 3, 5, 10):
        cells = []
        for n in (1000, 10_000, 100_000):
            d = 512 if n <= 10_000 else 100
            fit = fit_student_t(torch.tensor(student(df, n, d, df), dtype=torch.float32))
            cells.append((fit.df - df).square().mean().sqrt().item())
        print(f"{df:6}" + "".join(f"{cell:12.3f}" for cell in cells))


def interval_table() -> None:
    print("\nCoverage of the 95 % interval for df (2,000 coordinates; 500 at n = 10,000)")
    sizes = (100, 500, 1000, 10_000)
    print("    df" + "".join(f"{f'n={n}':>12}" for n in sizes))
    for df in (1, 2, 3, 5, 10, 20, 30):
        cells = []
        for n in sizes:
            x = student(df, n, 2000 if n < 10_000 else 500, 100 + df)
            interval = fit_student_t(torch.tensor(x, dtype=torch.float32)).df_interval()
            cells.append(((interval[:, 0] <= df) & (df <= interval[:, 1])).double().mean().item())
        print(f"{df:6}" + "".join(f"{cell:12.3f}" for cell in cells))


def select_table() -> None:
    print("\nGaussian or Student-t: 512 coordinates, 102 of them t with 5 df, false discovery rate .05")
    print(f"{'n':>7}{'data sets':>11}{'FDR':>8}{'power':>8}{'FDR by AIC':>12}{'weakest df':>12}")
    for n, repeats in ((256, 60), (512, 60), (1000, 40), (10_000, 8)):
        discovery, power, aic = [], [], []
        for seed in range(repeats):
            x = np.random.default_rng(seed).standard_normal((n, 512))
            x[:, :102] = student(5, n, 102, 1000 + seed)
            fit = fit_noise(torch.tensor(x, dtype=torch.float32))
            by_aic = fit.student_t.likelihood_ratio > 2
            for heavy, rates in ((fit.is_heavy_tailed, discovery), (by_aic, aic)):
                rates.append(heavy[102:].sum().item() / max(1, heavy.sum().item()))
            power.append(fit.is_heavy_tailed[:102].double().mean().item())
        print(
            f"{n:7}{repeats:11}{np.mean(discovery):8.3f}{np.mean(power):8.3f}{np.mean(aic):12.3f}"
            f"{fit.weakest_visible_df:12.1f}"
        )


def trap_table() -> None:
    print("\nTraps: what is not heavy per-sample noise (64 coordinates, n = 4,000; df from the mean of 1/df)")
    n = 4000
    falling = np.random.default_rng(0).standard_normal((n, 64)) * np.geomspace(1, 0.25, n)[:, None]
    cases = [("Gaussian, scale falling 4-fold", falling)]
    for batch in (8, 32, 128, 512):
        generator = np.random.default_rng(batch)
        means = np.stack([generator.standard_t(3, (n, batch)).mean(1) for _ in range(64)], axis=1)
        cases.append((f"t with 3 df, mean of {batch}", means))
    for name, x in cases:
        fit = fit_noise(x, family="student_t")
        print(f"  {name:34}{1 / fit.student_t.kappa.mean().item():8.1f}   {'; '.join(fit.warnings)[:60]}")
    data = student(4, 400, 512, 9)
    chosen = np.random.default_rng(0).integers(400, size=n)
    for name, x in (("400 distinct samples", data), ("4,000 draws of those 400", data[chosen])):
        fit = fit_noise(x, family="student_t")
        covered = (fit.df_interval[:, 0] <= 4) & (fit.df_interval[:, 1] >= 4)
        print(f"  {name:34}coverage {covered.double().mean().item():.3f}   {'; '.join(fit.warnings)[:60]}")


def tail_table() -> None:
    print("\nTail index of Student-t samples: median α, coverage of its 95 % interval")
    estimators = ("gpd", "moment", "hill")
    for n in (1000, 10_000, 100_000):
        d = 400 if n <= 10_000 else 60
        print(
            f"  n = {n}"
            + "".join(f"{e:>16}" for e in estimators)
            + ("" if d == 400 else f"   ({d} coordinates)")
        )
        for df in (1.0, 2.0, 3.0, 5.0, 10.0, np.inf):
            generator = np.random.default_rng(7)
            x = generator.standard_t(df, (n, d)) if np.isfinite(df) else generator.standard_normal((n, d))
            print(f"  df {df:<20}" + "".join(_tail_cell(x, df, e) for e in estimators))


def stable_table() -> None:
    print("\nTail index of symmetric stable samples: median α, coverage (400 coordinates, n = 2,000)")
    print("        " + "".join(f"{e:>16}" for e in ("gpd", "ecf", "block_sum")))
    for alpha in (1.0, 1.3, 1.6, 1.8, 2.0):
        x = scipy.stats.levy_stable.rvs(alpha, 0, size=(2000, 400), random_state=np.random.default_rng(3))
        print(f"  {alpha:6}" + "".join(_tail_cell(x, alpha, e) for e in ("gpd", "ecf", "block_sum")))
    x = student(3, 2000, 400, 5)
    print(
        "  not stable: t with 3 df reads "
        + ", ".join(
            f"{e} {tail_index(x, estimator=e).alpha.median().item():.2f}" for e in ("ecf", "block_sum")
        )
    )


def pooled_table() -> None:
    print("\nTail index pooled over 30 coordinates of unequal scale, gpd: median α, coverage (60 data sets)")
    print(f"{'n':>7}{'df':>6}{'independent':>18}{'one radius for all':>22}")
    for n in (500, 2000):
        for df in (2.0, 3.0, 5.0):
            cells = []
            for width in (30, 1):
                alphas, covered = [], []
                for seed in range(60):
                    generator = np.random.default_rng(seed)
                    radius = np.sqrt(df / generator.chisquare(df, (n, width)))
                    x = generator.standard_normal((n, 30)) * radius * generator.lognormal(size=30)
                    tail = tail_index(x, pooled=True)
                    low, high = tail.interval[0].tolist()
                    alphas.append(tail.alpha.item())
                    covered.append(low <= df <= high)
                cells.append(f"{np.median(alphas):12.2f}{np.mean(covered):6.2f}")
            print(f"{n:7}{df:6}" + "    ".join(cells))


def _tail_cell(x: Array, alpha: float, estimator: str) -> str:
    tail = tail_index(x, estimator=estimator)  # type: ignore[arg-type]
    covered = (tail.interval[:, 0] <= alpha) & (alpha <= tail.interval[:, 1])
    return f"{tail.alpha.median().item():10.2f}{covered.double().mean().item():6.2f}"


def joint_table() -> None:
    print("\nMultivariate Student-t, d = 50 (n = 1,000, 100 data sets; iterations of PX-EM and of plain EM)")
    print(f"{'df':>6}{'RMSE':>8}{'coverage':>10}{'PX-EM':>8}{'EM':>6}{'CPU s':>8}")
    for df in (3, 5, 10):
        errors, covered, iterations, seconds = [], [], [], []
        for seed in range(100):
            generator = np.random.default_rng(seed)
            x = generator.standard_normal((1000, 50)) / np.sqrt(generator.chisquare(df, (1000, 1)) / df)
            fit, spent = timed(lambda x=x: fit_multivariate_student_t(x))
            errors.append(fit.df - df)
            covered.append(fit.df_interval[0] <= df <= fit.df_interval[1])
            iterations.append(fit.iterations)
            seconds.append(spent)
        rmse = float(np.sqrt(np.mean(np.square(errors))))
        em = plain_em_iterations(x, fit.df, fit.log_likelihood)
        print(
            f"{df:6}{rmse:8.3f}{np.mean(covered):10.2f}{np.mean(iterations):8.1f}{em:6}{np.mean(seconds):8.3f}"
        )


def plain_em_iterations(x: Array, df: float, target: float) -> int:
    """Return how many steps of EM with the scatter divided by n get within 1e-5 n of the target, df given."""
    n, d = x.shape
    location, scatter = np.median(x, axis=0), np.cov(x.T)
    for step in range(1, 1000):
        centred = x - location
        weight = (df + d) / (df + np.einsum("ni,ij,nj->n", centred, np.linalg.inv(scatter), centred))
        location = weight @ x / weight.sum()
        centred = x - location
        scatter = (centred * weight[:, None]).T @ centred / n
        if scipy.stats.multivariate_t.logpdf(x, location, scatter, df).sum() > target - 1e-5 * n:
            return step
    return 1000


def speed_table() -> None:
    print("\nSpeed of the Student-t fit, t with 5 df, 10,000 samples of 512 coordinates, one thread")
    x = student(5, 10_000, 512, 0)
    ours: dict[str, list[float]] = {"float32": [], "float64": []}
    scipy_seconds = []
    for trial in range(4):
        for name, dtype in (("float32", torch.float32), ("float64", torch.float64)):
            tensor = torch.tensor(x, dtype=dtype)
            ours[name].append(timed(lambda t=tensor: fit_student_t(t))[1])
        columns = x[:, 2 * trial : 2 * trial + 2]
        scipy_seconds.append(timed(lambda c=columns: [scipy.stats.t.fit(v) for v in c.T])[1] / 2)
    loop = 512 * float(np.median(scipy_seconds))
    print(f"  scipy.stats.t.fit, 8 coordinates scaled to 512: {loop:.0f} s")
    for name, seconds in ours.items():
        print(f"  noisekit {name}: {np.median(seconds):.2f} s, {loop / np.median(seconds):.0f} times less")


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Return the result of ``work`` and its CPU seconds."""
    start = time.process_time()
    result = work()
    return result, time.process_time() - start


TABLES: dict[str, Callable[[], None]] = {
    "fit": fit_table,
    "interval": interval_table,
    "select": select_table,
    "traps": trap_table,
    "tail": tail_table,
    "pooled": pooled_table,
    "stable": stable_table,
    "joint": joint_table,
    "speed": speed_table,
}


def main() -> None:
    torch.set_num_threads(1)
    chosen = sys.argv[1:] or list(TABLES)
    unknown = [name for name in chosen if name not in TABLES]
    if unknown:
        raise SystemExit(f"There is no table {unknown[0]!r}; choose from {', '.join(TABLES)}.")
    for name in chosen:
        TABLES[name]()


if __name__ == "__main__":
    main()
