"""Hyper-parameters for another batch size by every rule, with reasons and limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from noisekit.errors import InputError
from noisekit.theory import scale_hyperparameters
from noisekit.theory.inputs import check_optimizer, check_positive

PRESETS = ("sde", "sqrt", "fixed_lr")
MEANINGS = {
    "sde": "keeps the optimizer's SDE: the same law of training over samples seen, in 1/δ as many steps",
    "sqrt": "the square-root rule of Malladi et al. 2022, which leaves weight decay as it is",
    "fixed_lr": "keeps the learning rate: a rule used in practice, which does not keep the SDE",
}


@dataclass(frozen=True)
class Rescaling:
    """What one rule makes of the hyper-parameters; ``refused`` says why where it cannot be applied."""

    preset: str
    meaning: str
    hyperparameters: dict[str, Any] | None
    reasons: dict[str, str]
    """Why each hyper-parameter changes as it does."""
    largest_ratio: float
    """The batch can grow by less than this before a β reaches 0; inf where none does."""
    refused: str


def rescalings(
    optimizer: str, hyperparameters: Mapping[str, Any], batch_ratio: float
) -> tuple[Rescaling, ...]:
    """Return what every rule that fits ``optimizer`` makes of its hyper-parameters, in torch's names.

    Raises:
        InputError: an unknown optimizer, a value out of range.
    """
    name = check_optimizer(optimizer)
    ratio = check_positive("batch_ratio", batch_ratio)
    if not 1e-9 < ratio < 1e9:
        raise InputError(f"batch_ratio = {batch_ratio}: new batch over old, between 1e-9 and 1e9, is needed.")
    scale_hyperparameters(name, hyperparameters, 1.0)  # says what is wrong with the values themselves
    rows = []
    for preset in PRESETS:
        if preset == "fixed_lr" and name in ("sgd", "signsgd"):
            continue
        new, refused = None, ""
        try:
            new = scale_hyperparameters(name, hyperparameters, ratio, preset=preset)  # type: ignore[arg-type]
        except InputError as error:
            refused = str(error)
        largest = _largest_ratio(name, hyperparameters, preset)
        reasons = _reasons(name, hyperparameters, preset)
        rows.append(Rescaling(preset, _meaning(name, preset), new, reasons, largest, refused))
    return tuple(rows)


def _meaning(name: str, preset: str) -> str:
    if preset == "sqrt" and name in ("sgd", "signsgd"):
        return "the square-root rule for the learning rate alone"
    return MEANINGS[preset]


def _largest_ratio(name: str, given: Mapping[str, Any], preset: str) -> float:
    """Return δ at which the first 1 − β reaches 1."""
    lost = []
    if name == "sgd":
        lost = [1 - given["momentum"]] if given.get("momentum") and preset == "sde" else []
    elif "betas" in given:
        first, second = given["betas"]
        lost = [1 - second] if preset == "fixed_lr" else [1 - first, 1 - second]
    else:
        lost = [1 - given[key] for key in ("alpha", "beta") if key in given]
    if not lost:
        return float("inf")
    power = 2 if preset == "fixed_lr" else 1
    return float(f"{(1 / max(lost)) ** power:.6g}")


def _reasons(name: str, given: Mapping[str, Any], preset: str) -> dict[str, str]:
    """Return why each of the given hyper-parameters changes, or stays, under the rule."""
    momentum = name == "sgd" and bool(given.get("momentum")) and preset == "sde"
    adaptive = name.startswith(("adam", "rmsprop"))
    decoupled = name in ("adamw", "rmspropw", "signsgd")
    memory = "1 − β grows {}, so that it remembers the same number of samples"
    power = {"sde": "δ-fold", "sqrt": "δ-fold", "fixed_lr": "√δ-fold"}[preset]
    reasons = {
        "lr": _reason_of_rate(name, preset, momentum),
        "momentum": "1 − μ grows δ-fold, so that it remembers the same number of samples"
        if momentum
        else "unchanged",
        "betas": memory.format(power) if preset != "fixed_lr" else "β₁ unchanged; 1 − β₂ grows √δ-fold",
        "alpha": memory.format(power),
        "eps": "falls by √δ, as the noise in the second moment does" if adaptive else "unchanged",
        "weight_decay": "grows by √δ: with the learning rate, a step then decays δ times as much"
        if decoupled and preset == "sde"
        else "grows by √δ"
        if decoupled and preset == "fixed_lr"
        else "grows by √δ, although it is part of the gradient"
        if preset == "fixed_lr"
        else "unchanged: it is part of the gradient, which no batch makes larger"
        if not decoupled
        else "unchanged by this rule",
        "steps": "falls by δ: as many samples are seen",
        "batch_size": "grows δ-fold",
    }
    return {key: reasons[key] for key in given if key in reasons}


def _reason_of_rate(name: str, preset: str, momentum: bool) -> str:
    if preset == "fixed_lr":
        return "unchanged, which is what this rule is for"
    if name == "sgd" and preset == "sqrt":
        return "grows by √δ: keeps the noise of one step, not the SDE"
    if momentum:
        return "grows by δ², so that lr/(1 − μ) grows by δ"
    if name == "sgd":
        return "grows by δ: a step does the work of δ, and its noise is theirs"
    if name == "signsgd":
        return "grows by √δ: a step does the work of δ, and signs in noise that is √δ smaller do the rest"
    return "grows by √δ: a step does the work of δ, and dividing by noise that is √δ smaller does the rest"
