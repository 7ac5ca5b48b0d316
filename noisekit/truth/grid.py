"""The experiments of each preset: what a sceptical reader would ask for, in sizes that a machine can do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from noisekit.errors import unknown_name
from noisekit.truth.experiment import Experiment

Preset = Literal["quick", "full", "gpu"]

VARIANTS = ("published", "malladi")
CONTROLS = ("double_covariance", "isotropic", "ode")
ORDER_TWO = "order_two"
NO_V_NOISE = "order_two_no_v_noise"
FITTED = ("fitted_gaussian", "fitted_student_t", "fitted_covariance")
MAIN = ("consistent", "fine")

_RATES = {"sgd": 0.2, "signsgd": 0.001, "rmsprop": 0.002, "rmspropw": 0.002, "adam": 0.003, "adamw": 0.003}
_DECAY = {"rmspropw": {"weight_decay": 1.0}, "adamw": {"weight_decay": 1.0}}
ADAPTIVE = ("rmsprop", "rmspropw", "adam", "adamw")


def experiments(preset: Preset) -> list[Experiment]:
    """Return the experiments of ``preset``.

    ``quick`` takes a minute or two on two cores, ``full`` most of an hour, and ``gpu`` has the catalog's full
    sizes.
    """
    if preset == "quick":
        return _quick()
    if preset == "full":
        return [*_analytic(), *_real_minibatches(), *_images_and_text(), *_deep_network()]
    if preset == "gpu":
        return _gpu()
    raise unknown_name("preset", preset, ("quick", "full", "gpu"))


def _experiment(problem: str, optimizer: str, **given: Any) -> Experiment:
    rate = given.pop("learning_rate", _RATES[optimizer])
    settings = _DECAY.get(optimizer, {}) | given.pop("settings", {})
    return Experiment(problem, optimizer, rate, settings=settings, **given)


def _arms(optimizer: str, *more: str) -> tuple[str, ...]:
    """Return the arms that make sense for ``optimizer``, without repetition."""
    found = [*MAIN]
    if optimizer in ADAPTIVE:
        found += VARIANTS
    if optimizer == "signsgd" and "ode" in more:
        found += ["gaussian_law", "independent_signs"]
    return (*found, *more)


def _quick() -> list[Experiment]:
    breast: dict[str, Any] = {"problem": "breast-cancer-mlp", "steps": 20, "save_every": 2, "replicates": 128}
    return [
        _experiment("quadratic", "sgd", **_QUADRATIC | {"replicates": 512}, arms=(*MAIN, *CONTROLS)),
        _experiment("linear-regression", "adam", **_REGRESSION | {"replicates": 128}, arms=(*MAIN, "ode")),
        _experiment(**breast, optimizer="sgd", arms=(*MAIN, *CONTROLS)),
        _experiment(**breast | {"replicates": 64}, optimizer="signsgd", arms=(*MAIN, "independent_signs")),
        _experiment(**breast, optimizer="adamw", arms=(*MAIN, "published", "ode")),
        _short_memory("rmspropw", replicates=4096, arms=(ORDER_TWO, NO_V_NOISE)),
    ]


def _short_memory(optimizer: str, **given: Any) -> Experiment:
    """Return a quadratic with β₂ = .9, where V fluctuates so much that its noise can be told."""
    settings = {"beta": 0.9} if optimizer.startswith("rmsprop") else {"betas": (0.9, 0.9)}
    given = _QUADRATIC | {"learning_rate": 0.01, "substeps": 4, "settings": settings} | given
    return _experiment("quadratic", optimizer, **given)


_QUADRATIC: dict[str, Any] = {
    "noise": "gaussian",
    "scale": 0.5,
    "steps": 200,
    "save_every": 10,
    "warmup": 20,
    "substeps": 8,
    "options": {"condition": 5.0},
}
_REGRESSION: dict[str, Any] = {"steps": 100, "save_every": 5, "warmup": 20, "substeps": 4}


def _analytic() -> list[Experiment]:
    """Losses with a formula: synthetic noise, many replicates, dt = η/8."""
    rates = {"sgd": 0.1, "signsgd": 0.01, "rmspropw": 0.01, "adamw": 0.01}
    rows = []
    for optimizer, rate in rates.items():
        common = {"learning_rate": rate, "replicates": 16384 if optimizer == "sgd" else 4096}
        higher = (ORDER_TWO,) if optimizer != "signsgd" else ()
        arms = _arms(optimizer, "surrogate", *higher, *CONTROLS)
        rows.append(_experiment("quadratic", optimizer, **_QUADRATIC | common, arms=arms))
        for problem, scale, slow in (("embedded-saddle", 0.3, 0.3), ("rosenbrock", 20.0, 0.01)):
            own = rate * slow if optimizer == "sgd" else rate
            given = _QUADRATIC | common | {"learning_rate": own, "scale": scale, "options": {}}
            rows.append(_experiment(problem, optimizer, **given, arms=(*_arms(optimizer), "ode")))
        # The design is nearly isotropic, so that an isotropic Σ would be no control here.
        if optimizer in ADAPTIVE:
            arms = (*MAIN, ORDER_TWO, NO_V_NOISE)
            rows.append(_short_memory(optimizer, replicates=16384, arms=arms))
        given = _REGRESSION | common | {"replicates": 256 if optimizer == "signsgd" else 2048}
        arms = (*_arms(optimizer), *higher, "double_covariance", "ode")
        rows.append(_experiment("linear-regression", optimizer, **given, arms=arms))
    for df in (1.0, 2.0, 5.0):
        for optimizer in ("sgd", "signsgd", "adamw"):
            given = _QUADRATIC | {"learning_rate": rates[optimizer], "replicates": 4096}
            given |= {"noise": "student_t", "df": df, "scale": 0.3}
            rows.append(_experiment("quadratic", optimizer, **given, arms=(*MAIN, "surrogate")))
    return rows


def _real_minibatches() -> list[Experiment]:
    """Small networks on real data with real minibatches: the figures that the study is for."""
    rows = []
    for optimizer in _RATES:
        controls = [*CONTROLS]
        if optimizer.startswith("rmsprop"):
            controls.append("no_v_noise")
        if optimizer in ADAPTIVE:
            controls.append("no_diffusion")
        replicates = {"sgd": 2048, "signsgd": 256}.get(optimizer, 1280)
        higher = (ORDER_TWO,) if optimizer in ("sgd", "adam", "adamw") else ()
        arms = _arms(optimizer, "surrogate", *higher, *controls, *FITTED)
        common = {"steps": 40, "replicates": replicates}
        rows.append(_experiment("breast-cancer-mlp", optimizer, **common, arms=arms))
        if optimizer in ADAPTIVE:
            start = {"warmup": 0, "arms": (*MAIN, "whole_start", *VARIANTS)}
            rows.append(_experiment("breast-cancer-mlp", optimizer, **common, **start))
        digits = {"steps": 20, "n_samples": 512, "batch_size": 32}
        digits |= {"replicates": 24 if optimizer == "signsgd" else 384}
        rows.append(_experiment("digits-mlp", optimizer, **digits, arms=(*_arms(optimizer), "ode")))
    return rows


def _images_and_text() -> list[Experiment]:
    """Networks that two cores can only just run in ensembles."""
    sizes: dict[str, dict[str, Any]] = {
        "fashion-cnn": {"n_samples": 256, "steps": 16},
        "fashion-resnet": {"n_samples": 64, "steps": 8},
        "shakespeare-gpt": {"n_samples": 48, "steps": 8},
    }
    replicates = {
        "fashion-cnn": {"sgd": 512, "signsgd": 96, "adamw": 128},
        "fashion-resnet": {"sgd": 128, "adamw": 96},
        "shakespeare-gpt": {"sgd": 128, "adamw": 48},
    }
    unresolved = {("fashion-cnn", "sgd"), ("shakespeare-gpt", "sgd")}
    rates = {"sgd": 0.02, "signsgd": 0.0005, "adamw": 0.001}
    # The text model is at its beginning, where gradients are large and their noise matters less.
    faster = {"sgd": 0.3, "adamw": 0.003}
    return [
        _experiment(
            problem,
            optimizer,
            learning_rate=(faster if problem == "shakespeare-gpt" else rates)[optimizer],
            replicates=count,
            pretraining=40,
            warmup=10,
            arms=(*MAIN, *((ORDER_TWO,) if (problem, optimizer) in unresolved else ()), "ode"),
            **sizes[problem],
        )
        for problem, counts in replicates.items()
        for optimizer, count in counts.items()
    ]


def _deep_network() -> list[Experiment]:
    """The ten-layer network of the published experiments, with full gradients and added Gaussian noise."""
    rows = []
    settings = {
        "sgd": {},
        "signsgd": {},
        "rmsprop": {"beta": 0.9995},
        "adam": {"betas": (0.9, 0.9995)},
    }
    for optimizer, given in settings.items():
        variants = VARIANTS if optimizer in ADAPTIVE else ()
        row = _experiment(
            "breast-cancer-deep-mlp",
            optimizer,
            learning_rate=1e-4,
            steps=2000,
            save_every=100,
            replicates=16,
            warmup=0,
            noise="gaussian",
            scale=0.01,
            settings=given,
            arms=("consistent", *variants),
        )
        rows.append(row)
    return rows


def _gpu() -> list[Experiment]:
    """The full sizes of the catalog: what only an accelerator does in reasonable time."""
    rows = []
    for problem, n in (("fashion-cnn", 2048), ("fashion-resnet", 512), ("shakespeare-gpt", 256)):
        for optimizer, rate in {"sgd": 0.05, "signsgd": 0.0003, "adamw": 0.0005}.items():
            given = {"n_samples": n, "replicates": 64, "steps": 40, "batch_size": 32, "pretraining": 200}
            options = {"options": {"size": "full"}, "learning_rate": rate}
            rows.append(_experiment(problem, optimizer, **given, **options, arms=(*_arms(optimizer), "ode")))
    return rows


def with_seed(rows: list[Experiment], seed: int) -> list[Experiment]:
    """Return the experiments with every random number drawn anew."""
    return [replace(row, seed=seed) for row in rows]
