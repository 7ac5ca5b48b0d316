"""What integrate promises: keyed paths, saved steps, statistics, divergence, checkpoints, clear errors."""

import math
from typing import Any

import pytest
import torch

import noisekit as nk
from noisekit.errors import InfiniteVarianceError, InputError
from noisekit.problems import LinearRegression
from noisekit.sde import EulerMaruyama, StochasticHeun, sgd

ETA = 0.05


def make_sde(name="sgd", **options):
    gradient = nk.Quadratic(torch.linspace(0.5, 2.0, 6, dtype=torch.float64)).gradient
    noise = nk.GaussianNoise(scale=torch.linspace(0.5, 1.0, 6, dtype=torch.float64))
    kinds = {"sgd": nk.SGDSDE, "signsgd": nk.SignSGDSDE, "rmsprop": nk.RMSpropSDE, "adam": nk.AdamSDE}
    return kinds[name](gradient, noise, ETA, **options)


def start():
    return torch.ones(6, dtype=torch.float64)


KINDS = ["sgd", "signsgd", "rmsprop", "adam"]


@pytest.mark.parametrize("name", KINDS)
def test_paths_do_not_depend_on_how_many_run(name):
    few = nk.integrate(make_sde(name), start(), steps=12, replicates=5, seed=3)
    many = nk.integrate(make_sde(name), start(), steps=12, replicates=90, seed=3)
    assert torch.equal(few.state["x"], many.state["x"][:5])


@pytest.mark.parametrize("name", KINDS)
def test_paths_do_not_depend_on_threads_or_saving(name):
    one = nk.integrate(make_sde(name), start(), steps=10, replicates=3000, substeps=2)
    two = nk.integrate(
        make_sde(name), start(), steps=10, replicates=3000, substeps=2, workers=2, save_every=5
    )
    assert torch.equal(one.state["x"][:, ::5], two.state["x"])


@pytest.mark.parametrize("name", KINDS)
def test_runs_at_dt_and_half_dt_share_their_path(name):
    # From V = 0 the noise of V, which is a square, rules the first steps and is not shared as closely.
    options = {"steps": 40, "replicates": 200, "start_step": 1000, "save_every": 40}
    given = {"v": torch.ones(6, dtype=torch.float64)}

    def last(substeps, seed):
        solution = nk.integrate(
            make_sde(name), start(), substeps=substeps, seed=seed, init_state=given, **options
        )
        return solution.state["x"][:, -1]

    assert correlation(last(4, 0), last(8, 0)) > 0.99
    assert abs(correlation(last(4, 0), last(8, 1))) < 0.25


def correlation(a, b):
    a, b = a - a.mean(0), b - b.mean(0)
    return float(((a * b).sum(0) / (a.norm(dim=0) * b.norm(dim=0))).min())


def test_sgd_step_against_a_loop():
    from noisekit.sde.blocks import replicate_blocks
    from noisekit.sde.brownian import Draws

    sde = make_sde()
    solution = nk.integrate(sde, start(), steps=3, replicates=2, substeps=2, seed=8)
    x = start().expand(2, 6).clone()
    draws = Draws(8, replicate_blocks(2, 6), 6, 2, x)
    h, sigma = torch.linspace(0.5, 2.0, 6).double(), torch.linspace(0.5, 1.0, 6).double()
    for step in range(3):
        for z in draws.normals(step).clone():
            x = x - h * x * ETA / 2 - math.sqrt(ETA * ETA / 2) * sigma * z
    torch.testing.assert_close(solution.state["x"][:, -1], x, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "signsgd"])
def test_fused_steps_equal_the_equation(name):
    # The published variants have no V after the update: the general Euler step must give the same numbers.
    class Plain(EulerMaruyama):
        def step(self, sde, state, at):
            super(type(sde), sde).euler_step(state, at)

    fused = nk.integrate(make_sde(name), start(), steps=5, replicates=3)
    plain = nk.integrate(make_sde(name), start(), steps=5, replicates=3, solver=Plain())
    torch.testing.assert_close(fused.state["x"], plain.state["x"])


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("substeps", [1, 4])
def test_what_is_known_beforehand_changes_no_path(name, substeps):
    # A gradient that is not a problem's method, and noise as a general law: nothing is known of either.
    class Law(nk.NoiseModel):
        scale = torch.linspace(0.5, 1.0, 6, dtype=torch.float64)

        def variance(self, x):
            return self.scale.square().expand_as(x)

        def sqrt_covariance_product(self, x, z):
            return z * self.scale

        def expected_sign(self, x, gradient):
            return torch.erf(gradient / self.scale / math.sqrt(2))

        def sample(self, x, generator=None):
            raise AssertionError("coordinates are independent")

    known = make_sde(name)
    unknown = type(known)(lambda x: known.gradient_function(x), Law(), ETA)
    one, two = (
        nk.integrate(sde, start(), steps=5, replicates=3, substeps=substeps) for sde in (known, unknown)
    )
    torch.testing.assert_close(one.state["x"], two.state["x"])


@pytest.mark.parametrize("name", ["rmsprop", "adam"])
@pytest.mark.parametrize("variant", ["published", "malladi"])
@pytest.mark.parametrize("decay", ["decoupled", "l2"])
def test_fused_adaptive_steps_equal_the_equation(name, variant, decay):
    from noisekit.sde.base import OptimizerSDE

    class Plain(EulerMaruyama):
        def step(self, sde, state, at):
            OptimizerSDE.euler_step(sde, state, at)

    sde = make_sde(name, variant=variant, weight_decay=0.3, decay=decay, schedule=lambda k: 1 / (k + 1))
    fused = nk.integrate(sde, start(), steps=5, replicates=3, substeps=4)
    plain = nk.integrate(sde, start(), steps=5, replicates=3, substeps=4, solver=Plain())
    for key in fused.state:
        torch.testing.assert_close(fused.state[key], plain.state[key])


def test_saved_steps_times_and_observables():
    solution = nk.integrate(
        make_sde("adam"),
        start(),
        steps=7,
        replicates=4,
        save_every=3,
        start_step=10,
        observables={"norm": lambda x: x.norm(dim=1)},
    )
    assert solution.step.tolist() == [10, 13, 16, 17]
    torch.testing.assert_close(solution.time, solution.step.double() * ETA)
    assert {k: tuple(v.shape) for k, v in solution.state.items()} == dict.fromkeys("xmv", (4, 4, 6))
    torch.testing.assert_close(solution.observables["norm"], solution.state["x"].norm(dim=2))
    assert (solution.kind, solution.optimizer) == ("sde", "adam")
    assert nk.integrate(make_sde(), start(), steps=1, substeps=1).kind == "surrogate"


def test_statistics_where_states_are_not_kept():
    kept = nk.integrate(make_sde(), start(), steps=6, replicates=300, save_every=2)
    reduced = nk.integrate(make_sde(), start(), steps=6, replicates=300, save_every=2, keep_state=False)
    x = kept.state["x"]
    assert reduced.state == {}
    torch.testing.assert_close(reduced.statistics["x_mean"], x.mean(0))
    torch.testing.assert_close(reduced.statistics["x_variance"], x.var(0))
    levels = torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64)
    torch.testing.assert_close(reduced.statistics["x_quantile"], x.quantile(levels, dim=0))


def test_a_path_that_diverges_is_marked_with_its_first_bad_step():
    def cubic(x):
        return -x.pow(3)

    x0 = torch.tensor([[0.1], [30.0], [0.1]], dtype=torch.float64)
    sde = nk.SGDSDE(cubic, nk.GaussianNoise(scale=0.0), 0.1)
    solution = nk.integrate(sde, x0, steps=20, replicates=3, keep_state=True)
    finite = solution.state["x"].isfinite().all(-1)
    first = int(solution.diverged[1])
    assert solution.diverged.tolist() == [-1, first, -1]
    assert finite[1, :first].all()
    assert not finite[1, first:].any()
    reduced = nk.integrate(sde, x0, steps=20, replicates=3, keep_state=False)
    assert reduced.statistics["x_mean"].isfinite().all()
    assert reduced.diverged.tolist() == [-1, first, -1]


def test_a_run_in_two_parts_is_the_run_in_one():
    whole = nk.integrate(make_sde("rmsprop"), start(), steps=20, replicates=7)
    first = nk.integrate(make_sde("rmsprop"), start(), steps=8, replicates=7)
    second = nk.integrate(
        make_sde("rmsprop"), None, steps=12, replicates=7, start_step=8, init_state=first.state_at(8)
    )
    assert torch.equal(whole.state["x"][:, -1], second.state["x"][:, -1])


def test_v_stays_positive_when_it_starts_at_nothing():
    sde = make_sde("adam", betas=(0.9, 0.99))
    zero = {"v": torch.zeros(6, dtype=torch.float64), "m": torch.zeros(6, dtype=torch.float64)}
    for solver in (EulerMaruyama(), StochasticHeun()):
        options = {"steps": 30, "replicates": 300, "substeps": 8, "solver": solver, "start_step": 1}
        given = zero if solver.uses_euler_step else {"v": zero["v"] + 1e-6, "m": zero["m"]}
        solution = nk.integrate(sde, start(), init_state=given, **options)
        assert (solution.state["v"][:, 1:] > 0).all()
        assert (solution.diverged == -1).all()


def test_a_dead_coordinate_stays_where_it_is():
    noise = nk.GaussianNoise(scale=torch.tensor([1.0, 0.0]))
    for kind in (nk.RMSpropSDE, nk.AdamSDE):
        sde = kind(lambda x: x * torch.tensor([1.0, 0.0]), noise, 0.01)
        solution = nk.integrate(sde, torch.ones(2), steps=20, replicates=4)
        assert torch.equal(solution.state["x"][..., 1], torch.ones(4, 21))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", KINDS)
def test_dtype_is_kept(name, dtype):
    kinds = {"sgd": nk.SGDSDE, "signsgd": nk.SignSGDSDE, "rmsprop": nk.RMSpropSDE, "adam": nk.AdamSDE}
    sde = kinds[name](lambda x: x, nk.GaussianNoise(scale=1.0), ETA)
    solution = nk.integrate(sde, torch.ones(3, dtype=dtype), steps=3)
    assert all(value.dtype == dtype for value in solution.state.values())


def test_progress_goes_to_stderr(capsys):
    nk.integrate(make_sde(), start(), steps=3, progress=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "3/3" in captured.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"substeps": 3}, "power of two"),
        ({"replicates": -1}, "replicates is -1"),
        ({"save_every": 2.5}, "whole number"),
        ({"quantiles": (0.5, 1.5)}, r"\[0, 1\]"),
        ({"init_state": {"w": torch.ones(6)}}, "'w'"),
        ({"init_state": {"v": -torch.ones(6)}}, "negative"),
        ({"init_state": {"m": torch.ones(5)}}, "5 coordinates"),
        ({"observables": {"bad": lambda x: x}}, "'bad'"),
        ({"observables": {"bad": 3}}, "map names to functions"),
        ({"init_state": {"m": 1.0}}, "to tensors"),
        ({"quantiles": 0.5}, "sequence"),
        ({"seed": 1.5}, "seed is 1.5"),
        ({"solver": "heun"}, "solver a str"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        nk.integrate(make_sde("adam"), start(), **({"steps": 2} | arguments))


@pytest.mark.parametrize(
    ("x0", "message"),
    [
        (torch.ones(6, dtype=torch.int64), "int64"),
        (torch.ones(3, 6), "3 replicates"),
        (torch.tensor([1.0, math.nan]), "NaN"),
        (torch.ones(2, 2, 2), "shape"),
        (None, "NoneType"),
    ],
)
def test_bad_starting_points_are_refused(x0, message):
    with pytest.raises(InputError, match=message):
        nk.integrate(make_sde(), x0, steps=2, replicates=2)


@pytest.mark.parametrize(
    ("gradient", "message"),
    [
        (lambda x: x.sum(1), r"shape \(1,\)"),
        (lambda x: x.float(), "float32"),
        (lambda x: 1.0, "float"),
    ],
)
def test_bad_gradients_are_refused(gradient, message):
    sde = nk.SGDSDE(gradient, nk.GaussianNoise(scale=1.0), ETA)
    with pytest.raises(InputError, match=message):
        nk.integrate(sde, start(), steps=2)


def test_a_gradient_that_mixes_replicates_is_refused():
    def averaged(x):
        leaf = x.detach().requires_grad_()
        return torch.autograd.grad(leaf.square().sum(1).mean(), leaf)[0]

    sde = nk.SGDSDE(averaged, nk.GaussianNoise(scale=1.0), ETA)
    assert nk.integrate(sde, start(), steps=1).diverged.tolist() == [-1]
    with pytest.raises(InputError, match="sum the losses"):
        nk.integrate(sde, start(), steps=1, replicates=3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda g, n: nk.SGDSDE(g, n, 0.0), "learning_rate"),
        (lambda g, n: nk.SGDSDE(g, n, -1.0), "learning_rate"),
        (lambda g, n: nk.SGDSDE(g, n, math.nan), "learning_rate"),
        (lambda g, n: nk.SGDSDE(g, n, 0.1, momentum=1.0), "momentum"),
        (lambda g, n: nk.SGDSDE(g, n, 0.1, nesterov=True), "nesterov"),
        (lambda g, n: nk.SGDSDE(g, n, 0.1, order=3), "order"),
        (lambda g, n: nk.SGDSDE(g, n, 0.1, schedule=0.5), "schedule"),
        (lambda g, n: nk.RMSpropSDE(g, n, 0.1, beta=1.0), "beta"),
        (lambda g, n: nk.AdamSDE(g, n, 0.1, betas=(0.9, -0.1)), r"betas\[1\]"),
        (lambda g, n: nk.AdamSDE(g, n, 0.1, betas=0.9), "two numbers"),
        (lambda g, n: nk.AdamSDE(g, n, 0.1, variant="consistant"), "Did you mean 'consistent'"),
        (lambda g, n: nk.AdamSDE(g, n, 0.1, decay="L2"), "Did you mean 'l2'|Known: decoupled, l2"),
        (lambda g, n: nk.AdamSDE(g, n, 0.1, weight_decay=-1.0), "weight_decay"),
        (lambda g, n: nk.SignSGDSDE(g, 1.0, 0.1), "noise model"),
        (lambda g, n: nk.SignSGDSDE(None, n, 0.1), "gradient"),
    ],
)
def test_bad_equations_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make(lambda x: x, nk.GaussianNoise(scale=1.0))


@pytest.mark.parametrize("name", ["sgd", "rmsprop", "adam"])
def test_infinite_variance_is_refused_and_signsgd_named(name):
    kinds = {"sgd": nk.SGDSDE, "rmsprop": nk.RMSpropSDE, "adam": nk.AdamSDE}
    sde = kinds[name](lambda x: x, nk.StudentTNoise(scale=1.0, df=2.0), ETA)
    with pytest.raises(InfiniteVarianceError, match="SignSGD"):
        nk.integrate(sde, start(), steps=2)


def test_a_learning_rate_beyond_stability_warns_with_the_value():
    with pytest.warns(UserWarning, match=r"0\.3 is beyond the stability limit 0\.2"):
        nk.SGDSDE(lambda x: x, nk.GaussianNoise(scale=1.0), 0.3, curvature=10.0)


@pytest.mark.parametrize(
    "problem",
    [
        nk.Quadratic(torch.tensor([1.0, 10.0])),
        nk.Quadratic(torch.tensor([[5.5, 4.5], [4.5, 5.5]])),
        LinearRegression(torch.tensor([[4.0, 2.0], [-4.0, 2.0]]) * 1.25**0.5 / 2**0.5, torch.zeros(2)),
    ],
    ids=["diagonal", "matrix", "regression"],
)
def test_a_loss_that_knows_its_hessian_warns_by_itself(problem):
    with pytest.warns(UserWarning, match=r"0\.3 is beyond the stability limit 0\.2 of curvature 10"):
        nk.SGDSDE(problem.gradient, nk.GaussianNoise(scale=1.0), 0.3)
    with pytest.warns(UserWarning, match=r"limit 0\.1 of curvature 20"):
        nk.SGDSDE(problem.gradient, nk.GaussianNoise(scale=1.0), 0.15, curvature=20.0)
    nk.SGDSDE(problem.gradient, nk.GaussianNoise(scale=1.0), 0.19)
    nk.SGDSDE(lambda x: problem.gradient(x), nk.GaussianNoise(scale=1.0), 0.3)


def test_an_order_two_equation_needs_an_order_two_solver():
    with pytest.raises(InputError, match="StochasticHeun"):
        nk.integrate(make_sde(order=2), start(), steps=2, solver=EulerMaruyama())


def test_noise_from_data_runs_in_one_thread():
    class FromData(nk.GaussianNoise):
        problem = object()

    sde = nk.SGDSDE(lambda x: x, FromData(scale=1.0), ETA)
    with pytest.raises(InputError, match="workers=1"):
        nk.integrate(sde, start(), steps=2, workers=2)


def test_schedules_that_are_not_finite_are_refused():
    with pytest.raises(InputError, match="step 1"):
        nk.integrate(make_sde(schedule=lambda k: 1.0 if k == 0 else math.nan), start(), steps=3)


def test_a_state_can_be_read_where_it_was_saved_only():
    solution = nk.integrate(make_sde(), start(), steps=6, save_every=3)
    assert solution.state_at(3)["x"].shape == (1, 6)
    with pytest.raises(InputError, match="nearest saved step is 3"):
        solution.state_at(4)
    with pytest.raises(InputError, match="keep_state"):
        nk.integrate(make_sde(), start(), steps=2, keep_state=False).state_at(2)


@pytest.mark.parametrize("scale", [0.3, torch.tensor([0.1, 0.5, 0.9])])
@pytest.mark.parametrize("schedule", [None, lambda step: 1.0 - step % 2])
def test_sgd_in_units_of_its_noise_takes_the_same_steps(
    scale: float | torch.Tensor, schedule: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, where passes over memory cost most; a factor of 0 and noise of size 0 leave it."""
    hessian = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    noise = nk.GaussianNoise(scale=scale)

    def state(noise: nk.GaussianNoise) -> torch.Tensor:
        sde = nk.SGDSDE(nk.Quadratic(hessian).gradient, noise, 0.1, weight_decay=0.2, schedule=schedule)
        x0 = torch.tensor([1.0, -2.0, 0.0], dtype=torch.float64)
        return nk.integrate(sde, x0, steps=7, substeps=4, replicates=5).state["x"]

    silent = nk.GaussianNoise(scale=torch.tensor([0.1, 0.0, 0.5]))
    plain, without = state(noise), state(silent)
    taken: list[int] = []
    step = nk.SGDSDE._step_in_units_of_noise
    monkeypatch.setattr(sgd, "reads_cost_most", lambda _: True)

    def counted(self: nk.SGDSDE, x: torch.Tensor, known: Any, at: Any) -> None:
        taken.append(at.step)
        step(self, x, known, at)

    monkeypatch.setattr(nk.SGDSDE, "_step_in_units_of_noise", counted)
    assert torch.allclose(state(noise), plain, rtol=1e-12, atol=1e-14)
    expected = [k for k in range(7) if schedule is None or schedule(k) != 0]
    assert sorted(set(taken)) == expected
    taken.clear()
    assert torch.equal(state(silent), without)
    assert not taken
