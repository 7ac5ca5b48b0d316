"""The state of a torch optimizer in the words of its SDE: x, m and v."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from noisekit._typing import OptimizerFactory, State
from noisekit.errors import InputError, kind_of

STATE_KEYS = {"exp_avg": "m", "momentum_buffer": "m", "exp_avg_sq": "v", "square_avg": "v"}
"""torch's names of the running averages, and the names they have here."""


def optimizer_state(optimizer: Optimizer) -> tuple[int, State]:
    """Return the step count k and the flattened x, m, v of a torch optimizer, each (coordinate,).

    What ``integrate`` and ``simulate_optimizer`` take as ``start_step`` and ``init_state``. Parameters
    come in the order of the parameter groups; those without a state yet count as zeros. SGD keeps no step
    count: 0.
    Raises InputError for what is no optimizer.

    >>> x = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    >>> optimizer = torch.optim.SGD([x], lr=0.5, momentum=0.9)
    >>> x.grad = torch.tensor([1.0, 0.0])
    >>> optimizer.step()
    >>> optimizer_state(optimizer)
    (0, {'x': tensor([0.5000, 2.0000]), 'm': tensor([1., 0.])})
    """
    if not isinstance(optimizer, Optimizer):
        raise InputError(f"optimizer is {kind_of(optimizer)}; give a torch.optim.Optimizer.")
    params = [p for group in optimizer.param_groups for p in group["params"]]
    states = {p: optimizer.state.get(p, {}) for p in params}
    names = {name for p in params for key, name in STATE_KEYS.items() if _tensor_in(states[p], key, p)}
    state: State = {"x": torch.cat([p.detach().reshape(-1) for p in params])}
    for name in sorted(names):
        parts = [read_entry(states[p], name, p) for p in params]
        state[name] = torch.cat([part.reshape(-1) for part in parts])
    counts = [int(states[p]["step"]) for p in params if "step" in states[p]]
    return max(counts, default=0), state


def read_entry(entry: dict[str, Any], name: str, param: Tensor) -> Tensor:
    """Return a copy of m or v of one parameter, zeros where the optimizer has not made it yet."""
    for key, own in STATE_KEYS.items():
        if own == name and _tensor_in(entry, key, param):
            return entry[key].detach().clone()
    return torch.zeros_like(param, requires_grad=False)


def _tensor_in(entry: dict[str, Any], key: str, param: Tensor) -> bool:
    value = entry.get(key)
    return isinstance(value, Tensor) and value.shape == param.shape


def probe_optimizer(make_optimizer: OptimizerFactory, x: Tensor) -> dict[str, Any]:
    """Return the state an optimizer has after a step; check that it works coordinate by coordinate.

    Raises InputError for an optimizer that needs a closure, or for one whose step on a row depends on the
    other rows (clipping by the whole norm, low-rank factors): all replicates share one parameter.
    """
    rows = torch.stack([x[0], x[0] + 1])
    gradients = torch.stack([torch.cos(rows[0] + 1), torch.sin(3 * rows[1]) - 2])
    results = []
    for count in (1, 2):
        param = torch.nn.Parameter(rows[:count].clone())
        optimizer = checked_optimizer(make_optimizer, param)
        for scale in (1.0, 0.5):
            param.grad = scale * gradients[:count]
            try:
                optimizer.step()
            except TypeError as error:
                raise InputError(
                    f"{type(optimizer).__name__} needs a closure; use an optimizer that steps from gradients."
                ) from error
        results.append((param.detach()[0], dict(optimizer.state[param])))
    if not torch.allclose(results[0][0], results[1][0], rtol=1e-4, atol=1e-6, equal_nan=True):
        raise InputError(
            "The optimizer's step on one replicate depends on the others. All replicates share one "
            "parameter, so only element-wise optimizers (SGD, Adam, RMSprop, …) can be simulated."
        )
    return results[0][1]


def checked_optimizer(make_optimizer: OptimizerFactory, param: torch.nn.Parameter) -> Optimizer:
    """Return the optimizer the caller's function makes over one parameter."""
    if not callable(make_optimizer):
        raise InputError(
            f"make_optimizer is {kind_of(make_optimizer)}; give a function of a list of parameters, "
            "such as lambda p: torch.optim.Adam(p, lr=1e-3)."
        )
    try:
        optimizer = make_optimizer([param])
    except InputError:
        raise
    except (TypeError, ValueError) as error:  # torch's own refusal of a hyper-parameter, mostly
        raise InputError(f"make_optimizer([parameter]) failed: {str(error).rstrip('.')}.") from error
    if not isinstance(optimizer, Optimizer):
        raise InputError(
            f"make_optimizer returned {type(optimizer).__name__}; it must return a torch.optim.Optimizer."
        )
    return optimizer


def write_state(
    optimizer: Optimizer, param: Tensor, template: dict[str, Any], given: State, start_step: int
) -> None:
    """Give ``param`` the state ``given`` after ``start_step`` steps, shaped as ``template`` says."""
    entry: dict[str, Any] = {}
    for key, value in template.items():
        if key in STATE_KEYS and isinstance(value, Tensor):
            known = given.get(STATE_KEYS[key])
            entry[key] = torch.zeros_like(param, requires_grad=False) if known is None else known.clone()
        elif key == "step":
            entry[key] = torch.full_like(value, start_step) if isinstance(value, Tensor) else start_step
        elif value is not None:
            raise InputError(
                f"{type(optimizer).__name__} keeps {key!r}, which init_state cannot give; start it from zero."
            )
    optimizer.state[param] = entry
