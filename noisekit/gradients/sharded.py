"""Models whose parameters are sharded over processes by FSDP2 (torch.distributed.fsdp.fully_shard).

Between passes a process holds a slice of each parameter. In a pass every sharded unit puts its whole
parameters together before it runs, and autograd differentiates those: that is where hooks see the gradient of
this process's samples.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.utils._pytree import tree_map
from torch.utils.hooks import RemovableHandle

from noisekit.errors import UnsupportedModelError
from noisekit.gradients.batch import Batch
from noisekit.gradients.local_hook import LocalHook

_FSDP = "torch.distributed.fsdp"


def is_sharded(value: object) -> bool:
    """Whether ``value`` is a tensor of which this process holds a part (a DTensor)."""
    return hasattr(value, "placements")


def among_processes() -> bool:
    """Whether this process has joined others, without which nothing is sharded."""
    return dist.is_available() and dist.is_initialized()


def sharded_names(model: nn.Module) -> list[str]:
    """Return the names of the parameters of which this process holds a part."""
    return [name for name, p in model.named_parameters() if is_sharded(p)]


def shards_of(model: nn.Module) -> Any:
    """Return the process group over which FSDP2 shards ``model``; each process must have its own samples.

    Raises UnsupportedModelError for parameters that are sharded in another way, such as tensor parallelism.
    """
    parameters: list[Any] = [p for p in model.parameters() if is_sharded(p)] if sharded_units(model) else []
    meshes = list(dict.fromkeys(p.device_mesh for p in parameters))
    if len(meshes) != 1 or meshes[0].ndim > 1:
        names = sharded_names(model)
        raise UnsupportedModelError(
            f"The parameters {', '.join(names[:3])}{' …' if len(names) > 3 else ''} are sharded over "
            "processes in another way than by fully_shard on one line of processes, so no process has the "
            "gradient of one sample: use fully_shard with a mesh of one axis, or DistributedDataParallel."
        )
    return meshes[0].get_group()


def sharded_units(model: nn.Module) -> list[nn.Module]:
    """Return the modules of ``model`` that ``fully_shard`` was called on."""
    fsdp = sys.modules.get(_FSDP)  # a sharded model was made with it; importing it takes a while
    return (
        []
        if fsdp is None or not among_processes()
        else [m for m in model.modules() if isinstance(m, fsdp.FSDPModule)]
    )


def gathered(model: nn.Module) -> nn.Module:
    """Return a plain copy of a sharded ``model`` with whole parameters; any other ``model`` itself.

    Every process must call it. The copy is as large as the model on one process, and is thrown away after
    use; what is not sharded is shared with the model.
    """
    units = {id(unit) for unit in sharded_units(model)}
    if not units:
        return model
    copies: dict[int, nn.Module] = {}
    parameters: dict[int, nn.Parameter] = {}

    # In a forward pass the units that run hold whole parameters, with mixed precision in half precision.
    halves = {torch.float16, torch.bfloat16}
    precise = next((p.dtype for p in model.parameters() if p.dtype not in halves), None)

    def whole(p: nn.Parameter | None) -> nn.Parameter | None:
        if p is None or not (is_sharded(p) or (p.dtype in halves and precise)):
            return p
        if id(p) not in parameters:
            own: Any = p.detach()
            full = own.full_tensor() if is_sharded(p) else own.to(precise)
            parameters[id(p)] = nn.Parameter(full, requires_grad=p.requires_grad)
        return parameters[id(p)]

    def plain(module: nn.Module) -> nn.Module:
        if id(module) not in copies:
            # fully_shard makes a module's class one that inherits from FSDPModule and from the class it had.
            kind = type(module).__bases__[1] if id(module) in units else type(module)
            copy: nn.Module = object.__new__(kind)
            copies[id(module)] = copy
            copy.__dict__.update(module.__dict__)
            copy._parameters = {name: whole(p) for name, p in module._parameters.items()}
            copy._modules = {name: m and plain(m) for name, m in module._modules.items()}
            copy._forward_pre_hooks = _others(module._forward_pre_hooks)
            copy._forward_hooks = _others(module._forward_hooks)
        return copies[id(module)]

    return plain(model)


def _others(hooks: Mapping[int, Callable[..., Any]]) -> Any:
    """Return the hooks that are neither FSDP's nor this package's."""
    kept: OrderedDict[int, Callable[..., Any]] = OrderedDict()
    for key, hook in hooks.items():
        if not isinstance(hook, LocalHook) and _FSDP not in (getattr(hook, "__module__", None) or ""):
            kept[key] = hook
    return kept


def as_parameters(batch: Batch, model: nn.Module) -> Batch:
    """Return ``batch`` with its floating-point tensors in the precision of the model's parameters.

    FSDP's mixed precision casts inputs on their way in, and the gathered parameters are in full precision.
    """
    dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())

    def cast(leaf: Any) -> Any:
        floating = isinstance(leaf, Tensor) and leaf.dtype in (torch.float16, torch.bfloat16)
        return leaf.to(dtype) if floating else leaf

    return tree_map(cast, batch)


class WholeParameter:
    """Stands for a sharded parameter where a hook on its gradient is wanted."""

    def __init__(self) -> None:
        self.hooks: OrderedDict[int, Callable[[Tensor], None]] = OrderedDict()

    def register_hook(self, hook: Callable[[Tensor], None]) -> RemovableHandle:
        """Call ``hook`` with the gradient of the whole parameter on this process, until it is removed."""
        handle = RemovableHandle(self.hooks)
        self.hooks[handle.id] = hook
        return handle

    def see(self, gradient: Tensor) -> None:
        """Call the hooks."""
        for hook in tuple(self.hooks.values()):
            hook(gradient)


class WholeParameters:
    """The gradients of the whole parameters of a sharded model, for as long as a step is watched.

    Each unit is waited for: its whole parameters exist from the start of its forward pass on. To be called
    inside the forward pass of ``model``, so that its own unit is there already.
    """

    def __init__(self, model: nn.Module):
        self.tensors = {n: WholeParameter() for n, p in model.named_parameters() if p.requires_grad}
        self._handles: list[RemovableHandle] = []
        self._hooked: set[int] = set()
        first = {id(p): name for name, p in model.named_parameters()}
        self._places = {
            (id(module), attr): first[id(p)]
            for module in model.modules()
            for attr, p in module._parameters.items()
            if p is not None
        }
        self._see(model)
        for unit in sharded_units(model):
            hook = LocalHook(partial(self._before_unit, unit))
            self._handles.append(unit.register_forward_pre_hook(hook))

    def _before_unit(self, unit: nn.Module, *_: object) -> None:
        self._see(unit)

    def _see(self, unit: nn.Module) -> None:
        for module in unit.modules():
            for attr, p in module._parameters.items():
                name = self._places.get((id(module), attr))
                if p is None or is_sharded(p) or name not in self.tensors or id(p) in self._hooked:
                    continue
                self._hooked.add(id(p))
                self._handles.append(p.register_hook(self.tensors[name].see))

    def remove(self) -> None:
        """Take every hook off."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
