"""A user's own problem, made by a function in a file."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from noisekit.errors import InputError, NoisekitError, NonFiniteError, kind_of, unknown_name
from noisekit.problems.base import Problem
from noisekit.problems.network import ModelProblem


def problem_from_path(path: str, *, seed: int = 0, **options: Any) -> Problem:
    """Return the problem that a function makes, such as "my_module.py:make_problem".

    Args:
        path: the file, a colon, and the function in it. The file is run.
        seed: given to the function if it has a parameter of that name.
        options: given to the function.

    Raises:
        InputError: if there is no such file or function, it fails, or what it returns is not a problem.
        NonFiniteError: if the loss or gradient of a problem without network is NaN or infinite at x0.
    """
    file, _, function = path.rpartition(":")
    if not file.endswith(".py") or not function.isidentifier():
        raise InputError(f"The problem {path!r} is not of the form my_module.py:make_problem.")
    module = _run_file(Path(file))
    if not hasattr(module, function):
        names = [n for n, value in vars(module).items() if inspect.isfunction(value)]
        raise unknown_name(f"function in {file}", function, names)
    make = getattr(module, function)
    if not callable(make):
        raise InputError(f"{path} is {kind_of(make)}; it needs to be a function that returns a problem.")
    try:
        parameters = inspect.signature(make).parameters
        problem = make(**({"seed": seed} if "seed" in parameters else {}), **options)
    except NoisekitError:
        raise
    except Exception as error:
        raise InputError(f"{path} failed: {type(error).__name__}: {error}") from error
    return _checked(problem, path)


def _run_file(file: Path) -> ModuleType:
    if not file.is_file():
        raise InputError(f"There is no file {str(file)!r}; give the path of the file that makes the problem.")
    spec = importlib.util.spec_from_file_location(f"noisekit_problem_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Modules beside the file can be imported, as when python runs it; dataclasses look their module up.
    folder = str(file.resolve().parent)
    sys.modules[spec.name] = module
    sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[spec.name]
        raise InputError(f"The file {str(file)!r} failed: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(folder)
    return module


def _checked(problem: Any, path: str) -> Problem:
    missing = [name for name in ("name", "x0", "loss", "gradient") if not hasattr(problem, name)]
    if missing:
        raise InputError(
            f"{path} returned {kind_of(problem)}, which is no problem: it has no {', '.join(missing)}; "
            "return a noisekit.ModelProblem, or an object with name, x0, loss(x) and gradient(x)."
        )
    x0 = problem.x0
    if not isinstance(x0, Tensor) or x0.ndim != 1 or not x0.is_floating_point() or not x0.isfinite().all():
        raise InputError(f"x0 of {path} is not a vector (coordinate,) of finite floating-point numbers.")
    x = torch.stack([x0, x0])
    for what, evaluate, shape in (
        ("loss(x)", problem.loss, (2,)),
        ("gradient(x)", problem.gradient, tuple(x.shape)),
    ):
        try:
            value = evaluate(x)
        except NoisekitError:
            raise
        except Exception as error:
            raise InputError(f"{what} of {path} failed: {type(error).__name__}: {error}") from error
        found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        if found != shape:
            raise InputError(
                f"{what} of {path} gives {found} for x of shape {tuple(x.shape)}; it needs {shape}, "
                "one row a replicate."
            )
        # The recorded training of a network says more: at which step and in which parameters.
        if not isinstance(problem, ModelProblem) and not value.isfinite().all():
            raise NonFiniteError(f"{what} of {path} is NaN or infinite at x0, where runs begin.")
    return problem
