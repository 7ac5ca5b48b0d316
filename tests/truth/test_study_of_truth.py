"""The study as its user sees it: presets, the command, the file, the tables."""

import json
from dataclasses import replace
from importlib import import_module

import pytest
import torch

from noisekit.cli import main
from noisekit.errors import InputError
from noisekit.results import open_tree
from noisekit.truth import experiments, headline, plan, table
from noisekit.truth.arms import ARMS
from noisekit.truth.ensembles import build_problem
from noisekit.truth.experiment import Experiment
from noisekit.truth.fitted import fitted_noise
from noisekit.truth.insights.floor_from_record import Case


@pytest.mark.parametrize("preset", ["quick", "full", "gpu"])
def test_presets_name_each_experiment_once_with_known_arms(preset):
    rows = experiments(preset)
    assert len({row.name for row in rows}) == len(rows)
    assert all(arm in ARMS for row in rows for arm in row.arms)
    assert all(row.steps % row.save_every == 0 for row in rows)


def test_full_preset_has_what_it_promises():
    rows = experiments("full")
    minibatch = {row.optimizer for row in rows if row.noise == "minibatch"}
    assert minibatch == {"sgd", "signsgd", "rmsprop", "rmspropw", "adam", "adamw"}
    assert {row.df for row in rows if row.noise == "student_t"} == {1.0, 2.0, 5.0}
    assert {arm for row in rows for arm in row.arms} == set(ARMS)


def test_only_chooses_by_regular_expression():
    assert [row.name for row in plan("quick", only="mlp_sgd").experiments] == ["breast-cancer-mlp_sgd"]
    with pytest.raises(InputError, match=r"matches 'nothing'; there are quadratic_sgd_gaussian"):
        plan("quick", only="nothing")
    with pytest.raises(InputError, match="not a regular expression"):
        plan("quick", only="(")
    with pytest.raises(InputError, match="Did you mean 'quick'"):
        plan("quik")


def test_fits_come_from_recorded_gradients_of_another_run():
    row = Experiment("breast-cancer-mlp", "sgd", 0.1, 4, 4, n_samples=64, warmup=2)
    problem = build_problem(row)
    exact = problem.gradient_moments(problem.x0[None])
    truth = ((exact[1] - exact[0].square()) / row.batch_size).sum()
    for kind in ("gaussian", "covariance"):
        fitted = fitted_noise(kind, row, problem, problem.x0)
        assert fitted.batch_size == row.batch_size
        torch.testing.assert_close(fitted.variance(problem.x0[None]).sum(), truth, rtol=0.25, atol=0)


SHORTER = {
    "noise_floors": {
        "levels": (0.2, 3.0), "settle": 60, "keep": 60, "batch_sizes": (32, 128), "batch_keep": 2.0
    },
    "signsgd_stationary": {"settle": 60, "keep": 100},
    "heavy_tails": {"steps": 60, "instants": 20, "degrees_of_freedom": (5.0, 1.0)},
    "decoupled_decay": {"levels": (1.0, 10.0), "settle": 60, "keep": 60},
    "batch_scaling": {"settle": 60, "keep": 60},
    "floor_from_record": {"replicates": 2, "descent": 60, "cases": (Case(0.01, 16, ("sgd",), (2.0,), 40),)},
}  # fmt: skip
"""Sizes of insights of which only the way into the file matters here; other tests have their claims."""


@pytest.mark.longest
@pytest.mark.slow
def test_quick_preset_from_the_command_line(tmp_path, capsys, monkeypatch):
    for name, shorter in SHORTER.items():
        sizes = import_module(f"noisekit.truth.insights.{name}").SIZES
        monkeypatch.setitem(sizes, "quick", replace(sizes["quick"], **shorter))
    output = tmp_path / "study.nc"
    # Computed in this process: others would not know of the shorter insights.
    assert main(["study", "--output", str(output), "--workers", "1", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    tree = open_tree(output)
    rows = headline(tree).set_index("experiment")
    assert len(rows) == sum("consistent" in row.arms for row in experiments("quick"))
    assert (rows["gap"] < 3 * rows["gap_error"] + 0.5).all()
    assert (rows["ode_gap"].dropna() > rows["gap"][rows["ode_gap"].notna()]).all()
    assert rows["std_ratio"].between(0.7, 1.4).all()
    controls = table(tree).query("kind == 'control' and prediction == 'double_covariance'")
    assert (controls["std_ratio"] > 1.3).all()
    both = table(tree).query("experiment.str.endswith('short-memory')").set_index("prediction")
    right, wrong = both.loc["order_two"], both.loc["order_two_no_v_noise"]
    assert wrong["gap"] - right["gap"] > 3 * wrong["gap_error"]
    assert {i["insight"] for i in printed["insights"]} == set(tree["insight"].children)
    assert all(i["finding"] in ("held", "held in part", "failed") for i in printed["insights"])
    # Everything is finished, so that the same command again only reads.
    assert main(["study", "--output", str(output), "--overwrite"]) == 0
    assert "breast-cancer-mlp_adamw" in capsys.readouterr().out


def test_list_computes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["study", "--list", "--only", "saddle", "--preset", "full"]) == 0
    assert "embedded-saddle_adamw_gaussian: consistent, fine" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
