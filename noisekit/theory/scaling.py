"""How hyper-parameters follow the batch size so that the optimizer's SDE stays the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import sqrt
from typing import Any, Literal

from noisekit.errors import InputError, kind_of, unknown_name
from noisekit.theory.inputs import check_beta, check_betas, check_count, check_optimizer, check_positive

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
        A new dict with the same keys; scaled numbers, and 1 − β, are rounded to six significant digits.

    Raises:
        InputError: a value out of range; a β that would reach 0, naming the largest δ that is possible.

    Source: Compagnoni et al. 2025, arXiv 2411.15958, Lemma 3.13; Malladi et al. 2022, arXiv 2205.10287; rule
        of ε derived.

    >>> scale_hyperparameters("sgd", {"lr": 0.1, "steps": 1000}, 4)
    {'lr': 0.4, 'steps': 250}
    """
    name = check_optimizer(optimizer)
    ratio = check_positive("batch_ratio", batch_ratio)
    if preset not in ("sde", "sqrt", "fixed_lr"):
        raise unknown_name("preset", preset, ("sde", "sqrt", "fixed_lr"))
    given = _checked(name, hyperparameters)
    if preset == "fixed_lr" and name in ("sgd", "signsgd"):
        raise InputError(f"The preset 'fixed_lr' is for adaptive optimizers; {name} has 'sde' and 'sqrt'.")
    rules = _rules(name, ratio, preset, bool(given.get("momentum", 0)))
    return {key: rules[key](value) if key in rules else value for key, value in given.items()}


def _checked(name: str, hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(hyperparameters, Mapping):
        raise InputError(
            f"hyperparameters is {kind_of(hyperparameters)}; a dict such as {{'lr': 1e-3}} is needed."
        )
    known = _KEYS[name.rstrip("w")]
    checked: dict[str, Any] = {}
    for key, value in hyperparameters.items():
        if key not in known:
            raise unknown_name(f"hyper-parameter of {name}", key, known)
        if key == "betas":
            checked[key] = check_betas(value)
        elif key in ("steps", "batch_size"):
            checked[key] = check_count(key, value)
        elif key in ("momentum", "alpha", "beta"):
            checked[key] = check_beta(key, value)
        else:
            checked[key] = check_positive(key, value, zero=key != "lr")
    return checked


def _rules(name: str, ratio: float, preset: Preset, momentum: bool) -> dict[str, Callable[[Any], Any]]:
    """Return what happens to each hyper-parameter that changes."""
    root = sqrt(ratio)

    def times(factor: float) -> Callable[[float], float]:
        return lambda value: _round(factor * value)

    def slow(factor: float, label: str) -> Callable[[float], float]:
        return lambda beta: _slow(beta, factor, label, ratio)

    rules: dict[str, Callable[[Any], Any]] = {
        "steps": lambda steps: max(1, round(steps / ratio)),
        "batch_size": lambda size: _batch_size(size, ratio),
    }
    if name == "sgd":
        if preset == "sqrt":
            return rules | {"lr": times(root)}
        momentum_rule = {"momentum": slow(ratio, "momentum")} if momentum else {}
        return rules | momentum_rule | {"lr": times(ratio**2 if momentum else ratio)}
    if name == "signsgd":
        return rules | {"lr": times(root)} | ({} if preset == "sqrt" else {"weight_decay": times(root)})
    rules["eps"] = times(1 / root)
    if preset == "fixed_lr":
        second = slow(root, "β₂")
        rules |= {"alpha": second, "beta": second}
        rules["betas"] = lambda b: (b[0], second(b[1]))
    else:
        both = slow(ratio, "β₁"), slow(ratio, "β₂")
        rules |= {"lr": times(root), "alpha": slow(ratio, "β"), "beta": slow(ratio, "β")}
        rules["betas"] = lambda b: (both[0](b[0]), both[1](b[1]))
    keeps_decay = preset == "sqrt" or (preset == "sde" and not name.endswith("w"))
    return rules if keeps_decay else rules | {"weight_decay": times(root)}


def _round(value: float) -> float:
    """Return ``value`` to six significant digits, to be read and pasted."""
    return float(f"{value:.6g}")


def _slow(beta: float, factor: float, name: str, ratio: float) -> float:
    """Return 1 − factor·(1 − β), or say at which δ it reaches 0."""
    lost = factor * (1 - beta)
    if lost < 1 - 1e-9 or factor <= 1:
        return round(1 - _round(lost), 12)
    power = 1 if factor == ratio else 2  # factor is δ or √δ
    largest = (1 / (1 - beta)) ** power
    raise InputError(
        f"With a batch {ratio:g} times as large, {name} = {beta:g} would become {1 - lost:.3g}; it must stay "
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
