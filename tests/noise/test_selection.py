"""Gaussian or Student-t: p-values, false discovery rate, power, second opinions."""

import math

import numpy as np
import pytest
import torch

from noisekit.errors import InputError
from noisekit.noise.selection import (
    false_discovery_q_values,
    held_out_log_likelihood,
    is_student_t,
    likelihood_ratio_p_values,
    weakest_visible_df,
)
from noisekit.noise.student_t_fit import fit_student_t


@pytest.mark.parametrize("n", [10, 50, 700, 3000])
def test_p_values_of_gaussian_samples_have_the_stated_size(n: int) -> None:
    draws = 4_000_000 // max(n, 400)
    x = torch.randn(n, draws, generator=torch.Generator().manual_seed(n))
    p = likelihood_ratio_p_values(fit_student_t(x).likelihood_ratio, n)
    for level in (0.01, 0.05):
        share = (p <= level).double().mean().item()
        assert abs(share - level) < 4 * math.sqrt(level * (1 - level) / draws) + 0.05 * level


def test_p_values_fall_with_the_ratio_and_follow_the_asymptotic_law_for_many_samples() -> None:
    ratio = torch.tensor([0.0, 0.5, 2.7055, 5.4119, 40.0, math.nan], dtype=torch.float64)
    p = likelihood_ratio_p_values(ratio, 10**9)
    assert p[0] == 1
    assert p[2].item() == pytest.approx(0.05, rel=1e-2)  # half of P(χ²₁ > 2.7055) = .1
    assert p[3].item() == pytest.approx(0.01, rel=1e-2)
    assert 0 < p[4] < 1e-8
    assert (p[:5].diff() < 0).all()
    assert math.isnan(p[5])


def test_q_values_are_benjamini_hochberg_and_skip_nan() -> None:
    p = torch.tensor([0.01, math.nan, 0.04, 0.03, 0.5], dtype=torch.float64)
    expected = [0.04, 0.16 / 3, 0.16 / 3, 0.5]
    q = false_discovery_q_values(p)
    assert math.isnan(q[1])
    assert q[[0, 2, 3, 4]].tolist() == pytest.approx(expected)


def test_false_discoveries_and_power() -> None:
    # 512 samples of 512 coordinates, one in five a t with 5 degrees of freedom
    false_discovery, power = [], []
    for seed in range(10):
        generator = np.random.default_rng(seed)
        x = generator.standard_normal((512, 512))
        x[:, :102] = generator.standard_t(5, size=(512, 102))
        heavy = is_student_t(fit_student_t(torch.tensor(x, dtype=torch.float32)))[2]
        false_discovery.append(heavy[102:].sum().item() / max(1, heavy.sum().item()))
        power.append(heavy[:102].double().mean().item())
    assert np.mean(false_discovery) <= 0.05
    assert np.mean(power) >= 0.98


def test_weakest_visible_df_is_the_rule_of_thumb_and_is_true() -> None:
    assert weakest_visible_df(2000) == pytest.approx(math.sqrt(2000 / 4.12), rel=1e-3)
    df = weakest_visible_df(2000)
    x = torch.tensor(np.random.default_rng(0).standard_t(df, size=(2000, 500)))
    p = likelihood_ratio_p_values(fit_student_t(x).likelihood_ratio, 2000)
    assert (p <= 0.05).double().mean().item() == pytest.approx(0.8, abs=0.06)
    with pytest.raises(InputError):
        weakest_visible_df(0)


def test_held_out_likelihood_prefers_the_truth() -> None:
    generator = np.random.default_rng(2)
    x = np.stack([generator.standard_t(4, size=2000), generator.standard_normal(2000), np.ones(2000)], axis=1)
    held = held_out_log_likelihood(x)
    assert held.gain[0] > 3 * held.standard_error[0]
    assert held.gain[1] < 2 * held.standard_error[1]
    assert torch.isnan(held.gain[2])
    # the mean gain estimates the Kullback–Leibler distance of t₄ from the Gaussian of its variance, .0838
    assert held.gain[0].item() == pytest.approx(0.0838, abs=4 * held.standard_error[0].item())


def test_held_out_likelihood_needs_enough_samples() -> None:
    with pytest.raises(InputError, match="at least 16"):
        held_out_log_likelihood(torch.randn(12, 1))
    with pytest.raises(InputError, match="31 folds of 30"):
        held_out_log_likelihood(torch.randn(30, 1), folds=31)


@pytest.mark.parametrize("level", [0.0, 1.0, 2.0, -1.0, math.nan])
def test_levels_are_probabilities(level: float) -> None:
    fit = fit_student_t(torch.randn(20, 2))
    for call in (is_student_t, weakest_visible_df):
        with pytest.raises(InputError, match="probability between 0 and 1"):
            call(fit if call is is_student_t else 20, level=level)  # type: ignore[operator]
    with pytest.raises(InputError, match="probability between 0 and 1"):
        fit.df_interval(level)
