"""The Lightning callback records what the plain loop would, and changes nothing in the training."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from noisekit.errors import InputError
from noisekit.gradients import every
from noisekit.gradients.lightning import GradientNoiseCallback

Reference = Callable[..., dict[str, Tensor]]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning"),
]
N, BATCH = 24, 4


class Classifier(pl.LightningModule):
    """The usual LightningModule: a network, and a training_step that returns the loss."""

    def __init__(self, call: str = "forward"):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))
        self.call = call

    def training_step(self, batch: Any, index: int) -> Tensor:
        x, y = batch
        out = self(x) if self.call == "forward" else self.net(x)
        return F.cross_entropy(out, y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.05)


class WithForward(Classifier):
    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Averaged(WithForward):
    """A dictionary from training_step, and a loss that the callback is told of."""

    def training_step(self, batch: Any, index: int) -> Any:
        x, y = batch
        return {"loss": loss_of(self(x), y)}


class Overflowing(WithForward):
    """The gradients of the first batch are infinite, so the scaler skips its step."""

    def training_step(self, batch: Any, index: int) -> Tensor:
        return super().training_step(batch, index) * (torch.inf if index == 0 else 1)


def loss_of(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets)


def data() -> TensorDataset:
    torch.manual_seed(3)
    return TensorDataset(torch.randn(N, 3), torch.randint(0, 2, (N,)))


def fit(
    module: pl.LightningModule, folder: Path, callback: GradientNoiseCallback | None, **options: Any
) -> Any:
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        callbacks=[] if callback is None else [callback],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **{"logger": False, **options},
    )
    trainer.fit(module, DataLoader(data(), batch_size=BATCH))
    return trainer


def per_sample_rows(reference: Reference, network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    gradients = reference(network, F.cross_entropy, x, y)
    return torch.cat([g.flatten(1) for g in gradients.values()], 1)


def seeded(kind: type[Classifier], **options: Any) -> Classifier:
    torch.manual_seed(0)
    return kind(**options)


@pytest.mark.parametrize(
    ("kind", "call", "options"),
    [
        (WithForward, "forward", {}),
        (Classifier, "net", {}),
        (WithForward, "net", {"module": "net"}),
        (Averaged, "forward", {"loss_fn": loss_of}),
    ],
)
def test_every_step_is_the_plain_loop(
    tmp_path: Path, reference: Reference, kind: type[Classifier], call: str, options: dict[str, Any]
) -> None:
    callback = GradientNoiseCallback(schedule=every(2), sketch=4, **options)
    recorded, plain = seeded(kind, call=call), seeded(kind, call=call)
    fit(recorded, tmp_path, callback)
    fit(copy.deepcopy(plain), tmp_path, None)
    record = callback.result()
    assert record.step.tolist() == [0, 2, 4]
    assert record.batch_size == BATCH
    optimizer = torch.optim.Adam(plain.parameters(), lr=0.05)
    for step, (x, y) in enumerate(DataLoader(data(), batch_size=BATCH)):
        if step % 2 == 0:
            rows = per_sample_rows(reference, plain.net, x, y)
            assert torch.allclose(record.squared_norm[step // 2], rows.square().sum(1), rtol=1e-4)
            assert torch.allclose(record.gram[step // 2], rows @ rows.T, rtol=1e-4, atol=1e-6)
        optimizer.zero_grad()
        loss = F.cross_entropy(plain.net(x), y)
        if step % 2 == 0:
            assert float(record.loss[step // 2]) == pytest.approx(float(loss.detach()), rel=1e-5)
        loss.backward()
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(recorded.parameters(), plain.parameters(), strict=True))
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in recorded.modules())


def test_accumulated_batches_are_one(tmp_path: Path, reference: Reference) -> None:
    callback = GradientNoiseCallback(schedule=every(1))
    module = seeded(WithForward)
    network = copy.deepcopy(module.net)
    fit(module, tmp_path, callback, accumulate_grad_batches=3)
    record = callback.result()
    assert record.step.tolist() == [0, 1]
    assert record.batch_size == 3 * BATCH
    x, y = data()[: 3 * BATCH]
    rows = per_sample_rows(reference, network, x, y)
    assert torch.allclose(record.squared_norm[0], rows.square().sum(1), rtol=1e-4)
    assert torch.allclose(record.gram[0], rows @ rows.T, rtol=1e-4, atol=1e-6)
    assert float(record.trace[0].sum()) == pytest.approx(float(rows.var(0).sum()), rel=1e-4)


def test_half_precision(tmp_path: Path, reference: Reference) -> None:
    callback = GradientNoiseCallback(schedule=every(1))
    module = seeded(WithForward)
    network = copy.deepcopy(module.net)
    fit(module, tmp_path, callback, precision="bf16-mixed")
    x, y = data()[:BATCH]
    rows = per_sample_rows(reference, network, x, y)
    assert torch.allclose(callback.result().squared_norm[0], rows.square().sum(1), rtol=0.05)


def test_a_scaled_loss_is_unscaled(tmp_path: Path, reference: Reference) -> None:
    from pytorch_lightning.plugins.precision import MixedPrecision

    class Scaled(MixedPrecision):
        def forward_context(self) -> Any:  # float16 is slow on a CPU: the scaling alone is of interest
            return torch.autocast("cpu", enabled=False)

    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    module = seeded(Overflowing)
    network = copy.deepcopy(module.net)
    callback = GradientNoiseCallback(schedule=every(1))
    fit(module, tmp_path, callback, plugins=[Scaled("16-mixed", "cpu", scaler)])
    record = callback.result()
    assert len(record.step) == N // BATCH - 1
    x, y = data()[BATCH : 2 * BATCH]
    rows = per_sample_rows(reference, network, x, y)
    assert torch.allclose(record.squared_norm[0], rows.square().sum(1), rtol=1e-4)


def test_numbers_go_to_the_loggers(tmp_path: Path) -> None:
    from pytorch_lightning.loggers import CSVLogger

    seen: list[dict[str, float]] = []
    logger = CSVLogger(tmp_path)
    callback = GradientNoiseCallback(schedule=every(2), on_record=seen.append)
    fit(seeded(WithForward), tmp_path, callback, logger=logger, log_every_n_steps=1)
    rows = (Path(logger.log_dir) / "metrics.csv").read_text().splitlines()
    assert "noise/noise_trace" in rows[0].split(",")
    assert len(rows) == 1 + 3
    assert [row["step"] for row in seen] == [0, 2, 4]


class TwoOptimizers(WithForward):
    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD([p], lr=0.1) for p in self.parameters()]

    @property
    def automatic_optimization(self) -> bool:
        return False


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (WithForward(call="net"), {}, "training_step did not call"),
        (WithForward(), {"module": "network"}, "Did you mean 'net'"),
        (TwoOptimizers(), {}, "4 optimizers"),
    ],
)
def test_what_cannot_be_recorded_is_refused(
    tmp_path: Path, module: pl.LightningModule, options: dict[str, Any], message: str
) -> None:
    callback = GradientNoiseCallback(**options)
    with pytest.raises(InputError, match=message):
        fit(module, tmp_path, callback)
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in module.modules())


def test_bad_reduction_and_no_fit() -> None:
    with pytest.raises(InputError, match="Did you mean 'mean'"):
        GradientNoiseCallback(reduction="meen")
    with pytest.raises(InputError, match=r"call trainer\.fit"):
        GradientNoiseCallback().result()


def test_without_lightning_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("lightning", "lightning.pytorch", "pytorch_lightning"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "noisekit.gradients.lightning")
    with pytest.raises(InputError, match=r"pip install 'noisekit\[lightning\]'"):
        import noisekit.gradients.lightning  # noqa: F401
