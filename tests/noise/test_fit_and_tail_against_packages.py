"""The same samples through tailestim, powerlaw and statsmodels give the same numbers."""

import warnings

import numpy as np
import powerlaw
import pytest
import tailestim
import torch
from statsmodels.miscmodels.tmodel import TLinearModel
from statsmodels.stats.multitest import multipletests

from noisekit.noise import fit_noise, fit_student_t, tail_index


@pytest.mark.parametrize("k", [40, 100, 400])
@pytest.mark.parametrize(
    ("ours", "theirs"), [("hill", tailestim.HillEstimator), ("moment", tailestim.MomentsEstimator)]
)
def test_hill_and_moment_are_tailestims(ours: str, theirs: type, k: int) -> None:
    x = np.random.default_rng(0).standard_t(2, 5001)
    deviation = np.abs(x - np.median(x))
    estimator = theirs(bootstrap=False)
    estimator.fit(deviation[deviation > 0])
    result = estimator.get_result()
    shape = result.xi_arr_[list(result.k_arr_).index(k)]
    alpha = tail_index(torch.tensor(x), estimator=ours, k=k).alpha.item()  # type: ignore[arg-type]
    assert 1 / alpha == pytest.approx(shape, rel=1e-9)


def test_hill_is_powerlaws_exponent_less_one() -> None:
    x = np.random.default_rng(1).standard_t(1.2, 5001)  # powerlaw bounds its exponent at 3
    deviation = np.sort(np.abs(x - np.median(x)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its optimiser starts outside its own bounds
        exponent = powerlaw.Fit(deviation[1:], xmin=deviation[-101]).power_law.alpha
    alpha = tail_index(torch.tensor(x), estimator="hill", k=100).alpha.item()
    # powerlaw counts the threshold itself as a tail sample
    assert exponent - 1 == pytest.approx(alpha * 101 / 100, rel=1e-3)


def test_student_t_fit_is_statsmodels() -> None:
    x = 2 + 3 * np.random.default_rng(2).standard_t(4, 800)
    start = np.array([2.0, 4.0, 3.0])
    theirs = TLinearModel(x, np.ones((800, 1))).fit(start_params=start, method="bfgs", disp=0)
    location, df, scale = theirs.params
    fit = fit_student_t(torch.tensor(x))
    assert fit.log_likelihood.item() == pytest.approx(theirs.llf, abs=1e-4)
    assert fit.df.item() == pytest.approx(df, rel=1e-2)
    assert fit.location.item() == pytest.approx(location, rel=1e-3)
    assert fit.scale.item() == pytest.approx(scale, rel=1e-3)


def test_q_values_are_statsmodels() -> None:
    generator = np.random.default_rng(3)
    fit = fit_noise(
        np.concatenate([generator.standard_t(4, (300, 20)), generator.standard_normal((300, 60))], 1)
    )
    reject, q = multipletests(fit.p_value.numpy(), alpha=0.05, method="fdr_bh")[:2]
    assert fit.q_value.numpy() == pytest.approx(q)
    assert fit.is_heavy_tailed.tolist() == reject.tolist()
