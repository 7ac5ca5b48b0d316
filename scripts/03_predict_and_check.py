"""Predict SGD and AdamW by their SDEs with the noise of the data itself, and run both for real."""

import matplotlib.pyplot as plt
import torch

import noisekit as nk
from noisekit.plots import theme

BATCH_SIZE, STEPS, REPLICATES = 16, 40, 32
SGD_RATE, ADAM_RATE, DECAY = 0.05, 0.003, 0.1
WARM_UP = 20  # real steps before the comparison: from an empty state the SDE of Adam has an error of its own
FIGURE = "docs/gallery/03_predict_and_check.png"

problem = nk.load_problem("breast-cancer-mlp")
noise = nk.MinibatchNoise(problem, BATCH_SIZE)  # Σ(x) = Σ₁(x)/B, computed where each path is
observables = {"loss": problem.loss}
optimizers = {
    lambda p: torch.optim.SGD(p, lr=SGD_RATE): nk.SGDSDE(problem.gradient, noise, SGD_RATE),
    lambda p: torch.optim.AdamW(p, lr=ADAM_RATE, weight_decay=DECAY): nk.AdamSDE(
        problem.gradient, noise, ADAM_RATE, weight_decay=DECAY
    ),
}


def real_runs(make_optimizer, x, steps, **options):
    options |= {"batch_size": BATCH_SIZE, "replicates": REPLICATES, "observables": observables}
    return nk.simulate_optimizer(problem, make_optimizer, x, steps=steps, save_every=4, **options)


solutions, comparisons = [], []
for make_optimizer, sde in optimizers.items():
    start = real_runs(make_optimizer, problem.x0, WARM_UP, seed=1).state_at(WARM_UP)
    x, moments = start.pop("x"), start
    same = {"start_step": WARM_UP, "init_state": moments}
    reality = real_runs(make_optimizer, x, STEPS, seed=2, **same)
    options = {"steps": STEPS, "save_every": 4, "replicates": REPLICATES, "observables": observables}
    prediction = nk.integrate(sde, x, substeps=2, seed=3, **options, **same)
    refined = nk.integrate(sde, x, substeps=4, seed=3, **options, **same)  # the same Brownian path
    comparisons.append(nk.compare(prediction, reality, refined=refined))
    solutions += [prediction, reality]
    print(comparisons[-1].optimizer, comparisons[-1].verdict_text)

tree = nk.to_datatree(solutions=solutions, comparisons=comparisons)
with theme():
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.2), layout="constrained")
for ax, name in zip(axes, tree["comparison"].children, strict=False):
    nk.plot_trajectories(tree, optimizer=name, ax=ax)
nk.plot_prediction_gap(tree, ax=axes[2])
figure.savefig(FIGURE, dpi=100)
