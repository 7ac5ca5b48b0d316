"""The counter-based generator: its published words, the law of its normals, what they depend on."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch import Tensor

from noisekit.sde.philox import PhiloxNormals, kernels_run, normals_of, philox

# From kat_vectors of Random123 (Salmon et al.): philox4x32 with 10 rounds; counter, key, words.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_published_words(counter: str, key: str, expected: str) -> None:
    low, high = words(key)
    found = philox(tuple(torch.tensor([word]) for word in words(counter)), high << 32 | low)
    assert [int(word) for word in found] == words(expected)


def test_extreme_words_give_finite_normals() -> None:
    ends = torch.tensor([0, 1, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1])
    for dtype in (torch.float32, torch.float64):
        for values in normals_of(ends, ends.flip(0), dtype):
            assert bool(values.isfinite().all())
            assert float(values.abs().max()) < 7


def draw(rows: int = 1000, n: int = 25, substeps: int = 8, origin: int = 0, step: int = 3) -> Tensor:
    return PhiloxNormals(origin, rows, n, substeps, torch.empty(0, dtype=torch.float64)).draw(5, step)


def test_law_and_independence() -> None:
    z = draw()
    assert stats.kstest(z.flatten(), "norm").pvalue > 1e-3
    assert stats.kstest(z.square().sum((0, 2)), stats.chi2(200).cdf).pvalue > 1e-3
    # 1 of 8 numbers of a step, of 25 coordinates, and of the next step: no two are correlated.
    kinds = torch.cat([z, draw(step=4)]).movedim(1, 0).flatten(1)
    correlation = torch.corrcoef(kinds.T).fill_diagonal_(0)
    assert float(correlation.abs().max()) < 5.5 / 1000**0.5


def test_a_number_depends_on_its_name_alone() -> None:
    z = draw()
    assert torch.equal(draw(rows=40, origin=100), z[:, 100:140])
    assert torch.equal(draw(n=3), z[:, :, :3])
    for substeps in (1, 2, 4):
        assert torch.equal(draw(substeps=substeps), z[:substeps])
    assert not torch.equal(draw(step=4), z)
    single = PhiloxNormals(0, 1000, 25, 8, torch.empty(0)).draw(5, 3)
    assert float((single - z).abs().max()) < 2e-5


def test_kernels_that_fail_or_are_wrong_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """One look at each device: a compiler may be missing, or the GPU too old for this Triton."""
    device = torch.device("cpu")  # stands for a GPU

    def right(self: PhiloxNormals, out: torch.Tensor, seed: int, step: int) -> None:
        out.copy_(self.draw_by_torch(seed, step))

    def wrong(self: PhiloxNormals, out: torch.Tensor, seed: int, step: int) -> None:
        out.copy_(self.draw_by_torch(seed, step + 1))

    def failing(self: PhiloxNormals, out: torch.Tensor, seed: int, step: int) -> None:
        raise RuntimeError("failed to find a C compiler")

    for kernel, message in ((right, None), (wrong, "its normals are off by"), (failing, "find a C compiler")):
        monkeypatch.setattr(PhiloxNormals, "draw_by_kernel", kernel)
        kernels_run.cache_clear()
        if message is None:
            assert kernels_run(device)
            continue
        with pytest.warns(UserWarning, match=message):
            assert not kernels_run(device)
        assert not kernels_run(device)  # said once
    kernels_run.cache_clear()
