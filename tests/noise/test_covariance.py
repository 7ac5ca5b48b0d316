"""Covariances against scikit-learn, numpy and simulated truth."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.covariance import ledoit_wolf, oas
from torch import Tensor

from noisekit.errors import InputError, NonFiniteError
from noisekit.noise import block_covariances, correlation_spectrum, noise_covariance, participation_ratio
from noisekit.noise.spiked import spikes


def correlated(n: int, d: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n, d, generator=generator, dtype=torch.float64)
    return 3 + z * torch.linspace(0.5, 3, d, dtype=torch.float64) + 0.7 * z[:, :1]


@pytest.mark.parametrize("shape", [(20, 50), (100, 10), (8, 200), (50, 1)])
@pytest.mark.parametrize(("name", "reference"), [("ledoit_wolf", ledoit_wolf), ("oas", oas)])
def test_shrinkage_equals_scikit_learn(shape, name, reference):
    samples = correlated(*shape)
    matrix, weight = reference(samples.numpy())
    found = noise_covariance(samples, kind="dense", shrinkage=name)
    assert found.shrinkage == pytest.approx(weight, abs=1e-9)
    np.testing.assert_allclose(found.dense().numpy(), matrix, atol=1e-9)


def test_dense_and_diagonal_equal_numpy():
    samples = correlated(30, 6)
    expected = np.cov(samples.numpy().T)
    np.testing.assert_allclose(noise_covariance(samples, kind="dense").dense(), expected, atol=1e-12)
    np.testing.assert_allclose(noise_covariance(samples).variance, np.diag(expected), atol=1e-12)
    np.testing.assert_allclose(noise_covariance(samples).dense(), np.diag(np.diag(expected)), atol=1e-12)
    assert noise_covariance(samples).trace == pytest.approx(np.trace(expected))


def spiked_samples(n: int, d: int, strengths: list[float], bulk: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Samples with Σ = diag(bulk) + Σ_k strength_k q_k q_kᵀ, and the orthonormal q."""
    generator = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(d, len(strengths), generator=generator, dtype=torch.float64))[0]
    z = torch.randn(n, d, generator=generator, dtype=torch.float64) * bulk.sqrt()
    w = torch.randn(n, len(strengths), generator=generator, dtype=torch.float64)
    return z + (w * torch.tensor(strengths, dtype=torch.float64).sqrt()) @ q.T, q


@pytest.mark.parametrize("uneven", [False, True])
def test_eigenvalues_are_debiased(uneven):
    n, d, strengths = 150, 750, [40.0, 20.0, 10.0]
    bulk = torch.ones(d, dtype=torch.float64)
    if uneven:
        bulk = torch.linspace(0.1, 1.9, d, dtype=torch.float64)
    counts, seen, debiased, cosines, true_cosines = [], [], [], [], []
    for seed in range(6):
        samples, q = spiked_samples(n, d, strengths, bulk, seed)
        found = noise_covariance(samples, kind="low_rank")
        counts.append(len(found.eigenvalue))
        found = noise_covariance(samples, kind="low_rank", rank=3)
        seen.append(found.observed_eigenvalue)
        debiased.append(found.eigenvalue)
        part = spikes(samples - samples.mean(dim=0), 3)
        cosines.append(part.cosine)
        direction = part.factor / part.factor.norm(dim=0)
        true_cosines.append((direction * q).sum(dim=0).square())
    assert np.mean(np.equal(counts, 3)) >= 0.8
    truth = torch.tensor(strengths, dtype=torch.float64) + 1
    bias = torch.stack(debiased).mean(dim=0) / truth - 1
    assert bias.abs().max() < 0.12
    assert (torch.stack(seen).mean(dim=0) / truth - 1)[-1] > 0.3
    torch.testing.assert_close(
        torch.stack(cosines).mean(dim=0), torch.stack(true_cosines).mean(dim=0), atol=0.03, rtol=0
    )


def test_low_rank_covariance_is_closer_than_the_sample_covariance():
    n, d = 200, 300
    bulk = torch.linspace(0.1, 1.9, d, dtype=torch.float64)
    samples, q = spiked_samples(n, d, [40.0, 20.0], bulk, 0)
    truth = torch.diag(bulk) + q @ torch.diag(torch.tensor([40.0, 20.0], dtype=torch.float64)) @ q.T
    low = noise_covariance(samples, kind="low_rank")
    dense = noise_covariance(samples, kind="dense")
    assert (low.dense() - truth).norm() < 0.7 * (dense.dense() - truth).norm()
    torch.testing.assert_close(low.dense().diagonal(), dense.variance)


def test_independent_coordinates_show_no_component():
    generator = torch.Generator().manual_seed(0)
    counts = []
    for _ in range(20):
        samples = torch.randn(60, 200, generator=generator, dtype=torch.float64)
        samples = samples * torch.linspace(0.1, 5, 200, dtype=torch.float64)
        counts.append(noise_covariance(samples, kind="low_rank").factor.shape[1])
    assert np.mean(counts) < 0.4
    assert noise_covariance(samples, kind="low_rank", rank=2).factor.shape == (200, 2)
    independent = noise_covariance(samples, kind="low_rank", rank=0).noise()
    assert independent.independent
    expected = stats.norm.logpdf(samples[0], scale=samples.std(dim=0)).sum()
    assert float(independent.log_prob(samples[0])) == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["diagonal", "low_rank", "dense"])
def test_noise_has_the_covariance_at_its_batch_size(kind):
    samples, _ = spiked_samples(50, 5, [40.0], torch.ones(5, dtype=torch.float64), 0)
    found = noise_covariance(samples, kind=kind)
    x = torch.zeros(1, 5, dtype=torch.float64)
    torch.testing.assert_close(found.noise(4).covariance(x)[0], found.dense() / 4)
    assert found.noise(4).batch_size == 4
    assert noise_covariance(samples, kind=kind, batch_size=8).noise(4).batch_size == 4
    torch.testing.assert_close(
        noise_covariance(samples, kind=kind, batch_size=8).noise(4).covariance(x)[0], found.dense() * 2
    )


def test_finite_population_correction_is_that_of_real_batches():
    generator = torch.Generator().manual_seed(0)
    population = torch.randn(12, 2, generator=generator, dtype=torch.float64).exp()
    batches = torch.rand(200_000, 12, generator=generator).topk(5, dim=1).indices
    truth = torch.cov(population[batches].mean(dim=1).T)
    found = noise_covariance(population, kind="dense").noise(5, population_size=12)
    x = torch.zeros(1, 2, dtype=torch.float64)
    torch.testing.assert_close(found.covariance(x)[0], truth, rtol=0.02, atol=0.001)


def test_blocks_are_the_covariances_of_their_columns():
    samples = correlated(30, 6)
    found = block_covariances(samples, ["a", "b", "a", "b", "b", "a"], kind="dense")
    assert list(found) == ["a", "b"]
    np.testing.assert_allclose(found["b"].dense(), np.cov(samples[:, [1, 3, 4]].numpy().T), atol=1e-12)


def test_participation_ratio_counts_directions_beyond_the_sample_size():
    generator = torch.Generator().manual_seed(0)
    scale = torch.linspace(0.5, 1.5, 400, dtype=torch.float64)
    truth = float(scale.square().sum() ** 2 / scale.pow(4).sum())
    values, cover = [], 0
    for _ in range(40):
        found = participation_ratio(
            2 + scale * torch.randn(64, 400, generator=generator, dtype=torch.float64)
        )
        values.append(found.value)
        cover += found.interval[0] <= truth <= found.interval[1]
    assert np.median(values) == pytest.approx(truth, rel=0.05)
    assert cover / 40 >= 0.88
    one = torch.randn(64, 1, generator=generator, dtype=torch.float64) * torch.ones(1, 50)
    assert participation_ratio(one).value == pytest.approx(1.0, rel=0.1)
    assert math.isnan(participation_ratio(torch.zeros(10, 3)).value)
    assert math.isnan(participation_ratio(torch.randn(8, 3, generator=generator)).interval[0])


def test_correlation_spectrum_tells_correlated_from_uneven():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(200, 50, generator=generator, dtype=torch.float64)
    uneven = correlation_spectrum(z * torch.logspace(-3, 3, 50, dtype=torch.float64))
    assert uneven.n_above == 0
    assert abs(uneven.mean_squared_correlation) < 1e-3
    torch.testing.assert_close(uneven.eigenvalue.sum(), torch.tensor(50.0, dtype=torch.float64))
    common = torch.randn(200, 1, generator=generator, dtype=torch.float64)
    constant = torch.full((200, 1), 0.1, dtype=torch.float64)
    mixed = correlation_spectrum(torch.cat([z + common, constant], dim=1))
    assert mixed.n_above == 1
    assert mixed.n_constant == 1
    assert mixed.mean_squared_correlation == pytest.approx(0.25, abs=0.05)
    expected = np.linalg.eigvalsh(np.corrcoef((z + common).numpy().T))[::-1]
    np.testing.assert_allclose(mixed.eigenvalue, expected, atol=1e-9)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_extreme_scales(scale):
    samples = (correlated(30, 6) * scale).float()
    for options in ({}, {"kind": "dense", "shrinkage": "oas"}, {"kind": "low_rank"}):
        found = noise_covariance(samples, **options)
        expected = noise_covariance(samples.double() / scale, **options)
        torch.testing.assert_close(found.dense() / scale**2, expected.dense(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda x: noise_covariance(x, kind="lowrank"), InputError, "Did you mean 'low_rank'"),
        (lambda x: noise_covariance(x, kind="dense", shrinkage="oasis"), InputError, "oas"),
        (lambda x: noise_covariance(x, shrinkage="oas"), InputError, "kind='dense'"),
        (lambda x: noise_covariance(x, rank=1), InputError, "kind='low_rank'"),
        (lambda x: noise_covariance(x, kind="low_rank", rank=99), InputError, "allow 0 to"),
        (lambda x: noise_covariance(x, kind="low_rank", rank=1.5), InputError, "whole number"),
        (lambda x: noise_covariance(x[:5]), InputError, "at least 8"),
        (lambda x: noise_covariance(x.long()), InputError, "floating-point"),
        (lambda x: noise_covariance(x * math.nan), NonFiniteError, "NaN"),
        (lambda x: noise_covariance(x, kind="dense").noise(20, population_size=10), InputError, "exceeds"),
        (lambda x: noise_covariance(x, batch_size=4).noise(8, population_size=10), InputError, "per-sample"),
        (lambda x: noise_covariance(torch.zeros(8, 20_001), kind="dense"), InputError, "GiB"),
        (lambda x: block_covariances(x, ["a"]), InputError, "must agree"),
        (lambda x: correlation_spectrum(x[:, :1]), InputError, "at least 2"),
    ],
)
def test_bad_input_is_refused(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call(correlated(20, 6))
