"""Results in memory become the tree that the schema describes, with the right numbers in it."""

import numpy as np
import pytest
import torch
import xarray as xr

import noisekit as nk
from noisekit.errors import InputError
from noisekit.gradients.record import GradientRecord
from noisekit.results.labelled import dataset
from noisekit.results.schema import GROUPS, ROOT_ATTRIBUTES, find_group
from noisekit.results.truth_schema import TRUTH
from noisekit.sde.solution import Solution
from noisekit.validation import compare

STEPS, BATCH, BLOCKS = 3, 40, {"a": 4, "b": 6}


@pytest.fixture
def per_sample():
    generator = torch.Generator().manual_seed(0)
    scale = torch.linspace(0.5, 2, 10)
    return 0.3 + scale * torch.randn(STEPS, BATCH, 10, generator=generator)


@pytest.fixture
def record(per_sample):
    parts = per_sample.split(list(BLOCKS.values()), dim=-1)
    return GradientRecord(
        step=torch.tensor([0, 5, 10]),
        loss=torch.tensor([3.0, 2.0, 1.0]),
        learning_rate=torch.full((STEPS,), 0.1),
        gradient_norm=per_sample.mean(1).norm(dim=-1),
        elapsed_time=torch.tensor([0.1, 0.2, 0.3]),
        block=list(BLOCKS),
        block_size=list(BLOCKS.values()),
        trace=torch.stack([p.var(1).sum(-1) for p in parts], -1),
        mean_squared_norm=torch.stack([p.mean(1).square().sum(-1) for p in parts], -1),
        squared_norm=per_sample.square().sum(-1),
        gram=None,
        eigenvalue=None,
        coordinate_index=torch.arange(10),
        coordinate_block=["a"] * 4 + ["b"] * 6,
        coordinate_values=per_sample,
        sketch=None,
        batch_size=BATCH,
        coverage=1.0,
        uncovered=[],
        settings={"engine": "hooks", "gram": True, "nothing": None},
    )


def solution(kind, *, optimizer="sgd", shift=0.0, n=6):
    loss = torch.linspace(2, 1, 4) + shift + 0.01 * torch.arange(n)[:, None]
    return Solution(
        optimizer=optimizer,
        kind=kind,
        step=torch.tensor([0, 2, 4, 6]),
        time=0.1 * torch.tensor([0.0, 2, 4, 6]),
        state={"x": torch.zeros(n, 4, 2)},
        observables={"loss": loss},
        diverged=torch.full((n,), -1),
        learning_rate=0.1,
        seed=1,
        substeps=4,
        settings={"betas": (0.9, 0.999), "noise": "minibatch"},
    )


def test_noise_is_centred_and_numbers_follow_their_definitions(record, per_sample):
    tree = nk.to_datatree(record=record)
    noise = tree["gradient_noise/samples/noise"].values
    np.testing.assert_allclose(noise.mean(1), 0, atol=1e-6)
    node = tree["gradient_noise"]
    values = per_sample.double().numpy()
    for i, part in enumerate((values[..., :4], values[..., 4:])):
        trace = part.var(1, ddof=1).sum(-1)
        signal = (part.mean(1) ** 2).sum(-1) - trace / BATCH
        np.testing.assert_allclose(node["trace"].values[:, i], trace, rtol=1e-5)
        np.testing.assert_allclose(node["signal_to_noise"].values[:, i], signal / (trace / BATCH), rtol=1e-3)
        expected = np.where(signal > 0, trace / signal, np.nan)
        np.testing.assert_allclose(node["noise_scale"].values[:, i], expected, rtol=1e-3)
    np.testing.assert_allclose(
        node["variance_quantile"].sel(quantile=0.5), np.median(values.var(1, ddof=1), -1), rtol=1e-5
    )


def test_a_block_without_signal_has_no_noise_scale(record):
    object.__setattr__(record, "mean_squared_norm", record.trace / BATCH / 2)
    node = nk.to_datatree(record=record)["gradient_noise"]
    assert np.isnan(node["noise_scale"]).all()
    np.testing.assert_allclose(node["signal_to_noise"], -0.5, rtol=1e-5)


def test_every_name_and_axis_is_in_the_schema(record):
    pair = solution("sde"), solution("optimizer", shift=0.01)
    fits = {0: nk.fit_noise(record.coordinate_values[0]), 10: nk.fit_noise(record.coordinate_values[2])}
    tail = {
        "step": [10],
        "block": ["a", "b"],
        "estimator": ["gpd"],
        "alpha": np.ones((1, 2, 1)),
        "alpha_interval": np.ones((1, 2, 1, 2)),
        "k": np.ones((1, 2, 1), int),
    }
    law = {"noise_floor": 0.1, "gauge": ["tail"], "gauge_value": [3.0], "where": "at the start"}
    tree = nk.to_datatree(
        record=record,
        mean_gradient_error=np.zeros(STEPS),
        noise_fits=fits,
        tail=tail,
        minibatch_noise=(
            record.coordinate_values[0],
            nk.fit_noise(record.coordinate_values[0], batch_size=8),
        ),
        solutions=pair,
        comparisons=[compare(*pair)],
        laws={"sgd": law},
        provenance={"seed": 3, "deterministic": True, "command": None},
    )
    for node in tree.subtree:
        if not node.variables:
            continue
        group = find_group(node.path)
        known = group.coordinates | group.variables
        for name, variable in node.to_dataset(inherit=False).variables.items():
            assert variable.dims == known[name].dims
            assert variable.attrs["long_name"] == known[name].long_name
    assert tree["theory/sgd"].attrs["where"] == "at the start"
    assert tree["noise_model/df"].shape == (2, 10)
    assert tree["minibatch_noise"].attrs["batch_size"] == 8
    assert tree.attrs == {"Conventions": "noisekit-1", "seed": 3, "deterministic": 1, "command": ""}
    assert "\n" not in tree["training"].attrs["engine"]


def test_prediction_and_runs_join_in_one_concat():
    tree = nk.to_datatree(solutions=[solution("sde"), solution("optimizer", shift=0.5)])
    both = xr.concat([tree["sde/sgd"].to_dataset(), tree["optimizer/sgd"].to_dataset()], "kind", join="exact")
    gap = both["loss"].mean("replicate").diff("kind")
    np.testing.assert_allclose(gap.values, 0.5, rtol=1e-6)


def test_a_solution_becomes_a_dataset_by_itself():
    data = solution("sde").to_dataset()
    assert data["x"].dims == ("replicate", "time", "coordinate")
    assert data["loss"].dims == ("replicate", "time")
    assert data.attrs["n_diverged"] == 0


def test_the_comparison_keeps_its_numbers():
    comparison = compare(solution("sde", shift=0.02), solution("optimizer"), refined=solution("sde"))
    node = nk.to_datatree(comparisons=[comparison])["comparison/sgd"]
    np.testing.assert_allclose(node["gap"].sel(observable="loss"), 0.02, rtol=1e-5)
    np.testing.assert_allclose(node["discretisation_error"].sel(observable="loss"), 0.02, rtol=1e-5)
    assert float(node["mean_relative_gap"][0]) == pytest.approx(comparison["loss"].mean_relative_gap)
    assert node.attrs["verdict_text"] == comparison.verdict_text
    assert node.attrs["paired"] == 0
    pairs = compare(solution("sde", shift=0.02), solution("optimizer"), paired=True)
    assert nk.to_datatree(comparisons=[pairs])["comparison/sgd"].attrs["paired"] == 1


def test_two_solutions_cannot_share_a_group():
    with pytest.raises(InputError, match="Two solutions would go to /sde/sgd"):
        nk.to_datatree(solutions=[solution("sde"), solution("sde")])


def test_fits_without_their_record_are_refused(record):
    fits = {0: nk.fit_noise(record.coordinate_values[0])}
    with pytest.raises(InputError, match="give record too"):
        nk.to_datatree(noise_fits=fits)


def test_wrong_axes_and_unknown_names_are_named():
    with pytest.raises(InputError, match=r"loss of /training has shape \(2, 2\); it needs the axes \(step\)"):
        dataset("/training", {"loss": np.ones((2, 2))})
    with pytest.raises(InputError, match=r"'lost'.*Did you mean 'loss'"):
        dataset("/training", {"lost": np.ones(2)})


def test_half_precision_becomes_single():
    data = dataset("/training", {"loss": torch.ones(2, dtype=torch.bfloat16)})
    assert data["loss"].dtype == np.float32


def test_the_example_fills_every_group_and_every_root_attribute():
    tree = nk.results.make_example_tree()
    for path in GROUPS.keys() - TRUTH.keys():
        filled = [tree[path]] if "*" not in path else list(tree[path.removesuffix("/*")].children.values())
        assert filled
        assert all(node.variables for node in filled)
    assert set(tree.attrs) == set(ROOT_ATTRIBUTES)
    assert not any(name in tree.coords for name in tree.children)
