"""Records the gradient noise of a training loop that does not know it is watched."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from noisekit.errors import InputError
from noisekit.gradients.applied_gradient import given_gradients, learning_rates
from noisekit.gradients.attached import WATCHERS
from noisekit.gradients.batch import Batch, CallArguments, as_batch, count_samples
from noisekit.gradients.checkpointing import aside, in_backward
from noisekit.gradients.checks import check_training, plan_for, refuse_closure, refuse_mixing_layers
from noisekit.gradients.collector import Sums
from noisekit.gradients.compiled import EagerStance
from noisekit.gradients.contributions import Contribution
from noisekit.gradients.distributed import merge_step, sums_of_batch
from noisekit.gradients.engine import check_engine, run_pass, skips_itself, underlying, underlying_optimizer
from noisekit.gradients.hooks import HookCapture
from noisekit.gradients.local_hook import LocalHook
from noisekit.gradients.random_state import random_state, untouched_random_state
from noisekit.gradients.ranks import Ranks
from noisekit.gradients.record import GradientRecord
from noisekit.gradients.recorded_rows import RecordedRows
from noisekit.gradients.rows import RowContext
from noisekit.gradients.schedule import Schedule, every
from noisekit.gradients.selection import DEFAULT_SKETCH, Selection
from noisekit.gradients.sharded import WholeParameters, gathered, sharded_units
from noisekit.gradients.statistics import covered_parameters
from noisekit.gradients.training_pass import TrainingPass, sums_of_step
from noisekit.gradients.watch import LossWatch


class GradientNoiseRecorder:
    """Records per-sample gradient statistics while a model trains; a context manager around the loop.

    The loop stays as it is: on recorded steps the recorder sees the forward and backward passes through
    hooks, unscales what a GradScaler or gradient accumulation multiplied, and keeps the statistics when the
    optimizer steps. Where the loss cannot be seen, call ``observe(loss)`` or ``record(inputs, targets)`` in
    the loop.

    Arguments: ``schedule`` a function from the step to whether it is recorded; ``coordinates``, ``sketch``,
    ``gram``, ``seed`` as in gradient_statistics; ``engine`` "hooks", or "vmap" or "loop", which compute each
    recorded step again in ``record``; ``on_record`` is called with a dict of numbers after each record (for a
    logger); ``micro_batches`` how many backward passes the loop makes before each optimizer step: their
    samples are recorded as one batch (only the Gram matrix needs to know beforehand);
    ``moments`` accumulates mean and variance of every coordinate, which takes three times the model's memory.
    A DistributedDataParallel model is recorded by every process: each sees its own samples, and each has the
    record of one process on the batches of all, in rank order. The Gram matrix then needs the inputs and
    output gradients of all layers until the optimizer steps. ``ranks`` says which processes train together
    where ``model`` is a module inside the one that is wrapped. A model that fully_shard has split (FSDP2) is
    recorded likewise: each process then holds the statistics of whole parameters, as large as the model.
    On a GPU no recorded step but the first waits for the device: a bad sample is named when the next step is
    recorded, or by ``result``.
    Raises InputError if the model is already attached, UnsupportedModelError if samples mix, NonFiniteError
    naming step, parameter and sample where a gradient is NaN or infinite.

    >>> model, loss_fn = torch.nn.Linear(2, 1), torch.nn.MSELoss()
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> with GradientNoiseRecorder(model, loss_fn, optimizer, schedule=every(1)) as recorder:
    ...     loss_fn(model(torch.randn(8, 2)), torch.randn(8, 1)).backward()
    ...     optimizer.step()
    >>> recorder.result().squared_norm.shape
    torch.Size([1, 8])
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: Any,
        optimizer: torch.optim.Optimizer,
        *,
        schedule: Schedule | None = None,
        coordinates: int | Sequence[int] | Tensor = 512,
        sketch: int = DEFAULT_SKETCH,
        gram: bool = True,
        engine: str = "hooks",
        seed: int = 0,
        moments: bool = True,
        micro_batches: int = 1,
        on_record: Callable[[dict[str, float]], None] | None = None,
        ranks: Ranks | None = None,
    ):
        check_engine(engine)
        optimizer = underlying_optimizer(optimizer)
        check_training(model, loss_fn, optimizer, micro_batches)
        if schedule is not None and not callable(schedule):
            raise InputError(f"schedule is {schedule!r}: give a function of the step, such as nk.every(10).")
        self._ranks = ranks.near(model) if ranks is not None else Ranks.of(model)
        self.model, self.loss_fn, self.optimizer = underlying(model), loss_fn, optimizer
        self._sharded = bool(sharded_units(self.model))
        refuse_mixing_layers(self.model)
        self.schedule = every(10) if schedule is None else schedule
        self.engine, self.on_record, self.seed = engine, on_record, seed
        self._wanted: dict[str, Any] = {
            "coordinates": coordinates,
            "sketch": sketch,
            "gram": gram and self._ranks is None,
            "seed": seed,
        }
        self._several = micro_batches > 1
        self._keep_uses = gram and (self._several or self._ranks is not None)
        self._selection: Selection | None = None
        self._recorded = RecordedRows(moments=moments)
        self._handles: list[RemovableHandle] = []
        self._step_handles: list[RemovableHandle | WholeParameters] = []
        self._capture: HookCapture | None = None
        self._passes: list[TrainingPass] = []
        self._watch = LossWatch(loss_fn, self._see_loss)
        self._eager = EagerStance()
        self._looking_away = False
        self._recorded_by_call = False
        self._skipped = False
        """Whether the optimizer step that goes on moves nothing."""
        self._start = time.perf_counter()
        self.step = 0
        """The optimizer step that comes next."""

    def __repr__(self) -> str:
        # A function of the user's own would print its address.
        schedule = getattr(self.schedule, "__name__", repr(self.schedule))
        recorded = f"{len(self._recorded)} steps recorded before step {self.step}"
        return f"{type(self).__name__}({type(self.model).__name__}, {schedule}, {recorded})"

    def __enter__(self) -> GradientNoiseRecorder:
        self.attach()
        self._handles = [
            self.optimizer.register_step_pre_hook(LocalHook(self._before_step)),
            self.optimizer.register_step_post_hook(LocalHook(self._after_step)),
        ]
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    def attach(self) -> None:
        """Begin to watch the model, for loops that call ``end_step`` themselves and ``detach`` at the end."""
        if self.model in WATCHERS:
            raise InputError("A recorder is already attached to this model: leave its `with` block first.")
        self._start = time.perf_counter()
        self._arm()
        WATCHERS[self.model] = ref(self)

    def detach(self) -> None:
        """Take every hook off."""
        self._disarm()
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        WATCHERS.pop(self.model, None)

    def record(self, inputs: Batch, targets: Batch) -> None:
        """Record this batch at the present weights if the schedule says so, by a pass of its own.

        For loops whose loss the recorder cannot see, and for the engines "vmap" and "loop". The random state
        stays as it was.
        """
        if self.schedule(self.step) and not self._recorded_by_call:
            self._record_batch(inputs, targets)
            self._recorded_by_call = True

    def repeat(self, batches: Iterable[tuple[Batch, Batch]]) -> None:
        """Record each batch (inputs, targets) at the present weights, a row for each.

        Moving weights fake heavy tails; this is the noise at one point. ``result().minibatch_noise()`` is
        then the noise of the batch means.
        """
        for inputs, targets in batches:
            self._record_batch(inputs, targets)

    def observe(self, loss: Tensor, *, factor: float = 1.0, reduction: str = "mean") -> None:
        """Show the recorder the loss of this step, before backward, as a mean over the samples.

        ``factor`` is what the loss has been multiplied by already, such as the scale of a GradScaler;
        ``reduction`` "sum" says that it is a sum over the samples, "step" that it is the share of these
        samples in the mean over all backward passes before the optimizer step.
        """
        if self._passes:
            self._passes[-1].see_told_loss(loss, factor, reduction)

    def end_step(self) -> None:
        """Record this step, if the schedule says so: all its backward passes are done, no weight has moved.

        For loops without the `with` block, such as an optimizer step that calls the loss as a closure.
        """
        self._before_step()
        self._after_step()

    def discard(self) -> None:
        """Forget the passes since the last optimizer step, which a GradScaler has skipped."""
        self._passes.clear()

    @property
    def watching(self) -> bool:
        """Whether the passes that come are recorded."""
        return bool(self._passes) and not self._looking_away

    @property
    def blind(self) -> bool:
        """Whether this step is to be recorded and no forward pass of the model came by."""
        return bool(self._step_handles) and not self._passes and not self._recorded_by_call

    def result(self, last: int | None = None) -> GradientRecord:
        """Return what was recorded so far; or the ``last`` so many recorded steps alone, without moments."""
        return self._recorded.record(last)

    def forget(self, keep: int = 1) -> None:
        """Drop all recorded steps but the last ``keep``, for runs whose record is stored elsewhere.

        The moments go on over all steps.
        """
        self._recorded.forget(keep)

    def _record_batch(self, inputs: Batch, targets: Batch) -> None:
        inputs, targets = as_batch(inputs), as_batch(targets)
        with self.looking_away():
            with untouched_random_state(dict(self.model.named_parameters())):
                self._prepare(inputs)
                assert self._selection is not None
                sums, loss = sums_of_batch(
                    self._ranks,
                    self._keep_uses,
                    self._selection,
                    partial(
                        run_pass, gathered(self.model), self.loss_fn, inputs, targets, engine=self.engine
                    ),
                )
            self._keep(sums, loss)

    @contextmanager
    def looking_away(self) -> Iterator[None]:
        """Let passes of the recorder's own go by unseen."""
        before, self._looking_away = self._looking_away, True
        if self._capture is not None:
            self._capture.paused = True
        try:
            yield
        finally:
            self._looking_away = before
            if self._capture is not None:
                self._capture.paused = before

    @property
    def _unseen(self) -> bool:
        """Whether what runs now is a pass of the recorder's own."""
        return self._looking_away or (self._capture is not None and self._capture.paused)

    def _prepare(self, inputs: Batch) -> None:
        """Draw the coordinates and the sketch once the covered parameters are known."""
        if self._selection is not None:
            return
        plan = plan_for(self.model, inputs)
        covered, coverage, uncovered = covered_parameters(plan)
        self._selection = Selection.of(plan, covered, **self._wanted)
        self._recorded.context = RowContext(self._selection, coverage, uncovered, self.seed)

    def _names(self) -> list[str]:
        assert self._selection is not None
        return list(self._selection.sizes)

    def _arm(self) -> None:
        if self.engine == "hooks" and self.schedule(self.step) and not self._step_handles:
            self._step_handles = [
                self.model.register_forward_pre_hook(LocalHook(self._before_forward), with_kwargs=True),
                self.model.register_forward_hook(LocalHook(self._after_forward)),
            ]
            self._eager.enter()

    def _disarm(self) -> None:
        self._watch.stop()
        for handle in self._step_handles:
            handle.remove()
        self._step_handles.clear()
        self._eager.leave()
        if self._capture is not None:
            self._capture.remove()
            self._capture = None
        self._passes.clear()

    def _before_forward(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._unseen or not torch.is_grad_enabled() or in_backward():
            return
        inputs = CallArguments((args, kwargs))
        n = count_samples(inputs)
        with self.looking_away(), aside():
            plan = plan_for(model, inputs)
            self._prepare(inputs)
        assert self._selection is not None
        assert plan.state is not None
        tensors: dict[str, Tensor] = {**plan.state.trainable()}
        if self._thrown_away(tensors):
            self._passes.clear()
        state = random_state(tensors) if plan.replayed and plan.stochastic else []
        if not self._passes or self._passes[-1].differentiated or self._passes[-1].n_samples != n:
            self._passes.append(
                TrainingPass(plan, self._selection, inputs, n, state, keep_uses=self._keep_uses)
            )
        if self._capture is None:
            hookable: Mapping[str, Any] = tensors
            if self._sharded:
                whole = WholeParameters(model)
                self._step_handles.append(whole)
                hookable = whole.tensors
            self._capture = HookCapture(plan.targets, hookable, plan.layouts, self._see_parameter)
            for name in plan.replayed:
                hook = partial(self._see_replayed, name)
                self._step_handles.append(hookable[name].register_hook(hook))
            self._capture.n_samples = n
            self._capture.catch_up(model, args, kwargs)
        self._capture.n_samples = n

    def _thrown_away(self, tensors: Mapping[str, Tensor]) -> bool:
        """Whether gradients were set to None after a backward pass that no step followed.

        With several passes a step they may be on their way into a sum; sharded models show none in a pass.
        """
        return (
            not (self._several or self._sharded)
            and any(p.differentiated for p in self._passes)
            and all(p.grad is None for p in tensors.values())
        )

    def _after_forward(self, _: nn.Module, args: tuple[Any, ...], outputs: Any) -> Any:
        if self._unseen or not self._passes or not torch.is_grad_enabled() or in_backward():
            return outputs
        self._watch.start()
        return self._passes[-1].see_outputs(outputs)

    def _see_loss(self, outputs: Any, targets: Any, loss: Tensor, rest: dict[str, Any]) -> None:
        if self._looking_away or not self._passes:
            return
        with self.looking_away():
            self._passes[-1].see_loss(self.loss_fn, outputs, targets, loss, rest)

    def _see_parameter(self, name: str, uses: Sequence[Contribution], gradient: Tensor) -> None:
        self._watch.stop()
        if self._passes:
            self._passes[-1].half_precision |= self._capture is not None and self._capture.half_precision
            self._passes[-1].add(name, uses, gradient)

    def _see_replayed(self, name: str, gradient: Tensor) -> None:
        self._watch.stop()
        if self._passes and not self._looking_away:
            self._passes[-1].gradients[name] = gradient.detach().clone()

    def _before_step(self, *step: Any) -> None:
        if self._passes and skips_itself(self.optimizer):
            self._passes.clear()
            self._skipped = True
            return
        if self.blind:
            refuse_closure(step)
        seen = [p for p in self._passes if p.differentiated]
        if seen and not self._recorded_by_call:
            if any(p.factor is None for p in seen):
                raise InputError(
                    "The recorder did not see the loss of this step: call the loss_fn it was given in the "
                    "loop, or call recorder.observe(loss) before "
                    "backward, or recorder.record(inputs, targets)."
                )
            with self.looking_away():
                # A replay needs the parameters whole, and a sharded model is not to be run between its steps.
                model = gathered(self.model) if any(p.plan.replayed for p in seen) else self.model
                if self._ranks is None:
                    gram = bool(self._wanted["gram"])
                    sums, losses = sums_of_step(model, seen, self._names(), gram=gram)
                    loss = losses.mean()
                else:
                    sums, loss = merge_step(self._ranks, model, seen, self._names())
                assert self._recorded.context is not None
                self._recorded.context.settings["loss_reduction"] = seen[0].reduction
                # ``end_step`` may come before the gradients are clipped.
                given = given_gradients(self.model, self.optimizer) if step else None
            self._keep(sums, loss, given)
        self._disarm()

    def _after_step(self, *_: Any) -> None:
        if self._skipped:
            self._skipped = False
            return
        self.step += 1
        self._recorded_by_call = False
        self._arm()

    def _keep(self, sums: Sums, loss: Tensor, given: Mapping[str, Tensor | None] | None = None) -> None:
        elapsed = time.perf_counter() - self._start
        rates = learning_rates(self.model, self.optimizer)
        row = self._recorded.add(sums, self.step, loss, rates, elapsed, given)
        if row is not None and self.on_record is not None:
            self.on_record(row.summary())
