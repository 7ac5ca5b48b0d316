"""A callback that records gradient noise while a Hugging Face Trainer trains."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.utils.hooks import RemovableHandle

from noisekit.errors import InputError
from noisekit.gradients.half_precision import no_graph
from noisekit.gradients.random_state import untouched_random_state
from noisekit.gradients.ranks import Ranks
from noisekit.gradients.record import GradientRecord
from noisekit.gradients.recorder import GradientNoiseRecorder

try:
    from transformers import TrainerCallback
except ModuleNotFoundError as error:
    if error.name != "transformers":
        raise
    raise InputError(
        "transformers is not installed, which noisekit.gradients.huggingface needs: "
        "pip install 'noisekit[huggingface]'."
    ) from error

ITEMS = "num_items_in_batch"
"""The count of labels in all batches of a step by which some models divide their loss."""


class GradientNoiseCallback(TrainerCallback):
    """Records the gradient noise of ``trainer.train``, a GradientNoiseRecorder around the Trainer's loop.

    The loss is the one that the model returns. The gradient g_i of sample i is N times what it adds to the
    gradient of the step, with N the samples of all accumulated batches and processes: where the Trainer
    divides by the number of labels (tokens), longer samples weigh more, as they do in training. The numbers
    of the latest record are in ``trainer.state.log_history``, as "noise/…"; for wandb or tensorboard give
    ``on_record``.

    Arguments: ``loss_fn`` the Trainer's ``compute_loss_func``, if it has one; ``options`` go to
    GradientNoiseRecorder: schedule, coordinates, sketch, gram, on_record, ….
    Raises InputError for label smoothing and for training that is not on one device a process, and what
    GradientNoiseRecorder raises.

    >>> callback = GradientNoiseCallback(schedule=lambda step: step % 100 == 0)
    >>> # trainer = Trainer(..., callbacks=[callback]); trainer.train(); callback.result()
    """

    def __init__(self, loss_fn: Any = None, **options: Any):
        self.loss_fn, self.options = loss_fn, options
        self.recorder: GradientNoiseRecorder | None = None
        """The recorder of the present or the last training."""
        self._handle: RemovableHandle | None = None
        self._latest: dict[str, float] = {}
        self._divides: bool | None = None
        self._several = False

    def result(self) -> GradientRecord:
        """Return what was recorded."""
        if self.recorder is None:
            raise InputError("Nothing was recorded: call trainer.train with this callback first.")
        return self.recorder.result()

    def detach(self) -> None:
        """Take every hook off; needed only after an exception in trainer.train."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None
        if self.recorder is not None:
            self.recorder.detach()

    def on_train_begin(
        self, args: Any, state: Any, control: Any, *, model: Any = None, optimizer: Any = None, **_: Any
    ) -> None:
        self.detach()
        ranks = _processes(args)
        accumulated = args.gradient_accumulation_steps
        options = {"micro_batches": accumulated, "ranks": ranks, **self.options}
        own = options.pop("on_record", None)

        def on_record(numbers: dict[str, float]) -> None:
            self._latest = {f"noise/{name}": value for name, value in numbers.items() if name != "step"}
            if own is not None:
                own(numbers)

        self._several = accumulated > 1 or ranks is not None
        self._divides = None
        self.recorder = GradientNoiseRecorder(model, self.loss_fn, optimizer, on_record=on_record, **options)
        self.recorder.__enter__()
        if self.loss_fn is None:
            self._handle = self.recorder.model.register_forward_hook(self._see_outputs, with_kwargs=True)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.recorder is not None:
            self.recorder.discard()  # left over where a GradScaler skipped the step before

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.log_history and self._latest:
            state.log_history[-1].update(self._latest)
            self._latest = {}

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.detach()

    def _see_outputs(
        self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: Any
    ) -> None:
        recorder = self.recorder
        if recorder is None or not recorder.watching or not torch.is_grad_enabled():
            return
        loss = _loss_of(outputs)
        if loss is None:
            raise InputError(
                "The model returns no loss: put the labels into the inputs, or give the Trainer's "
                "compute_loss_func to the callback as well, GradientNoiseCallback(loss_fn)."
            )
        if self._several and kwargs.get(ITEMS) is not None:
            if self._divides is None:
                self._divides = self._divides_by_items(model, args, kwargs)
            recorder.observe(loss, reduction="step" if self._divides else "mean")
        else:
            recorder.observe(loss)

    def _divides_by_items(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether the loss is divided by the labels of the whole step: half as large for twice as many."""
        assert self.recorder is not None
        losses = []
        for count in (kwargs[ITEMS], 2 * kwargs[ITEMS]):
            with (
                self.recorder.looking_away(),
                no_graph(),
                untouched_random_state(dict(model.named_parameters())),
            ):
                losses.append(_loss_of(model(*args, **{**kwargs, ITEMS: count})))
        first, second = losses
        assert first is not None
        assert second is not None
        return bool((second - first / 2).abs() < (second - first).abs())


def _processes(args: Any) -> Ranks | None:
    """Return the processes that train together, or raise for kinds of training that are not supported."""
    if args.label_smoothing_factor:
        raise InputError(
            f"label_smoothing_factor={args.label_smoothing_factor} is applied outside the model, where the "
            "callback does not see the loss: give a compute_loss_func with label smoothing to both."
        )
    if args.n_gpu > 1 or args.deepspeed or args.fsdp:
        raise InputError(
            "The callback records training on one device a process, and this is DataParallel, DeepSpeed or "
            "FSDP: start it with torchrun, one process a device."
        )
    if args.world_size == 1:
        return None
    if not args.average_tokens_across_devices:
        raise InputError(
            "With several processes the callback needs average_tokens_across_devices=True, so that all "
            "samples are weighted alike."
        )
    return Ranks(dist.group.WORLD)


def _loss_of(outputs: Any) -> Tensor | None:
    """Return the loss among the outputs of a model, where the Trainer looks for it."""
    loss = outputs.get("loss") if isinstance(outputs, dict) else None
    if loss is None and isinstance(outputs, tuple) and outputs:
        loss = outputs[0]
    return loss if isinstance(loss, Tensor) and loss.numel() == 1 else None
