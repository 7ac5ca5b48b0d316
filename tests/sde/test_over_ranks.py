"""Ensembles shared by processes: every one has the numbers of one process alone, whatever their number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from rank_processes import load_script, run_ranks
from torch import distributed as dist

import noisekit as nk
from noisekit.errors import InputError
from noisekit.sde.blocks import group_blocks, replicate_blocks
from noisekit.sde.share import cut

SCRIPT = Path(__file__).with_name("share_worker.py")
worker = load_script(SCRIPT)


class Stop(Exception):
    """Ends a run half way."""


@pytest.fixture(scope="module")
def alone() -> dict[str, nk.Solution]:
    """What one process finds without any process group."""
    return {name: run(None) for name, run in worker.CASES.items()}


@pytest.fixture(scope="module", params=[2, 4])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of 2 and of 4 processes found."""
    folder = tmp_path_factory.mktemp(f"shared{request.param}")
    half_a_run(folder / "half.pt")
    return run_ranks(SCRIPT, request.param, folder, timeout=120)


def half_a_run(path: Path) -> None:
    """Leave the checkpoint of a single process that was stopped after four of six steps."""
    calls = 0

    def stopping(x: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += len(x)
        if calls > 150 * 3:
            raise Stop
        return worker.square(x)

    with pytest.raises(Stop):
        worker.sde(
            "sgd",
            None,
            replicates=150,
            checkpoint=path,
            checkpoint_every=2,
            keep_state=False,
            observables={"square": stopping},
        )


def assert_same(found: nk.Solution, expected: nk.Solution) -> None:
    for group in ("state", "observables", "statistics"):
        own, theirs = getattr(found, group), getattr(expected, group)
        assert own.keys() == theirs.keys()
        for name, value in theirs.items():
            assert torch.equal(own[name].nan_to_num(), value.nan_to_num()), (group, name)
    assert torch.equal(found.diverged, expected.diverged)
    assert found.settings == expected.settings


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(worker.CASES))
def test_every_rank_has_the_numbers_of_one_process(
    found: list[dict[str, Any]], alone: dict[str, nk.Solution], name: str
) -> None:
    for own in found:
        assert_same(own[name], alone[name])


def test_a_group_of_one(alone: dict[str, nk.Solution]) -> None:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        for name in ("paths of Adam", "statistics of real Adam"):
            assert_same(worker.CASES[name](nk.Ranks()), alone[name])
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
def test_some_paths_diverge_on_the_last_rank_only(alone: dict[str, nk.Solution]) -> None:
    diverged = alone["diverging paths"].diverged
    assert bool((diverged[:100] == -1).all())
    assert bool((diverged[100:] >= 0).all())


@pytest.mark.slow
def test_any_number_of_ranks_resumes_a_checkpoint(found: list[dict[str, Any]]) -> None:
    expected = worker.sde("sgd", None, replicates=150, keep_state=False)
    for own in found:
        assert_same(own["resumed"], expected)


@pytest.mark.slow
def test_different_arguments_are_refused(found: list[dict[str, Any]]) -> None:
    assert all("different arguments (seed)" in own["different seeds"] for own in found)


def test_a_gpu_has_few_large_blocks() -> None:
    blocks = replicate_blocks(65_536, 1000, on_cpu=False)
    assert len(blocks) < 30
    assert max(block.size * 1000 for block in blocks) <= 2**22
    chunks = group_blocks(blocks, 1000, together=True)
    assert [block for chunk in chunks for block in chunk] == blocks
    assert 65_536_000 / 2**25 < len(chunks) <= 3
    few = replicate_blocks(50, 1000, on_cpu=False)
    assert [(b.start, b.size) for b in few] == [(b.start, b.size) for b in blocks[: len(few)]]


def test_consecutive_parts_of_about_equal_size() -> None:
    sizes = [16, 16, 32, 64, 128, 128, 116]
    for parts in range(1, 9):
        slices = cut(sizes, parts)
        assert len(slices) == parts
        assert [k for part in slices for k in range(len(sizes))[part]] == list(range(len(sizes)))
        assert max(sum(sizes[part]) for part in slices) <= sum(sizes) / parts + max(sizes)


def test_what_ranks_may_be() -> None:
    with pytest.raises(InputError, match="There is no process group"):
        nk.Ranks()
    with pytest.raises(InputError, match=r"give nk\.Ranks\(\)"):
        worker.sde("sgd", True, replicates=2)
