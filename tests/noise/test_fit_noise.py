"""fit_noise: what it returns, what it refuses, and the traps that make Gaussian noise look heavy."""

import numpy as np
import pytest
import torch
import xarray

from noisekit.errors import InputError
from noisekit.noise import GaussianNoise, StudentTNoise
from noisekit.noise.fit import fit_noise


def mixed_samples(n: int = 2000) -> torch.Tensor:
    generator = np.random.default_rng(1)
    heavy, light = generator.standard_t(3, size=(n, 3)), generator.standard_normal((n, 5))
    return torch.tensor(np.concatenate([heavy, light], axis=1), dtype=torch.float32)


def test_auto_gives_each_coordinate_its_family() -> None:
    fit = fit_noise(mixed_samples(), batch_size=32)
    assert fit.is_heavy_tailed.tolist() == [True] * 3 + [False] * 5
    assert isinstance(fit.model, StudentTNoise)
    assert fit.model.batch_size == 32
    assert torch.isinf(fit.df[3:]).all()
    assert (fit.df[:3] - 3).abs().max() < 1
    assert torch.isinf(fit.df_interval[3:, 1]).all()
    assert (fit.df_interval[:, 0] <= fit.df).all()
    x = torch.zeros(1, 8)
    assert fit.model.variance(x)[0, 3:].sqrt().tolist() == pytest.approx(fit.scale[3:].tolist())


def test_shapes_and_dtypes() -> None:
    fit = fit_noise(mixed_samples())
    for name in ("location", "scale", "df", "log_likelihood", "p_value", "q_value", "is_heavy_tailed"):
        assert getattr(fit, name).shape == (8,)
    assert fit.df_interval.shape == (8, 2)
    assert fit.scale.dtype == torch.float32
    assert fit.p_value.dtype == torch.float64
    assert fit_noise(mixed_samples().double()).scale.dtype == torch.float64


def test_families_can_be_imposed() -> None:
    x = mixed_samples()
    gauss, student = fit_noise(x, family="gaussian"), fit_noise(x, family="student_t")
    assert isinstance(gauss.model, GaussianNoise)
    torch.testing.assert_close(gauss.scale, x.std(dim=0, correction=0))
    assert isinstance(student.model, StudentTNoise)
    torch.testing.assert_close(student.df.double(), student.student_t.df, rtol=1e-6, atol=0)
    assert (student.log_likelihood >= gauss.log_likelihood).all()


def test_pure_gaussian_noise_gives_a_gaussian_model() -> None:
    fit = fit_noise(torch.randn(1000, 20, generator=torch.Generator().manual_seed(0)))
    assert isinstance(fit.model, GaussianNoise)
    assert "0 of 20 coordinates are heavy-tailed" in fit.summary()
    assert "show df up to 15.6" in str(fit)
    assert fit.warnings == ()


def test_dataarrays_and_arrays_are_read() -> None:
    x = mixed_samples(500)
    by_name = fit_noise(xarray.DataArray(x.numpy(), dims=("sample", "coordinate")))
    torch.testing.assert_close(by_name.scale, fit_noise(x).scale)
    turned = fit_noise(xarray.DataArray(x.T.numpy(), dims=("coordinate", "sample")))
    torch.testing.assert_close(turned.scale, by_name.scale)


def test_unknown_family_names_the_nearest() -> None:
    with pytest.raises(InputError, match="student_t"):
        fit_noise(torch.randn(10, 1), family="student")  # type: ignore[arg-type]


def test_all_constant_is_said() -> None:
    fit = fit_noise(torch.ones(20, 3))
    assert fit.n_constant == 3
    assert fit.scale.tolist() == [0, 0, 0]
    assert torch.isnan(fit.p_value).all()
    assert any("nothing was fitted" in w for w in fit.warnings)


def test_constant_coordinates_do_not_change_the_q_values() -> None:
    x = mixed_samples()
    padded = torch.cat([x, torch.zeros(len(x), 50)], dim=1)
    torch.testing.assert_close(fit_noise(padded).q_value[:8], fit_noise(x).q_value)


def test_trap_scale_falling_fourfold_fits_a_df_of_five_and_is_said() -> None:
    n = 4000
    x = (
        torch.randn(n, 30, generator=torch.Generator().manual_seed(3))
        * torch.logspace(0, -np.log10(4), n)[:, None]
    )
    fit = fit_noise(x)
    assert 4 < fit.df.median().item() < 6
    assert fit.is_heavy_tailed.all()
    assert any("over the window" in w for w in fit.warnings)
    shuffled_in_time = fit_noise(x[torch.randperm(n, generator=torch.Generator().manual_seed(0))])
    assert not any("over the window" in w for w in shuffled_in_time.warnings)


@pytest.mark.parametrize(("batch", "df"), [(8, 5.7), (32, 9.4), (128, 13.8)])
def test_trap_averaging_makes_student_noise_lighter(batch: int, df: float) -> None:
    generator = np.random.default_rng(7)
    means = np.stack([generator.standard_t(3, size=(3000, batch)).mean(axis=1) for _ in range(16)], axis=1)
    fit = fit_noise(means, family="student_t", batch_size=batch)
    assert 1 / fit.student_t.kappa.mean().item() == pytest.approx(df, rel=0.12)
    with pytest.raises(InputError):
        fit.model.rescale(2 * batch)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_trap_resampling_a_finite_data_set_is_said_because_intervals_are_then_too_short(
    dtype: torch.dtype,
) -> None:
    generator = torch.Generator().manual_seed(5)
    data = torch.tensor(np.random.default_rng(5).standard_t(4, size=(400, 60)), dtype=dtype)
    fit = fit_noise(data[torch.randint(400, (4000,), generator=generator)], family="student_t")
    covered = (fit.df_interval[:, 0] <= 4) & (fit.df_interval[:, 1] >= 4)
    assert covered.double().mean() < 0.7
    assert any("90% of the samples repeat earlier ones" in w for w in fit.warnings)
    assert not any("repeat earlier ones" in w for w in fit_noise(data).warnings)
