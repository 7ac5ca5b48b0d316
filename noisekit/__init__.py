"""noisekit: what the noise in your gradients is, what your optimizer does with it, and whether that is true.

Public names are imported on first use, so that commands which only read files start without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_ROOM_OF = {
    "per_sample_gradients": "gradients",
    "gradient_statistics": "gradients",
    "GradientStatistics": "gradients",
    "GradientNoiseRecorder": "gradients",
    "GradientRecord": "gradients",
    "every": "gradients",
    "first": "gradients",
    "logarithmic": "gradients",
    "Problem": "problems",
    "SampledProblem": "problems",
    "ModelProblem": "problems",
    "Quadratic": "problems",
    "load_problem": "problems",
    "list_problems": "problems",
    "noise_covariance": "noise",
    "tail_index": "noise",
    "gradient_noise_scale": "noise",
    "fit_noise": "noise",
    "NoiseModel": "noise",
    "GaussianNoise": "noise",
    "StudentTNoise": "noise",
    "MinibatchNoise": "noise",
    "EmpiricalNoise": "noise",
    "analyze": "noise",
    "SGDSDE": "sde",
    "SignSGDSDE": "sde",
    "RMSpropSDE": "sde",
    "AdamSDE": "sde",
    "integrate": "sde",
    "Solution": "sde",
    "SignSGD": "optimizers",
    "RMSpropW": "optimizers",
    "simulate_optimizer": "optimizers",
    "stationary_law": "theory",
    "noise_floor": "theory",
    "loss_bound": "theory",
    "signsgd_phase": "theory",
    "scale_hyperparameters": "theory",
    "regimes": "theory",
    "compare": "validation",
    "weak_order": "validation",
    "to_datatree": "results",
    "open_tree": "results",
    "save_tree": "results",
    "summary": "results",
    "run_study": "study",
    "write_report": "report",
}

__all__ = sorted(["__version__", *_ROOM_OF])


def __getattr__(name: str) -> Any:
    if name in _ROOM_OF:
        return getattr(import_module(f"noisekit.{_ROOM_OF[name]}"), name)
    if name.startswith("plot_"):
        return getattr(import_module("noisekit.plots"), name)
    raise AttributeError(f"module 'noisekit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
