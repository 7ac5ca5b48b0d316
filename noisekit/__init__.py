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
    "Ranks": "gradients",
    "every": "gradients",
    "first": "gradients",
    "logarithmic": "gradients",
    "merge_records": "gradients",
    "noise_directions": "gradients",
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
    "record_noise_scale": "noise",
    "hill_plot": "noise",
    "hessian_alignment": "noise",
    "participation_ratio": "noise",
    "goodness_of_fit": "noise",
    "held_out_log_likelihood": "noise",
    "fit_multivariate_student_t": "noise",
    "SGDSDE": "sde",
    "SignSGDSDE": "sde",
    "RMSpropSDE": "sde",
    "AdamSDE": "sde",
    "integrate": "sde",
    "Solution": "sde",
    "EulerMaruyama": "sde",
    "StochasticHeun": "sde",
    "SignSGD": "optimizers",
    "RMSpropW": "optimizers",
    "simulate_optimizer": "optimizers",
    "optimizer_state": "optimizers",
    "stationary_law": "theory",
    "noise_floor": "theory",
    "loss_bound": "theory",
    "signsgd_phase": "theory",
    "scale_hyperparameters": "theory",
    "regimes": "theory",
    "transient_law": "theory",
    "escape_time": "theory",
    "critical_noise": "theory",
    "robustness": "theory",
    "compare": "validation",
    "weak_order": "validation",
    "simulate_coupled": "validation",
    "compare_hitting_times": "validation",
    "to_datatree": "results",
    "open_tree": "results",
    "save_tree": "results",
    "concat": "results",
    "stream_record": "results",
    "summary": "results",
    "make_example_tree": "results",
    "analyze_tree": "results",
    "run_study": "study",
    "collect": "study",
    "CollectConfig": "study",
    "predict": "study",
    "write_report": "report",
}

_ROOMS = {*_ROOM_OF.values(), "plots", "truth"}

__all__ = sorted(["__version__", *_ROOM_OF])


def __getattr__(name: str) -> Any:
    if name in _ROOM_OF:
        return getattr(import_module(f"noisekit.{_ROOM_OF[name]}"), name)
    if name.startswith("plot_"):
        return getattr(import_module("noisekit.plots"), name)
    if name in _ROOMS:
        return import_module(f"noisekit.{name}")
    raise AttributeError(f"module 'noisekit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
