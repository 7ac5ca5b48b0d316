"""The problems that can be loaded by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from noisekit.errors import InputError, unknown_name
from noisekit.problems import named
from noisekit.problems.base import Problem
from noisekit.problems.custom import problem_from_path


@dataclass(frozen=True)
class ProblemInfo:
    """A row of the catalog, at the small size."""

    name: str
    data: str
    samples: int | None
    """Training samples; None for a loss without data."""
    parameters: int
    description: str


_CATALOG: dict[str, tuple[Callable[..., Problem], ProblemInfo]] = {
    info.name: (build, info)
    for build, info in (
        (named.quadratic, ProblemInfo("quadratic", "-", None, 10, "convex quadratic, rotated axes")),
        (named.embedded_saddle, ProblemInfo("embedded-saddle", "-", None, 2, "saddle between two minima")),
        (named.rosenbrock, ProblemInfo("rosenbrock", "-", None, 2, "curved valley")),
        (named.quartic, ProblemInfo("quartic", "-", None, 10, "flat minimum, vanishing Hessian")),
        (
            named.linear_regression,
            ProblemInfo(
                "linear-regression", "Gaussian design", 1000, 20, "least squares with real minibatches"
            ),
        ),
        (
            named.breast_cancer_mlp,
            ProblemInfo("breast-cancer-mlp", "breast_cancer", 455, 530, "tanh network with one hidden layer"),
        ),
        (
            named.breast_cancer_deep_mlp,
            ProblemInfo("breast-cancer-deep-mlp", "breast_cancer", 455, 4442, "ten ReLU layers of width 20"),
        ),
        (named.digits_mlp, ProblemInfo("digits-mlp", "digits", 1437, 2410, "tanh network, 8 × 8 images")),
        (
            named.fashion_cnn,
            ProblemInfo(
                "fashion-cnn", "fashion_mnist", 512, 3946, "two strided convolutions, 28 × 28 images"
            ),
        ),
        (
            named.fashion_resnet,
            ProblemInfo("fashion-resnet", "fashion_mnist", 512, 19842, "residual network with GroupNorm"),
        ),
        (
            named.shakespeare_gpt,
            ProblemInfo("shakespeare-gpt", "shakespeare", 128, 28480, "character GPT with tied weights"),
        ),
    )
}


def load_problem(
    name: str, seed: int = 0, *, size: Literal["small", "full"] = "small", **options: Any
) -> Problem:
    """Return the problem called ``name``, or the one a function in a file makes.

    Args:
        name: one of ``list_problems()``, or "my_module.py:make_problem".
        seed: of the initial parameters and of anything drawn for the problem.
        size: "small" is made for two CPU cores, "full" for a GPU.
        options: of the problem: ``dtype`` and ``device`` for all; ``n_samples`` for those with data (the
            first n training samples); ``folder`` with MNIST or CIFAR-10 files for those with images; see
            ``problem_options(name)``.

    Raises:
        InputError: if there is no such problem or option, naming the nearest one, or an option does not fit.

    >>> load_problem("rosenbrock").x0.shape
    torch.Size([2])
    """
    if ":" in name:
        return problem_from_path(name, seed=seed, **options)
    if name not in _CATALOG:
        raise unknown_name("problem", name, _CATALOG)
    if size not in ("small", "full"):
        raise InputError(f"size is {size!r}; choose 'small' or 'full'.")
    known = problem_options(name)
    for option in options:
        if option not in known:
            raise unknown_name(f"option of {name}", option, known)
    return _CATALOG[name][0](seed=seed, size=size, **options)


def problem_options(name: str) -> list[str]:
    """Return the options that ``load_problem(name, …)`` knows besides ``seed`` and ``size``.

    Raises:
        InputError: if there is no such problem, naming the nearest one.
    """
    if name not in _CATALOG:
        raise unknown_name("problem", name, _CATALOG)
    return [p for p in inspect.signature(_CATALOG[name][0]).parameters if p not in ("seed", "size")]


def list_problems() -> list[ProblemInfo]:
    """Return one row a problem that ``load_problem`` knows: name, data, samples, parameters, description."""
    return [info for _, info in _CATALOG.values()]
