"""The table of a recorded run: its numbers against truth, its verdicts against runs made to deserve them."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from noisekit.errors import InputError
from noisekit.gradients.record import GradientRecord
from noisekit.noise import StudentTNoise, analyze, fit_noise, tail_index
from noisekit.noise.participation import participation_over_steps
from noisekit.noise.window_samples import window_samples
from noisekit.problems.linear_regression import LinearRegression

STEPS, N, D = 40, 32, 60
BLOCKS = {"weight": 40, "bias": 20}


def record_of(g: Tensor, **changes) -> GradientRecord:
    """A record of gradients (step, sample, coordinate) in two blocks, all coordinates recorded."""
    parts = g.split(list(BLOCKS.values()), dim=2)
    record = GradientRecord(
        step=torch.arange(0, 5 * len(g), 5),
        loss=torch.zeros(len(g)),
        learning_rate=torch.ones(len(g)),
        gradient_norm=g.mean(dim=1).norm(dim=1),
        elapsed_time=torch.arange(len(g)).double(),
        block=list(BLOCKS),
        block_size=list(BLOCKS.values()),
        trace=torch.stack([p.var(dim=1).sum(dim=1) for p in parts], dim=1),
        mean_squared_norm=torch.stack([p.mean(dim=1).square().sum(dim=1) for p in parts], dim=1),
        squared_norm=g.square().sum(dim=2),
        gram=g @ g.mT,
        eigenvalue=None,
        coordinate_index=torch.arange(g.shape[2]),
        coordinate_block=[name for name, size in BLOCKS.items() for _ in range(size)],
        coordinate_values=g,
        sketch=None,
        batch_size=g.shape[1],
        coverage=1.0,
        uncovered=[],
    )
    return dataclasses.replace(record, **changes)


def gaussian_run(fall: float = 1.0) -> Tensor:
    """Noise of scale 3 in the weights, 6 in the biases, falling by ``fall`` over the window, about mean 1."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(STEPS, N, D, generator=generator, dtype=torch.float64)
    scale = torch.cat([torch.full((40,), 3.0), torch.full((20,), 6.0)]).double()
    return 1 + z * scale * torch.linspace(0, -math.log(fall), STEPS).double().exp()[:, None, None]


def test_table_of_a_gaussian_run():
    found = analyze(record_of(gaussian_run()))
    frame = found.to_frame()
    assert list(frame.index) == ["weight", "bias", "total"]
    assert frame.loc["weight", "trace"] == pytest.approx(40 * 9, rel=0.05)
    assert frame.loc["bias", "noise_scale_low"] < 36 < frame.loc["bias", "noise_scale_high"]
    assert frame.loc["weight", "signal_to_noise"] == pytest.approx(1 / 9, rel=0.1)
    assert frame.loc["total", "heavy_tailed"] <= 0.05
    assert frame.loc["total", "asymmetric"] <= 0.05
    assert frame.loc["total", "df"] == math.inf
    truth = {"weight": 40.0, "bias": 20.0, "total": (40 * 9 + 20 * 36) ** 2 / (40 * 81 + 20 * 36**2)}
    for name, ratio in truth.items():
        assert frame.loc[name, "participation_ratio"] == pytest.approx(ratio, rel=0.05)
    assert found.total.verdict.startswith("Gaussian as far as these samples show")
    assert "steady" in found.total.verdict
    assert "every number is for one sample" in str(found)
    assert set(frame.dtypes.map(str)) <= {"float64", "int64", "object", "str"}


def test_a_falling_scale_is_called_drift_and_not_heavy_tails():
    record = record_of(gaussian_run(fall=4.0))
    pooled = record.coordinate_values - record.coordinate_values.mean(dim=1, keepdim=True)
    naive = fit_noise(pooled.flatten(0, 1))
    assert naive.is_heavy_tailed.all()
    assert float(naive.df.median()) < 7
    found = analyze(record)
    assert found.total.heavy_tailed <= 0.05
    assert found.total.drift.interval[0] < 1 / 16 < found.total.drift.interval[1]
    assert "pooling looks heavy-tailed" in found.total.verdict


def test_heavy_and_skewed_layers_are_named():
    generator = torch.Generator().manual_seed(0)
    heavy = StudentTNoise(3.0, 3.0).sample(torch.zeros(STEPS * N, 40, dtype=torch.float64), generator)
    skewed = torch.empty(STEPS * N, 20, dtype=torch.float64).exponential_(generator=generator)
    found = analyze(record_of(torch.cat([heavy, skewed], dim=1).reshape(STEPS, N, D)))
    weight, bias, _ = found.rows
    assert weight.heavy_tailed > 0.9
    assert weight.df == pytest.approx(3.0, rel=0.2)
    assert weight.tail_interval[0] < 3 < weight.tail_interval[1]
    assert weight.asymmetric <= 0.1
    assert weight.verdict.startswith("heavy-tailed in")
    assert bias.asymmetric > 0.9
    assert "asymmetric" in bias.verdict


def test_infinite_variance_is_named():
    generator = torch.Generator().manual_seed(0)
    g = StudentTNoise(1.0, 1.0).sample(torch.zeros(STEPS * N, D, dtype=torch.float64), generator)
    assert analyze(record_of(g.reshape(STEPS, N, D))).total.verdict.startswith(
        "as heavy as a law without variance"
    )


def test_window_samples_keep_the_law():
    generator = torch.Generator().manual_seed(0)
    g = StudentTNoise(1.0, 3.0).sample(torch.zeros(STEPS * N, D, dtype=torch.float64), generator)
    record = record_of(5 + g.reshape(STEPS, N, D) * torch.linspace(4, 1, STEPS).double()[:, None, None])
    df = fit_noise(window_samples(record)).df
    assert float(df.median()) == pytest.approx(3.0, rel=0.12)


def test_participation_of_a_block_from_some_of_its_coordinates():
    generator = torch.Generator().manual_seed(0)
    d, some = 400, 60
    scale = torch.linspace(0.5, 1.5, d, dtype=torch.float64)
    common = torch.randn(d, 2, generator=generator, dtype=torch.float64) * 0.2
    z = torch.randn(16, 64, d, generator=generator, dtype=torch.float64)
    w = torch.randn(16, 64, 2, generator=generator, dtype=torch.float64)
    g = 3 + scale * z + w @ common.T
    covariance = torch.diag(scale.square()) + common @ common.T
    truth = float(covariance.trace() ** 2 / covariance.square().sum())
    values = []
    for _ in range(10):
        own = torch.zeros(d, dtype=torch.bool)
        own[torch.randperm(d, generator=generator)[:some]] = True
        values.append(participation_over_steps(None, g, own, d).value)
    assert np.mean(values) == pytest.approx(truth, rel=0.12)
    whole = participation_over_steps(g @ g.mT, None, own, d)
    assert whole.interval[0] < truth < whole.interval[1]


def test_records_with_less_in_them_give_what_they_can():
    g = gaussian_run()
    bare = record_of(g, gram=None, coordinate_values=None, coordinate_block=None, coordinate_index=None)
    found = analyze(bare)
    assert found.fit is None
    assert math.isnan(found.total.heavy_tailed)
    assert found.total.verdict.startswith("law unknown, none of its 60 coordinates recorded")
    one_sample = record_of(g[:1, :10])
    assert analyze(one_sample).total.verdict.startswith("law unknown, no recorded coordinate varies or")
    assert found.total.noise_scale.trace == pytest.approx(40 * 9 + 20 * 36, rel=0.05)
    few = analyze(record_of(g[:2], coverage=0.5, uncovered=["other"]))
    assert any("at least 8" in w for w in few.warnings)
    assert any("other" in w for w in few.warnings)
    dead = analyze(record_of(torch.cat([g[:, :, :40], torch.zeros(STEPS, N, 20).double()], dim=2)))
    assert math.isnan(dead.rows[1].heavy_tailed)
    assert dead.rows[0].heavy_tailed <= 0.05


def test_hessian_is_looked_at_where_a_problem_is_given():
    generator = torch.Generator().manual_seed(0)
    design = torch.randn(50, 6, generator=generator, dtype=torch.float64)
    problem = LinearRegression(design, design[:, 0])
    found = analyze(
        record_of(gaussian_run()), problem=problem, x=torch.ones(6).double(), hessian_directions=2
    )
    assert found.alignment.curvature.shape == (2,)
    assert "sharpest directions" in str(found)


def test_bad_records_are_refused():
    g = gaussian_run()
    with pytest.raises(InputError, match="no step"):
        analyze(record_of(g, step=torch.arange(0)))
    with pytest.raises(InputError, match="give the problem"):
        analyze(record_of(g), x=torch.ones(6))


@pytest.mark.parametrize("falls", [1.0, 4.0])
def test_tails_of_a_window_and_of_its_steps_mean_the_same_index(falls: float) -> None:
    """One step reads further in, where a Student-t is no power law yet: it is wider, and higher."""
    torch.manual_seed(0)
    moving = falls ** -torch.linspace(0, 1, 24)[:, None, None]
    g = torch.distributions.StudentT(3.0).sample((24, 128, 60)) * moving
    window = analyze(record_of(g)).total
    low, high = window.tail_interval
    assert low < 3 < high
    for step in (0, 12, 23):
        one = tail_index(g[step], pooled=True)
        least, most = one.interval.reshape(2).tolist()
        assert least < 3 < most
        assert most - least > high - low
