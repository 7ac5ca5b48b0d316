"""Under DistributedDataParallel every process has the statistics of the samples of all."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rank_processes import load_script, run_ranks
from torch import Tensor

from noisekit.gradients import GradientRecord, GradientStatistics

pytestmark = pytest.mark.slow

Reference = Callable[..., dict[str, Tensor]]
SCRIPT = Path(__file__).with_name("ranks_worker.py")


worker = load_script(SCRIPT)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of the processes recorded."""
    return run_ranks(SCRIPT, worker.SIZE, tmp_path_factory.mktemp("ranks"), timeout=120)


def flat_rows(gradients: dict[str, Tensor]) -> Tensor:
    return torch.cat([g.flatten(1) for g in gradients.values()], 1)


def assert_near(value: Tensor, expected: Tensor, what: str) -> None:
    assert value.shape == expected.shape, what
    assert float((value - expected).abs().max()) <= 1e-9 * float(expected.abs().max()), what


def assert_is_record_of(record: GradientRecord, row: int, rows: Tensor) -> None:
    assert record.coordinate_index is not None
    assert record.coordinate_values is not None
    assert record.gram is not None
    assert_near(record.squared_norm[row], rows.square().sum(1), "squared norms")
    assert_near(record.coordinate_values[row], rows[:, record.coordinate_index], "coordinates")
    assert_near(record.gram[row], rows @ rows.T, "Gram matrix")
    squared = torch.stack([g.mean(0).square().sum() for g in rows.split(record.block_size, dim=1)])
    assert_near(record.mean_squared_norm[row], squared, "squared norm of the mean")
    trace = torch.stack([g.var(0).sum() for g in rows.split(record.block_size, dim=1)])
    assert_near(record.trace[row], trace, "trace")


@pytest.mark.parametrize("name", sorted(worker.TRAINING))
def test_every_rank_records_the_whole_batch(
    found: list[dict[str, Any]], reference: Reference, name: str
) -> None:
    build, loss_fn, parts, accumulated = worker.TRAINING[name]
    model = build()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    records = [own[name] for own in found]
    all_rows = []
    for step in range(len(parts[0]) // accumulated):
        own = [part[step * accumulated : (step + 1) * accumulated] for part in parts]
        per_batch = [(x, y) for batches in own for x, y in batches]
        rows = torch.cat([flat_rows(reference(copy.deepcopy(model), loss_fn, x, y)) for x, y in per_batch])
        if loss_fn is worker.sum_loss:
            rows = rows / 2  # the reference multiplies by the number of samples of a batch
        all_rows.append(rows)
        n = len(rows)
        losses = torch.stack([loss_fn(model(x), y).detach() for x, y in per_batch])
        sizes = torch.tensor([len(x) for x, _ in per_batch]).double()
        loss = losses.sum() if loss_fn is worker.sum_loss else (losses * sizes / n).sum()
        for record in records:
            assert record.batch_size == n
            assert float(record.loss[step]) == pytest.approx(float(loss), rel=1e-6)
            assert_is_record_of(record, step, rows)
        optimizer.zero_grad()
        # The training gradient, which the ranks average, moves the weights to the next step.
        for x, y in per_batch:
            (loss_fn(model(x), y) / (worker.SIZE * accumulated)).backward()
        optimizer.step()
    for record in records:
        assert record.moments is not None
        pooled = torch.cat([v.flatten() for v in record.moments.variance(pooled=False).values()])
        assert_near(pooled, torch.cat(all_rows).var(0), "running variance")
        assert torch.equal(record.sketch, records[0].sketch)
        assert torch.equal(record.gram, records[0].gram)


@pytest.mark.parametrize("name", sorted(set(worker.TRAINING) - {"uneven", "ragged", "accumulated text"}))
def test_every_rank_compares_what_the_optimizer_was_given(found: list[dict[str, Any]], name: str) -> None:
    # The others average batches of unequal sizes, which is not the mean over the samples.
    for own in found:
        record: GradientRecord = own[name]
        assert record.applied_scale is not None
        assert record.applied_cosine is not None
        # DistributedDataParallel takes the mean over the ranks, of a sum too.
        scale = record.batch_size / worker.SIZE if name == "sum" else 1.0
        assert record.applied_scale.tolist() == pytest.approx([scale] * len(record.step), rel=1e-9)
        assert record.applied_cosine.tolist() == pytest.approx([1.0] * len(record.step), rel=1e-9)


def test_sketches_are_those_of_one_process(found: list[dict[str, Any]]) -> None:
    build, loss_fn, parts, _ = worker.TRAINING["uneven"]
    whole = [torch.cat([own[0][k] for own in parts]) for k in (0, 1)]
    expected = worker.gradient_statistics(build(), loss_fn, *whole, coordinates=7, sketch=6)
    for own in found:
        assert_near(own["uneven"].sketch[0], expected.sketch, "sketch")


def test_statistics_of_all_samples(found: list[dict[str, Any]], reference: Reference) -> None:
    parts = worker.batches(worker.pictures, [[1], [3]])
    gradients = reference(
        worker.picture(), worker.loss_fn, *(torch.cat([own[0][k] for own in parts]) for k in (0, 1))
    )
    rows = flat_rows(gradients)
    for own in found:
        one: GradientStatistics = own["statistics"]
        assert one.n_samples == 4
        assert one.gram is not None
        assert_near(one.gram, rows @ rows.T, "Gram matrix")
        for name, gradient in gradients.items():
            assert_near(one.mean[name], gradient.mean(0), name)
            assert_near(one.variance[name], gradient.var(0), name)


def test_frozen_weights_on_all_ranks(found: list[dict[str, Any]], reference: Reference) -> None:
    parts = worker.batches(worker.pictures, [[2, 2, 2], [2, 2, 2]])
    for own in found:
        record: GradientRecord = own["repeated"]
        assert record.batch_size == 4
        means = []
        for batch in range(3):
            x, y = (torch.cat([part[batch][k] for part in parts]) for k in (0, 1))
            means.append(flat_rows(reference(worker.picture(), worker.loss_fn, x, y)).mean(0))
        noise = torch.stack(means)[:, record.coordinate_index]
        assert_near(record.minibatch_noise(), noise - noise.mean(0), "minibatch noise")


def test_all_ranks_name_the_bad_sample(found: list[dict[str, Any]]) -> None:
    messages = [own["not a number"] for own in found]
    assert messages[0] == messages[1]
    assert "sample 5 of the batch is NaN" in messages[0]


def test_ranks_that_use_different_layers_are_refused(found: list[dict[str, Any]]) -> None:
    assert all("do not use the same parameters" in own["different layers"] for own in found)
