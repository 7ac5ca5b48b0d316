"""The callbacks under DistributedDataParallel of their own libraries, two processes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from rank_processes import load_script, run_ranks
from torch import Tensor, nn

from noisekit.gradients import GradientRecord

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).with_name("trainers_worker.py")
ORDER = torch.tensor([0, 1, 4, 5, 2, 3, 6, 7])
"""The samples of the first step in rank order: batches of two go to the ranks in turn, two to a step."""


script = load_script(SCRIPT)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, GradientRecord]]:
    """The records of each process."""
    return run_ranks(SCRIPT, script.SIZE, tmp_path_factory.mktemp("trainers"), timeout=180)


def gradient_row(loss: Tensor, model: nn.Module) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])


def assert_same(record: GradientRecord, rows: Tensor) -> None:
    assert record.gram is not None
    assert record.batch_size == len(rows)
    assert torch.allclose(record.squared_norm[0], rows.square().sum(1), rtol=1e-4)
    gram = rows @ rows.T
    assert float((record.gram[0] - gram).abs().max()) < 1e-4 * float(gram.abs().max())
    assert float(record.trace[0].sum()) == pytest.approx(float(rows.var(0).sum()), rel=1e-4)


def test_lightning_on_two_processes(trained: list[dict[str, GradientRecord]]) -> None:
    model, (x, y) = script.network(), script.points()
    rows = torch.stack(
        [gradient_row(F.cross_entropy(model(x[i : i + 1]), y[i : i + 1]), model) for i in ORDER]
    )
    loss = F.cross_entropy(model(x[ORDER]), y[ORDER])
    for own in trained:
        assert_same(own["lightning"], rows)
        assert float(own["lightning"].loss[0]) == pytest.approx(float(loss.detach()), rel=1e-5)


def test_huggingface_on_two_processes(trained: list[dict[str, GradientRecord]]) -> None:
    model, samples = script.language_model(), [script.texts()[i] for i in ORDER]
    # The Trainer divides by all labels, the first ones included, though only those after a token are learned.
    items = sum(int((sample["labels"] != -100).sum()) for sample in samples)
    rows = []
    for sample in samples:
        loss = model(**{name: t.unsqueeze(0) for name, t in sample.items()}).loss
        weight = int((sample["labels"][1:] != -100).sum()) * len(samples) / items
        rows.append(gradient_row(loss * weight, model))
    for own in trained:
        assert_same(own["huggingface"], torch.stack(rows))
