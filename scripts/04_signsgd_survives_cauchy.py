"""Cauchy noise has no variance: SGD has no SDE and no floor, SignSGD has both."""

import matplotlib.pyplot as plt
import torch

import noisekit as nk
from noisekit.plots import theme

LEARNING_RATE = 0.01
DEGREES_OF_FREEDOM = 1.0  # Student-t with ν = 1 is the Cauchy law
STEPS, REPLICATES = 1500, 256
FIGURE = "docs/gallery/04_signsgd_survives_cauchy.png"

problem = nk.Quadratic(torch.tensor([0.5, 1.0, 2.0, 4.0]), x0=torch.full((4,), 2.0))
noise = nk.StudentTNoise(scale=1.0, df=DEGREES_OF_FREEDOM)

try:
    nk.integrate(nk.SGDSDE(problem.gradient, noise, LEARNING_RATE), problem.x0, steps=1)
except nk.errors.InfiniteVarianceError as error:
    print(error)

options = {"steps": STEPS, "replicates": REPLICATES, "observables": {"loss": problem.loss}, "save_every": 10}
runs = {
    "SGD, real runs": nk.simulate_optimizer(
        problem, lambda p: torch.optim.SGD(p, lr=LEARNING_RATE), problem.x0, noise=noise, seed=1, **options
    ),
    "SignSGD, real runs": nk.simulate_optimizer(
        problem, lambda p: nk.SignSGD(p, lr=LEARNING_RATE), problem.x0, noise=noise, seed=1, **options
    ),
    "SignSGD, SDE": nk.integrate(
        nk.SignSGDSDE(problem.gradient, noise, LEARNING_RATE), problem.x0, substeps=2, **options
    ),
}
law = nk.stationary_law("signsgd", problem.hessian, noise, LEARNING_RATE)
for name in ("SignSGD, real runs", "SignSGD, SDE"):
    print(f"{name}: settled at a loss of {runs[name].observables['loss'][:, -40:].mean():.4f}")
print(f"SignSGD, stationary law (linearised at the minimum): {law.excess_loss:.4f}")

with theme():
    figure, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
    for (name, run), colour in zip(runs.items(), ("#0072b2", "#24292e", "#d1500c"), strict=True):
        middle, low, high = run.observables["loss"].quantile(torch.tensor([0.5, 0.1, 0.9]), dim=0)
        ax.plot(run.step, middle, "--" if "SDE" in name else "-", color=colour, label=name)
        ax.fill_between(run.step, low, high, color=colour, alpha=0.15, linewidth=0)
    ax.axhline(law.excess_loss, color="#00916a", linestyle=":", label="SignSGD, stationary law (mean)")
    ax.set(yscale="log", xlabel="optimizer step", ylabel="loss (median, 10–90 %)")
    ax.legend(loc="upper right")
    figure.savefig(FIGURE, dpi=100)
