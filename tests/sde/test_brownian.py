"""Keyed random numbers: what names them, and that they are normal and independent."""

import math

import pytest
import torch

from noisekit import GaussianNoise
from noisekit.sde.blocks import group_blocks, replicate_blocks
from noisekit.sde.brownian import Draws, bridge_matrix
from noisekit.sde.precision import full_precision
from noisekit.sde.streams import stream_key


def draws_of(replicates, dimension, *, substeps=1, seed=0, dtype=torch.float64):
    x = torch.zeros(replicates, dimension, dtype=dtype)
    return Draws(seed, replicate_blocks(replicates, dimension), dimension, substeps, x)


@pytest.mark.parametrize("dimension", [1, 10, 1000, 100_000])
def test_block_borders_depend_on_the_dimension_alone(dimension):
    few = replicate_blocks(37, dimension)
    many = replicate_blocks(500, dimension)
    assert [(b.start, b.size) for b in few] == [(b.start, b.size) for b in many[: len(few)]]
    assert sum(b.used for b in few) == 37
    assert [b.start for b in few[1:]] == [b.stop for b in few[:-1]]


def test_chunks_cover_every_block_once():
    blocks = replicate_blocks(300, 1000)
    chunks = group_blocks(blocks, 1000, together=False)
    assert [b for chunk in chunks for b in chunk] == blocks
    assert len(chunks) > 1
    assert group_blocks(blocks, 1000, together=True) == [blocks]


def test_streams_of_one_run_have_different_keys():
    keys = {stream_key(7, step, block) for step in range(300) for block in range(300)}
    assert len(keys) == 300 * 300


def test_keys_differ_between_seeds_purposes_and_parts():
    keys = [
        stream_key(seed, 3, 2, purpose, part)
        for seed in (0, 1, -1, 2**40)
        for purpose in ("brownian", "sample", "minibatch")
        for part in (0, 1)
    ]
    assert len(set(keys)) == len(keys)
    assert all(0 <= key < 2**32 for key in keys)


def test_a_row_draws_the_same_numbers_whatever_runs_beside_it():
    alone = draws_of(3, 50, substeps=4).normals(11)
    crowd = draws_of(120, 50, substeps=4).normals(11)
    assert torch.equal(alone, crowd[:, :3])


def test_bridge_matrix_is_orthonormal_and_starts_with_the_whole_step():
    matrix = bridge_matrix(8)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(8, dtype=torch.float64))
    torch.testing.assert_close(matrix[:, 0], torch.full((8,), 1 / math.sqrt(8), dtype=torch.float64))


def test_finer_increments_sum_to_the_coarser_ones():
    coarse = draws_of(20, 6, substeps=2).normals(5) / math.sqrt(2)
    fine = draws_of(20, 6, substeps=8).normals(5) / math.sqrt(8)
    torch.testing.assert_close(fine.unflatten(0, (2, 4)).sum(1), coarse)


def test_normals_are_standard_and_independent():
    draws = draws_of(200, 10, substeps=4)
    z = torch.stack([draws.normals(step).clone() for step in range(64)])
    n = z.numel()
    assert abs(z.mean()) < 4 / math.sqrt(n)
    assert abs(z.var() - 1) < 4 * math.sqrt(2 / n)
    assert abs((z**4).mean() - 3) < 4 * math.sqrt(96 / n)
    flat = z.permute(2, 0, 1, 3).flatten(1, 2)  # replicate, step × substep, coordinate
    for axis in range(3):
        size = flat.shape[axis]
        lagged = flat.narrow(axis, 1, size - 1) * flat.narrow(axis, 0, size - 1)
        assert abs(lagged.mean()) < 5 / math.sqrt(n)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dimension", [1, 7])
def test_normals_follow_the_normal_law(dtype, dimension):
    import scipy.stats

    z = draws_of(4001, dimension, substeps=2, dtype=dtype).normals(3)
    assert z.dtype == dtype
    assert scipy.stats.kstest(z.flatten().numpy(), "norm").pvalue > 1e-3


def test_seeds_give_independent_paths():
    one = draws_of(200, 10, seed=0).normals(0)
    two = draws_of(200, 10, seed=1).normals(0)
    assert abs((one * two).mean()) < 4 / math.sqrt(one.numel())


def test_samples_of_a_noise_model_are_keyed_too():
    noise = GaussianNoise(scale=2.0)
    few, many = draws_of(5, 30), draws_of(90, 30)
    a = few.sample(noise, torch.zeros(5, 30, dtype=torch.float64), 4)
    b = many.sample(noise, torch.zeros(90, 30, dtype=torch.float64), 4)
    assert torch.equal(a, b[:5])
    assert abs(b.std() - 2) < 0.15


@pytest.mark.parametrize("replacement", [True, False])
def test_minibatches_are_keyed_and_uniform(replacement):
    index = draws_of(400, 3).minibatch(50, 20, 9, replacement=replacement)
    assert torch.equal(draws_of(7, 3).minibatch(50, 20, 9, replacement=replacement), index[:7])
    counts = index.flatten().bincount(minlength=50)
    assert counts.sum() == 8000
    assert (counts - 160).abs().max() < 5 * math.sqrt(160)
    repeated = any(len(row.unique()) < 20 for row in index)
    assert repeated == replacement


def test_increments_are_made_in_full_precision_on_a_gpu() -> None:
    """Whatever a script allows for its own products stays so outside."""
    precision = torch.get_float32_matmul_precision()
    on_gpu = torch.empty(0, device="meta")  # stands for a GPU
    products, inside = torch.backends.cuda.matmul, []
    name = "fp32_precision" if hasattr(products, "fp32_precision") else "allow_tf32"
    try:
        for allowed in ("high", "highest", "medium"):
            torch.set_float32_matmul_precision(allowed)
            with full_precision(torch.empty(0)):
                assert torch.get_float32_matmul_precision() == allowed
            with full_precision(on_gpu):
                inside.append(getattr(products, name))
            assert torch.get_float32_matmul_precision() == allowed
        assert inside == ["ieee" if name == "fp32_precision" else False] * 3
    finally:
        torch.set_float32_matmul_precision(precision)
