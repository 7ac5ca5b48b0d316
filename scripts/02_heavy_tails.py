"""Is the noise heavy-tailed? That of one sample's gradient is; what averaging over a batch leaves of it."""

import matplotlib.pyplot as plt
import torch

import noisekit as nk
from noisekit.plots import theme

PROBLEM = "breast-cancer-mlp"  # 455 samples, a network of 530 parameters
TRAINING_STEPS = 30
BATCH_SIZES = (16, 128)
MINIBATCHES = 1000  # all drawn at one point: moving weights would look like heavy tails
FIGURE = "docs/gallery/02_heavy_tails.png"

torch.manual_seed(0)
problem = nk.load_problem(PROBLEM)
model, loss_fn = problem.model, problem.loss_fn
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(TRAINING_STEPS):
    index = torch.randint(problem.n_samples, (16,))
    optimizer.zero_grad()
    loss_fn(model(problem.inputs[index]), problem.targets[index]).backward()
    optimizer.step()

x = torch.cat([p.detach().reshape(-1) for p in model.parameters()])[None]
gradients = problem.per_sample_gradients(x)[0][torch.randperm(problem.n_samples)]  # (sample, coordinate)
noise = {1: gradients - gradients.mean(0)}
for size in BATCH_SIZES:
    index = torch.randint(problem.n_samples, (MINIBATCHES, size))
    noise[size] = noise[1][index].mean(1)  # (minibatch, coordinate)

with theme():
    figure, axes = plt.subplots(1, 2, figsize=(8.5, 3.4), layout="constrained")
    bins = torch.logspace(-0.5, 2, 36).numpy()
    for (size, values), colour in zip(noise.items(), ("#d1500c", "#d98e04", "#0072b2"), strict=True):
        fit = nk.fit_noise(values, batch_size=size)
        tail = nk.tail_index(values, pooled=True)
        print(f"B = {size}\n{fit}\ntail index {tail.alpha.item():.2g}, 95 % {tail.interval[0].tolist()}\n")
        heavy = fit.is_heavy_tailed
        label = f"B = {size}: {heavy.double().mean():.0%} heavy-tailed"
        axes[0].hist(fit.df[heavy], bins=bins, color=colour, alpha=0.6, label=label)
        deviation = (values / values.std(0)).abs().flatten().sort(descending=True).values
        axes[1].loglog(deviation, torch.arange(1, len(deviation) + 1) / len(deviation), color=colour)
    z = torch.linspace(0.1, 5, 200)
    axes[1].loglog(z, torch.erfc(z / 2**0.5), "--", color="#6b7077", label="Gaussian")
    axes[0].set(xscale="log", xlabel="degrees of freedom ν (Student-t fit)", ylabel="coordinates")
    axes[1].set(xlim=(0.1, 30), ylim=(1e-6, 2), xlabel="|noise| (standard deviations)", ylabel="share beyond")
    for ax in axes:
        ax.legend()
    figure.savefig(FIGURE, dpi=100)
