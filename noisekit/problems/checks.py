"""What a network must satisfy so that each training sample has a loss and a gradient of its own."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vmap

from noisekit._typing import LossFunction
from noisekit.errors import InputError, NonFiniteError, UnsupportedModelError, kind_of
from noisekit.gradients.batch import call_model


def refuse_mixing_modules(model: nn.Module) -> None:
    """Refuse modules whose output for one sample depends on the other samples or on chance.

    Raises:
        UnsupportedModelError: naming the module.
    """
    for name, module in model.named_modules():
        if not module.training:
            continue
        where = f"{name or 'the model'} ({type(module).__name__})"
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise UnsupportedModelError(
                f"{where} in training mode mixes samples, so no sample has a gradient of its own; "
                "use GroupNorm or call model.eval()."
            )
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0:
            raise UnsupportedModelError(f"{where} makes the loss random; set p=0 or call model.eval().")


def refuse_mixing_loss(model: nn.Module, loss_fn: LossFunction, inputs: Tensor, targets: Tensor) -> None:
    """Refuse a loss of a batch that is not the mean or the sum of the losses of its samples.

    Raises:
        InputError: if the model does not return a tensor, or the loss is not one number.
        NonFiniteError: if the loss is NaN or infinite.
        UnsupportedModelError: if the loss of a batch is neither the mean nor the sum over its samples.
    """
    with torch.no_grad():
        outputs = model(inputs)
        if not isinstance(outputs, Tensor):
            raise InputError(
                f"The model returns {kind_of(outputs)}; wrap it in a module that returns one tensor."
            )
        batch = loss_fn(outputs, targets)
        if not isinstance(batch, Tensor) or batch.ndim != 0:
            found = tuple(batch.shape) if isinstance(batch, Tensor) else type(batch).__name__
            raise InputError(
                f"loss_fn returns {found} for {len(inputs)} samples; it needs one number, their mean or sum."
            )
        rows = [slice(i, i + 1) for i in range(len(inputs))]
        single = torch.stack([loss_fn(model(inputs[row]), targets[row]) for row in rows])
    if not batch.isfinite() or not single.isfinite().all():
        raise NonFiniteError("The loss of the first samples is NaN or infinite at the initial parameters.")
    rtol = max(1e-3, 8 * torch.finfo(batch.dtype).eps)
    if not any(torch.allclose(batch, whole, rtol=rtol, atol=1e-5) for whole in (single.mean(), single.sum())):
        raise UnsupportedModelError(
            f"The loss of {len(inputs)} samples together is {float(batch):.6g}, but the mean of their losses "
            f"is {float(single.mean()):.6g}: the model or the loss mixes samples, weights them or is random."
        )


def count_activations(model: nn.Module, inputs: Tensor) -> int:
    """Return how many numbers the leaf modules put out for one sample."""
    count = 0

    def add(_module: nn.Module, _inputs: Any, output: Any) -> None:
        nonlocal count
        count += output.numel() if isinstance(output, Tensor) else 0

    handles = [m.register_forward_hook(add) for m in model.modules() if not list(m.children())]
    try:
        with torch.no_grad():
            model(inputs[:1])
    finally:
        for handle in handles:
            handle.remove()
    return max(count, 1)


def can_be_batched(model: nn.Module, inputs: Tensor) -> bool:
    """Return whether copies of the model can go through ``torch.func.vmap`` together, at full speed."""
    parameters = {name: p.detach().expand(2, *p.shape) for name, p in model.named_parameters()}
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("error")
            outputs = vmap(lambda own: call_model(model, (inputs,), own))(parameters)
            return bool(torch.allclose(outputs[1], model(inputs), rtol=1e-3, atol=1e-5))
    except (RuntimeError, UserWarning, ValueError, TypeError):
        return False
