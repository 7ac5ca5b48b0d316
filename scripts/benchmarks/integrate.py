"""Speed of the SDE integrators on one core, beside torch's own normals, torchsde and diffrax.

    python scripts/benchmarks/integrate.py                # noisekit; torchsde and diffrax where installed
    python scripts/benchmarks/integrate.py --repeats 15
    python scripts/benchmarks/integrate.py --alone        # the parts of a substep of Adam, each by itself
    python scripts/benchmarks/integrate.py --network      # substeps on fashion-cnn, in full-batch gradients

The problem is a diagonal quadratic with constant diagonal noise, float32. Every figure is millions of
path·coordinate·substeps per core-second of CPU time; the ratio is time over that of torch's ``normal_`` for
the same number of increments, the least of the repeats over the least, because whatever else runs on the
machine only adds to either. Peers take one step per substep and draw their own increments. They come with:
pip install torchsde diffrax
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from statistics import median

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import torch

import noisekit as nk

ETA, BETAS, EPS = 1e-3, (0.9, 0.999), 1e-8
SHAPES = [(1000, 256, 16), (10, 10_000, 40), (100_000, 8, 4)]  # coordinates, paths, optimizer steps
EQUATIONS = {"SGD": nk.SGDSDE, "SignSGD": nk.SignSGDSDE, "RMSprop": nk.RMSpropSDE, "Adam": nk.AdamSDE}


def curvature(d: int) -> torch.Tensor:
    return torch.linspace(0.5, 1.5, d)


def floor_seconds(numbers: int, buffer: torch.Tensor, generator: torch.Generator) -> float:
    """CPU seconds of torch's normals for ``numbers`` increments, in a buffer that stays in a cache."""
    calls = max(1, numbers // buffer.numel())
    begin = time.process_time()
    for _ in range(calls):
        buffer.normal_(generator=generator)
    return (time.process_time() - begin) * numbers / (calls * buffer.numel())


def measure(run: Callable[[], None], numbers: int, repeats: int) -> tuple[float, float]:
    """Return millions of numbers a second and the ratio to the floor, both from the fastest repeat."""
    buffer, generator = torch.empty(2**15), torch.Generator()
    run()
    seconds, floors = [], []
    for _ in range(repeats):
        floors.append(floor_seconds(numbers, buffer, generator))
        begin = time.process_time()
        run()
        seconds.append(time.process_time() - begin)
    return numbers / min(seconds) / 1e6, min(seconds) / min(floors)


def noisekit_run(name: str, d: int, paths: int, steps: int, substeps: int) -> Callable[[], None]:
    problem = nk.Quadratic(curvature(d))
    sde = EQUATIONS[name](problem.gradient, nk.GaussianNoise(scale=torch.ones(d)), ETA)
    x0 = torch.zeros(d)

    def run() -> None:
        nk.integrate(
            sde,
            x0,
            steps=steps,
            substeps=substeps,
            replicates=paths,
            save_every=steps,
            keep_state=False,
            quantiles=(),
        )

    return run


def torchsde_run(name: str, d: int, paths: int, steps: int, substeps: int) -> Callable[[], None]:
    import torchsde

    h = curvature(d)
    root = ETA**0.5

    class SGD(torch.nn.Module):
        noise_type, sde_type = "diagonal", "ito"

        def f(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return -h * y

        def g(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return torch.full_like(y, root)

    class Adam(torch.nn.Module):
        """State (x, m, v) in one tensor: torchsde draws noise for all of it."""

        noise_type, sde_type = "diagonal", "ito"

        def f(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            x, m, v = y.chunk(3, dim=1)
            gradient = h * x
            rate1, rate2 = (1 - BETAS[0]) / ETA, (1 - BETAS[1]) / ETA
            direction = torch.lerp(m, gradient, 1 - BETAS[0])
            move = -direction / (v.sqrt() + EPS)
            return torch.cat([move, rate1 * (gradient - m), rate2 * (gradient.square() + 1 - v)], 1)

        def g(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            size = torch.zeros_like(y)
            size[:, d : 2 * d] = root * (1 - BETAS[0]) / ETA
            return size

    width = d if name == "SGD" else 3 * d
    y0 = torch.cat([torch.zeros(paths, width - d), torch.ones(paths, d)], 1)
    times = torch.tensor([0.0, steps * ETA])
    equation = SGD() if name == "SGD" else Adam()

    def run() -> None:
        with torch.no_grad():
            torchsde.sdeint(equation, y0, times, dt=ETA / substeps, method="euler")

    return run


def diffrax_run(name: str, d: int, paths: int, steps: int, substeps: int) -> Callable[[], None]:
    import diffrax
    import jax
    import jax.numpy as jnp
    import lineax

    if name != "SGD":
        raise ImportError("only SGD is written for diffrax")
    h = jnp.asarray(curvature(d).numpy())
    like = jax.ShapeDtypeStruct((paths, d), jnp.float32)
    size = lineax.DiagonalLinearOperator(jnp.full((paths, d), ETA**0.5, jnp.float32))

    @jax.jit
    def solve(key: jax.Array) -> jax.Array:
        path = diffrax.UnsafeBrownianPath(shape=like, key=key)
        drift = diffrax.ODETerm(lambda t, y, args: -h * y)
        terms = diffrax.MultiTerm(drift, diffrax.ControlTerm(lambda t, y, args: size, path))
        solution = diffrax.diffeqsolve(
            terms,
            diffrax.Euler(),
            0.0,
            steps * ETA,
            ETA / substeps,
            jnp.zeros((paths, d), jnp.float32),
            adjoint=diffrax.ForwardMode(),
            max_steps=2 * steps * substeps,
        )
        return solution.ys

    keys = iter(jax.random.split(jax.random.key(0), 1000))

    def run() -> None:
        solve(next(keys)).block_until_ready()

    return run


def seconds_of(run: Callable[[], object], repeats: int, calls: int = 1) -> float:
    """CPU seconds of a call, the least of the repeats."""
    run()
    found = []
    for _ in range(repeats):
        begin = time.process_time()
        for _ in range(calls):
            run()
        found.append((time.process_time() - begin) / calls)
    return min(found)


def show_parts_alone(repeats: int) -> None:
    """Print what normals, bridge and passes of an Adam substep cost, each repeated in the cache."""
    from noisekit.sde.blocks import Block
    from noisekit.sde.brownian import Draws

    d, rows = 1000, 32
    x, m, v, g, s, n, c = (torch.rand(rows, d) + 0.5 for _ in range(7))
    one, tiny = torch.ones(()), 1e-9
    buffer, generator = torch.empty(2**15), torch.Generator()
    floor = seconds_of(lambda: buffer.normal_(generator=generator), repeats, 50) * rows * d / buffer.numel()
    draws = Draws(0, [Block(0, 0, rows, rows)], d, 8, x)
    plain = Draws(0, [Block(0, 0, rows, rows)], d, 1, x)
    parts = {
        "normals": lambda: plain.normals(0),
        "gradient": lambda: torch.mul(x, c, out=g),
        "S": lambda: torch.addcmul(one, g, g, out=s),
        "noisy gradient": lambda: torch.addcmul(g, c, one, out=n),
        "move": lambda: torch.addcmul(g, c, one, value=tiny, out=g),
        "mean of V": lambda: v.add_(s, alpha=tiny),
        "damping": lambda: torch.add(v, s, alpha=tiny, out=s),
        "growth": lambda: torch.addcmul(v, n, n, value=tiny, out=n),
        "growth / damping": lambda: torch.div(c, s, out=n),
        "V": lambda: torch.mul(v, c, out=n),
        "root": lambda: torch.sqrt(v, out=n),
        "root + eps": lambda: n.add_(one, alpha=tiny),
        "direction": lambda: torch.add(m, g, alpha=tiny, out=s),
        "M": lambda: m.add_(g, alpha=tiny),
        "x": lambda: x.addcdiv_(m, c, value=tiny),
    }
    shares = {name: seconds_of(part, repeats, 50) / floor for name, part in parts.items()}
    shares["bridge"] = seconds_of(lambda: draws.normals(0), repeats, 5) / 8 / floor - shares["normals"]
    for name, share in shares.items():
        print(f"{name:<18}{share:6.3f}")
    print(f"{'sum':<18}{sum(shares.values()):6.3f}")


def show_network(repeats: int) -> None:
    """Print what a substep on a convolutional network costs, in full-batch gradients."""
    problem = nk.load_problem("fashion-cnn")
    x0, noise = problem.x0, nk.MinibatchNoise(problem, 64)
    state = {"v": torch.full_like(x0, 1e-4)}
    print(f"{'equation':<10}" + "".join(f"{s:>8}" for s in (1, 2, 4, 8)) + "  substeps")
    for name, equation in EQUATIONS.items():
        sde, row = equation(problem.gradient, noise, ETA), []
        for substeps in (1, 2, 4, 8):

            def run(steps: int, sde: nk.OptimizerSDE = sde, substeps: int = substeps) -> None:
                nk.integrate(sde, x0, steps=steps, substeps=substeps, init_state=state, keep_state=False)

            ratios = []
            for _ in range(repeats):
                gradient = seconds_of(lambda: problem.gradient(x0[None]), 3)
                taken = seconds_of(lambda run=run: run(5), 1) - seconds_of(lambda run=run: run(1), 1)
                ratios.append(taken / (4 * substeps) / gradient)
            row.append(median(ratios))
        print(f"{name:<10}" + "".join(f"{ratio:8.2f}" for ratio in row), flush=True)


PEERS = {"noisekit": noisekit_run, "torchsde": torchsde_run, "diffrax": diffrax_run}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--dimensions", type=int, nargs="+", default=[shape[0] for shape in SHAPES])
    parser.add_argument("--substeps", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--alone", action="store_true")
    parser.add_argument("--network", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.alone:
        show_parts_alone(arguments.repeats)
    elif arguments.network:
        show_network(arguments.repeats)
    else:
        show_ratios(arguments)


def show_ratios(arguments: argparse.Namespace) -> None:
    """Print rates and ratios of noisekit and its peers."""
    print(f"{'d':>7}{'paths':>7}{'substeps':>9}  {'equation':<9}{'library':<10}{'M/s':>8}{'ratio':>8}")
    for d, paths, steps in (shape for shape in SHAPES if shape[0] in arguments.dimensions):
        for substeps in arguments.substeps:
            for name in EQUATIONS:
                for library, make in PEERS.items():
                    if library != "noisekit" and name not in ("SGD", "Adam"):
                        continue
                    count = max(2, steps * 8 // substeps // (1 if library == "noisekit" else 4))
                    try:
                        run = make(name, d, paths, count, substeps)
                        rate, ratio = measure(run, count * substeps * paths * d, arguments.repeats)
                    except ImportError:
                        continue
                    label = f"{d:>7}{paths:>7}{substeps:>9}  {name:<9}{library:<10}"
                    print(f"{label}{rate:8.0f}{ratio:8.2f}", flush=True)


if __name__ == "__main__":
    main()
