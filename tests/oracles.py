"""Closed forms and simulations written from the formulas, without noisekit, to hold its theory against."""

from __future__ import annotations

import math

import numpy as np
import torch


def random_spd(dimension: int, seed: int, low: float, high: float) -> np.ndarray:
    """Return a dense symmetric matrix with log-spaced eigenvalues between ``low`` and ``high``."""
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.normal(size=(dimension, dimension)))
    return basis @ np.diag(np.geomspace(low, high, dimension)) @ basis.T


class TextbookSignSGD(torch.optim.Optimizer):
    """x ← x − η(sign(g) + θx)."""

    def __init__(self, params, lr, weight_decay=0.0):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(group["lr"] * p.grad.sign())


class TextbookRMSpropW(torch.optim.Optimizer):
    """v ← βv + (1 − β)g², x ← x − ηg/(√v + ε) − ηθx."""

    def __init__(self, params, lr, beta=0.99, eps=1e-8, weight_decay=0.0):
        super().__init__(params, {"lr": lr, "beta": beta, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                v = self.state[p].setdefault("v", torch.zeros_like(p))
                v.mul_(group["beta"]).addcmul_(p.grad, p.grad, value=1 - group["beta"])
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.addcdiv_(p.grad, v.sqrt().add_(group["eps"]), value=-group["lr"])


def make_torch_optimizer(
    name, params, lr, *, betas=(0.9, 0.999), beta=0.99, eps=1e-8, weight_decay=0.0, momentum=0.0
):
    """Return torch's own optimizer of that name, or the textbook one where torch has none."""
    if name == "sgd":
        return torch.optim.SGD(params, lr=lr, momentum=momentum, weight_decay=weight_decay)
    if name == "signsgd":
        return TextbookSignSGD(params, lr, weight_decay)
    if name == "rmsprop":
        return torch.optim.RMSprop(params, lr=lr, alpha=beta, eps=eps, weight_decay=weight_decay)
    if name == "rmspropw":
        return TextbookRMSpropW(params, lr, beta, eps, weight_decay)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
    return kind(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)


def run_optimizer(name, gradient, draw, x0, lr, steps, *, replicates, visit, seed=0, warm=0, **hyper):
    """Run ``replicates`` copies of an optimizer at once, calling visit(k, x) before each step and at the end.

    ``gradient(x)`` and ``draw(shape, generator)`` give the full gradient and its noise.
    The optimizer's state is first filled by ``warm`` steps that leave x at x0.
    """
    generator = torch.Generator().manual_seed(seed)
    start = torch.as_tensor(np.asarray(x0), dtype=torch.float64).expand(replicates, -1).clone()
    parameter = torch.nn.Parameter(start.clone())
    optimizer = make_torch_optimizer(name, [parameter], lr, **hyper)
    for _ in range(warm):  # fill the optimizer's state at x0
        parameter.grad = gradient(start) + draw(start.shape, generator)
        optimizer.step()
        parameter.data.copy_(start)
    for k in range(steps):
        x = parameter.detach()
        visit(k, x)
        parameter.grad = gradient(x) + draw(x.shape, generator)
        optimizer.step()
    visit(steps, parameter.detach())


def gaussian_draw(covariance):
    """Return a function that draws N(0, Σ) noise."""
    root = torch.linalg.cholesky(torch.as_tensor(covariance, dtype=torch.float64))

    def draw(shape, generator):
        return torch.randn(shape, generator=generator, dtype=torch.float64) @ root.T

    return draw


def student_draw(scale, df):
    """Return a function that draws independent Student-t noise, normal over the root of a chi-square."""
    law = torch.as_tensor(np.asarray(scale), dtype=torch.float64)

    def draw(shape, generator):
        z = torch.randn(shape, generator=generator, dtype=torch.float64)
        chi = torch._standard_gamma(torch.full(shape, df / 2, dtype=torch.float64), generator=generator)
        return law * z * torch.sqrt(df / 2 / chi)

    return draw


def simulated_covariance(
    name, hessian, draw, lr, *, steps, burn_in, replicates=4096, every=10, minimum=None, **kw
):
    """Return E x (d,) and Cov x (d, d) of an optimizer on a quadratic, over replicates and late steps."""
    h = torch.as_tensor(hessian, dtype=torch.float64)
    d = len(h)
    centre = (
        torch.zeros(d, dtype=torch.float64)
        if minimum is None
        else torch.as_tensor(minimum, dtype=torch.float64)
    )
    first, second, count = torch.zeros(d, dtype=torch.float64), torch.zeros(d, d, dtype=torch.float64), [0]

    def visit(k, x):
        if k >= burn_in and k % every == 0:
            first.add_(x.mean(0))
            second.add_(x.T @ x / len(x))
            count[0] += 1

    run_optimizer(
        name, lambda x: (x - centre) @ h, draw, centre, lr, steps, replicates=replicates, visit=visit, **kw
    )
    mean = (first / count[0]).numpy()
    return mean, (second / count[0]).numpy() - np.outer(mean, mean)


def erf_vector(values):
    """Return erf of each value by the standard library."""
    return np.array([math.erf(float(v)) for v in np.ravel(values)]).reshape(np.shape(values))
