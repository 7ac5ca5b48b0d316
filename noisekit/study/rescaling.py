"""Hyper-parameters for another batch size by every rule, with reasons and limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from noisekit.errors import InputError
from noisekit.study.prediction_words import short
from noisekit.theory.inputs import check_optimizer, check_positive
from noisekit.theory.scaling import largest_sharpness, presets_of, scaled_hyperparameters

MEANINGS = {
    "sde": "keeps the optimizer's SDE: the same law of training over samples seen, in 1/δ as many steps",
    "linear": "the rule of Goyal et al. 2017: keeps the floor, and over samples seen the pace of what is "
    "slow beside the memory of the momentum",
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
    largest_sharpness: float
    """SGD diverges from this curvature on; inf for others."""

    def stability(self, sharpness: float | None) -> str:
        """Say whether SGD bears the new learning rate, or without ``sharpness`` up to which curvature."""
        if self.hyperparameters is None or not self.largest_sharpness < float("inf"):
            return ""
        limit = short(self.largest_sharpness)
        if sharpness is None:
            return f"SGD diverges where the largest curvature is {limit} or more"
        value = short(self.hyperparameters["lr"] * sharpness)
        if sharpness >= self.largest_sharpness:
            return f"SGD DIVERGES: ηλ_max = {value}, and the largest curvature must be below {limit}"
        much = self.hyperparameters["lr"] * sharpness > 0.5
        return f"stable, ηλ_max = {value}" + (", too much for the rule to keep the SDE" if much else "")


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
    scaled_hyperparameters(name, hyperparameters, 1.0, None)  # says what is wrong with the values themselves
    rows = []
    for preset in presets_of(name):
        new, refused = None, ""
        try:
            new = scaled_hyperparameters(name, hyperparameters, ratio, preset)
        except InputError as error:
            refused = str(error)
        largest = _largest_ratio(name, hyperparameters, preset)
        reasons = _reasons(name, hyperparameters, preset)
        sharpness = largest_sharpness(name, new or {})
        meaning = _meaning(name, preset, bool(hyperparameters.get("momentum")))
        rows.append(Rescaling(preset, meaning, new, reasons, largest, refused, sharpness))
    return tuple(rows)


def _meaning(name: str, preset: str, momentum: bool) -> str:
    if preset == "linear" and not momentum:
        return "the rule of Goyal et al. 2017, without momentum the same as sde"
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
    power = "√δ-fold" if preset == "fixed_lr" else "δ-fold"
    reasons = {
        "lr": _reason_of_rate(name, preset, momentum),
        "momentum": "1 − μ grows δ-fold, so that it remembers the same number of samples"
        if momentum
        else "unchanged, so that it remembers δ times as many samples"
        if name == "sgd" and given.get("momentum")
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
