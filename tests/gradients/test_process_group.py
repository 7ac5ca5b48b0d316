"""What a process group can carry, and by way of which device: NCCL has no path for tensors of the host."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import distributed as dist
from torch import nn
from torch.testing._internal.distributed.fake_pg import FakeStore

from noisekit.errors import InputError
from noisekit.gradients import ranks as ranks_module
from noisekit.gradients.process_group import backends_of, carrier, on_gpu, own_gpu
from noisekit.gradients.ranks import Ranks

NCCL, GLOO, BOTH = {"cuda": "nccl"}, {"cpu": "gloo", "cuda": "gloo"}, {"cpu": "gloo", "cuda": "nccl"}
HOST, FIRST, THIRD = (torch.device(name) for name in ("cpu", "cuda:0", "cuda:2"))


@pytest.fixture
def leave_the_group() -> Iterator[None]:
    """Leave the process group at the end."""
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("backends", "device", "expected"),
    [
        (NCCL, THIRD, THIRD),
        (NCCL, HOST, FIRST),
        (GLOO, THIRD, HOST),
        (GLOO, HOST, HOST),
        (BOTH, THIRD, THIRD),
        (BOTH, HOST, HOST),
        ({"cpu": "gloo"}, THIRD, HOST),
        ({"cpu": "gloo"}, torch.device("mps"), HOST),
        ({"cpu": "mpi", "cuda": "mpi"}, THIRD, THIRD),
    ],
)
def test_tensors_go_where_the_backend_can_send_them_from(
    backends: dict[str, str], device: torch.device, expected: torch.device
) -> None:
    assert carrier(backends, device, own=FIRST) == expected


@pytest.mark.usefixtures("leave_the_group")
@pytest.mark.parametrize(
    ("backend", "expected"),
    [
        ("gloo", GLOO),
        ("fake", {"cpu": "fake", "cuda": "fake"}),
        ("cpu:gloo,cuda:fake", BOTH | {"cuda": "fake"}),
    ],
)
def test_the_backend_of_each_device_is_read_off_the_group(backend: str, expected: dict[str, str]) -> None:
    store = FakeStore() if backend == "fake" else dist.HashStore()
    dist.init_process_group(backend, store=store, rank=0, world_size=1)
    found = backends_of(None)
    # Before torch 2.7 the fake one has no name.
    assert {kind: found[kind] or "fake" for kind in ("cpu", "cuda")} == expected
    assert backends_of(dist.group.WORLD) == found


@pytest.mark.usefixtures("leave_the_group")
def test_a_process_outside_the_group_is_told() -> None:
    dist.init_process_group("fake", store=FakeStore(), rank=1, world_size=2)
    group = dist.new_group([0])
    with pytest.raises(InputError, match="not in the group"):
        Ranks(group)


class Bound:
    bound_device_id = torch.device("cuda:5")


class Free:
    bound_device_id = None


@pytest.mark.parametrize(
    ("group", "seen", "current", "local_rank", "expected"),
    [
        (Bound, THIRD, 1, "3", 5),
        (Free, THIRD, 1, "3", 2),
        (Free, None, 1, "3", 1),
        (Free, None, 0, "3", 3),
        (Free, None, 0, None, 0),
        (Free, None, 0, "9", 1),
    ],
)
def test_the_gpu_of_a_process(
    group: Any,
    seen: torch.device | None,
    current: int,
    local_rank: str | None,
    expected: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "current_device", lambda: current)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if local_rank is not None:
        monkeypatch.setenv("LOCAL_RANK", local_rank)
    assert own_gpu(group, seen) == torch.device("cuda", expected)


def test_objects_travel_by_the_own_gpu_where_there_is_no_path_of_the_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entered: list[torch.device] = []
    monkeypatch.setattr(
        torch.cuda, "device", lambda device: entered.append(device) or on_gpu(GLOO, None, None)
    )
    for backends in (GLOO, BOTH):
        with on_gpu(backends, Free, THIRD):
            assert entered == []
    with on_gpu(NCCL, Free, THIRD):
        assert entered == [THIRD]


@pytest.mark.usefixtures("leave_the_group")
def test_everything_that_ranks_tell_each_other_passes_that_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    asked: list[torch.device] = []

    def note(backends: dict[str, str], device: torch.device, own: torch.device) -> torch.device:
        asked.append(own)
        return device

    monkeypatch.setattr(ranks_module, "backends_of", lambda _: NCCL)
    monkeypatch.setattr(ranks_module, "carrier", note)
    monkeypatch.setattr(
        ranks_module, "on_gpu", lambda *given: asked.append(given[2]) or on_gpu(GLOO, None, None)
    )
    model = nn.Linear(2, 1)
    ranks = Ranks().near(model)
    monkeypatch.setattr(ranks, "_gpu", THIRD)
    assert ranks.near(torch.ones(1))._gpu == THIRD  # a tensor of the host says nothing of the GPU
    rows = torch.arange(6.0).view(3, 2)
    assert torch.equal(ranks.sum([rows])[0], rows)
    assert torch.equal(ranks.concatenate(rows, [3]), rows)
    collected = ranks.collect(rows.bfloat16(), [3], 0)
    assert collected is not None
    assert collected.dtype == torch.bfloat16
    assert torch.equal(ranks.broadcast(rows, 0), rows)
    assert ranks.exchange("x") == ranks.gather("x") == ["x"]
    assert asked == [THIRD] * 6
