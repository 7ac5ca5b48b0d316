"""The whole chain on real data: everything is there, exact where it must be, and repeats itself."""

import json
import platform
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import noisekit as nk
from noisekit.errors import InputError, NonFiniteError
from noisekit.study import StudyConfig, load_study_problem
from noisekit.study.noise import minibatch_noise
from noisekit.study.training import train_and_record

TINY = StudyConfig(
    learning_rates=(0.05, 0.002),
    batch_size=16,
    steps=8,
    warmup_steps=4,
    replicates=6,
    n_samples=200,
    training_steps=20,
    training_batch_size=32,
    record_every=2,
    coordinates=64,
    sketch=16,
)


@pytest.fixture(scope="module")
def problem():
    return load_study_problem("breast-cancer-mlp", TINY)


@pytest.fixture(scope="module")
def tree(problem):
    return nk.run_study(problem, TINY, command=TINY.command(problem.name))


def test_every_part_is_in_the_tree(tree):
    assert set(tree.children) == {
        *("training", "gradient_noise", "tail_index", "noise_model", "minibatch_noise"),
        *("sde", "optimizer", "theory", "comparison"),
    }
    assert list(tree["sde"].children) == list(tree["optimizer"].children) == ["sgd", "adam"]
    assert tree["training"]["step"].values.tolist() == list(range(0, 20, 2))
    assert tree["gradient_noise/samples/noise"].shape == (10, 32, 64)
    assert tree["sde/adam/loss"].shape == tree["optimizer/adam/loss"].shape == (6, 3)
    assert tree["sde/adam/step"].values.tolist() == [4, 8, 12]
    np.testing.assert_allclose(tree["sde/adam"]["time"], 0.002 * np.array([4, 8, 12]), rtol=1e-6)


def test_mean_per_sample_gradient_is_the_training_gradient(tree):
    assert float(tree["gradient_noise/mean_gradient_error"].max()) < 1e-5


def test_predictions_start_where_real_runs_are(tree):
    for name in ("sgd", "adam"):
        start = [tree[f"{kind}/{name}/loss"].values[:, 0] for kind in ("sde", "optimizer")]
        np.testing.assert_allclose(start[0], start[1], rtol=1e-5)


def test_recorded_loss_is_the_loss_of_the_first_minibatch(problem, tree):
    # Before the first step the loss of a batch scatters around that of all data.
    whole = float(problem.loss(problem.x0[None]))
    assert float(tree["training/loss"][0]) == pytest.approx(whole, rel=0.3)
    assert float(tree["training/loss"][-1]) < whole


def test_floors_grow_with_the_learning_rate(problem, tree):
    floor = float(tree["theory/sgd/noise_floor"])
    x = train_and_record(problem, TINY).x[None]
    mean, second = nk.problems.ModelProblem.gradient_moments(_part(problem), x)
    expected = 0.05 / 4 * float((second - mean**2).sum()) / 16
    assert floor == pytest.approx(expected, rel=1e-4)


def _part(problem):
    from noisekit.study.problem import first_samples

    return first_samples(problem, TINY.n_samples)


def test_the_file_says_where_it_comes_from(tree, tmp_path):
    path = nk.save_tree(tree, tmp_path / "a.nc")
    with nk.open_tree(path) as back:
        attributes = back.attrs
    assert attributes["problem"] == "breast-cancer-mlp"
    assert attributes["dataset"] == "breast_cancer"
    assert len(attributes["dataset_sha256"]) == 64
    assert attributes["n_samples"] == 200
    assert attributes["n_training_samples"] == 455
    assert "first 200 of 455" in attributes["comparison_subset"]
    assert json.loads(attributes["config_json"])["learning_rates"] == [0.05, 0.002]
    text = json.dumps({n.path: dict(n.attrs) for n in tree.subtree}, default=str)
    for private in (str(Path.home()), str(Path.cwd()), platform.node()):
        assert private not in text


@pytest.mark.slow
def test_the_same_seed_gives_the_same_numbers_and_another_does_not(problem, tree):
    config = replace(TINY, optimizers=("sgd",), learning_rates=(0.05,))
    again = nk.run_study(problem, config)
    np.testing.assert_array_equal(again["sde/sgd/loss"], tree["sde/sgd/loss"])
    np.testing.assert_array_equal(again["gradient_noise/trace"], tree["gradient_noise/trace"])
    other = nk.run_study(problem, replace(config, seed=1))
    assert not np.array_equal(other["sde/sgd/loss"], tree["sde/sgd/loss"])


def test_the_users_model_stays_as_it_was(problem):
    before = {name: p.clone() for name, p in problem.model.named_parameters()}
    train_and_record(problem, replace(TINY, training_steps=3))
    for name, parameter in problem.model.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.grad is None
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in problem.model.modules())


def test_a_problem_without_network_is_compared_only():
    config = replace(TINY, optimizers=("adam",), learning_rates=(0.01,))
    tree = nk.run_study(nk.load_problem("rosenbrock"), config)
    assert set(tree.children) == {"sde", "optimizer", "theory", "comparison"}
    assert tree.attrs["sampling"].startswith("Gaussian noise")
    assert not nk.summary(tree).empty


def test_training_that_diverges_says_at_which_step(problem):
    config = replace(TINY, training_learning_rate=1e38, training_steps=50)
    with pytest.raises(NonFiniteError, match="step"):
        nk.run_study(problem, config)


def test_a_minibatch_larger_than_the_data_is_refused(problem):
    with pytest.raises(InputError, match="training_batch_size is 1000 and breast-cancer-mlp has 455"):
        nk.run_study(problem, replace(TINY, training_batch_size=1000))


def test_minibatch_noise_has_the_variance_of_the_mean():
    gradients = torch.randn(8000, 5, generator=torch.Generator().manual_seed(0)) * torch.arange(1.0, 6)
    noise, fit = minibatch_noise(gradients, 8)
    assert noise.shape == (1000, 5)
    np.testing.assert_allclose(noise.std(0), np.arange(1, 6) / np.sqrt(8), rtol=0.1)
    assert fit.batch_size == 8
    assert minibatch_noise(gradients[:100], 8) is None
