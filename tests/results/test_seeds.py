"""Runs of several seeds in one tree: nothing is lost, what differs is said, summaries and figures follow."""

import json

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr

import noisekit as nk
from noisekit.errors import InputError
from noisekit.results import by_seed, concat, make_example_tree, save_tree

mpl.use("Agg")


KEPT = {"training", "gradient_noise", "sde", "optimizer", "theory"}


@pytest.fixture(scope="module")
def trees():
    found = [make_example_tree(seed) for seed in (0, 1, 2)]
    for tree in found:
        for name in set(tree.children) - KEPT:
            del tree[name]
        for name in ("sde", "optimizer", "theory"):
            del tree[name]["sgd"]
        tree.attrs["config_json"] = json.dumps({"steps": 10, "seed": tree.attrs["seed"]})
    return found


def assert_identical(one, other):
    assert {n.path for n in one.subtree} == {n.path for n in other.subtree}
    for node in one.subtree:
        own = other[node.path] if node.path != "/" else other
        xr.testing.assert_identical(node.to_dataset(inherit=False), own.to_dataset(inherit=False).load())


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_joined_runs_are_stored_and_come_apart_as_they_were(trees, tmp_path, suffix):
    joined = concat(trees)
    path = save_tree(joined, tmp_path / f"all{suffix}")
    with nk.open_tree(path) as opened:
        assert opened["sde/adam/loss"].dims == ("seed", "replicate", "time")
        assert opened["sde/adam/loss"].variable.chunks is not None
        runs = by_seed(opened)
        assert list(runs) == [0, 1, 2]
        for run, tree in zip(runs.values(), trees, strict=True):
            assert_identical(tree, run)
    assert json.loads(joined.attrs["provenance_by_seed"])[2]["seed"] == 2
    assert joined.attrs["problem"] == "fashion-cnn"
    assert "seed" not in joined.attrs


def test_runs_that_recorded_other_parameters_keep_their_positions(trees):
    others = [tree.copy(deep=True) for tree in trees[:2]]
    samples = others[1]["gradient_noise/samples"].to_dataset(inherit=False)
    moved = samples.assign_coords(coordinate=samples["coordinate"].copy(data=samples["coordinate"] + 1))
    others[1]["gradient_noise"].children["samples"].dataset = moved
    joined = concat(others)
    place = joined["gradient_noise/samples/coordinate_by_seed"]
    assert place.dims == ("seed", "coordinate")
    np.testing.assert_array_equal(place[1] - place[0], 1)
    assert_identical(others[1], by_seed(joined)[1])


def test_the_summary_is_the_mean_over_runs_with_its_interval(trees):
    table = nk.summary(concat(trees)).set_index(["topic", "quantity", "of"])
    each = [nk.summary(tree).set_index(["topic", "quantity", "of"]) for tree in trees]
    key = ("training", "loss", "")
    values = np.array([t.loc[key, "value"] for t in each])
    assert table.loc[key, "value"] == pytest.approx(values.mean())
    half = 4.302652729911275 * values.std(ddof=1) / np.sqrt(3)  # t, 2 degrees of freedom
    assert table.loc[key, "upper"] - table.loc[key, "value"] == pytest.approx(half)
    assert "seeds 0, 1, 2" in table.loc[key, "note"]
    assert len(table) >= len(each[0])


def test_figures_of_ensembles_take_all_replicates_and_others_ask_for_one_run(trees):
    joined = concat(trees)
    ax = nk.plot_trajectories(joined, optimizer="adam")
    labels = [t.get_text() for t in ax.get_legend().get_texts()]
    assert labels == ["real runs (96)", "SDE paths (96)"]
    mean = np.concatenate([t["optimizer/adam/loss"].values for t in trees]).mean(0)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), mean)
    nk.plot_noise_floors(joined)
    for plot in (nk.plot_hill, nk.plot_training_curve, nk.plot_stationary_law):
        with pytest.raises(InputError, match=r"joins the seeds 0, 1, 2; choose one.*by_seed\(tree\)\[0\]"):
            plot(joined)


def changed(trees, change):
    """The trees with ``change`` applied to a copy of the second."""
    other = trees[1].copy(deep=True)
    change(other)
    return [trees[0], other]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda t: t.attrs.update(seed=0), "Two trees have the seed 0"),
        (lambda t: t.attrs.update(seed="x"), "Tree 1 has seed = 'x' and needs a whole number"),
        (lambda t: t.attrs.pop("seed"), "Tree 1 has seed = None"),
        (lambda t: t.attrs.update(problem="other"), "seed 0 and seed 1 differ in problem: 'fashion-cnn' and"),
        (
            lambda t: t.attrs.update(config_json='{"steps": 11, "seed": 1}'),
            "configurations of seed 0 and seed 1 differ in steps: 10 and 11",
        ),
        (lambda t: t.children["sde"].__delitem__("adam"), "only one has the group /sde/adam"),
        (
            lambda t: setattr(
                t.children["training"], "dataset", t["training"].to_dataset().drop_vars("loss")
            ),
            "only one has loss in /training",
        ),
        (
            lambda t: setattr(
                t.children["training"], "dataset", t["training"].to_dataset().isel(step=slice(0, 5))
            ),
            r"have another axis step in /training, of 12 and 5; choose what they share.*isel",
        ),
    ],
)
def test_what_differs_is_named(trees, change, text):
    with pytest.raises(InputError, match=text):
        concat(changed(trees, change))


def test_nothing_and_strange_axes_are_refused(trees):
    with pytest.raises(InputError, match="no tree to join"):
        concat([])
    with pytest.raises(InputError, match="along 'seed' only"):
        concat(trees, dim="problem")
    with pytest.raises(InputError, match="joins DataTrees"):
        concat([xr.Dataset()])
    joined = concat(trees)
    joined.attrs["seed"] = 5
    with pytest.raises(InputError, match="holds several seeds already"):
        concat([trees[0], joined])


def test_a_single_run_is_its_own(trees):
    assert list(by_seed(trees[1])) == [1]
    assert by_seed(concat(trees[:1]))[0]["training/loss"].dims == ("step",)
