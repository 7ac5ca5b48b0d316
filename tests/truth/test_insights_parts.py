"""What the insights are made of: estimates with errors, losses, presets."""

import numpy as np
import pytest
import torch

from noisekit.errors import InputError
from noisekit.plots.insights import FIGURES, draw_insight
from noisekit.truth.insights import INSIGHTS
from noisekit.truth.insights.batch_scaling import _passing
from noisekit.truth.insights.estimates import mean_and_error, plus_minus, power_law
from noisekit.truth.insights.floor_from_record import Penalised
from noisekit.truth.insights.heavy_tails import _lost, _median_and_error, _share_error
from noisekit.truth.insights.losses import ShiftedQuadratic, block_losses, random_spd, side_by_side
from noisekit.truth.insights.signsgd_phases import phase_lines


def test_every_insight_has_a_figure():
    assert INSIGHTS.keys() == FIGURES.keys()
    assert len(INSIGHTS) == 7


@pytest.mark.parametrize("name", sorted(INSIGHTS))
def test_an_unknown_preset_is_refused(name):
    with pytest.raises(InputError, match="preset"):
        INSIGHTS[name](preset="fulll")


def test_only_data_of_an_insight_are_drawn():
    with pytest.raises(InputError, match="insight"):
        draw_insight(np.zeros(3))


def test_a_power_law_is_found_with_its_error():
    rng = np.random.default_rng(0)
    x = np.geomspace(0.1, 10, 8)
    slopes, errors = zip(
        *(power_law(x, 3 * x**1.5 * np.exp(0.05 * rng.normal(size=8)), np.full(8, 0.05)) for _ in range(400)),
        strict=True,
    )
    assert np.mean(slopes) == pytest.approx(1.5, abs=0.005)
    exact = 0.05 / np.sqrt(np.var(np.log(x)) * 8)
    assert np.std(slopes) == pytest.approx(exact, rel=0.1)
    assert exact <= np.mean(errors) < 1.3 * exact


def test_a_bent_law_has_a_wider_error_than_its_points():
    x = np.geomspace(0.1, 10, 8)
    error = np.full(8, 0.001)
    assert power_law(x, x + 0.3, error)[1] > 20 * power_law(x, x, error)[1]


def test_mean_and_error_are_those_of_independent_runs():
    values = torch.tensor([1.0, 2.0, 3.0, 6.0])
    mean, error = mean_and_error(values)
    assert mean == 3.0
    assert error == pytest.approx(np.std([1, 2, 3, 6], ddof=1) / 2)


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [(1.98765, 0.0123, "1.988 ± 0.012"), (34.1, 2.0, "34 ± 2"), (0.5, float("nan"), "0.5")],
)
def test_numbers_have_as_many_digits_as_the_error_allows(value, error, text):
    assert plus_minus(value, error) == text


def test_blocks_are_separate_problems():
    hessian = random_spd(3, 0.5, 2.0, seed=1)
    assert torch.linalg.eigvalsh(hessian).numpy() == pytest.approx([0.5, 1.0, 2.0])
    factor = side_by_side(hessian, torch.tensor([1.0, 10.0], dtype=torch.float64))
    x = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    loss = block_losses(x, hessian)
    assert loss[2, 1].item() == pytest.approx((0.5 * x[2, 3:] @ hessian @ x[2, 3:]).item())
    assert (0.5 * (x @ factor * x).sum(1)).numpy() == pytest.approx((loss[:, 0] + 10 * loss[:, 1]).numpy())


def test_matrices_of_different_seeds_do_not_commute():
    a, b = random_spd(4, 0.5, 2.0, seed=0), random_spd(4, 0.25, 4.0, seed=1)
    assert (a @ b - b @ a).norm() > 0.1


def test_gradients_are_those_of_the_losses(penalised):
    quadratic = ShiftedQuadratic(random_spd(3, 0.5, 2.0, seed=0), torch.tensor([1.0, -1.0, 2.0]).double())
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(quadratic.loss(x).sum(), x)
    torch.testing.assert_close(quadratic.gradient(x), expected)
    point = penalised.x0[None].repeat(1, 1)
    direction = torch.randn(point.shape, generator=torch.Generator().manual_seed(0), dtype=point.dtype)
    step = 1e-5 * direction
    slope = (penalised.loss(point + step) - penalised.loss(point - step)) / 2e-5
    torch.testing.assert_close((penalised.gradient(point) * direction).sum(1), slope, rtol=1e-5, atol=1e-7)
    everything = torch.arange(penalised.n_samples)[None]
    torch.testing.assert_close(penalised.minibatch_gradient(point, everything), penalised.gradient(point))


@pytest.fixture
def penalised():
    from noisekit.problems import load_problem

    return Penalised(load_problem("breast-cancer-mlp", n_samples=20, dtype=torch.float64), 0.1)


def test_phase_lines_meet_erf_where_they_should():
    from scipy.special import erf

    assert phase_lines(np.array([1.5])) == pytest.approx(erf(1.5))
    assert phase_lines(np.array([1.0 + 1e-12])) == pytest.approx(erf(1.0))
    assert phase_lines(np.array([1.0])) / erf(1.0) == pytest.approx(1.339, abs=5e-4)
    assert phase_lines(np.array([2.0])) == 1.0


def test_a_lost_run_is_one_that_ends_no_better_than_it_began():
    loss = torch.tensor([[4.0, 2.0, 1.0, 1.0], [4.0, 2.0, 9.0, 1.0], [4.0, 1.0, float("nan"), 1.0]])
    assert _lost(loss).tolist() == [False, True, True]


def test_the_error_of_a_median_is_that_of_its_sampling():
    generator = torch.Generator().manual_seed(0)
    found = [_median_and_error(torch.randn(400, 1, generator=generator)) for _ in range(200)]
    medians, errors = np.array(found).T
    assert np.std(medians) == pytest.approx(np.sqrt(np.pi / 2 / 400), rel=0.15)
    assert errors.mean() == pytest.approx(np.sqrt(np.pi / 2 / 400), rel=0.1)


def test_no_lost_run_still_has_an_error():
    assert 0 < _share_error(0, 100) < 0.02


def test_passing_a_level_is_interpolated_on_the_logarithm():
    time = torch.arange(6, dtype=torch.float64) * 10
    loss = torch.exp(-time / 10).expand(16, -1)
    assert _passing(loss, time, float(np.exp(-2.5)))[0] == pytest.approx(25.0)
    assert np.isnan(_passing(loss, time, 1e-9)[0])
    assert np.isnan(_passing(loss, time, 2.0)[0])
