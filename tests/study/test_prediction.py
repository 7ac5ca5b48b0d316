"""``predict``: floors and paces against closed forms, simulated truth and real runs."""

import math

import numpy as np
import pytest
import torch
import xarray as xr

import noisekit as nk
from noisekit.errors import FileFormatError, InputError
from noisekit.noise import StudentTNoise
from noisekit.results.labelled import dataset
from noisekit.study import StudyConfig
from noisekit.study.setting import Setting
from noisekit.study.stored_noise import stored_noise
from noisekit.theory.hyperparameters import check_hyperparameters

HYPER = {"sgd": 0.1, "signsgd": 0.01, "rmsprop": 0.01, "adam": 0.01, "adamw": 0.01}


def record_tree(noise, blocks, sizes, *, signal=0.0, index=None, training=None, deviations=False):
    """A tree as a recorder writes it: noise (step, sample, coordinate) of all, of which ``index`` is kept."""
    steps, n, d = noise.shape
    owner = np.repeat(np.arange(len(sizes)), sizes)
    noise = noise - noise.mean(1, keepdims=True)
    variance = noise.var(1, ddof=1)
    trace = np.stack([variance[:, owner == b].sum(1) for b in range(len(sizes))], axis=1)
    index = np.arange(d) if index is None else np.sort(index)
    groups = {
        "/training": dataset(
            "/training",
            {"step": np.arange(steps), "loss": np.full(steps, 2.0)},
            {"batch_size": n, **(training or {})},
        ),
        "/gradient_noise": dataset(
            "/gradient_noise",
            {
                "step": np.arange(steps),
                "block": np.array(blocks),
                "block_size": np.array(sizes),
                "trace": trace,
                "mean_squared_norm": trace / n + signal / len(sizes),
            },
            {"batch_size": n, "coverage": 1.0},
        ),
        "/gradient_noise/samples": dataset(
            "/gradient_noise/samples",
            {
                "step": np.arange(steps),
                "coordinate": index,
                "coordinate_block": np.array(blocks)[owner[index]],
                "noise": noise[:, :, index],
            },
        ),
    }
    if deviations:
        sums = np.stack([np.sqrt(variance[:, owner == b]).sum(1) for b in range(len(sizes))], axis=1)
        groups["/gradient_noise"]["deviation_sum"] = (("step", "block"), sums)
    tree = xr.DataTree.from_dict(groups)
    tree.attrs["Conventions"] = "noisekit-1"
    return tree


def gaussian_tree(seed=0, steps=1, n=64, sizes=(30, 10), **more):
    rng = np.random.default_rng(seed)
    scale = rng.lognormal(size=sum(sizes))
    return record_tree(rng.standard_normal((steps, n, sum(sizes))) * scale, ["a", "b"], list(sizes), **more)


def figure(found, quantity):
    return next(f for f in found.figures if f.quantity == quantity)


@pytest.mark.parametrize("optimizer", HYPER)
def test_floor_with_every_coordinate_is_the_closed_form(optimizer):
    tree = gaussian_tree()
    noise = tree["gradient_noise/samples/noise"].values[0]
    expected = nk.noise_floor(optimizer, noise.var(0, ddof=1) / 16, HYPER[optimizer], eps=1e-3)
    eps = {"eps": 1e-3} if optimizer not in ("sgd", "signsgd") else {}
    found = nk.predict(tree, optimizer, learning_rate=HYPER[optimizer], batch_size=16, **eps)
    floor = figure(found, "noise floor")
    assert floor.value == pytest.approx(expected, rel=1e-9)
    assert floor.lower < floor.value < floor.upper
    assert floor.batch_size == 16


def test_floor_is_linear_in_the_rate_and_falls_with_the_batch():
    tree = gaussian_tree()

    def floor(name, rate, batch, **more):
        return figure(
            nk.predict(tree, name, learning_rate=rate, batch_size=batch, **more), "noise floor"
        ).value

    assert floor("sgd", 0.2, 8) == pytest.approx(2 * floor("sgd", 0.1, 8))
    assert floor("sgd", 0.1, 8) == pytest.approx(4 * floor("sgd", 0.1, 32))
    assert floor("adam", 0.1, 8) == pytest.approx(2 * floor("adam", 0.1, 32), rel=1e-6)
    assert floor("sgd", 0.1, 8, momentum=0.9) == pytest.approx(10 * floor("sgd", 0.1, 8))


@pytest.mark.parametrize("spread", [0.3, 1.0])
def test_error_of_recording_some_coordinates_is_as_large_as_it_says(spread):
    rng = np.random.default_rng(3)
    sizes = [600, 300]
    scale = rng.lognormal(sigma=spread, size=900) * np.repeat([1.0, 0.2], sizes)
    noise = rng.standard_normal((1, 256, 900)) * scale
    trees = [
        record_tree(noise, ["a", "b"], sizes, index=rng.choice(900, 128, replace=False)) for _ in range(60)
    ]
    truth = np.sqrt(noise[0].var(0, ddof=1)).sum()
    found = np.array([stored_noise(tree)._total(*_weights(tree), 0, 1) for tree in trees])
    z = (found[:, 0] - truth) / found[:, 1]
    assert abs(z.mean()) < 0.6
    assert 0.6 < np.sqrt(np.mean(z**2)) < 1.6


def _weights(tree):
    deviation = np.sqrt(stored_noise(tree).noise[0].var(0, ddof=1))
    return deviation, deviation


def test_sums_of_deviations_in_the_file_leave_no_error_of_that_choice():
    rng = np.random.default_rng(3)
    noise = rng.standard_normal((1, 64, 900)) * rng.lognormal(size=900)
    whole = record_tree(noise, ["a"], [900])
    part = record_tree(noise, ["a"], [900], index=rng.choice(900, 50, replace=False), deviations=True)
    for name in ("adam", "signsgd"):
        expected = figure(nk.predict(whole, name, learning_rate=0.1, batch_size=8), "noise floor").value
        found = figure(nk.predict(part, name, learning_rate=0.1, batch_size=8), "noise floor").value
        assert found == pytest.approx(expected, rel=1e-5)


def test_error_of_the_samples_is_as_large_as_it_says():
    rng = np.random.default_rng(4)
    scale = rng.lognormal(size=20)
    truth = 0.1 / 4 * (scale**2).sum()
    z = []
    for _ in range(40):
        tree = record_tree(rng.standard_normal((1, 64, 20)) * scale, ["a"], [20])
        found = figure(nk.predict(tree, "sgd", learning_rate=0.1, batch_size=1), "noise floor")
        z.append(math.log(found.value / truth) / (math.log(found.upper / found.value) / 1.96))
    assert 0.5 < np.sqrt(np.mean(np.square(z))) < 1.7


@pytest.mark.parametrize(("momentum", "curvature"), [(0.0, 0.5), (0.5, 0.3), (0.9, 2.0), (0.9, 0.01)])
def test_pace_is_that_of_torch_sgd(momentum, curvature):
    hyper = check_hyperparameters("sgd", 0.1, momentum=momentum)
    pace = Setting(hyper, 1, stored_noise(gaussian_tree())).steps_to_fall(curvature)
    x = torch.nn.Parameter(torch.ones((), dtype=torch.float64))
    optimizer = torch.optim.SGD([x], lr=0.1, momentum=momentum)
    losses = []
    for _ in range(600):
        losses.append(float(curvature * x.detach() ** 2 / 2))
        x.grad = curvature * x.detach()
        optimizer.step()
    envelope = np.log(np.maximum.accumulate(losses[::-1])[::-1])
    slope = np.polyfit(np.arange(100, 500), envelope[100:500], 1)[0]
    assert pace == pytest.approx(-1 / slope, rel=0.05)


def test_a_rate_that_is_too_large_never_gets_there_and_a_stable_one_is_named():
    tree = gaussian_tree(training={"sharpness": 30.0})
    found = nk.predict(tree, "sgd", learning_rate=0.1)
    assert figure(found, "steps to 1/e").value == math.inf
    assert any("unstable" in sentence for sentence in found.verdict)
    assert next(g for g in found.gauges if g.name == "eta_lambda_max").verdict == "refused"
    stable = next(t for t in found.trials if t.what == "a stable learning rate")
    assert stable.hyperparameters["lr"] * 30 == pytest.approx(0.5, rel=1e-4)
    assert stable.steps_to_fall < 5


def test_without_curvature_the_pace_is_not_made_up():
    found = nk.predict(gaussian_tree(), "sgd", learning_rate=0.1)
    assert {f.quantity for f in found.figures}.isdisjoint({"steps to 1/e", "steps to the floor"})
    assert any("--sharpness" in sentence for sentence in found.unknown)
    given = nk.predict(gaussian_tree(), "sgd", learning_rate=0.1, sharpness=2.0)
    assert figure(given, "steps to 1/e").value == pytest.approx(-1 / (2 * math.log(0.8)))


def test_batch_to_try_is_next_to_the_noise_scale_with_scaled_hyperparameters():
    tree = gaussian_tree(steps=16, signal=1.0)
    found = nk.predict(tree, "adamw", learning_rate=0.01, batch_size=16, weight_decay=0.1)
    scale = figure(found, "gradient noise scale")
    assert scale.lower < scale.value < scale.upper
    trial = next(t for t in found.trials if t.what == "batch near the noise scale")
    assert 0.7 < trial.batch_size / scale.value < 1.5
    given = {"lr": 0.01, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.1}
    assert trial.hyperparameters == nk.scale_hyperparameters("adamw", given, trial.batch_size / 16)
    asked = found.trials[0]
    assert trial.floor == pytest.approx(asked.floor, rel=1e-4)


def test_a_batch_whose_rates_would_be_unstable_is_not_proposed():
    tree = gaussian_tree(steps=16, signal=0.2, training={"sharpness": 4.0})
    found = nk.predict(tree, "sgd", learning_rate=0.1, batch_size=2)
    batches = [t.batch_size for t in found.trials if t.what == "batch near the noise scale"]
    assert all(math.isfinite(t.steps_to_fall) for t in found.trials)
    assert batches == [8]  # ηλ = 0.1·4·4 < 2; 16 would be 3.2


def test_infinite_variance_leaves_signsgd_with_the_floor_of_its_law():
    rng = np.random.default_rng(0)
    scale = rng.lognormal(size=40)
    noise = rng.standard_t(1.2, size=(4, 200, 40)) * scale
    noise -= np.median(noise, axis=1, keepdims=True)
    tree = record_tree(noise, ["a"], [40])
    found = nk.predict(tree, "adam", learning_rate=0.01, batch_size=1)
    assert not found.exists
    assert found.figures_of == "signsgd"
    assert "no SDE" in found.verdict[0]
    law = StudentTNoise(torch.tensor(scale), 1.2)
    expected = nk.noise_floor("signsgd", law, 0.01)
    floor = figure(found, "noise floor")
    assert floor.value == pytest.approx(expected, rel=0.06)
    assert floor.lower < floor.value < floor.upper
    sgd = nk.predict(tree, "sgd", learning_rate=0.1, batch_size=1)
    assert next(g for g in sgd.gauges if g.name == "tail").verdict == "refused"
    assert nk.predict(tree, "signsgd", learning_rate=0.01, batch_size=1).exists
    large = nk.predict(tree, "adam", learning_rate=0.01, batch_size=100)
    assert any("law of minibatches of 100" in sentence for sentence in large.unknown)
    assert "noise floor" not in {f.quantity for f in large.figures}


def test_finite_variance_is_not_called_infinite():
    assert nk.predict(gaussian_tree(n=200), "adam", learning_rate=0.01).exists


def test_without_samples_sgd_is_predicted_and_adam_said_to_be_unknown():
    tree = gaussian_tree()
    bare = xr.DataTree.from_dict(
        {node.path: node.to_dataset(inherit=False) for node in tree.subtree if node.name != "samples"}
    )
    assert figure(nk.predict(bare, "sgd", learning_rate=0.1), "noise floor").value > 0
    found = nk.predict(bare, "adam", learning_rate=0.1)
    assert "noise floor" not in {f.quantity for f in found.figures}
    assert any("--coordinates" in sentence for sentence in found.unknown)


def test_without_a_record_the_floor_of_the_file_is_scaled_or_refused():
    config = StudyConfig(optimizers=("sgd",), learning_rates=(0.02,), steps=4, warmup_steps=0, replicates=4)
    tree = nk.run_study(nk.load_problem("quadratic"), config)
    stored = float(tree["theory/sgd/noise_floor"])
    found = nk.predict(tree, "sgd", learning_rate=0.01)
    assert figure(found, "noise floor").value == pytest.approx(stored / 2)
    with pytest.raises(FileFormatError, match="noisekit collect"):
        nk.predict(tree, "adam", learning_rate=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("adm", {"learning_rate": 0.1}), "Did you mean 'adam'"),
        (("adam", {"learning_rate": -1.0}), "learning_rate"),
        (("adam", {"learning_rate": math.nan}), "learning_rate"),
        (("adam", {"learning_rate": 0.1, "batch_size": 0}), "batch_size"),
        (("adam", {"learning_rate": 0.1, "betas": (0.9, 1.0)}), "β₂"),
        (("sgd", {"learning_rate": 0.1, "momentum": 1.0}), "momentum"),
        (("sgd", {"learning_rate": 0.1, "sharpness": math.inf}), "sharpness"),
    ],
)
def test_bad_questions_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        nk.predict(gaussian_tree(), arguments[0], **arguments[1])


def linear_problem():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(256, 4, generator=generator)
    noise = torch.randn(256, 1, generator=generator)
    # Each input comes with both signs of its noise: signs settle where the median is, which is the mean then.
    inputs, noise = torch.cat([inputs, inputs]), torch.cat([noise, -noise])
    targets = inputs @ torch.tensor([[1.0], [-1.0], [0.5], [0.0]]) + noise
    model = torch.nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.linalg.lstsq(inputs, targets).solution.T)
    return nk.ModelProblem(model, torch.nn.functional.mse_loss, inputs, targets)


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "rate"), [("sgd", 0.01), ("signsgd", 0.004), ("adam", 0.004)])
def test_floor_is_where_real_runs_settle(optimizer, rate):
    problem = linear_problem()
    config = nk.CollectConfig(steps=40, batch_size=128, learning_rate=1e-9, every=2)
    found = nk.predict(nk.collect(problem, config), optimizer, learning_rate=rate, batch_size=8)
    makers = {"sgd": torch.optim.SGD, "signsgd": nk.SignSGD, "adam": torch.optim.Adam}
    runs = nk.simulate_optimizer(
        problem,
        lambda parameters: makers[optimizer](parameters, lr=rate),
        problem.x0,
        steps=3000,
        replicates=48,
        batch_size=8,
        save_every=100,
        observables={"loss": problem.loss},
        keep_state=False,
    )
    late = runs.observables["loss"][:, 15:].double().mean(dim=1) - problem.loss(problem.x0[None]).double()
    floor = figure(found, "noise floor").value
    error = float(late.std()) / 48**0.5
    # To first order in the learning rate: ηλ is a few percent here.
    assert float(late.mean()) == pytest.approx(floor, abs=3 * error + 0.12 * floor)
