"""An accelerator played by the CPU, with real numbers: what a GPU would refuse, it refuses.

    with emulated("xpu") as device:
        x = torch.randn(3, device=device)
        x + torch.ones(3)  # RuntimeError: tensors of two devices

A tensor of the device holds a tensor of the CPU that only operations between tensors of the device reach.
Refused are operations between tensors of the device and of the CPU (a single number in a tensor without axes
may be mixed in where elements meet, as on a GPU), ``numpy()`` of a tensor of the device, generators of the
other device and, with ``float64=False``, the dtype that Apple's GPUs lack. To C++ the tensors are of the
device "meta", which needs no hardware and no build; Python sees the name that was asked for, except inside
torch's own functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.serialization import safe_globals
from torch.utils._python_dispatch import TorchDispatchMode

META = torch.device("meta")
DEVICE, IS_META = Tensor.device.__get__, Tensor.is_meta.__get__  # type: ignore[attr-defined]
FROM_VALUES = (torch.tensor, torch.as_tensor, torch.asarray)
MOVES = ("_to_copy", "copy_", "index", "index_put", "index_put_", "_index_put_impl_")
"""Operations that take tensors of both devices: copies, and a choice by an index of the host."""
BY_ELEMENTS = ("_foreach", "where", "fill_", "lerp", "addcmul", "addcdiv", "masked_fill", "clamp")
"""How names begin of operations that take numbers of the host but are not marked as ones by elements."""


class OnDevice(Tensor):
    """A tensor of the emulated device."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls: type[OnDevice], held: Tensor) -> OnDevice:
        return Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, held.size(), held.stride(), held.storage_offset(), dtype=held.dtype, device=META
        )

    def __init__(self, held: Tensor):
        self.held = held

    def __reduce_ex__(self, protocol: Any) -> Any:
        return OnDevice, (self.held,)

    def numpy(self, *, force: bool = False) -> Any:
        if force:
            return self.held.numpy()
        raise TypeError("can't convert a tensor of the emulated device to numpy; use Tensor.cpu() first.")

    def __array__(self, *arguments: Any, **named: Any) -> Any:
        return self.numpy()

    def tolist(self) -> Any:
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return computed(func, args, kwargs or {})


def mapped(function: Callable[[Any], Any], value: Any) -> Any:
    """Return ``value`` with ``function`` of all that its tuples, lists and dictionaries hold."""
    if type(value) in (tuple, list):
        return type(value)([mapped(function, part) for part in value])
    if type(value) is dict:
        return {key: mapped(function, part) for key, part in value.items()}
    return function(value)


def tensors_in(*values: Any) -> list[Tensor]:
    found: list[Tensor] = []
    mapped(lambda leaf: found.append(leaf) if isinstance(leaf, Tensor) else None, values)
    return found


def computed(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], float64: bool = True) -> Any:
    """Run ``func`` on what the tensors hold; its results are where a GPU would have them."""
    name = func.overloadpacket.__name__
    ours = [t for t in tensors_in(args, kwargs) if isinstance(t, OnDevice)]
    first_is_ours = isinstance(args[0] if args else None, OnDevice)
    if ours and name not in MOVES:
        refuse_mixture(func, name, [t for t in tensors_in(args, kwargs) if not isinstance(t, OnDevice)], args)
    if name.startswith("index") and ours and not first_is_ours:
        raise RuntimeError(f"indices should be on the CPU, as what they choose from is ({name}).")
    wanted = kwargs.get("device")
    there = first_is_ours if name in MOVES[1:] else wanted == META if wanted is not None else bool(ours)
    outer_of = {id(t.held): t for t in ours}
    inner_args, inner = mapped(lambda t: t.held if isinstance(t, OnDevice) else t, (args, kwargs))
    if wanted is not None:
        inner |= {"device": torch.device("cpu")}
    result = func(*inner_args, **inner)
    if ours and torch.Tag.inplace_view in func.tags:
        with torch._C._DisableTorchDispatch():  # type: ignore[attr-defined]
            func(*args, **kwargs)

    def placed(value: Any) -> Any:
        if not isinstance(value, Tensor) or not there:
            return value
        if not float64 and value.dtype in (torch.float64, torch.complex128):
            raise TypeError(f"The emulated device has no {value.dtype} ({name}).")
        return outer_of[id(value)] if id(value) in outer_of else OnDevice(value)

    return mapped(placed, result)


def refuse_mixture(func: Any, name: str, host: list[Tensor], args: tuple[Any, ...]) -> None:
    """Raise RuntimeError unless ``host`` are numbers that may meet tensors of the device."""
    by_elements = torch.Tag.pointwise in func.tags or name.startswith(BY_ELEMENTS)
    writes_to_host = func._schema.is_mutable and any(args[0] is t for t in host)
    if host and (writes_to_host or not by_elements or any(t.ndim for t in host)):
        shapes = [tuple(t.shape) for t in host]
        raise RuntimeError(f"Expected all tensors to be on the same device: {name} met {shapes} of the CPU.")


class _Operations(TorchDispatchMode):
    """Sees what is made on the device, and what is done there."""

    def __init__(self, float64: bool):
        super().__init__()
        self.float64 = float64

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if kwargs.get("device") == META or any(isinstance(t, OnDevice) for t in tensors_in(args, kwargs)):
            return computed(func, args, kwargs, self.float64)
        return func(*args, **kwargs)


class _Calls(TorchFunctionMode):
    """Gives the device its name, and sees the calls that leave no operation behind."""

    def __init__(self, name: str):
        super().__init__()
        self.name, self.device = name, torch.device(name, 0)

    def inward(self, value: Any) -> Any:
        """Return ``value``, which is C++'s name of the device if it is Python's."""
        named = isinstance(value, str | torch.device) and str(value).partition(":")[0] == self.name
        return META if named else value

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.device:
            return func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") == "__get__":
            return self.attribute(func, *args)
        own, named = args[0] if args else None, kwargs or {}
        if isinstance(own, OnDevice):
            if func in (Tensor.numpy, Tensor.__array__, Tensor.tolist):
                return getattr(own, func.__name__)(*args[1:], **named)
            if func is Tensor.__repr__:
                return f"{repr(own.held)[:-1]}, device='{self.device}')"
            if func is Tensor.__format__:
                return format(own.held, *args[1:])
            if func in (Tensor.__getitem__, Tensor.__setitem__):
                args = (own, *(with_tensors(part) for part in args[1:]))
        return self.called(func, *mapped(self.inward, (tuple(args), named)))

    def attribute(self, func: Any, own: Any, *rest: Any) -> Any:
        found = func(own, *rest)
        if func == DEVICE:
            return self.device if found == META else found
        return False if func == IS_META else found

    def called(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        tensors, wanted = tensors_in(args, kwargs), kwargs.get("device")
        there = wanted == META or (wanted is None and any(DEVICE(t) == META for t in tensors))
        for value in (*args, *kwargs.values()):
            if isinstance(value, torch.Generator) and (value.device.type != "cpu") != there:
                needed = self.name if there else "cpu"
                raise RuntimeError(
                    f"Expected a '{needed}' device type for generator but found '{value.device}'"
                )
        if func in FROM_VALUES and wanted == META:  # C++ would leave the values out
            return func(*args, **kwargs | {"device": "cpu"}).to(META)
        if func is Tensor.new_tensor and there:
            return torch.tensor(*args[1:], **{"dtype": args[0].dtype} | kwargs | {"device": "cpu"}).to(META)
        return func(*args, **kwargs)


def with_tensors(index: Any) -> Any:
    """Return ``index`` with its lists and arrays as tensors of the host, whose values C++ would leave out."""
    if isinstance(index, tuple):
        return tuple(with_tensors(part) for part in index)
    return torch.as_tensor(index, device="cpu") if isinstance(index, list | np.ndarray) else index


def _generators(name: str) -> type[torch.Generator]:
    class Generator(torch.Generator):
        """A generator of the CPU that may say that it is one of the device."""

        def __new__(cls, device: Any = "cpu") -> Any:
            made = super().__new__(cls, device="cpu")
            made.place = torch.device(device)
            return made

        @property
        def device(self) -> torch.device:
            return self.place  # type: ignore[attr-defined, no-any-return]

    return Generator


@contextmanager
def emulated(name: str = "xpu", *, float64: bool = True) -> Iterator[torch.device]:
    """Let ``name`` be a device while the block runs, in this thread."""
    calls = _Calls(name)
    run, load, module = torch.autograd._engine_run_backward, torch.load, torch.get_device_module

    def run_backward(
        outputs: Sequence[Tensor], cotangents: Sequence[Tensor], *rest: Any, **named: Any
    ) -> Any:
        for output, cotangent in zip(outputs, cotangents, strict=True):
            if cotangent is not None and DEVICE(cotangent) != DEVICE(output):
                raise RuntimeError("A cotangent and its output are expected on the same device.")
        with calls:  # torch takes the mode away for the whole of a backward pass, hooks and all
            return run(outputs, cotangents, *rest, **named)

    def loaded(*arguments: Any, map_location: Any = None, **named: Any) -> Any:
        target = calls.inward(map_location)
        content = load(*arguments, map_location="cpu" if target == META else target, **named)
        return mapped(lambda t: t.to(META) if target == META and isinstance(t, Tensor) else t, content)

    of_device = SimpleNamespace(  # draws from the generator of the CPU
        get_rng_state=lambda device=None: torch.get_rng_state(),
        set_rng_state=lambda state, device=None: torch.set_rng_state(state),
    )

    def module_of(device: Any) -> Any:
        return of_device if calls.inward(device) == META else module(device)

    with (
        patch.object(torch, "get_device_module", module_of),
        patch.object(torch.__future__, "_swap_module_params_on_conversion", True),  # keeps tied weights tied
        patch.object(torch, "Generator", _generators(name)),
        patch.object(torch, "load", loaded),
        patch.object(torch.autograd, "_engine_run_backward", run_backward),
        safe_globals([OnDevice]),
        _Operations(float64),
        calls,
    ):
        yield calls.device
