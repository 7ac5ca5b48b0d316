"""SDEs with the noise of real minibatches at the current point, on a network and real data."""

from collections import Counter

import pytest
import torch

import noisekit as nk

BATCH = 16


@pytest.fixture(scope="module")
def problem():
    return nk.load_problem("breast-cancer-mlp")


@pytest.mark.parametrize("substeps", [1, 2])
@pytest.mark.parametrize("name", ["sgd", "signsgd", "rmsprop", "adam"])
def test_one_pass_over_the_data_gives_what_separate_passes_give(problem, name, substeps):
    # A gradient that is not the problem's own method hides that noise and drift share their data.
    kinds = {"sgd": nk.SGDSDE, "signsgd": nk.SignSGDSDE, "rmsprop": nk.RMSpropSDE, "adam": nk.AdamSDE}
    # V takes ∇f once a step where they share it: a difference of order η in V.
    noise, rate, x0 = nk.MinibatchNoise(problem, BATCH), 1e-3, problem.x0
    given = {"v": torch.full_like(x0, 1e-2)}
    options = {"steps": 3, "substeps": substeps, "replicates": 3, "init_state": given}
    joint = nk.integrate(kinds[name](problem.gradient, noise, rate), x0, **options)
    apart = nk.integrate(kinds[name](lambda x: problem.gradient(x), noise, rate), x0, **options)
    moved = (apart.state["x"][:, -1] - x0).norm()
    difference = (joint.state["x"] - apart.state["x"])[:, -1].norm()
    assert float(moved) > 1e-3
    assert difference < 0.01 * moved


@pytest.mark.parametrize("law", ["gaussian", "empirical"])
def test_paths_with_noise_from_data_do_not_depend_on_how_many_run(law):
    problem = nk.load_problem("breast-cancer-mlp", dtype=torch.float64)
    sde = nk.SignSGDSDE(problem.gradient, nk.MinibatchNoise(problem, BATCH, law=law, draws=8), 1e-3)
    few = nk.integrate(sde, problem.x0, steps=2, substeps=2, replicates=2).state["x"]
    many = nk.integrate(sde, problem.x0, steps=2, substeps=2, replicates=19).state["x"]
    torch.testing.assert_close(few, many[:2], rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "law", "expected"),
    [
        ("sgd", "gaussian", {"weighted": 4}),
        ("signsgd", "gaussian", {"all": 1, "both": 3}),
        ("signsgd", "empirical", {"samples": 4}),
        ("rmsprop", "gaussian", {"all": 1, "weighted": 3}),
        ("adam", "gaussian", {"all": 1, "weighted": 3}),
    ],
)
def test_an_optimizer_step_takes_as_few_passes_over_the_data_as_it_can(name, law, expected, monkeypatch):
    problem = nk.load_problem("breast-cancer-mlp")
    calls = Counter()
    methods = {
        "gradient": "gradient",
        "weighted_gradient": "weighted",
        "gradient_and_weighted": "both",
        "gradient_moments": "moments",
        "moments_and_weighted": "all",
        "per_sample_gradients": "samples",
    }

    def counting(whole, short):
        return lambda *arguments: calls.update([short]) or whole(*arguments)

    for method, short in methods.items():
        monkeypatch.setattr(type(problem), method, counting(getattr(type(problem), method), short))
    kinds = {"sgd": nk.SGDSDE, "signsgd": nk.SignSGDSDE, "rmsprop": nk.RMSpropSDE, "adam": nk.AdamSDE}
    sde = kinds[name](problem.gradient, nk.MinibatchNoise(problem, BATCH, law=law, draws=8), 1e-3)
    given = {"v": torch.full_like(problem.x0, 1e-2)}

    def passes(steps):
        calls.clear()
        nk.integrate(sde, problem.x0, steps=steps, substeps=4, init_state=given)
        return calls.copy()

    one, two = passes(1), passes(2)
    assert two - one == Counter(expected)


CASES = {
    "sgd": (nk.SGDSDE, lambda p: torch.optim.SGD(p, lr=0.05), 0.05, 0),
    "signsgd": (nk.SignSGDSDE, lambda p: nk.SignSGD(p, 2e-3), 2e-3, 0),
    "rmsprop": (nk.RMSpropSDE, lambda p: torch.optim.RMSprop(p, lr=1e-3), 1e-3, 20),
    "adam": (nk.AdamSDE, lambda p: torch.optim.Adam(p, lr=2e-3), 2e-3, 20),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(CASES))
def test_mean_and_spread_of_the_loss_are_those_of_real_minibatch_runs(problem, name):
    equation, make, rate, first = CASES[name]
    replicates = 32
    start, given = problem.x0, None
    if first:
        warm = nk.simulate_optimizer(
            problem, make, start, steps=first, replicates=replicates, batch_size=BATCH, seed=9
        )
        start, given = None, warm.state_at(first)
    shared = {"steps": 40, "replicates": replicates, "save_every": 4, "observables": {"loss": problem.loss}}
    shared |= {"start_step": first, "init_state": given}
    real = nk.simulate_optimizer(problem, make, start, batch_size=BATCH, **shared).observables["loss"]
    sde = equation(problem.gradient, nk.MinibatchNoise(problem, BATCH), rate)
    predicted = nk.integrate(sde, start, seed=3, substeps=2, **shared).observables["loss"]
    error = ((real.var(0) + predicted.var(0)) / replicates).sqrt()
    gap = (predicted.mean(0) - real.mean(0)).abs()
    assert (gap <= 4 * error + 0.01 * real.mean(0)).all()
    ratio = predicted.std(0)[3:] / real.std(0)[3:]
    assert 0.75 < float(ratio.mean()) < 1.3


def test_empirical_sign_noise_has_mean_zero_and_its_own_covariance(problem):
    # One step from one point: E x = −η E[sign g], Cov x = η² Cov(sign g), both from many real minibatches.
    noise = nk.MinibatchNoise(problem, BATCH, law="empirical", draws=256)
    eta, replicates = 1e-3, 300
    sde = nk.SignSGDSDE(problem.gradient, noise, eta)
    x0 = problem.x0
    moved = nk.integrate(sde, x0, steps=1, substeps=1, replicates=replicates).state["x"][:, -1] - x0
    generator = torch.Generator().manual_seed(1)
    index = torch.randint(problem.n_samples, (1000, BATCH), generator=generator)
    signs = problem.minibatch_gradient(x0.expand(1000, -1), index).sign()
    alive = signs.abs().mean(0) > 0.99
    mean = -moved[:, alive].mean(0) / eta
    assert float((mean - signs[:, alive].mean(0)).square().mean().sqrt()) < 0.12
    spread = (moved[:, alive].var(0) / eta**2).mean() / signs[:, alive].var(0).mean()
    assert 0.9 < float(spread) < 1.1


@pytest.mark.parametrize("substeps", [1, 2])
def test_the_pass_that_gives_all_is_exact_on_a_convolutional_network(substeps):
    # SignSGD takes everything at the point itself, so that one pass and separate ones agree to rounding.
    problem = nk.load_problem("fashion-cnn", dtype=torch.float64)
    noise, rate = nk.MinibatchNoise(problem, BATCH), 1e-3
    options = {"steps": 1, "substeps": substeps, "replicates": 2}
    joint = nk.integrate(nk.SignSGDSDE(problem.gradient, noise, rate), problem.x0, **options).state["x"]
    apart = nk.SignSGDSDE(lambda x: problem.gradient(x), noise, rate)
    torch.testing.assert_close(
        joint, nk.integrate(apart, problem.x0, **options).state["x"], rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("name", ["breast-cancer-mlp", "fashion-cnn"])
def test_moments_and_weighted_sum_are_those_of_the_samples(name):
    problem = nk.load_problem(name, dtype=torch.float64)
    x = torch.stack([problem.x0, 1.1 * problem.x0])
    weights = torch.randn(2, problem.n_samples, dtype=torch.float64, generator=torch.manual_seed(0))
    rows = problem.per_sample_gradients(x)
    expected = rows.mean(1), rows.square().mean(1), torch.einsum("rn,rnc->rc", weights, rows)
    for found, value in zip(problem.moments_and_weighted(x, weights), expected, strict=True):
        torch.testing.assert_close(found, value, rtol=1e-9, atol=1e-11)
