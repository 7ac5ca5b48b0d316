"""Sees on the CPU what would make the host wait for a GPU: values read, lengths that depend on them, copies.

    with HostSyncs() as syncs:
        one_step()
    assert not syncs.seen

On a GPU each of these stops the program until the work it has queued is done. On the CPU they cost nothing,
so that only a look at the calls can find them. Code that looks at values because it sees that they are on the
CPU must be told in the test that they are not.
"""

from __future__ import annotations

import traceback
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

READS = ("_local_scalar_dense", "equal", "is_nonzero", "item", "allclose")
"""Operations that give the host a value: item(), float(), bool(), ``if tensor``, torch.equal."""
LENGTHS = ("nonzero", "masked_select", "_unique", "_unique2", "unique_dim", "unique_consecutive", "bincount")
"""Operations whose result has a length that depends on values."""
TO_HOST = (Tensor.cpu, Tensor.numpy, Tensor.tolist, Tensor.__array__)
FACTORIES = (torch.arange, torch.empty, torch.eye, torch.full, torch.linspace, torch.ones, torch.zeros)
RANDOM = (torch.rand, torch.randn, torch.randint, torch.randperm)
FROM_VALUES = (torch.tensor, torch.as_tensor, torch.from_numpy)


class HostSyncs:
    """Notes every such call between ``with`` and its end as "operation at file:line (function)" in ``seen``.

    Only lines of files whose path has ``package`` in it count, the innermost of a call: what the user's own
    model or optimizer does is theirs. ``allowed`` are functions ("file.py:function") that may; say why.
    """

    def __init__(self, package: str = "/noisekit/", allowed: Collection[str] = ()):
        self.seen: list[str] = []
        self._package, self._allowed = package, allowed
        self._modes = ExitStack()

    def __enter__(self) -> HostSyncs:
        self._modes.enter_context(_Calls(self))
        self._modes.enter_context(_Operations(self))
        return self

    def __exit__(self, *error: Any) -> None:
        self._modes.__exit__(*error)

    def note(self, what: str) -> None:
        """Keep ``what``, with the line that asked for it."""
        for frame in reversed(traceback.extract_stack()):
            if self._package in frame.filename:
                file = frame.filename.rpartition("/")[2]
                if f"{file}:{frame.name}" not in self._allowed:
                    self.seen.append(f"{what} at {file}:{frame.lineno} ({frame.name})")
                return


class _Operations(TorchDispatchMode):
    """Sees what operations do, whoever called them."""

    def __init__(self, syncs: HostSyncs):
        super().__init__()
        self.syncs = syncs

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func.overloadpacket.__name__
        by_mask = name in ("index", "index_put", "index_put_") and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        counted = name == "repeat_interleave" and "output_size" not in (kwargs or {})
        if name in READS or name in LENGTHS or by_mask or counted:
            self.syncs.note(name)
        return func(*args, **(kwargs or {}))


class _Calls(TorchFunctionMode):
    """Sees the calls that leave no operation behind on a CPU, above all copies from and to the host.

    What is made without saying on which device is on the host; it stays so until it is moved.
    """

    def __init__(self, syncs: HostSyncs):
        super().__init__()
        self.syncs = syncs
        self._host: dict[int, Tensor] = {}

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        own = args[0] if args else None
        if func in TO_HOST or func is Tensor.new_tensor or (func in FROM_VALUES and kwargs.get("device")):
            self.syncs.note(func.__name__)
        elif func is Tensor.to and self._on_host(own) and not kwargs.get("non_blocking"):
            if any(self._is_device(value) for value in [*args[1:], *kwargs.values()]):
                self.syncs.note("copy from the host")
                return func(*args, **kwargs)
        elif func in (Tensor.__getitem__, Tensor.__setitem__) and self._index_from_host(own, args[1]):
            self.syncs.note("index from the host")
        result = func(*args, **kwargs)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        made = func in (*FACTORIES, *RANDOM, *FROM_VALUES) and kwargs.get("device") is None and not tensors
        if made or (tensors and all(self._on_host(t) for t in tensors)):
            for leaf in tree_leaves(result):
                if isinstance(leaf, Tensor):
                    self._host[id(leaf)] = leaf
        return result

    def _on_host(self, value: Any) -> bool:
        return isinstance(value, Tensor) and self._host.get(id(value)) is value

    def _index_from_host(self, values: Tensor, index: Any) -> bool:
        return not self._on_host(values) and any(self._on_host(leaf) for leaf in tree_leaves(index))

    def _is_device(self, value: Any) -> bool:
        """Whether ``value`` says where to move a tensor: a device, or a tensor that is on it."""
        on_device = isinstance(value, Tensor) and not self._on_host(value)
        return on_device or isinstance(value, str | torch.device)
