"""Stationary laws against the simulated discrete optimizer and against closed forms, never our integrator."""

import math

import numpy as np
import pytest
import torch
from oracles import gaussian_draw, random_spd, simulated_covariance, student_draw

from noisekit.errors import InfiniteVarianceError, InputError
from noisekit.noise import GaussianNoise, StudentTNoise
from noisekit.theory import stationary_law
from noisekit.theory.fluctuations import fluctuation
from noisekit.theory.hyperparameters import check_hyperparameters

HESSIAN = random_spd(4, 1, 0.5, 2.0)
NOISE = random_spd(4, 2, 0.3, 1.5)
MINIMUM = np.array([0.5, -0.3, 0.2, 0.1])

CASES = [
    ("sgd", 0.05, {}),
    ("sgd", 0.05, {"weight_decay": 0.5}),
    ("sgd", 0.02, {"momentum": 0.8}),
    ("signsgd", 0.02, {}),
    ("rmsprop", 0.02, {}),
    ("rmsprop", 0.02, {"weight_decay": 1.0}),
    ("rmspropw", 0.02, {"weight_decay": 1.0}),
    ("rmsprop", 0.02, {"beta": 0.5}),
    ("rmspropw", 0.02, {"weight_decay": 1.0, "beta": 0.9, "eps": 0.3}),
    ("adam", 0.02, {}),
    ("adam", 0.02, {"betas": (0.5, 0.9)}),
    ("adam", 0.02, {"weight_decay": 1.0}),
    ("adamw", 0.02, {"weight_decay": 2.0}),
    ("adamw", 0.02, {"weight_decay": 2.0, "betas": (0.5, 0.999)}),
]


def relative_distance(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(found)


def simulate(name, lr, hyper, draw=None, **kw):
    draw = gaussian_draw(NOISE) if draw is None else draw
    return simulated_covariance(
        name, HESSIAN, draw, lr, steps=1500, burn_in=700, replicates=2048, **hyper, **kw
    )


def test_the_matrices_do_not_commute():
    commutator = HESSIAN @ NOISE - NOISE @ HESSIAN
    assert np.linalg.norm(commutator) > 0.2 * np.linalg.norm(HESSIAN @ NOISE)


@pytest.mark.parametrize(("name", "lr", "hyper"), CASES, ids=[f"{c[0]}-{c[2]}" for c in CASES])
def test_discrete_law_is_that_of_the_simulated_optimizer(name, lr, hyper):
    _, covariance = simulate(name, lr, hyper)
    law = stationary_law(name, HESSIAN, NOISE, lr, **hyper)
    assert relative_distance(covariance, law.covariance) < 0.03
    assert np.trace(HESSIAN @ covariance) / 2 == pytest.approx(law.excess_loss, rel=0.025)


def test_negative_controls_fail_the_same_check():
    _, covariance = simulate("sgd", 0.05, {})
    isotropic = np.eye(4) * np.trace(NOISE) / 4
    wrong = {
        "twice the noise": stationary_law("sgd", HESSIAN, 2 * NOISE, 0.05),
        "isotropic noise of the same trace": stationary_law("sgd", HESSIAN, isotropic, 0.05),
        "η² for η": stationary_law("sgd", HESSIAN, NOISE, 0.05**2),
        "no noise, the ODE": stationary_law("sgd", HESSIAN, 0 * NOISE, 0.05),
        "commuting closed form": stationary_law("sgd", HESSIAN, NOISE, 0.05, source="published"),
    }
    for name, law in wrong.items():
        assert relative_distance(covariance, law.covariance) > 0.06, name


def test_published_adamw_misses_the_lag_that_the_simulation_has():
    hyper = {"weight_decay": 4.0}
    _, covariance = simulated_covariance(
        "adamw", [[1.0]], gaussian_draw([[1.0]]), 0.01, steps=1000, burn_in=300, replicates=8192, **hyper
    )
    variance = covariance[0, 0]
    laws = {
        s: stationary_law("adamw", [1.0], [1.0], 0.01, source=s, **hyper) for s in ("discrete", "published")
    }
    lag = stationary_law("adamw", [1.0], [1.0], 0.01, source="published", variant="lag", **hyper)
    assert laws["discrete"].covariance[0, 0] == pytest.approx(variance, rel=0.03)
    assert lag.covariance[0, 0] == pytest.approx(variance, rel=0.05)
    assert laws["published"].covariance[0, 0] > 1.25 * variance
    assert laws["discrete"].published_gap == pytest.approx(
        1.0e-3 / laws["discrete"].covariance[0, 0] - 1, rel=1e-6
    )


def test_mean_with_weight_decay_lies_between_zero_and_the_minimum():
    hyper = {"weight_decay": 2.0, "betas": (0.5, 0.999)}
    mean, covariance = simulate("adamw", 0.02, hyper, minimum=MINIMUM)
    law = stationary_law("adamw", HESSIAN, NOISE, 0.02, minimum=MINIMUM, **hyper)
    np.testing.assert_allclose(law.mean, mean, atol=0.003)
    assert relative_distance(covariance, law.covariance) < 0.03
    off = mean - MINIMUM
    assert law.excess_loss == pytest.approx(
        np.trace(HESSIAN @ covariance) / 2 + off @ HESSIAN @ off / 2, rel=0.03
    )


@pytest.mark.parametrize("df", [1.0, 3.0])
def test_signsgd_settles_under_heavy_tails(df):
    scale = np.array([0.5, 1.0])
    _, covariance = simulated_covariance(
        "signsgd",
        np.diag([1.0, 2.0]),
        student_draw(scale, df),
        0.01,
        steps=1200,
        burn_in=500,
        replicates=4096,
    )
    noise = StudentTNoise(scale=torch.tensor(scale), df=df)
    law = stationary_law("signsgd", [1.0, 2.0], noise, 0.01)
    density = math.gamma((df + 1) / 2) / (math.sqrt(df * math.pi) * math.gamma(df / 2))
    by_hand = 0.005 * scale / (2 * density * np.array([1.0, 2.0]))  # η/(2·slope·λ)
    np.testing.assert_allclose(np.diag(law.covariance), by_hand, rtol=1e-4)
    np.testing.assert_allclose(np.diag(covariance), np.diag(law.covariance), rtol=0.03)


def test_exact_scalar_forms():
    eta, lam, sigma, theta, beta1 = 0.1, 2.0, 1.5, 0.7, 0.9
    sgd = stationary_law("sgd", [lam], [sigma**2], eta)
    assert sgd.covariance[0, 0] == pytest.approx(eta * sigma**2 / (lam * (2 - eta * lam)), rel=1e-10)
    assert sgd.relaxation_steps == pytest.approx(-1 / math.log(1 - eta * lam), rel=1e-10)
    small = 1e-4
    with_lag = 1 / (lam / sigma + theta + theta * (theta + lam / sigma) * small / (1 - beta1))
    for source in ("discrete", "sde"):
        law = stationary_law(
            "adamw", [lam], [sigma**2], small, betas=(beta1, 0.999), weight_decay=theta, source=source
        )
        assert law.covariance[0, 0] == pytest.approx(small / 2 * with_lag, rel=2e-3)
    l2 = stationary_law("rmsprop", [lam], [sigma**2], small, weight_decay=theta, beta=0.9999)
    assert l2.covariance[0, 0] == pytest.approx(small / 2 * sigma / (lam + theta), rel=2e-3)


@pytest.mark.parametrize(
    ("beta1", "published", "malladi", "consistent"), [(0.9, 0.802, 1.0, 0.991), (0.5, 0.247, 1.0, 0.993)]
)
def test_variants_of_adam_keep_or_lose_the_noise(beta1, published, malladi, consistent):
    exact = stationary_law("adam", [1.0], [1.0], 0.01, betas=(beta1, 0.999)).covariance[0, 0]
    for variant, expected in (("published", published), ("malladi", malladi), ("consistent", consistent)):
        law = stationary_law("adam", [1.0], [1.0], 0.01, betas=(beta1, 0.999), source="sde", variant=variant)
        assert law.covariance[0, 0] / exact == pytest.approx(expected, abs=0.004)


def test_limits_meet():
    def covariance(name, eta=0.02, noise=NOISE, **kw):
        return stationary_law(name, HESSIAN, noise, eta, **kw).covariance

    same = np.testing.assert_allclose
    same(covariance("adamw"), covariance("adam"), rtol=1e-12)  # θ = 0
    same(covariance("rmspropw"), covariance("rmsprop"), rtol=1e-12)
    same(
        covariance("adamw", betas=(0.0, 0.9), weight_decay=1.0),
        covariance("rmspropw", weight_decay=1.0, beta=0.9),
        rtol=1e-9,
    )
    signs = stationary_law("rmsprop", [1.0, 2.0], [0.5, 1.0], 1e-4, beta=0.0).covariance  # g/|g|
    same(signs, stationary_law("signsgd", [1.0, 2.0], [0.5, 1.0], 1e-4).covariance, rtol=2e-3)
    same(covariance("sgd", momentum=1e-12), covariance("sgd"), rtol=1e-9)
    same(
        covariance("adam", 0.02 * 1e6, betas=(0.0, 0.9), eps=1e6), covariance("sgd"), rtol=1e-5
    )  # ε → ∞ is SGD
    scale = torch.tensor([0.5, 1.0, 0.7, 0.9], dtype=torch.float64)
    heavy = covariance("signsgd", 1e-4, StudentTNoise(scale=scale, df=1e6))
    same(heavy, covariance("signsgd", 1e-4, GaussianNoise(scale=scale)), rtol=1e-3)  # ν → ∞ is Gaussian
    small = [stationary_law("adam", HESSIAN, NOISE, 1e-5, source=s).covariance for s in ("discrete", "sde")]
    same(small[0], small[1], rtol=1e-3)  # η → 0


def test_noise_may_be_a_model_a_matrix_or_variances():
    root = torch.linalg.cholesky(torch.tensor(NOISE))
    model = stationary_law("rmsprop", HESSIAN, GaussianNoise(factor=root), 0.02)
    matrix = stationary_law("rmsprop", torch.tensor(HESSIAN), NOISE, 0.02)
    np.testing.assert_allclose(model.covariance, matrix.covariance, rtol=1e-6)
    half = stationary_law(
        "sgd", torch.tensor([1.0, 2.0], dtype=torch.bfloat16, requires_grad=True), [1.0, 1.0], 0.1
    )
    assert half.covariance[1, 1] == pytest.approx(0.1 / (2 * (2 - 0.2)))
    vector = stationary_law("rmsprop", HESSIAN, np.diag(NOISE), 0.02)
    diagonal = stationary_law("rmsprop", HESSIAN, np.diag(np.diag(NOISE)), 0.02)
    np.testing.assert_array_equal(vector.covariance, diagonal.covariance)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"optimizer": "adm"}, "Did you mean 'adam'"),
        ({"learning_rate": -1.0}, "learning_rate = -1.0"),
        ({"optimizer": "adam", "betas": 0.9}, "two factors"),
        ({"noise": [[1.0, 2.0], [2.0, 1.0]]}, "eigenvalue -1"),
        ({"noise": np.ones((2, 2, 2))}, "shape"),
        ({"noise": {}}, "empty mapping"),
        ({"noise": None}, "None"),
        ({"noise": [1.0, np.inf], "optimizer": "signsgd"}, "StudentTNoise"),
        ({"hessian": []}, "empty"),
        ({"hessian": torch.tensor([1.0 + 1.0j, 2.0])}, "real numbers"),
        ({"minimum": [1.0, np.inf]}, "finite ones"),
        ({"noise": GaussianNoise(scale=1.0), "at": [1.0]}, "at has 1"),
        ({"learning_rate": "fast"}, "a number is needed"),
        ({"learning_rate": 5.0}, "largest eigenvalue"),
        ({"hessian": [1.0, -1.0]}, "escape_time"),
        ({"hessian": [[1.0, 2.0], [0.0, 1.0]]}, "not symmetric"),
        ({"noise": [1.0, 1.0, 1.0]}, "make them equal"),
        ({"noise": [-1.0, 1.0]}, "must not be negative"),
        ({"momentum": 1.0}, "in \\[0, 1\\)"),
        ({"source": "simulation"}, "source of a stationary law"),
        ({"variant": "malladi"}, "variants belong to"),
        ({"minimum": [1.0]}, "minimum has 1"),
        ({"hessian": np.ones(10_000)}, "up to d = 5000"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(change, words):
    arguments = {
        "optimizer": "sgd",
        "hessian": [1.0, 2.0],
        "noise": [1.0, 1.0],
        "learning_rate": 0.1,
    } | change
    with pytest.raises(InputError, match=words):
        stationary_law(**arguments)


def test_infinite_variance_names_signsgd():
    noise = StudentTNoise(scale=torch.ones(2), df=1.5)
    for name in ("sgd", "rmsprop", "adamw"):
        with pytest.raises(InfiniteVarianceError, match="signsgd"):
            stationary_law(name, [1.0, 2.0], noise, 0.1)


def test_fluctuation_of_v_to_first_order_and_by_sampling():
    hyper = check_hyperparameters("rmsprop", 0.1, beta=0.99)
    found = fluctuation(hyper, np.ones(1))
    assert found.slope[0] == pytest.approx(1 - 5 / 8 * 0.01, abs=2e-4)
    assert found.slope[0] ** 2 + found.excess[0] == pytest.approx(1 - 0.01, abs=4e-4)
    beta, eps = 0.7, 0.2
    generator = torch.Generator().manual_seed(0)
    v = torch.zeros(200_000, dtype=torch.float64)
    for _ in range(40):
        g = torch.randn(v.shape, generator=generator, dtype=torch.float64)
        v = beta * v + (1 - beta) * g * g
    step = (1 + eps) * g / (v.sqrt() + eps)
    found = fluctuation(check_hyperparameters("rmsprop", 0.1, beta=beta, eps=eps), np.ones(1))
    assert found.slope[0] == pytest.approx(float((g * step).mean()), rel=0.01)
    assert found.slope[0] ** 2 + found.excess[0] == pytest.approx(float(step.square().mean()), rel=0.01)


def test_a_sign_step_wider_than_the_noise_still_has_its_law():
    start = torch.rand((8192, 1), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x, squares, generator = 2 * start, [], torch.Generator().manual_seed(2)
    for k in range(150):
        x = x - (x + torch.randn(x.shape, generator=generator, dtype=torch.float64)).sign()
        if k >= 50:
            squares.append(float(x.square().mean()))
    law = stationary_law("signsgd", [1.0], [1.0], 1.0)
    assert law.covariance[0, 0] == pytest.approx(np.mean(squares), rel=0.03)


def test_instability_is_told_from_what_only_leaves_the_linearisation():
    with pytest.raises(InputError, match="has no stationary law"):
        stationary_law("sgd", [30.0], [1.0], 0.1)
    with pytest.raises(InputError, match="outside the range of its linearisation"):
        stationary_law("rmsprop", [30.0], [1.0], 0.1)


def test_a_law_prints_in_a_line():
    law = stationary_law("sgd", [1.0, 4.0], [1.0, 1.0], 0.1)
    assert repr(law).startswith("StationaryLaw: sgd (discrete), 2 coordinates: excess loss 0.05757, ")
    assert "published form -13.1%" in repr(law)  # 1 − .05/.0576
    assert "published" not in repr(stationary_law("sgd", [1.0], [1.0], 0.1, momentum=0.5))


@pytest.mark.parametrize(("rate", "momentum"), [(0.02, 0.99), (0.1, 0.9), (0.05, 0.5)])
def test_laws_of_the_equations_of_momentum(rate, momentum):
    # Discrete: (ησ²/4)/((1 − μ)(1 − ηλ/(2(1 + μ)))), from the Lyapunov equation of its update.
    share = rate / (2 * (1 + momentum))
    whole = rate / (4 * (1 - momentum))

    def loss(**given):
        return stationary_law("sgd", [1.0], [1.0], rate, momentum=momentum, **given).excess_loss

    assert loss() == pytest.approx(whole / (1 - share))
    assert loss(source="sde") == pytest.approx(whole * (1 + share))
    assert loss(source="sde", variant="kinetic") == pytest.approx(whole)
    consistent, second = loss(source="sde", variant="consistent"), loss(source="sde", order=2)
    assert consistent == pytest.approx(loss() / (1 + rate / (1 - momentum)), rel=0.1)
    assert consistent < second < loss(source="sde")


def test_order_2_is_known_of_sgd_alone():
    plain = stationary_law("sgd", [2.0, 1.0], [1.0, 1.0], 0.1, source="sde", order=2).covariance
    np.testing.assert_allclose(np.diag(plain), [0.025 * 1.1, 0.05 * 1.05], rtol=1e-9)  # exact: /(1 − ηλ/2)
    for given in ({"order": 2}, {"order": 3, "source": "sde"}):
        with pytest.raises(InputError, match="order"):
            stationary_law("sgd", [1.0], [1.0], 0.1, **given)
    with pytest.raises(InputError, match="order"):
        stationary_law("adam", [1.0], [1.0], 0.1, source="sde", order=2)
    with pytest.raises(InputError, match="no variant 'malladi'"):
        stationary_law("sgd", [1.0], [1.0], 0.1, momentum=0.5, source="sde", variant="malladi")
