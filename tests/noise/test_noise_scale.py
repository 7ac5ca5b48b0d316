"""Noise scale against its definition by loops, and its interval against simulated truth."""

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from noisekit.errors import InputError, NonFiniteError
from noisekit.gradients.record import GradientRecord
from noisekit.noise import gradient_noise_scale, noise_scale_by_block, noise_scale_from_batches
from noisekit.noise.fieller import fieller_interval
from noisekit.noise.gram import gram_matrix, trace_of_square
from noisekit.noise.level_smoother import smooth_level
from noisekit.noise.noise_scale import noise_scale_over_steps
from noisekit.noise.record_noise_scale import record_noise_scale, unbiased_signal


def gradients_with_scale(scale: float, n: int, d: int, seed: int) -> Tensor:
    """Per-sample gradients with |∇f|² = d and Tr Σ₁ = d·scale."""
    generator = torch.Generator().manual_seed(seed)
    return 1 + math.sqrt(scale) * torch.randn(n, d, generator=generator, dtype=torch.float64)


def test_trace_and_signal_are_the_u_statistics():
    g = gradients_with_scale(5.0, 9, 4, 0)
    distance, product, pairs = 0.0, 0.0, 0
    for i in range(9):
        for j in range(9):
            if i != j:
                distance += 0.5 * float((g[i] - g[j]).square().sum())
                product += float(g[i] @ g[j])
                pairs += 1
    found = gradient_noise_scale(g)
    assert found.trace == pytest.approx(distance / pairs)
    assert found.signal == pytest.approx(product / pairs)
    assert found.value == pytest.approx(distance / product)
    assert found.signal_to_noise == pytest.approx(product / distance)
    assert found.trace == pytest.approx(float(torch.cov(g.T).trace()))


def test_every_input_that_says_the_same_gives_the_same():
    g = gradients_with_scale(5.0, 20, 6, 1)
    expected = gradient_noise_scale(g)
    layers = {"a": g[:, :4].reshape(20, 2, 2), "b": g[:, 4:]}
    for same in (g @ g.T, layers, g.float()):
        assert gradient_noise_scale(same).value == pytest.approx(expected.value, rel=1e-5)
        assert gradient_noise_scale(same).interval == pytest.approx(expected.interval, rel=1e-5)
    square = gradients_with_scale(5.0, 20, 20, 2)
    assert gradient_noise_scale(square).value == pytest.approx(gradient_noise_scale(square @ square.T).value)
    blocks = noise_scale_by_block(layers)
    assert blocks["a"].trace + blocks["b"].trace == pytest.approx(expected.trace)
    assert blocks["a"].signal + blocks["b"].signal == pytest.approx(expected.signal)


def test_ratio_is_not_pulled_towards_the_number_of_samples():
    traces, signals, naive = [], [], []
    for seed in range(200):
        g = gradients_with_scale(300.0, 128, 100, seed)
        found = gradient_noise_scale(g)
        traces.append(found.trace)
        signals.append(found.signal)
        naive.append(found.trace / float(g.mean(dim=0).square().sum()))
    assert np.mean(traces) / np.mean(signals) == pytest.approx(300, rel=0.1)
    assert np.mean(naive) == pytest.approx(90, rel=0.1)


@pytest.mark.parametrize(("scale", "n"), [(1.0, 32), (30.0, 64), (300.0, 128), (3000.0, 64)])
def test_interval_covers_the_truth(scale, n):
    runs = 300
    found = [gradient_noise_scale(gradients_with_scale(scale, n, 100, seed)) for seed in range(runs)]
    cover = np.mean([f.interval[0] <= scale <= f.interval[1] for f in found])
    assert 0.91 <= cover <= 0.99
    spread = np.std([f.signal for f in found])
    assert np.mean([f.signal_error for f in found]) == pytest.approx(spread, rel=0.15)
    spread = np.std([f.trace for f in found])
    assert np.mean([f.trace_error for f in found]) == pytest.approx(spread, rel=0.15)


def test_not_identifiable_is_said():
    g = torch.randn(64, 1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = gradient_noise_scale(g)
    assert not found.identifiable
    assert found.interval[1] == math.inf
    assert found.interval[0] > 64
    assert "not identifiable" in str(found)
    clear = gradient_noise_scale(gradients_with_scale(1.0, 64, 100, 0))
    assert clear.identifiable
    assert "95 %" in str(clear)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_units_do_not_matter(scale, dtype):
    g = gradients_with_scale(5.0, 20, 6, 1)
    expected = gradient_noise_scale(g)
    found = gradient_noise_scale((g * scale).to(dtype))
    assert found.value == pytest.approx(expected.value, rel=1e-5)
    assert found.interval == pytest.approx(expected.interval, rel=1e-5)


def test_fieller_interval_solves_its_inequality():
    low, high = fieller_interval(10.0, 4.0, (1.0, 0.2, 0.5), 1.96)
    for ratio in (low, high):
        gap = (10.0 - ratio * 4.0) ** 2
        assert gap == pytest.approx(1.96**2 * (1.0 - 2 * ratio * 0.2 + ratio**2 * 0.5))
    assert low < 2.5 < high
    low, high = fieller_interval(10.0, 1.0, (1.0, 0.0, 1.0), 1.96)
    assert high == math.inf
    assert (10 - low) ** 2 == pytest.approx(1.96**2 * (1 + low**2))
    assert fieller_interval(0.1, 0.1, (1.0, 0.0, 1.0), 1.96) == (0.0, math.inf)


def test_two_batch_sizes():
    assert noise_scale_from_batches(11.0, 2.0, 1, 10).value == pytest.approx(10.0)
    generator = torch.Generator().manual_seed(0)
    cover = 0
    for _ in range(200):
        noise = torch.randn(2, 60, 50, generator=generator, dtype=torch.float64)
        small = (1 + math.sqrt(40 / 4) * noise[0]).square().sum(dim=1)
        big = (1 + math.sqrt(40 / 64) * noise[1]).square().sum(dim=1)
        found = noise_scale_from_batches(small, big, 4, 64)
        cover += found.interval[0] <= 40 <= found.interval[1]
    assert 0.9 <= cover / 200 <= 0.99
    few = noise_scale_from_batches(small[:5], big[:5], 4, 64)
    assert math.isnan(few.interval[0])
    assert "without an interval" in str(few)


def test_trace_of_square_is_unbiased_for_skewed_samples():
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    found = []
    for _ in range(4000):
        z = torch.empty(8, 3, dtype=torch.float64).exponential_(generator=generator)
        g = 5 + scale * z
        found.append(trace_of_square(g @ g.T))
    truth = float(scale.pow(4).sum())
    assert abs(np.mean(found) - truth) < 4 * np.std(found) / math.sqrt(4000)


def simulated_record(scale: float | Tensor, steps: int, n: int = 32, seed: int = 0) -> GradientRecord:
    """Two layers of 40 and 10 coordinates; the second has no signal, that of the first is 1/``scale``."""
    generator = torch.Generator().manual_seed(seed)
    mean = torch.cat([torch.ones(40), torch.zeros(10)]).double()
    signal = torch.as_tensor(scale, dtype=torch.float64).expand(steps).rsqrt()[:, None, None]
    g = mean * signal + torch.randn(steps, n, 50, generator=generator, dtype=torch.float64)
    parts = g.split([40, 10], dim=2)
    return GradientRecord(
        step=torch.arange(steps),
        loss=torch.zeros(steps),
        learning_rate=torch.ones(steps),
        gradient_norm=g.mean(dim=1).norm(dim=1),
        elapsed_time=torch.arange(steps).double(),
        block=["weight", "bias"],
        block_size=[40, 10],
        trace=torch.stack([p.var(dim=1).sum(dim=1) for p in parts], dim=1),
        mean_squared_norm=torch.stack([p.mean(dim=1).square().sum(dim=1) for p in parts], dim=1),
        squared_norm=g.square().sum(dim=2),
        gram=None,
        eigenvalue=None,
        coordinate_index=None,
        coordinate_block=None,
        coordinate_values=None,
        sketch=None,
        batch_size=n,
        coverage=1.0,
        uncovered=[],
    )


def test_record_gives_layers_total_and_windows():
    found = record_noise_scale(simulated_record(20.0, 100))
    assert found.block == ["weight", "bias", "total"]
    assert found.noise_scale.shape == (100, 3)
    assert found.interval.shape == (100, 3, 2)
    weight, bias, total = (found.pooled[name] for name in found.block)
    assert weight.interval[0] <= 20 <= weight.interval[1]
    assert total.interval[0] <= 25 <= total.interval[1]
    assert total.value == pytest.approx(25, rel=0.1)
    assert not bias.identifiable
    assert weight.signal_to_noise == pytest.approx(1 / 20, rel=0.1)
    low, high = found.interval[:, 0].unbind(-1)
    assert ((low <= 20) & (high >= 20)).float().mean() > 0.8
    assert not found.identifiable[:, 1].any()
    torch.testing.assert_close(found.trace[:, 0] + found.trace[:, 1], found.trace[:, 2])
    few = record_noise_scale(simulated_record(20.0, 4))
    assert torch.isnan(few.interval).all()


def coverage_at_steps(scale: Tensor, runs: int, estimate=record_noise_scale) -> Tensor:
    """Return the share of runs whose interval holds the true noise scale of layer 0 at each step."""
    held = []
    for seed in range(runs):
        low, high = estimate(simulated_record(scale, len(scale), seed=seed)).interval[:, 0].unbind(-1)
        held.append((low <= scale) & (scale <= high))
    return torch.stack(held).double().mean(dim=0)


COURSES = {
    "falls": 8 * 100 ** torch.linspace(0, 1, 24).double(),
    "jumps": torch.where(torch.arange(24) < 14, 10.0, 100.0).double(),
    "turns": 10 * 10 ** torch.sin(torch.linspace(0, torch.pi, 24).double()),
    "stays": torch.full((24,), 30.0, dtype=torch.float64),
}


@pytest.mark.slow
@pytest.mark.parametrize("course", COURSES)
def test_intervals_hold_a_noise_scale_that_moves(course):
    cover = coverage_at_steps(COURSES[course], 25)
    assert cover.mean() >= 0.88
    assert cover[[0, -1]].min() >= 0.75  # also at both ends, where neighbours are on one side only
    assert cover.min() >= 0.6


@dataclass
class WindowAverage:
    interval: Tensor


def average_over_windows(record: GradientRecord) -> WindowAverage:
    """What one would write first: a ratio of averages over 16 neighbours, clamped at the ends."""
    trace, signal = unbiased_signal(record)
    n = len(record.step)
    starts = [min(max(k - 8, 0), n - 16) for k in range(n)]
    rows = [noise_scale_over_steps(trace[s : s + 16, 0], signal[s : s + 16, 0]).interval for s in starts]
    return WindowAverage(torch.tensor(rows, dtype=torch.float64)[:, None])


def test_an_average_over_a_window_misses_a_noise_scale_that_moves():
    """What the tests above would say of it."""
    cover = coverage_at_steps(COURSES["falls"], 25, average_over_windows)
    assert cover.mean() < 0.5
    assert cover[[0, -1]].max() < 0.1
    assert coverage_at_steps(COURSES["stays"], 25, average_over_windows).mean() > 0.85


def test_value_follows_a_gradient_that_shrinks():
    scale = COURSES["falls"]
    found = record_noise_scale(simulated_record(scale, 24, n=512))
    gap = (found.noise_scale[:, 0] / scale).log().abs()
    assert gap.median() < 0.1
    assert gap.max() < 0.7
    assert found.at_end["weight"].interval[1] > 400
    assert found.pooled["weight"].value < 100
    assert found.at_end["weight"].value == float(found.noise_scale[-1, 0])


def test_records_of_one_point_are_pooled():
    record = dataclasses.replace(simulated_record(20.0, 20), step=torch.full((20,), 7))
    found = record_noise_scale(record)
    assert (found.noise_scale[:, 0] == torch.tensor(found.pooled["weight"].value)).all()
    assert found.at_end["weight"].interval == found.pooled["weight"].interval


def test_layers_without_gradient_have_no_noise_scale():
    record = simulated_record(20.0, 12)
    for values in (record.trace, record.mean_squared_norm):
        values[:, 1] = 0
    found = record_noise_scale(record)
    assert torch.isnan(found.noise_scale[:, 1]).all()
    assert not found.identifiable[:, 1].any()
    alone = record_noise_scale(dataclasses.replace(record, trace=torch.zeros_like(record.trace)))
    assert (alone.noise_scale[:, 0] == 0).all()  # every sample the same: no noise
    assert alone.at_end["weight"].identifiable


def test_levels_have_the_errors_of_records_and_of_their_neighbours():
    """Records of small, known error: the level moves between them, and each tells its own."""
    generator = torch.Generator().manual_seed(0)
    n, noise = 30, 0.05
    log_x = math.log(5.0) + 0.2 * torch.randn(n, generator=generator, dtype=torch.float64).cumsum(0)
    y = log_x.exp() * (1 + noise * torch.randn(n, generator=generator, dtype=torch.float64))
    found = smooth_level(y[:, None], lambda x: (noise * x)[None] ** 2, least=0.05, most=500.0)
    inside = (found.lower[:, 0] <= log_x) & (log_x <= found.upper[:, 0])
    assert inside.double().mean() > 0.85
    # A level that moves four errors a step is told by each record alone.
    gap = (found.median[:, 0] - y.log()).abs()
    assert gap.max() < 3 * noise
    width = (found.upper - found.lower)[1:-1, 0].median() / (2 * 1.96)
    precision = 1 / noise**2 + 2 / 0.2**2
    assert float(width) == pytest.approx(precision**-0.5, rel=0.25)
    assert found.is_seen.all()


@pytest.mark.parametrize(
    ("bad", "error", "sentence"),
    [
        (torch.zeros(7, 3), InputError, "at least 8"),
        (torch.zeros(9, 3, dtype=torch.int64), InputError, "floating-point"),
        (torch.full((9, 3), math.nan), NonFiniteError, "NaN"),
        (torch.zeros(9, 3, 3), InputError, "sample, coordinate"),
        ({}, InputError, "empty"),
        ({"a": torch.zeros(9, 3), "b": torch.zeros(10, 3)}, InputError, "different numbers"),
    ],
)
def test_bad_gradients_are_refused(bad, error, sentence):
    with pytest.raises(error, match=sentence):
        gradient_noise_scale(bad)


def test_half_of_the_progress_at_the_critical_batch_size():
    found = gradient_noise_scale(gradients_with_scale(30.0, 64, 100, 0))
    assert found.progress_per_step(found.critical_batch_size) == 0.5
    assert found.progress_per_step(1e9) == pytest.approx(1.0)


def test_other_bad_input_is_refused():
    with pytest.raises(InputError, match="symmetric"):
        gram_matrix(torch.randn(9, 4), gram=True)
    with pytest.raises(InputError, match="must be the smaller"):
        noise_scale_from_batches(1.0, 1.0, 8, 4)
    with pytest.raises(InputError, match="pairs"):
        noise_scale_from_batches(torch.ones(3), torch.ones(2), 1, 4)
    with pytest.raises(NonFiniteError, match="drop those steps"):
        noise_scale_from_batches(math.nan, 1.0, 1, 4)
    with pytest.raises(InputError, match="no squared norms"):
        noise_scale_from_batches(torch.ones(0), torch.ones(0), 1, 4)
    with pytest.raises(InputError, match="must be positive"):
        gradient_noise_scale(gradients_with_scale(1.0, 20, 5, 0)).progress_per_step(0)


def test_constant_samples_have_no_noise():
    found = gradient_noise_scale(torch.ones(16, 4))
    assert (found.value, found.interval, found.identifiable) == (0.0, (0.0, 0.0), True)
    nothing = gradient_noise_scale(torch.zeros(16, 4))
    assert math.isnan(nothing.value)
    assert str(nothing) == "no noise scale: every gradient is 0"
    assert noise_scale_from_batches(1.0, 2.0, 1, 3).value == 0.0  # Tr Σ₁ comes out negative
    layers = {"bias": torch.randn(16)}
    assert gradient_noise_scale(layers).trace == pytest.approx(float(layers["bias"].double().var()))
    assert not nothing.identifiable
