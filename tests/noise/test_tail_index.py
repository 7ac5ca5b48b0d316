"""Tail-index estimators on exact power laws, Student-t and stable laws, and the traps."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from noisekit.errors import InputError
from noisekit.noise.tails import hill_plot, tail_index


def symmetric_pareto(alpha: float, n: int, d: int, seed: int = 0) -> torch.Tensor:
    generator = np.random.default_rng(seed)
    return torch.tensor((generator.pareto(alpha, (n, d)) + 1) * generator.choice([-1.0, 1.0], (n, d)))


def coverage(samples: torch.Tensor, alpha: float, estimator: str) -> float:
    interval = tail_index(samples, estimator=estimator).interval  # type: ignore[arg-type]
    return ((interval[:, 0] <= alpha) & (alpha <= interval[:, 1])).double().mean().item()


@pytest.mark.parametrize("estimator", ["gpd", "moment", "hill"])
@pytest.mark.parametrize("alpha", [1.0, 3.0])
def test_pareto_tails_are_recovered(estimator: str, alpha: float) -> None:
    tail = tail_index(symmetric_pareto(alpha, 10_000, 50), estimator=estimator)  # type: ignore[arg-type]
    assert tail.alpha.median().item() == pytest.approx(alpha, rel=0.1)
    assert tail.interval.shape == (50, 2)
    assert (tail.interval[:, 0] < tail.alpha).all()
    assert tail.warnings == ()


@pytest.mark.parametrize("estimator", ["gpd", "moment", "hill"])
@pytest.mark.parametrize("df", [1.0, 2.0, 3.0, 5.0])
def test_intervals_cover_student_tails(estimator: str, df: float) -> None:
    x = torch.tensor(np.random.default_rng(3).standard_t(df, (10_000, 150)))
    assert coverage(x, df, estimator) >= 0.88


@pytest.mark.parametrize("estimator", ["ecf", "block_sum"])
@pytest.mark.parametrize("alpha", [1.2, 1.6])
def test_intervals_cover_stable_laws(estimator: str, alpha: float) -> None:
    x = scipy.stats.levy_stable.rvs(alpha, 0, size=(2000, 200), random_state=np.random.default_rng(1))
    assert coverage(torch.tensor(3 * x + 1), alpha, estimator) >= 0.88


def test_hill_is_the_textbook_mean_of_logs() -> None:
    x = symmetric_pareto(2.0, 101, 1)
    deviation = np.sort(np.abs(x.numpy()[:, 0] - np.median(x.numpy())))[::-1]
    expected = 1 / np.mean(np.log(deviation[:12] / deviation[12]))
    assert tail_index(x, estimator="hill", k=12).alpha.item() == pytest.approx(expected)
    plot = hill_plot(x)
    assert plot.alpha[plot.k.tolist().index(12), 0].item() == pytest.approx(expected)
    assert plot.interval.shape == (len(plot.k), 1, 2)


def test_gpd_agrees_with_maximum_likelihood_on_generalised_pareto_excesses() -> None:
    excess = scipy.stats.genpareto.rvs(0.4, size=4000, random_state=np.random.default_rng(0))
    sign = np.random.default_rng(1).choice([-1.0, 1.0], 4000)
    x = torch.tensor((excess + 1) * sign)[:, None]
    k = 2000
    deviation = np.sort(np.abs(x.numpy()[:, 0] - np.median(x.numpy())))[::-1]
    shape = scipy.stats.genpareto.fit(deviation[:k] - deviation[k], floc=0)[0]
    tail = tail_index(x, k=k)
    assert 1 / tail.alpha.item() == pytest.approx(shape, abs=0.01)


def test_gaussian_noise_is_lighter_than_any_power() -> None:
    x = torch.randn(10_000, 60, generator=torch.Generator().manual_seed(0))
    for estimator in ("gpd", "moment"):
        tail = tail_index(x, estimator=estimator)  # type: ignore[arg-type]
        assert torch.isinf(tail.interval[:, 1]).all()
        assert tail.interval[:, 0].median() > 3
    assert tail_index(x, estimator="ecf").alpha.median() > 1.98


@pytest.mark.parametrize("estimator", ["gpd", "moment", "hill", "ecf", "block_sum"])
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_location_and_scale_do_not_matter(estimator: str, scale: float) -> None:
    x = torch.tensor(np.random.default_rng(0).standard_t(2, (501, 4)), dtype=torch.float32)
    one, other = (tail_index(v, estimator=estimator) for v in (x, x * scale))  # type: ignore[arg-type]
    torch.testing.assert_close(one.alpha, other.alpha, rtol=1e-3, atol=0)
    shifted = tail_index(x.double() + 100, estimator=estimator)  # type: ignore[arg-type]
    torch.testing.assert_close(shifted.alpha, tail_index(x.double(), estimator=estimator).alpha)  # type: ignore[arg-type]


def test_trap_unequal_scales_look_heavy_unless_standardised() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(500, 100, generator=generator) * torch.randn(100, generator=generator).exp()
    raw = tail_index(x, pooled=True, estimator="ecf", standardise=False)
    assert raw.alpha.item() < 1.4
    assert any("unequal scale" in w for w in raw.warnings)
    assert tail_index(x, pooled=True, estimator="ecf").alpha.item() > 1.98
    assert torch.isinf(tail_index(x, pooled=True).interval[0, 1])


def test_trap_coordinates_that_are_small_most_of_the_time_do_not_make_a_pooled_tail() -> None:
    """Every coordinate is a mixture of Gaussians and has all moments; a tenth is small in most samples."""
    generator = torch.Generator().manual_seed(0)
    often, small = torch.ones(100), torch.ones(100)
    often[:10], small[:10] = torch.logspace(-2, -0.5, 10), 0.02
    z = torch.randn(2000, 100, generator=generator)
    x = torch.where(torch.rand(2000, 100, generator=generator) < often, 1.0, small) * z
    low, high = tail_index(x, pooled=True).interval[0].tolist()
    assert low > 3
    assert high == np.inf


@pytest.mark.parametrize(("df", "surely_infinite"), [(1.0, True), (1.5, True), (3.0, False), (5.0, False)])
def test_pooled_index_of_coordinates_whose_scales_span_decades(df: float, surely_infinite: bool) -> None:
    x = np.random.default_rng(0).standard_t(df, (1000, 60)) * np.logspace(-4, 4, 60)
    low, high = tail_index(torch.tensor(x), pooled=True).interval[0].tolist()
    assert low < df < high
    assert (high < 2) == surely_infinite


@pytest.mark.parametrize("estimator", ["gpd", "hill", "ecf", "block_sum"])
def test_trap_dead_coordinates_do_not_change_the_pooled_index(estimator: str) -> None:
    x = torch.tensor(np.random.default_rng(0).standard_t(3, (600, 20)))
    half_dead = torch.cat([x, torch.zeros_like(x)], dim=1)
    tail = tail_index(half_dead, pooled=True, estimator=estimator)  # type: ignore[arg-type]
    alive = tail_index(x, pooled=True, estimator=estimator)  # type: ignore[arg-type]
    assert tail.alpha.item() == alive.alpha.item() > 1
    assert tail.is_set_aside.sum() == 20
    assert any("20 of 40 coordinates" in w for w in tail.warnings)


def test_set_aside_coordinates_are_nan_in_their_place() -> None:
    x = torch.tensor(np.random.default_rng(0).standard_t(3, (500, 3)))
    x[:, 1] = 1.0
    tail = tail_index(x)
    assert torch.isnan(tail.alpha).tolist() == [False, True, False]
    torch.testing.assert_close(tail.alpha[[0, 2]], tail_index(x[:, [0, 2]]).alpha)


def test_parameters_and_iterations_are_two_questions() -> None:
    # light noise everywhere, scales as unequal as a Cauchy law: only the second question sees it
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 20_000, generator=generator) * torch.empty(20_000).cauchy_(generator=generator).abs()
    over_samples = tail_index(x[:, :50])
    over_coordinates = tail_index(x, over="coordinates", standardise=False)
    assert over_samples.alpha.shape == (50,)
    assert over_coordinates.alpha.shape == (200,)
    assert over_coordinates.alpha.median().item() == pytest.approx(1.0, abs=0.15)
    assert over_samples.alpha.median().item() > 4


def test_pooled_interval_allows_for_coordinates_that_move_together() -> None:
    generator = np.random.default_rng(0)
    shared = torch.tensor(generator.standard_t(3, (2000, 1)) * generator.uniform(1, 2, 30))
    alone = torch.tensor(generator.standard_t(3, (2000, 30)))
    width = [
        1 / t.interval[0, 0] - 1 / t.interval[0, 1]
        for t in (tail_index(v, pooled=True) for v in (shared, alone))
    ]
    assert width[0] > 2 * width[1]


@pytest.mark.parametrize(("df", "shared"), [(2.0, True), (3.0, True), (3.0, False)])
def test_pooled_intervals_cover_though_one_radius_moves_all_coordinates(df: float, shared: bool) -> None:
    # the largest entries then come from few samples; the threshold of n·d independent ones covers 71 to 84 %
    covered = []
    for seed in range(60):
        generator = np.random.default_rng(seed)
        radius = np.sqrt(df / generator.chisquare(df, (500, 1 if shared else 20)))
        x = generator.standard_normal((500, 20)) * radius * generator.lognormal(size=20)
        low, high = tail_index(torch.tensor(x), pooled=True, estimator="moment").interval[0].tolist()
        covered.append(low <= df <= high)
    assert np.mean(covered) >= 0.88


def test_few_samples_are_warned_about() -> None:
    assert any("below 10,000" in w for w in tail_index(torch.randn(9999, 1)).warnings)
    assert not tail_index(torch.randn(10_000, 1)).warnings


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"estimator": "hil"}, "Did you mean 'hill'"),
        ({"over": "parameters"}, "coordinates"),
        ({"k": 100}, "from 5 to 99"),
        ({"k": 7.5}, "whole number"),
        ({"k": 7.5, "estimator": "block_sum"}, "block length"),
        ({"k": 90, "estimator": "block_sum"}, "block length"),
    ],
)
def test_bad_arguments_are_refused_with_a_sentence(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        tail_index(torch.randn(100, 2), **arguments)  # type: ignore[arg-type]


def test_all_dead_and_too_few_are_refused() -> None:
    with pytest.raises(InputError, match="no tail"):
        tail_index(torch.zeros(100, 2))
    with pytest.raises(InputError, match="at least 20"):
        tail_index(torch.randn(10, 2))
    with pytest.raises(InputError, match="k is 100"):
        hill_plot(torch.randn(100, 1), k_max=100)
    assert math.isnan(hill_plot(torch.ones(100, 1)).alpha[0, 0].item())
