"""How hyper-parameters follow the batch size so that the optimizer's SDE stays the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import sqrt
from typing import Any, Literal

from noisekit.errors import InputError, unknown_name
from noisekit.theory.inputs import check_beta, check_optimizer, check_positive

Preset = Literal["sde", "sqrt", "fixed_lr"]
_KEYS = {
    "sgd": ("lr", "momentum", "weight_decay", "steps", "batch_size"),
    "signsgd": ("lr", "weight_decay", "steps", "batch_size"),
    "rmsprop": ("lr", "alpha", "beta", "eps", "weight_decay", "steps", "batch_size"),
    "adam": ("lr", "betas", "eps", "weight_decay", "steps", "batch_size"),
}


def scale_hyperparameters(
    optimizer: str, hyperparameters: Mapping[str, Any], batch_ratio: float, *, preset: Preset = "sde"
) -> dict[str, Any]:
    """Hyper-parameters for the batch size δB that keep the law of training over samples seen.

    ``sde`` keeps the optimizer's SDE, with 1/δ as many steps:
      AdamW, RMSpropW: η → √δ η, θ → √δ θ, 1 − β → δ(1 − β), ε → ε/√δ; Adam, RMSprop the same with θ (an L2
      term, part of the gradient) unchanged; SignSGD η → √δ η, θ → √δ θ; SGD η → δη, and with momentum μ
      1 − μ → δ(1 − μ), η → δ² η, so that η/(1 − μ) → δη/(1 − μ) and the memory covers the same samples.
    ``sqrt`` is the square-root rule of Malladi et al.: as ``sde`` for adaptive optimizers, θ unchanged; for
      SGD and SignSGD η → √δ η alone, which for SGD keeps the noise of one step and not the SDE.
    ``fixed_lr`` (adaptive only) keeps η: θ → √δ θ, 1 − β₂ → √δ(1 − β₂), ε → ε/√δ, β₁ unchanged: a rule used
      in practice, which does not keep the SDE.

    The rules assume that noise dominates, (∇f)² ≪ diag Σ; :func:`regimes` says whether it does.

    Args:
        optimizer: "sgd", "signsgd", "rmsprop", "rmspropw", "adam" or "adamw".
        hyperparameters: torch's names: lr, momentum, betas, alpha (or beta), eps, weight_decay; also steps
            and batch_size, which become steps/δ and δB. Only what is there is scaled.
        batch_ratio: δ > 0, new batch size over old.
        preset: "sde", "sqrt" or "fixed_lr".

    Returns:
        A new dict with the same keys.

    Raises:
        InputError: a factor would leave [0, 1); the message names the largest δ that is possible.

    Source: Compagnoni et al. 2025, arXiv 2411.15958, Lemma 3.13; Malladi et al. 2022, arXiv 2205.10287; rule
        of ε derived.

    >>> scale_hyperparameters("sgd", {"lr": 0.1, "steps": 1000}, 4)
    {'lr': 0.4, 'steps': 250}
    """
    name = check_optimizer(optimizer)
    ratio = check_positive("batch_ratio", batch_ratio)
    if preset not in ("sde", "sqrt", "fixed_lr"):
        raise unknown_name("preset", preset, ("sde", "sqrt", "fixed_lr"))
    known = _KEYS[name.rstrip("w")]
    for key in hyperparameters:
        if key not in known:
            raise unknown_name(f"hyper-parameter of {name}", key, known)
    if "lr" in hyperparameters:
        check_positive("lr", hyperparameters["lr"])
    if preset == "fixed_lr" and name in ("sgd", "signsgd"):
        raise InputError(f"The preset 'fixed_lr' is for adaptive optimizers; {name} has 'sde' and 'sqrt'.")
    rules = _rules(name, ratio, preset, bool(hyperparameters.get("momentum", 0)))
    scaled = {key: rules[key](value) if key in rules else value for key, value in hyperparameters.items()}
    if "steps" in scaled:
        scaled["steps"] = max(1, round(hyperparameters["steps"] / ratio))
    if "batch_size" in scaled:
        scaled["batch_size"] = _batch_size(hyperparameters["batch_size"], ratio)
    return scaled


def _rules(name: str, ratio: float, preset: Preset, momentum: bool) -> dict[str, Callable[[Any], Any]]:
    root = sqrt(ratio)
    decay_root = {"weight_decay": lambda decay: root * decay}
    if name == "sgd":
        if preset == "sqrt":
            return {"lr": lambda lr: root * lr}
        return {
            "lr": lambda lr: (ratio**2 if momentum else ratio) * lr,
            "momentum": lambda mu: _slow(mu, ratio, "momentum", ratio) if mu else mu,
        }
    if name == "signsgd":
        return {"lr": lambda lr: root * lr, **({} if preset == "sqrt" else decay_root)}
    decoupled = name.endswith("w")
    rules: dict[str, Callable[[Any], Any]] = {"eps": lambda eps: eps / root}
    if preset == "fixed_lr":
        second = {key: lambda b: _slow(b, root, "β₂", ratio) for key in ("alpha", "beta")}
        return rules | second | decay_root | {"betas": lambda b: (b[0], _slow(b[1], root, "β₂", ratio))}
    rules["lr"] = lambda lr: root * lr
    rules["betas"] = lambda b: (_slow(b[0], ratio, "β₁", ratio), _slow(b[1], ratio, "β₂", ratio))
    rules |= {key: lambda b: _slow(b, ratio, "β", ratio) for key in ("alpha", "beta")}
    return rules | (decay_root if decoupled and preset == "sde" else {})


def _slow(beta: float, factor: float, name: str, ratio: float) -> float:
    """Return 1 − factor·(1 − β), or say at which δ it reaches 0."""
    beta = check_beta(name, beta)
    result = 1 - factor * (1 - beta)
    if result > 0 or (result >= 0 and factor <= 1):
        return result
    power = 1 if factor == ratio else 2  # factor is δ or √δ
    largest = (1 / (1 - beta)) ** power
    raise InputError(
        f"With a batch {ratio:g} times as large, {name} = {beta:g} would become {result:.3g}; it must stay "
        f"positive, so the batch can grow by less than {largest:.4g} times."
    )


def _batch_size(batch_size: float, ratio: float) -> int:
    size = round(batch_size * ratio)
    if size < 1:
        raise InputError(
            f"A batch of {batch_size} times {ratio:g} has no sample; use a ratio of at least "
            f"{1 / batch_size:.3g}."
        )
    return size
