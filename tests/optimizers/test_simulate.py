"""Ensembles of real runs: closed forms, minibatches, states that continue, and refusals."""

import math

import pytest
import torch

import noisekit as nk
from noisekit.errors import InputError
from noisekit.optimizers import optimizer_state

ETA = 0.05


class MeanSquares:
    """f(x) = (1/N) Σ ½|x − a_i|²: gradients x − a_i, Σ₁ = Cov(a) whatever x is."""

    name = "mean-squares"

    def __init__(self, samples=200, dimension=3, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.data = torch.randn(samples, dimension, generator=generator, dtype=torch.float64)
        self.data -= self.data.mean(0)
        self.n_samples = samples
        self.x0 = torch.zeros(dimension, dtype=torch.float64)

    def loss(self, x):
        return 0.5 * (x[:, None] - self.data).square().sum(-1).mean(1)

    def gradient(self, x):
        return x - self.data.mean(0)

    def minibatch_gradient(self, x, index):
        return x - self.data[index].mean(1)


def sgd(params):
    return torch.optim.SGD(params, lr=ETA)


def adam(params):
    return torch.optim.Adam(params, lr=ETA)


@pytest.mark.parametrize(("replacement", "shrink"), [(True, 1.0), (False, (200 - 20) / 199)])
def test_stationary_covariance_of_minibatch_sgd(replacement, shrink):
    problem = MeanSquares()
    solution = nk.simulate_optimizer(
        problem,
        sgd,
        problem.x0,
        steps=200,
        replicates=2000,
        batch_size=20,
        replacement=replacement,
        save_every=200,
    )
    covariance = torch.cov(solution.state["x"][:, -1].T)
    per_sample = torch.cov(problem.data.T, correction=0)
    expected = ETA / (2 - ETA) * per_sample / 20 * shrink
    torch.testing.assert_close(covariance, expected, rtol=0.12, atol=0.05 * float(expected.diag().mean()))


def test_additive_noise_against_the_closed_form():
    problem = nk.Quadratic(torch.tensor([1.0, 3.0], dtype=torch.float64))
    solution = nk.simulate_optimizer(
        problem,
        sgd,
        problem.x0,
        steps=100,
        replicates=4000,
        noise=nk.GaussianNoise(scale=0.5),
        save_every=100,
    )
    x = solution.state["x"][:, -1]
    h = problem.hessian
    variance = ETA * 0.25 / (h * (2 - ETA * h))
    torch.testing.assert_close(x.var(0), variance, rtol=0.12, atol=0)
    assert (x.mean(0) - (1 - ETA * h) ** 100).abs().max() < 5 * float(variance.max().sqrt()) / math.sqrt(4000)


def test_a_run_is_torch_step_by_step():
    problem = MeanSquares()
    solution = nk.simulate_optimizer(problem, adam, problem.x0 + 1, steps=5, replicates=3, batch_size=4)
    from noisekit.sde.blocks import replicate_blocks
    from noisekit.sde.brownian import Draws

    draws = Draws(0, replicate_blocks(3, 3), 0, 1, problem.data[:3])
    batches = [draws.minibatch(200, 4, step, replacement=True) for step in range(5)]
    for row in range(3):
        x = torch.nn.Parameter(problem.x0 + 1)
        optimizer = adam([x])
        for index in batches:
            x.grad = (x.detach() - problem.data[index[row]]).mean(0)
            optimizer.step()
        torch.testing.assert_close(solution.state["x"][row, -1], x.detach())
        torch.testing.assert_close(solution.state["m"][row, -1], optimizer.state[x]["exp_avg"])
        torch.testing.assert_close(solution.state["v"][row, -1], optimizer.state[x]["exp_avg_sq"])


def test_runs_do_not_depend_on_how_many_there_are():
    problem = MeanSquares()
    for source in ({"batch_size": 4}, {"noise": nk.StudentTNoise(scale=1.0, df=3.0)}):
        few = nk.simulate_optimizer(problem, adam, problem.x0, steps=6, replicates=5, **source)
        many = nk.simulate_optimizer(problem, adam, problem.x0, steps=6, replicates=77, **source)
        assert torch.equal(few.state["x"], many.state["x"][:5])


@pytest.mark.parametrize(
    "make",
    [
        adam,
        lambda p: torch.optim.AdamW(p, lr=ETA, weight_decay=0.1),
        lambda p: torch.optim.RMSprop(p, lr=ETA),
        lambda p: nk.RMSpropW(p, lr=ETA, weight_decay=0.1),
        lambda p: torch.optim.SGD(p, lr=ETA, momentum=0.9),
        lambda p: nk.SignSGD(p, ETA),
    ],
)
def test_a_run_in_two_parts_is_the_run_in_one(make):
    problem = MeanSquares()
    options = {"replicates": 4, "batch_size": 5}
    whole = nk.simulate_optimizer(problem, make, problem.x0 + 1, steps=9, **options)
    first = nk.simulate_optimizer(problem, make, problem.x0 + 1, steps=4, **options)
    second = nk.simulate_optimizer(
        problem, make, None, steps=5, start_step=4, init_state=first.state_at(4), **options
    )
    assert torch.equal(whole.state["x"][:, 4:], second.state["x"])


def test_the_result_says_what_was_run():
    problem = MeanSquares()
    solution = nk.simulate_optimizer(
        problem,
        lambda p: nk.RMSpropW(p, lr=ETA, alpha=0.9),
        problem.x0,
        steps=6,
        batch_size=5,
        save_every=4,
        observables={"loss": problem.loss},
        replicates=2,
    )
    assert (solution.optimizer, solution.kind, solution.learning_rate) == ("rmspropw", "optimizer", ETA)
    assert solution.step.tolist() == [0, 4, 6]
    assert sorted(solution.state) == ["v", "x"]
    assert solution.settings["alpha"] == 0.9
    assert solution.settings["batch_size"] == 5
    torch.testing.assert_close(solution.observables["loss"][:, -1], problem.loss(solution.state["x"][:, -1]))


def test_statistics_where_states_are_not_kept():
    problem = MeanSquares()
    options = {"steps": 4, "replicates": 50, "batch_size": 5}
    kept = nk.simulate_optimizer(problem, sgd, problem.x0, **options)
    reduced = nk.simulate_optimizer(problem, sgd, problem.x0, keep_state=False, **options)
    assert reduced.state == {}
    torch.testing.assert_close(reduced.statistics["x_variance"], kept.state["x"].var(0))


def test_divergence_is_marked():
    problem = nk.Quadratic(torch.tensor([1.0, 1000.0]))
    solution = nk.simulate_optimizer(
        problem,
        lambda p: torch.optim.SGD(p, lr=1.0),
        None or problem.x0,
        steps=40,
        noise=nk.GaussianNoise(scale=0.0),
    )
    first = int(solution.diverged)
    finite = solution.state["x"][0].isfinite().all(-1)
    assert 0 < first < 40
    assert finite[: first - 1].all()
    assert not finite[-1]


def test_schedule_is_that_of_lambda_lr():
    problem = MeanSquares()

    def schedule(step):
        return 0.9**step

    ours = nk.simulate_optimizer(problem, sgd, problem.x0 + 1, steps=5, batch_size=200, schedule=schedule)
    x = torch.nn.Parameter((problem.x0 + 1)[None])
    optimizer = sgd([x])
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
    from noisekit.sde.blocks import replicate_blocks
    from noisekit.sde.brownian import Draws

    draws = Draws(0, replicate_blocks(1, 3), 0, 1, problem.data[:1])
    for step in range(5):
        index = draws.minibatch(200, 200, step, replacement=True)
        x.grad = problem.minibatch_gradient(x.detach(), index)
        optimizer.step()
        scheduler.step()
    torch.testing.assert_close(ours.state["x"][0, -1], x.detach()[0])


def test_state_of_a_torch_optimizer_is_read_flat():
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(4):
        optimizer.zero_grad()
        model(torch.ones(5, 3)).square().mean().backward()
        optimizer.step()
    step, state = optimizer_state(optimizer)
    assert step == 4
    assert {name: tuple(value.shape) for name, value in state.items()} == dict.fromkeys("xmv", (8,))
    torch.testing.assert_close(state["x"], torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(state["v"][:6], optimizer.state[model.weight]["exp_avg_sq"].flatten())


class WholeNorm(torch.optim.SGD):
    """Not element-wise: the step is divided by the norm over everything."""

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = p.grad / p.grad.norm()
        return super().step(closure)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "exactly one"),
        ({"batch_size": 4, "noise": nk.GaussianNoise(scale=1.0)}, "exactly one"),
        ({"noise": 1.0}, "noise model"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 300, "replacement": False}, "exceeds the 200 samples"),
        ({"batch_size": 4, "make_optimizer": lambda p: torch.optim.LBFGS(p)}, "closure"),
        ({"batch_size": 4, "make_optimizer": lambda p: WholeNorm(p, lr=0.1)}, "element-wise"),
        ({"batch_size": 4, "make_optimizer": lambda p: None}, "NoneType"),
        ({"batch_size": 4, "problem": nk.Quadratic(torch.ones(3, dtype=torch.float64))}, "no samples"),
        (
            {"batch_size": 4, "start_step": 3, "make_optimizer": lambda p: torch.optim.NAdam(p, lr=0.1)},
            "mu_product",
        ),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    problem = MeanSquares()
    given = {"problem": problem, "make_optimizer": sgd, "x0": problem.x0, "steps": 2} | arguments
    with pytest.raises(InputError, match=message):
        nk.simulate_optimizer(given.pop("problem"), given.pop("make_optimizer"), given.pop("x0"), **given)
