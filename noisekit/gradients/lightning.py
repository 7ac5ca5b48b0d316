"""A callback that records gradient noise while a Lightning Trainer trains."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from torch import Tensor, nn

from noisekit.errors import InputError, unknown_name
from noisekit.gradients.ranks import Ranks
from noisekit.gradients.record import GradientRecord
from noisekit.gradients.recorder import GradientNoiseRecorder


def _callback_classes() -> tuple[type, ...]:
    """Return Callback of each Lightning package that is installed: the project ships under two names."""
    found = []
    for package in ("lightning.pytorch", "pytorch_lightning"):
        try:
            found.append(import_module(package).Callback)
        except ModuleNotFoundError as error:
            if error.name not in (package, package.partition(".")[0]):
                raise
    if not found:
        raise InputError(
            "Lightning is not installed, which noisekit.gradients.lightning needs: "
            "pip install 'noisekit[lightning]'."
        )
    return tuple(dict.fromkeys(found))


class GradientNoiseCallback(*_callback_classes()):  # type: ignore[misc]
    """Records the gradient noise of ``trainer.fit``, a GradientNoiseRecorder around Lightning's loop.

    Accumulated batches are recorded as one, scaled losses of 16-bit training are unscaled, and every process
    of DistributedDataParallel has the record of all samples.

    Arguments: ``module`` the name of the network that ``training_step`` calls, such as "net" for
    ``self.net(x)``; None is the LightningModule itself where it has a ``forward``, else its only child with
    parameters. ``loss_fn`` the loss that ``training_step`` calls; None takes what it returns, as the mean
    over the samples (or ``reduction="sum"``). ``log`` sends the numbers of each record to the trainer's
    loggers, as "noise/…". ``options`` go to GradientNoiseRecorder: schedule, coordinates, sketch, gram, ….
    Raises InputError where ``training_step`` does not call the network, and what GradientNoiseRecorder
    raises.

    >>> callback = GradientNoiseCallback(schedule=lambda step: step % 100 == 0)
    >>> # trainer = Trainer(callbacks=[callback]); trainer.fit(model, loader); callback.result()
    """

    def __init__(
        self,
        loss_fn: Any = None,
        *,
        module: str | None = None,
        reduction: str = "mean",
        log: bool = True,
        **options: Any,
    ):
        super().__init__()
        if reduction not in ("mean", "sum"):
            raise unknown_name("reduction", reduction, ("mean", "sum"))
        self.loss_fn, self.module, self.reduction, self.log = loss_fn, module, reduction, log
        self.options = options
        self.recorder: GradientNoiseRecorder | None = None
        """The recorder of the present or the last fit."""

    def result(self) -> GradientRecord:
        """Return what was recorded."""
        if self.recorder is None:
            raise InputError("Nothing was recorded: call trainer.fit with this callback first.")
        return self.recorder.result()

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if len(trainer.optimizers) != 1:
            raise InputError(
                f"The LightningModule has {len(trainer.optimizers)} optimizers, and gradient noise is "
                "recorded for one: use GradientNoiseRecorder around a loop of your own."
            )
        ranks = Ranks.of(trainer.strategy.model)
        network = self._network(pl_module)
        if ranks is not None and network is pl_module:
            raise InputError(
                "With several processes Lightning runs training_step inside the module's own call, where its "
                "forward cannot be told apart: name the network that training_step calls, module='net'."
            )
        options = {"micro_batches": trainer.accumulate_grad_batches, "ranks": ranks, **self.options}
        own = options.pop("on_record", None)

        def on_record(numbers: dict[str, float]) -> None:
            if own is not None:
                own(numbers)
            if self.log:
                named = {f"noise/{name}": value for name, value in numbers.items() if name != "step"}
                for logger in trainer.loggers:
                    logger.log_metrics(named, step=trainer.global_step)

        self.recorder = GradientNoiseRecorder(
            network, self.loss_fn, trainer.optimizers[0], on_record=on_record, **options
        )
        self.recorder.attach()

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Tensor) -> None:
        if self.recorder is None or self.loss_fn is not None:
            return
        scaler = _scaler_of(trainer)
        factor = 1.0 if scaler is None else float(scaler.get_scale())
        if pl_module.automatic_optimization:
            factor /= trainer.accumulate_grad_batches
        self.recorder.observe(loss, factor=factor, reduction=self.reduction)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        # Lightning computes the loss in the closure of optimizer.step, and this is its end.
        if self.recorder is None:
            return
        if self.recorder.blind:
            raise InputError(
                f"training_step did not call {self.module or 'the module itself'!r}, so no sample was seen: "
                "name the network that it calls, such as GradientNoiseCallback(module='net') for self.net(x)."
            )
        if _scaler_of(trainer) is not None and not _finite(optimizer):
            self.recorder.discard()  # the scaler will skip this step
        else:
            self.recorder.end_step()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        if self.recorder is not None:
            self.recorder.detach()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        if self.recorder is not None:
            self.recorder.detach()

    def _network(self, pl_module: Any) -> nn.Module:
        children = {
            name: child
            for name, child in pl_module.named_children()
            if next(child.parameters(), None) is not None
        }
        if self.module is not None:
            modules = dict(pl_module.named_modules())
            if self.module not in modules:
                raise unknown_name("module", self.module, list(children))
            return modules[self.module]
        own_forward = type(pl_module).forward.__qualname__ != "LightningModule.forward"
        if not own_forward and len(children) == 1:
            return next(iter(children.values()))
        return pl_module


def _scaler_of(trainer: Any) -> Any:
    return getattr(trainer.precision_plugin, "scaler", None)


def _finite(optimizer: Any) -> bool:
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    return all(bool(g.isfinite().all()) for g in gradients)
