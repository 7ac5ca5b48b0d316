"""How hyper-parameters follow the batch size so that the optimizer's SDE stays the same."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from math import inf, sqrt
from typing import Any, Literal

from noisekit.errors import InputError, kind_of, unknown_name
from noisekit.sde.stability import stability_limit
from noisekit.theory.inputs import check_beta, check_betas, check_count, check_optimizer, check_positive

Preset = Literal["sde", "linear", "sqrt", "fixed_lr"]
PRESETS: tuple[Preset, ...] = ("sde", "linear", "sqrt", "fixed_lr")
_KEYS = {
    "sgd": ("lr", "momentum", "weight_decay", "steps", "batch_size"),
    "signsgd": ("lr", "weight_decay", "steps", "batch_size"),
    "rmsprop": ("lr", "alpha", "beta", "eps", "weight_decay", "steps", "batch_size"),
    "adam": ("lr", "betas", "eps", "weight_decay", "steps", "batch_size"),
}


def scale_hyperparameters(
    optimizer: str,
    hyperparameters: Mapping[str, Any],
    batch_ratio: float,
    *,
    preset: Preset | None = None,
    sharpness: float | None = None,
) -> dict[str, Any]:
    """Hyper-parameters for the batch size δB that keep the law of training over samples seen.

    ``sde`` keeps the optimizer's SDE, with 1/δ as many steps:
      AdamW, RMSpropW: η → √δ η, θ → √δ θ, 1 − β → δ(1 − β), ε → ε/√δ; Adam, RMSprop the same with θ (an L2
      term, part of the gradient) unchanged; SignSGD η → √δ η, θ → √δ θ; SGD η → δη, and with momentum μ
      1 − μ → δ(1 − μ), η → δ² η, so that η/(1 − μ) → δη/(1 − μ) and the memory covers the same samples.
    ``linear`` (SGD only) is η → δη at a fixed μ. It keeps floor and pace per sample where the memory of
      1/(1 − μ) steps is short beside the motion, δηλ ≪ (1 − μ)²; swings faster than that last δ times as many
      samples. Without momentum it is ``sde``.
    ``sqrt`` is the square-root rule of Malladi et al.: as ``sde`` for adaptive optimizers, θ unchanged; for
      SGD and SignSGD η → √δ η alone, which for SGD keeps the noise of one step and not the SDE.
    ``fixed_lr`` (adaptive only) keeps η: θ → √δ θ, 1 − β₂ → √δ(1 − β₂), ε → ε/√δ, β₁ unchanged: a rule used
      in practice, which does not keep the SDE.

    The default is ``sde``, but ``linear`` for SGD with momentum: there the step of ``sde`` grows with δ², it
    rests too high by δ²ηλ/(2(1 + μ′)) and diverges from δ²ηλ = 2(1 + μ′) on, μ′ = 1 − δ(1 − μ), where
    ``linear`` bears δηλ up to 2(1 + μ). As long as δ²ηλ is below about .5, ``sde`` is the nearer of the two.
    Rules of adaptive optimizers and SignSGD assume that noise dominates, (∇f)² ≪ diag Σ, as :func:`regimes`
    tells; those of SGD hold at any ratio.

    Args:
        optimizer: "sgd", "signsgd", "rmsprop", "rmspropw", "adam" or "adamw".
        hyperparameters: torch's names: lr, momentum, betas, alpha (or beta), eps, weight_decay; also steps
            and batch_size, which become steps/δ and δB. Only what is there is scaled.
        batch_ratio: δ > 0, new batch size over old.
        preset: "sde", "linear", "sqrt" or "fixed_lr".
        sharpness: λ_max, the largest eigenvalue of the Hessian, to warn where SGD would diverge.

    Returns:
        A new dict with the same keys; scaled numbers, and 1 − β, are rounded to six significant digits.

    Warns:
        UserWarning: SGD at the new lr diverges along λ_max; or ``sde`` of momentum is for a larger batch, and
        λ_max not given.

    Raises:
        InputError: a value out of range; a β that would reach 0, naming the largest δ that is possible.

    Source: Compagnoni et al. 2025, arXiv 2411.15958, Lemma 3.13; Malladi et al. 2022, arXiv 2205.10287;
        ``linear`` Goyal et al. 2017, arXiv 1706.02677; rules of ε and μ derived.

    >>> scale_hyperparameters("sgd", {"lr": 0.1, "steps": 1000}, 4)
    {'lr': 0.4, 'steps': 250}
    """
    scaled = scaled_hyperparameters(optimizer, hyperparameters, batch_ratio, preset)
    name, chosen = check_optimizer(optimizer), preset or default_preset(optimizer, hyperparameters)
    if sharpness is not None:
        check_positive("sharpness", sharpness)
    limit = largest_sharpness(name, scaled)
    if sharpness is not None and sharpness >= limit:
        warnings.warn(
            f"The preset {chosen!r} gives lr = {scaled['lr']:g}, at which SGD diverges: it bears a largest "
            f"curvature below {limit:.3g}, and {sharpness:g} was given.",
            stacklevel=2,
        )
    elif sharpness is None and chosen == "sde" and scaled.get("momentum") and batch_ratio > 1:
        warnings.warn(
            f"The preset 'sde' of momentum multiplies lr by δ² = {batch_ratio**2:g}: SGD then diverges where "
            f"the largest curvature is {limit:.3g} or more; give sharpness, or take preset='linear'.",
            stacklevel=2,
        )
    return scaled


def default_preset(optimizer: str, hyperparameters: Mapping[str, Any]) -> Preset:
    """Return "linear" for SGD with momentum, else "sde"."""
    momentum = isinstance(hyperparameters, Mapping) and hyperparameters.get("momentum")
    return "linear" if check_optimizer(optimizer) == "sgd" and momentum else "sde"


def largest_sharpness(optimizer: str, hyperparameters: Mapping[str, Any]) -> float:
    """Return the curvature from which on SGD diverges, 2(1 + μ)/η − θ; inf for others, and without lr."""
    if optimizer != "sgd" or "lr" not in hyperparameters:
        return inf
    limit = stability_limit(hyperparameters["lr"], hyperparameters.get("momentum") or 0.0)
    return float(limit - (hyperparameters.get("weight_decay") or 0.0))


def scaled_hyperparameters(
    optimizer: str, hyperparameters: Mapping[str, Any], batch_ratio: float, preset: Preset | None
) -> dict[str, Any]:
    """Return what :func:`scale_hyperparameters` returns, without its warnings."""
    name = check_optimizer(optimizer)
    ratio = check_positive("batch_ratio", batch_ratio)
    if preset is not None and preset not in PRESETS:
        raise unknown_name("preset", preset, PRESETS)
    given = _checked(name, hyperparameters)
    chosen = preset or default_preset(name, given)
    if chosen == "fixed_lr" and name in ("sgd", "signsgd"):
        raise InputError(
            f"The preset 'fixed_lr' is for adaptive optimizers; {name} has {', '.join(presets_of(name))}."
        )
    if chosen == "linear" and name != "sgd":
        raise InputError(f"The preset 'linear' is for sgd; {name} has {', '.join(presets_of(name))}.")
    rules = _rules(name, ratio, chosen, bool(given.get("momentum", 0)))
    return {key: rules[key](value) if key in rules else value for key, value in given.items()}


def presets_of(optimizer: str) -> tuple[Preset, ...]:
    """Return the presets that ``optimizer`` has."""
    others = {"sgd": ("fixed_lr",), "signsgd": ("linear", "fixed_lr")}.get(optimizer, ("linear",))
    return tuple(preset for preset in PRESETS if preset not in others)


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
        if preset == "linear" or not momentum:
            return rules | {"lr": times(ratio)}
        return rules | {"lr": times(ratio**2), "momentum": slow(ratio, "momentum")}
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
