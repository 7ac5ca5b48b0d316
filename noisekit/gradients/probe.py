"""The examination of a model before its per-sample gradients are believed.

Small passes on copies of two or three samples, with the random state and the buffers left as they were:

1. batches of two and of three samples show on which axis of each layer's output the samples are;
2. a backward pass from one sample alone must leave the gradients of the others at exactly zero;
3. Σ w_i g_i from the hooks is compared with autograd's gradient of Σ w_i ℓ_i, parameter by parameter. What
   hooks do not see exactly (attention and recurrent internals, parameters used as tensors) is replayed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from noisekit.errors import InputError, NonFiniteError, UnsupportedModelError
from noisekit.gradients.batch import Batch, call_model, count_samples, select, tensors_of
from noisekit.gradients.contributions import Contribution
from noisekit.gradients.device import in_float64
from noisekit.gradients.half_precision import no_graph
from noisekit.gradients.hooks import HookCapture, Layout, find_targets
from noisekit.gradients.layer_rules import find_rule
from noisekit.gradients.outputs import loss_frontier
from noisekit.gradients.plan import Plan
from noisekit.gradients.random_state import random_state, untouched_random_state
from noisekit.gradients.replay import ENGINES, frozen_buffers
from noisekit.gradients.selecting import SelectionWatch

PROBE = 3
"""Samples in the probe; the backward pass of step 2 starts from the middle one."""
WEIGHTS = (1.0, -0.7, 1.9)
"""The random weights w_i of step 3."""

Watch = Callable[[str, Tensor], None]


@dataclass
class _Pass:
    """One forward pass: each module's first output tensor by call, the outputs of the model, randomness."""

    calls: list[tuple[str, Tensor]]
    outputs: list[Tensor]
    stochastic: bool


class Probe:
    """Examines ``model`` with ``leaves`` for its parameters, on the first samples of ``inputs``."""

    def __init__(self, model: nn.Module, leaves: dict[str, Tensor], inputs: Batch, names: Sequence[str]):
        self.model, self.leaves, self.names = model, leaves, tuple(names)
        n = count_samples(inputs)
        self.small = {k: select(inputs, torch.arange(k) % n, n) for k in (2, PROBE)}
        self.module_names = {module: name for name, module in model.named_modules()}
        self.generator = torch.Generator().manual_seed(0)
        self.after_selection: set[str] = set()
        """The modules that follow a choice of rows by their values."""

    def plan(self) -> Plan:
        """Return the plan, or raise if samples mix."""
        with no_graph():
            two = self._forward(2)
            with SelectionWatch() as selection:
                note = self.after_selection.add
                three = self._forward(PROBE, watch=lambda name, _: note(name) if selection.seen else None)
        if not all(bool(out.isfinite().all()) for out in three.outputs):
            raise NonFiniteError(
                "The outputs of the model are NaN or infinite: check its inputs and weights."
            )
        batched = _has_samples(two.outputs, three.outputs)
        layouts = _layouts(two.calls, three.calls)
        layouts = {name: layout for name, layout in layouts.items() if name not in self.after_selection}
        if any(not layout.batched for layout in layouts.values()) and not self._may_expand(layouts, three):
            layouts = {name: layout for name, layout in layouts.items() if layout.batched}
        if find_rule(self.model) is not None and "" not in self.after_selection:
            layouts[""] = Layout()
        return self._compare(layouts, batched)

    def _forward(self, n: int, batch: Batch | None = None, watch: Watch | None = None) -> _Pass:
        calls: list[tuple[str, Tensor]] = []

        def hook(module: nn.Module, _: object, output: object) -> None:
            first = next(iter(tensors_of(output)), None)
            if first is not None:
                calls.append((self.module_names[module], first))
                if watch is not None:
                    watch(*calls[-1])

        handles = [module.register_forward_hook(hook) for module in self.module_names]
        try:
            with untouched_random_state(self.leaves):
                before = random_state(self.leaves)
                state = {**self.leaves, **frozen_buffers(self.model)}
                outputs = self._call(self.small[n] if batch is None else batch, state, n)
                after = random_state(self.leaves)
        finally:
            for handle in handles:
                handle.remove()
        changed = any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
        return _Pass(calls, [leaf for leaf in tensors_of(outputs) if leaf.is_floating_point()], changed)

    def _call(self, batch: Batch, state: dict[str, Tensor], n: int) -> Any:
        try:
            return call_model(self.model, batch, state)
        except RuntimeError as error:
            raise InputError(
                f"The model does not run on {n} samples of this batch ({str(error).splitlines()[0]}): check "
                "the inputs; give an input that belongs to no sample, such as a mask, a leading axis of one "
                "where it has as many rows as the batch."
            ) from error

    def _may_expand(self, layouts: Mapping[str, Layout], reference: _Pass) -> bool:
        """Whether expanding the outputs that see no batch leaves the outputs of the model as they are."""
        targets = find_targets(self.model, self.names, layouts)
        with HookCapture(targets, self.leaves, layouts, lambda *_: None) as capture:
            capture.n_samples = PROBE
            try:
                outputs = self._forward(PROBE).outputs
            except (RuntimeError, InputError, UnsupportedModelError):
                return False
        pairs = zip(outputs, reference.outputs, strict=True)
        return all(a.shape == b.shape and torch.allclose(a, b, rtol=1e-3, atol=1e-5) for a, b in pairs)

    def _compare(self, layouts: dict[str, Layout], batched: list[bool]) -> Plan:
        sums: dict[str, Tensor] = {}
        sizes: dict[str, Tensor] = {}

        def on_parameter(name: str, uses: Sequence[Contribution], _: Tensor) -> None:
            for i, weight in enumerate(WEIGHTS):
                row = torch.stack([use.rows(slice(i, i + 1))[0] for use in uses]).sum(0)
                sums[name] = sums.get(name, 0) + weight * row
                sizes[name] = sizes.get(name, 0) + torch.linalg.vector_norm(row)

        gradients: list[tuple[str, Tensor, list[Tensor]]] = []

        def watch(name: str, output: Tensor) -> None:
            if output.requires_grad:
                received: list[Tensor] = []
                gradients.append((name, output, received))
                output.register_hook(received.append)

        wanted = [self.leaves[name] for name in self.names]
        targets = find_targets(self.model, self.names, layouts)
        with HookCapture(targets, self.leaves, layouts, on_parameter, forgiving=True) as capture:
            capture.n_samples = PROBE
            batch, float_inputs = _watched_inputs(self.small[2], self.small[PROBE])
            with torch.enable_grad():
                run = self._forward(PROBE, batch, watch)
            leaves = [o for o, has in zip(run.outputs, batched, strict=True) if has and o.requires_grad]
            if not leaves:
                raise InputError(
                    "No output of the model depends on trainable parameters and has the samples first."
                )
            random = [torch.randn(leaf.shape, generator=self.generator).to(leaf) for leaf in leaves]
            capture.paused = True
            alone = [_weighted(r, (0.0, 1.0, 0.0)) for r in random]
            found = _backward(leaves, alone, [*wanted, *float_inputs])
            _refuse_nan(self.names, found)
            _settle(gradients, found[len(wanted) :], layouts)
            weighted = [_weighted(r, WEIGHTS) for r in random]
            truth = dict(zip(self.names, _backward(leaves, weighted, wanted), strict=True))
            capture.paused = False
            _backward(leaves, random, wanted)

        unused = tuple(name for name in self.names if truth[name] is None)
        layers = [out for _, out in run.calls if out.is_floating_point()]  # a forward may cast to bf16 within
        close = _Closeness(truth, [*run.outputs, *layers])
        unsure = {n for t in targets if t.module_name in self.after_selection for n in t.names.values()}
        hooked = tuple(
            name
            for name in self.names
            if name in sums and name not in unsure and close(name, sums[name], float(sizes[name]))
        )
        rest = tuple(name for name in self.names if name not in hooked and name not in unused)
        engine = "vmap"
        if rest:
            aligned = iter(random)
            cotangents = [
                next(aligned) if has and out.requires_grad else None
                for out, has in zip(run.outputs, batched, strict=True)
            ]
            engine = "masked" if run.stochastic else self._deterministic_engine(rest, cotangents, close)
        frontier = loss_frontier(run.outputs, batched)
        targets = find_targets(self.model, hooked, layouts)
        return Plan(layouts, targets, hooked, rest, engine, unused, run.stochastic, frontier)

    def _deterministic_engine(
        self, names: Sequence[str], cotangents: Sequence[Tensor | None], close: _Closeness
    ) -> str:
        for engine in ("vmap", "loop"):
            try:
                parts = list(
                    ENGINES[engine](self.model, self.leaves, names, self.small[PROBE], cotangents, PROBE)
                )
            except (RuntimeError, InputError):
                continue
            weights = next(iter(parts[0][1].values())).new_tensor(WEIGHTS)
            rows = {name: torch.cat([part[name] for _, part in parts]).detach() for name in names}
            if all(
                close(
                    name, torch.tensordot(weights.to(r), r, 1), float(r.reshape(len(r), -1).norm(dim=1).sum())
                )
                for name, r in rows.items()
            ):
                return engine
        owners = sorted({name.rpartition(".")[0] or "the model itself" for name in names})
        raise UnsupportedModelError(
            f"The gradients of single samples do not add up to that of the batch in {', '.join(owners)}: "
            "samples mix there, or the first axis of an input is not the sample."
        )


class _Closeness:
    """Compares Σ w_i g_i with the truth, to the precision of the model's numbers."""

    def __init__(self, truth: Mapping[str, Tensor | None], outputs: Sequence[Tensor]):
        self.truth = truth
        present = [t for t in truth.values() if t is not None]
        self.scale = max((float(t.float().norm()) for t in present), default=0.0)
        eps = max(torch.finfo(t.dtype).eps for t in [*present, *outputs])
        device = outputs[0].device.type
        if torch.is_autocast_enabled(device):
            eps = max(eps, torch.finfo(torch.get_autocast_dtype(device)).eps)
        elif device == "cuda" and eps > 1e-12:
            eps = max(eps, 1e-5)  # TF32 convolutions and products
        self.eps = eps

    def __call__(self, name: str, total: Tensor, size: float) -> bool:
        truth = self.truth[name]
        if truth is None:
            return False
        gap = float((in_float64(total) - in_float64(truth.to_dense())).norm())
        return gap <= self.eps**0.6 * size + 10 * self.eps * self.scale


def _backward(
    outputs: Sequence[Tensor], cotangents: Sequence[Tensor], wanted: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    return torch.autograd.grad(outputs, wanted, cotangents, retain_graph=True, allow_unused=True)


def _weighted(values: Tensor, weights: Sequence[float]) -> Tensor:
    """Return ``values`` (sample × copies, …) with each sample multiplied by its weight."""
    w = values.new_tensor(weights).repeat_interleave(values.shape[0] // len(weights))
    return values * w.reshape(-1, *[1] * (values.ndim - 1))


def _watched_inputs(smaller: Batch, batch: Batch) -> tuple[Batch, list[Tensor]]:
    """Return ``batch`` with its floating-point tensors of samples requiring grad, and those tensors."""
    watched: list[Tensor] = []
    others = iter(tensors_of(smaller))

    def watch(leaf: object) -> object:
        if not isinstance(leaf, Tensor):
            return leaf
        if next(others).shape == leaf.shape or not leaf.is_floating_point():
            return leaf
        root = leaf.detach().requires_grad_(True)
        watched.append(root)
        return root * 1  # not a leaf, so that a model may change its input in place

    with torch.enable_grad():
        return tree_map(watch, batch), watched


def _has_samples(two: Sequence[Tensor], three: Sequence[Tensor]) -> list[bool]:
    """Whether each output grows with the batch on its first axis."""
    has = [
        a.ndim > 0 and a.ndim == b.ndim and a.shape[0] * PROBE == b.shape[0] * 2
        for a, b in zip(two, three, strict=True)
    ]
    if not any(has):
        shapes = ", ".join(str(tuple(b.shape)) for b in three)
        raise UnsupportedModelError(
            f"The samples are not on the first axis of any output of the model (a batch of {PROBE} gives "
            f"{shapes}): noisekit needs batch-first inputs and one row of output a sample."
        )
    return has


def _layouts(two: list[tuple[str, Tensor]], three: list[tuple[str, Tensor]]) -> dict[str, Layout]:
    """Return the axis that grows with the batch for each module whose calls agree on one."""
    if [name for name, _ in two] != [name for name, _ in three]:
        return {}
    seen: dict[str, set[Layout | None]] = {}
    for (name, a), (_, b) in zip(two, three, strict=True):
        seen.setdefault(name, set()).add(_layout(a.shape, b.shape))
    return {name: layout for name, (layout, *others) in seen.items() if layout is not None and not others}


def _layout(two: torch.Size, three: torch.Size) -> Layout | None:
    if len(two) != len(three):
        return None
    growing = [axis for axis in range(len(two)) if two[axis] != three[axis]]
    if not growing:
        return Layout(batched=False)
    axis = growing[0]
    return Layout(axis) if len(growing) == 1 and two[axis] * PROBE == three[axis] * 2 else None


def _refuse_nan(names: Sequence[str], gradients: Sequence[Tensor | None]) -> None:
    """Raise NonFiniteError for the named ones of ``gradients``: NaN hides which samples they are from."""
    pairs = zip(names, gradients, strict=False)
    bad = [name for name, g in pairs if g is not None and bool(g.to_dense().isnan().any())]
    if bad:
        raise NonFiniteError(
            f"The gradient is NaN in {', '.join(bad)} in the first batch looked at, though outputs of the "
            "model are finite: check for functions of infinite slope, such as sqrt at 0."
        )


def _settle(
    gradients: Sequence[tuple[str, Tensor, list[Tensor]]],
    input_gradients: Sequence[Tensor | None],
    layouts: dict[str, Layout],
) -> None:
    """Settle the order of folded axes; raise if the backward pass from the middle sample reached others."""
    mixed = []
    for name, _, received in gradients:
        layout = layouts.get(name)
        if layout is None or not layout.batched or not received:
            continue
        order = _sample_major(received[0], layout.axis)
        if order is None:
            mixed.append(name or "the model")
        else:
            layouts[name] = Layout(layout.axis, order)
    at_inputs = any(g is not None and _sample_major(g, 0) is None for g in input_gradients)
    if mixed or at_inputs:
        where = f"the outputs of {', '.join(dict.fromkeys(mixed))}" if mixed else "its inputs"
        raise UnsupportedModelError(
            f"The samples of a batch mix in this model: the output of one sample depends on others' rows "
            f"in {where}. Per-sample gradients need samples that are treated independently and lie on the "
            "first axis of every input (check batch_first=True and layers that average over the batch)."
        )


def _sample_major(grad: Tensor, axis: int) -> bool | None:
    """Return the order of samples and copies on ``axis`` in which only the middle sample is not zero."""
    rows = grad.movedim(axis, 0)
    for sample_major, shape in ((True, (PROBE, -1)), (False, (-1, PROBE))):
        blocks = rows.unflatten(0, shape)
        others = blocks[[0, 2]] if sample_major else blocks[:, [0, 2]]
        if not bool((others != 0).any()):
            return sample_major
    return None
