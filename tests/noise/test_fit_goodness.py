"""Goodness of fit: its statistic is scipy's, its size is right, and it sees what does not fit."""

import numpy as np
import pytest
import scipy.stats
import torch

from noisekit.errors import InputError
from noisekit.noise.goodness_of_fit import goodness_of_fit
from noisekit.noise.student_t_fit import fit_student_t


def test_statistics_are_scipys() -> None:
    x = torch.tensor(np.random.default_rng(0).standard_normal((200, 2)))
    anderson = goodness_of_fit(x, family="gaussian", draws=19).statistic
    distance = goodness_of_fit(x, statistic="kolmogorov_smirnov", draws=19).statistic
    fit = fit_student_t(x)
    for j in range(2):
        column = x[:, j].numpy()
        law = scipy.stats.norm(column.mean(), column.std())
        expected = scipy.stats.goodness_of_fit(
            scipy.stats.norm,
            column,
            known_params={"loc": column.mean(), "scale": column.std()},
            statistic="ad",
            n_mc_samples=1,
        ).statistic
        assert anderson[j].item() == pytest.approx(expected, rel=1e-6)
        law = scipy.stats.t(min(fit.df[j].item(), 1e12), fit.location[j].item(), fit.scale[j].item())
        assert distance[j].item() == pytest.approx(scipy.stats.kstest(column, law.cdf).statistic, abs=1e-6)


@pytest.mark.parametrize("family", ["gaussian", "student_t"])
def test_size_is_right_where_the_naive_table_never_rejects(family: str) -> None:
    generator = np.random.default_rng(1)
    shape = (80, 300)
    x = generator.standard_normal(shape) if family == "gaussian" else generator.standard_t(4, shape)
    p = goodness_of_fit(torch.tensor(x), family=family, draws=99).p_value  # type: ignore[arg-type]
    assert 0.02 < (p <= 0.05).double().mean() < 0.09
    naive = [scipy.stats.kstest(c, "norm", (c.mean(), c.std())).pvalue for c in x.T[:60]]
    if family == "gaussian":
        assert np.mean(np.array(naive) <= 0.05) < 0.02


def test_wrong_families_are_rejected_and_dead_coordinates_left_out() -> None:
    generator = np.random.default_rng(2)
    two_modes = generator.standard_normal(500) + 4 * generator.choice([-1, 1], 500)
    x = torch.tensor(np.stack([generator.standard_t(2, 500), two_modes, np.ones(500)], axis=1))
    gauss = goodness_of_fit(x, family="gaussian", draws=99).p_value
    student = goodness_of_fit(x, family="student_t", draws=99).p_value
    assert gauss[0] == gauss[1] == 0.01
    assert student[0] > 0.05
    assert student[1] == 0.01
    assert torch.isnan(student[2])


def test_goodness_of_fit_refuses_with_a_sentence() -> None:
    x = torch.randn(50, 1)
    with pytest.raises(InputError, match="anderson_darling"):
        goodness_of_fit(x, statistic="anderson")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="student_t"):
        goodness_of_fit(x, family="students")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="at least 19"):
        goodness_of_fit(x, draws=5)
