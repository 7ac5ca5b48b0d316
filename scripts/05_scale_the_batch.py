"""Grow the batch and keep the result: rules for AdamW, each run for real over the same number of samples."""

import torch
import xarray as xr

import noisekit as nk

START = {"lr": 2e-3, "betas": (0.98, 0.999), "eps": 1e-8, "weight_decay": 0.1, "steps": 1600, "batch_size": 4}
RATIOS = (1, 4, 16)  # new batch size over old
REPLICATES = 32
FIGURE = "docs/gallery/05_scale_the_batch.png"

problem = nk.load_problem("linear-regression", dimension=10, noise=2.0)
minimum = torch.linalg.lstsq(problem.design, problem.response[:, None]).solution[:, 0]
lowest = problem.loss(minimum[None]).item()


def run(settings):
    """Return the mean excess loss over the last tenth of real AdamW runs, and its standard error."""
    settings = dict(settings)
    steps, batch_size = settings.pop("steps"), settings.pop("batch_size")
    solution = nk.simulate_optimizer(
        problem,
        lambda p: torch.optim.AdamW(p, **settings),
        minimum,
        steps=steps,
        batch_size=batch_size,
        replicates=REPLICATES,
        observables={"loss": problem.loss},
        keep_state=False,
        save_every=steps // 100,
    )
    late = solution.observables["loss"][:, -10:].mean(1) - lowest
    return late.mean().item(), (late.std() / REPLICATES**0.5).item()


def scaled(rule, ratio):
    if rule != "nothing scaled":
        return nk.scale_hyperparameters("adamw", START, ratio, preset=rule)
    return START | {"steps": round(START["steps"] / ratio), "batch_size": round(START["batch_size"] * ratio)}


rules = ("sde", "sqrt", "fixed_lr", "nothing scaled")
table = torch.tensor([[run(scaled(rule, ratio)) for ratio in RATIOS] for rule in rules])
print(table[..., 0])

axes = ("preset", "batch_ratio")
data = xr.Dataset(
    {"loss": (axes, table[..., 0].numpy()), "loss_error": (axes, table[..., 1].numpy())},
    {"preset": list(rules), "batch_ratio": list(RATIOS)},
)
ax = nk.plot_batch_scaling(xr.DataTree.from_dict({"/batch_scaling/adamw": data}))
ax.set(ylabel="final excess loss", yscale="log")
ax.figure.savefig(FIGURE, dpi=100)
