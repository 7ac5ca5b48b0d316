"""Each stage of a study by itself, against closed forms and hand-made data."""

import time
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
import torch
from tqdm import tqdm

import noisekit as nk
from noisekit.errors import InputError, NonFiniteError
from noisekit.study import StudyConfig, load_study_problem
from noisekit.study.curvature import Curvature
from noisekit.study.equations import study_noise
from noisekit.study.laws import laws
from noisekit.study.noise import tail_of_blocks
from noisekit.study.parallel import Counter, Stopped, run_tasks
from noisekit.study.presets import with_preset
from noisekit.study.problem import first_samples
from noisekit.study.progress import bar
from noisekit.study.seeds import stage_seed
from noisekit.study.sharpness import sharpness
from noisekit.study.training import minibatches, train_and_record
from noisekit.study.trajectories import compare_optimizers

SMALL = StudyConfig(steps=20, warmup_steps=8, replicates=200, save_every=4, artificial_noise=0.3)


@pytest.fixture
def bowl():
    hessian = torch.tensor([2.0, 0.5, 0.1], dtype=torch.float64)
    return nk.Quadratic(hessian, x0=torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"optimizers": ()}, "needs an optimizer"),
        ({"optimizers": ("adm",)}, "Did you mean 'adam'"),
        ({"optimizers": ("sgd", "sgd")}, "named twice"),
        ({"learning_rates": (0.1,)}, "1 learning rates for 2 optimizers"),
        ({"learning_rates": (0.1, -1.0)}, "learning rate is -1.0"),
        ({"learning_rates": (0.1, float("nan"))}, "learning rate is nan"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0"),
        ({"artificial_noise": float("inf")}, "artificial_noise is inf"),
        ({"replicates": 1}, "replicates is 1; it needs to be at least 2"),
        ({"steps": 0}, "steps is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"batch_size": 600}, "batch_size is 600 and n_samples is 512"),
        ({"steps": 41}, "not a multiple of save_every"),
        ({"substeps": 3}, "power of two"),
    ],
)
def test_settings_that_cannot_be_used_are_named(change, sentence):
    with pytest.raises(InputError, match=sentence):
        replace(StudyConfig(), **change).check()


def test_the_command_repeats_the_settings():
    config = StudyConfig(optimizers=("sgd", "rmsprop"), learning_rates=(0.1, 0.01), seed=3)
    line = "noisekit run digits-mlp --optimizers sgd rmsprop --learning-rates 0.1 0.01 --seed 3"
    assert config.command("digits-mlp") == line
    assert StudyConfig().command("fashion-cnn") == "noisekit run fashion-cnn --seed 0"


def test_stages_have_seeds_of_their_own():
    stages = [("sde", "sgd"), ("sde", "adam"), ("optimizer", "sgd"), ("training",)]
    seeds = {stage_seed(seed, *stage) for seed in range(50) for stage in stages}
    assert len(seeds) == 200
    assert stage_seed(1, "sde", "sgd") == stage_seed(1, "sde", "sgd")


def test_minibatches_go_through_all_samples_before_any_comes_again():
    batches = minibatches(10, 5, seed=0, device="cpu")
    for _ in range(3):
        assert sorted(torch.cat([next(batches), next(batches)]).tolist()) == list(range(10))


def test_sharpness_is_the_largest_eigenvalue(bowl):
    assert sharpness(bowl, bowl.x0) == pytest.approx(2.0, rel=1e-6)


def test_the_subset_is_the_first_samples():
    problem = load_study_problem("breast-cancer-mlp", StudyConfig())
    part = first_samples(problem, 100)
    assert part.n_samples == 100
    expected = problem.sample_losses(problem.x0[None])[:, :100].mean(-1)
    torch.testing.assert_close(part.loss(problem.x0[None]), expected)
    assert first_samples(problem, 10_000) is problem


def test_the_subset_is_evaluated_as_its_problem_is():
    inputs, targets = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)), torch.zeros(20, 1)
    problem = nk.ModelProblem(
        torch.nn.Linear(3, 1), torch.nn.MSELoss(), inputs, targets, replicates="loop", chunk_size=4
    )
    part = first_samples(problem, 10)
    assert (part.replicates, part.chunk_size) == ("loop", 4)


def test_tails_are_found_in_the_block_that_has_them():
    rng = np.random.default_rng(0)
    heavy = rng.standard_t(1.5, (2000, 20)) * rng.lognormal(0, 2, 20)
    light = rng.normal(size=(2000, 20)) * rng.lognormal(0, 2, 20)
    noise = torch.tensor(np.concatenate([heavy, light, np.zeros((2000, 1))], 1))
    names = ["heavy"] * 20 + ["light"] * 20 + ["dead"]
    found = tail_of_blocks(noise, names, ["heavy", "light", "dead", "unseen"])
    low, high = found["alpha_interval"][0, 0]
    assert low < 1.5 < high
    assert found["alpha"][1, 0] > 4
    assert np.isnan(found["alpha"][2:]).all()


def test_real_runs_follow_the_closed_form_and_the_sde_follows_them(bowl):
    config = replace(SMALL, optimizers=("sgd",), learning_rates=(0.1,))
    (result,) = compare_optimizers(bowl, bowl.x0, config)
    # E|x_k|² coordinate by coordinate: a² E x² + η²σ², a = 1 − ηλ.
    eigenvalues, a = bowl.hessian, 1 - 0.1 * bowl.hessian
    second = bowl.x0**2
    losses = [0.5 * (eigenvalues * second).sum()]
    for _ in range(28):
        second = a**2 * second + 0.01 * 0.3**2
        losses.append(0.5 * (eigenvalues * second).sum())
    expected = torch.stack(losses)[result.reference.step].numpy()
    loss = result.comparison["loss"]
    error = loss.reference_std / np.sqrt(200)
    assert result.reference.step.tolist() == [8, 12, 16, 20, 24, 28]
    assert (np.abs(loss.reference_mean - expected) < 4 * error).all()
    assert result.comparison.verdict == "held"
    assert loss.mean_relative_gap < 0.02


@pytest.mark.parametrize("name", ["signsgd", "rmsprop", "rmspropw", "adam", "adamw"])
def test_every_optimizer_is_predicted(bowl, name):
    config = replace(SMALL, optimizers=(name,), learning_rates=(0.01,), weight_decay=0.1)
    (result,) = compare_optimizers(bowl, bowl.x0, config)
    assert result.comparison.optimizer == result.prediction.optimizer == name
    assert result.comparison["loss"].verdict == "held"


def test_a_wrong_learning_rate_is_not_held(bowl, monkeypatch):
    """The comparison of a study can fail: the prediction of another noise does."""
    from noisekit.study import trajectories

    config = replace(SMALL, optimizers=("sgd",), learning_rates=(0.1,), artificial_noise=1.0)
    build = trajectories.build_sde

    def with_other_noise(name, gradient, _noise, rate, **settings):
        return build(name, gradient, nk.GaussianNoise(scale=3.0), rate, **settings)

    monkeypatch.setattr(trajectories, "build_sde", with_other_noise)
    (result,) = compare_optimizers(bowl, bowl.x0, config)
    assert result.comparison.verdict == "missed"


def test_the_floor_is_that_of_the_noise(bowl):
    config = replace(SMALL, optimizers=("sgd",), learning_rates=(0.1,))
    law = laws("sgd", bowl, bowl.x0, config, curvature=Curvature(2.0, "given"))
    assert law["noise_floor"] == pytest.approx(0.1 / 4 * 3 * 0.3**2)
    assert dict(zip(law["gauge"], law["gauge_value"], strict=True))["eta_lambda_max"] == pytest.approx(0.2)


def test_gauges_have_the_intervals_of_what_they_are_estimated_from(bowl):
    config = replace(SMALL, optimizers=("sgd",), learning_rates=(0.1,))
    law = laws("sgd", bowl, bowl.x0, config, curvature=Curvature(2.0, "", -0.5, 3.0))
    ends = dict(zip(law["gauge"], law["gauge_interval"].tolist(), strict=True))
    assert ends["eta_lambda_max"] == pytest.approx([0.0, 0.3])
    assert np.isnan(ends["signal_over_noise"]).all()


def test_samples_behind_a_noise_scale_have_its_interval(bowl):
    problem = load_study_problem("breast-cancer-mlp", StudyConfig())
    config = replace(StudyConfig(), training_steps=40, record_every=4, coordinates=8, sketch=0)
    trained = train_and_record(problem, config)
    scale = nk.record_noise_scale(trained.record)
    law = laws("sgd", bowl, bowl.x0, SMALL, curvature=Curvature(2.0, ""), record=trained.record, scale=scale)
    at = list(law["gauge"]).index("noise_scale_identified")
    whole = scale.at_end["total"]
    samples = trained.record.batch_size * len(trained.record.step)
    assert law["gauge_value"][at] == pytest.approx(samples / whole.value)
    assert law["gauge_interval"][at] == pytest.approx([samples / end for end in whole.interval[::-1]])


def test_signsgd_has_phases(bowl):
    config = replace(SMALL, optimizers=("signsgd",))
    law = laws("signsgd", bowl, bowl.x0, config, curvature=Curvature(2.0, "given"))
    # |Y| = |∇f|/(√2 σ) = 4.7, 2.4, 0.7
    np.testing.assert_allclose(law["phase_fraction"], [2 / 3, 0, 1 / 3])


def test_minibatches_of_signsgd_keep_their_own_law():
    problem = load_study_problem("breast-cancer-mlp", StudyConfig())
    assert study_noise("signsgd", problem, SMALL).law == "empirical"
    assert study_noise("adam", problem, SMALL).law == "gaussian"


def test_threads_change_no_number(bowl, monkeypatch):
    from noisekit.study import trajectories

    config = replace(SMALL, optimizers=("sgd", "adam"), replicates=6)
    results = []
    for cores in (1, 3):
        monkeypatch.setattr(trajectories, "workers_for", lambda *_, cores=cores, **__: cores)
        results.append(compare_optimizers(bowl, bowl.x0, config))
    for one, three in zip(*results, strict=True):
        assert torch.equal(one.prediction.observables["loss"], three.prediction.observables["loss"])
        assert torch.equal(one.reference.observables["loss"], three.reference.observables["loss"])


def test_one_failing_task_ends_the_others():
    counter = Counter(tqdm(disable=True))
    ended = []

    def endless():
        try:
            while True:
                counter.add(1)
                time.sleep(0.01)
        except Stopped:
            ended.append(True)
            raise

    def failing():
        raise InputError("no")

    threads = torch.get_num_threads()
    with pytest.raises(InputError, match="no"):
        run_tasks({"a": endless, "b": failing}, workers=2, counter=counter)
    assert ended == [True]
    assert torch.get_num_threads() == threads


@pytest.mark.filterwarnings("ignore:learning_rate 1e\\+30 is beyond the stability limit")
@pytest.mark.parametrize("warmup", [0, 8])
def test_runs_that_all_diverge_say_when_and_what_to_change(bowl, warmup):
    rates = {"optimizers": ("sgd",), "learning_rates": (1e30,)}
    config = replace(SMALL, **rates, warmup_steps=warmup, replicates=4)
    with pytest.raises(NonFiniteError, match=r"4 of 4 real runs of sgd diverged, .*rate, now 1e\+30"):
        compare_optimizers(bowl, bowl.x0, config)


def test_presets_yield_to_what_was_asked_for():
    assert with_preset("fashion-resnet", StudyConfig()).n_samples == 128
    assert with_preset("fashion-resnet", StudyConfig(n_samples=300)).n_samples == 300
    assert with_preset("rosenbrock", StudyConfig(optimizers=("adam",))).learning_rates == ()
    for name in ("rosenbrock", "fashion-resnet", "shakespeare-gpt", "quadratic"):
        with_preset(name, StudyConfig()).check()


@pytest.mark.parametrize(("terminal", "expected"), [(True, "100%"), (False, "Fitting …\n")])
def test_progress_is_drawn_on_a_terminal_and_a_line_elsewhere(monkeypatch, terminal, expected):
    stream = StringIO()
    stream.isatty = lambda: terminal
    monkeypatch.setattr("sys.stderr", stream)
    with bar("Fitting", 3, show=True) as shown:
        shown.update(3)
    assert expected in stream.getvalue()
    assert ("\r" in stream.getvalue()) == terminal
    before = stream.getvalue()
    with bar("Fitting", 3, show=False) as shown:
        shown.update(3)
    assert stream.getvalue() == before
