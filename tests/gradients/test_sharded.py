"""Under FSDP2, and under DDP, every process has the statistics that one has of the samples of all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rank_processes import load_script, run_ranks
from torch import Tensor

pytestmark = pytest.mark.slow

Reference = Callable[..., dict[str, Tensor]]
SCRIPT = Path(__file__).with_name("sharded_worker.py")
worker = load_script(SCRIPT)


@pytest.fixture(scope="module", params=[2, 4])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of 2 and of 4 processes recorded."""
    folder = tmp_path_factory.mktemp(f"sharded{request.param}")
    return run_ranks(SCRIPT, request.param, folder, timeout=180)


def flat(gradients: dict[str, Tensor]) -> Tensor:
    return torch.cat([g.flatten(1) for g in gradients.values()], 1)


def whole(batch: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return torch.cat([x for x, _ in batch]), torch.cat([y for _, y in batch])


def assert_near(value: Tensor, expected: Tensor, tolerance: float = 1e-9) -> None:
    assert value.shape == expected.shape
    assert float((value - expected).abs().max()) <= tolerance * float(expected.abs().max())


@pytest.mark.parametrize("name", sorted(worker.TRAINING))
def test_every_rank_records_the_whole_batch(
    found: list[dict[str, Any]], reference: Reference, name: str
) -> None:
    build, _, draw, accumulated = worker.TRAINING[name]
    model = build()
    optimizer = torch.optim.SGD(model.parameters(), lr=worker.RATE)
    passes = worker.batches(draw, len(found), worker.STEPS * accumulated)
    all_rows = []
    for step in range(worker.STEPS):
        # Samples come rank by rank, and on each rank in the order of its passes.
        own = passes[step * accumulated : (step + 1) * accumulated]
        x, y = whole([batch[rank] for rank in range(len(found)) for batch in own])
        rows = flat(reference(model, worker.loss_fn, x, y))
        all_rows.append(rows)
        loss = worker.loss_fn(model(x), y)
        for record, _ in (one[name] for one in found):
            assert float(record.loss[step]) == pytest.approx(float(loss.detach()), rel=1e-6)
            assert_near(record.squared_norm[step], rows.square().sum(1))
            assert_near(record.coordinate_values[step], rows[:, record.coordinate_index])
            assert_near(record.gram[step], rows @ rows.T)
            trace = torch.stack([g.var(0).sum() for g in rows.split(record.block_size, dim=1)])
            assert_near(record.trace[step], trace)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    weights = torch.cat([p.detach().flatten() for p in model.parameters()])
    for record, trained in (one[name] for one in found):
        assert_near(trained, weights)  # and the training itself is what it is without the recorder
        variance = record.moments.variance(pooled=False)
        assert_near(torch.cat([v.flatten() for v in variance.values()]), torch.cat(all_rows).var(0))
        assert torch.equal(record.sketch, found[0][name][0].sketch)


def test_batches_recorded_by_call(found: list[dict[str, Any]], reference: Reference) -> None:
    batch = worker.batches(worker.texts, len(found), 1)[0]
    rows = flat(reference(worker.gpt(), worker.loss_fn, *whole(batch)))
    for record, statistics in (one["by call"] for one in found):
        assert_near(record.gram[0], rows @ rows.T)
        assert_near(statistics.gram, rows @ rows.T)
        assert_near(torch.cat([v.flatten() for v in statistics.variance.values()]), rows.var(0))


def test_gradients_of_own_samples(found: list[dict[str, Any]], reference: Reference) -> None:
    for (x, y), one in zip(worker.batches(worker.texts, len(found), 1)[0], found, strict=True):
        expected = reference(worker.gpt(), worker.loss_fn, x, y)
        for name, gradient in one["own samples"].items():
            assert_near(gradient, expected[name])


def test_statistics_of_half_precision_are_in_float32(
    found: list[dict[str, Any]], reference: Reference
) -> None:
    batch = worker.batches(worker.texts, len(found), 1)[0]
    rows = flat(reference(worker.gpt(), worker.loss_fn, *whole(batch)))
    for record in (one["half precision"] for one in found):
        assert record.squared_norm.dtype == torch.float32
        assert record.moments.mean["token.weight"].dtype == torch.float32
        # Three digits of bf16 in the gradients; none is lost in the sums.
        assert_near(record.squared_norm[0].double(), rows.square().sum(1), 0.05)
        assert_near(record.gram[0].double(), rows @ rows.T, 0.05)


def test_other_shardings_are_refused(found: list[dict[str, Any]]) -> None:
    assert all("sharded over processes in another way" in one["sharded otherwise"] for one in found)
