"""Records: at frozen weights, merged, with a smaller last batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from recorder_helpers import flat, small
from torch import Tensor, nn

from noisekit.errors import InputError
from noisekit.gradients import (
    GradientNoiseRecorder,
    every,
    merge_records,
)

Case = tuple[nn.Module, Any, Any, Any]
Reference = Callable[..., dict[str, Tensor]]


def test_repeat_at_frozen_weights(reference: Reference) -> None:
    model, x, y = small()
    loss_fn = nn.CrossEntropyLoss()
    rows = flat(reference(model, loss_fn, x, y))
    recorder = GradientNoiseRecorder(model, loss_fn, torch.optim.SGD(model.parameters(), lr=0.1), sketch=0)
    recorder.repeat((x[k : k + 2], y[k : k + 2]) for k in range(0, 8, 2))
    record = recorder.result()
    assert record.batch_size == 2
    means = rows.reshape(4, 2, -1).mean(1)
    assert torch.allclose(record.minibatch_noise(), means - means.mean(0), atol=1e-12)
    assert record.moments is not None
    total = torch.cat([v.flatten() for v in record.moments.variance(pooled=False).values()])
    assert torch.allclose(total, rows.var(0), rtol=1e-9)
    pooled = torch.cat([v.flatten() for v in record.moments.variance().values()])
    assert torch.allclose(pooled, rows.reshape(4, 2, -1).var(1).mean(0), rtol=1e-9)


def test_merging_records_is_exact() -> None:
    model, x, y = small()
    loss_fn = nn.CrossEntropyLoss()
    batches = [(x[k : k + 2], y[k : k + 2]) for k in range(0, 8, 2)]
    records = []
    for part in (batches, batches[:1], batches[1:]):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        recorder = GradientNoiseRecorder(model, loss_fn, optimizer, coordinates=5, sketch=4)
        recorder.repeat(part)
        records.append(recorder.result())
    whole, merged = records[0], merge_records(records[1], records[2])
    assert torch.equal(merged.squared_norm, whole.squared_norm)
    assert whole.moments is not None
    assert merged.moments is not None
    for name, value in whole.moments.squares.items():
        assert torch.allclose(merged.moments.squares[name], value, rtol=1e-12)
        assert torch.allclose(merged.moments.mean[name], whole.moments.mean[name], rtol=1e-12)
    for name in (
        "gram",
        "eigenvalue",
        "coordinate_values",
        "sketch",
        "trace",
        "loss",
        "step",
        "deviation_sum",
    ):
        assert torch.equal(getattr(merged, name), getattr(whole, name)), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 4}, "batch size"),
        ({"gram": False}, r"gram \(only one has it\)"),
        ({"moments": False}, r"moments \(only one has it\)"),
        ({"coordinates": [0, 1]}, "coordinates"),
        ({"seed": 1, "coordinates": [0, 1, 2]}, "coordinates, the seed or size of the sketch"),
        ({"sketch": 5}, "seed or size of the sketch"),
        ({"model": nn.Sequential(nn.Linear(3, 2)).double()}, "block, block size"),
    ],
)
def test_only_like_records_merge(change: dict[str, Any], message: str) -> None:
    own, x, y = small()
    options = {"coordinates": 5, "sketch": 4, "gram": True, "moments": True, "seed": 0, **change}
    model, size = options.pop("model", own), options.pop("size", 8)
    records = []
    for network, count, chosen in (
        (own, 8, {"coordinates": 5, "sketch": 4}),
        (model, size, options),
    ):
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        recorder = GradientNoiseRecorder(network, nn.CrossEntropyLoss(), optimizer, **chosen)
        recorder.repeat([(x[:count], y[:count])])
        records.append(recorder.result())
    with pytest.raises(InputError, match=f"differ in .*{message}"):
        merge_records(*records)


def test_a_smaller_last_batch_is_skipped_and_named() -> None:
    model, x, y = small()
    optimizer, loss_fn = torch.optim.SGD(model.parameters(), lr=0.1), nn.CrossEntropyLoss()
    with GradientNoiseRecorder(model, loss_fn, optimizer, schedule=every(1)) as recorder:
        for part in (slice(0, 3), slice(3, 6), slice(6, 8)):
            loss_fn(model(x[part]), y[part]).backward()
            optimizer.step()
    record = recorder.result()
    assert record.step.tolist() == [0, 1]
    assert record.settings["skipped_steps"] == [2]


def recorded(steps: int, **options: Any) -> GradientNoiseRecorder:
    model, x, y = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = GradientNoiseRecorder(model, nn.CrossEntropyLoss(), optimizer, **options)
    recorder.repeat((x[k : k + 2], y[k : k + 2]) for k in range(0, 2 * steps, 2))
    return recorder


def test_the_last_steps_alone() -> None:
    recorder = recorded(3)
    whole, last = recorder.result(), recorder.result(last=2)
    assert torch.equal(last.squared_norm, whole.squared_norm[-2:])
    assert last.moments is None
    recorder.forget(keep=1)
    left = recorder.result()
    assert torch.equal(left.squared_norm, whole.squared_norm[-1:])
    assert left.moments is not None
    assert left.moments.n_batches == 3
    for wrong in (lambda: recorder.result(last=0), lambda: recorder.forget(keep=0)):
        with pytest.raises(InputError, match="= 0"):
            wrong()


def test_records_print_a_line_and_no_tensors() -> None:
    record = recorded(3, sketch=4, coordinates=5).result()
    text = repr(record)
    assert text == f"GradientRecord: {record}"
    assert "3 recorded steps from 0 to 0" in text
    assert "batches of 2" in text
    assert "all of the parameters, with gram (3, 2, 2), coordinate_values (3, 2, 5), sketch (3, 2, 4)" in text
    assert "tensor(" not in text
    assert "norms alone" in repr(recorded(2, sketch=0, coordinates=0, gram=False, moments=False).result())
