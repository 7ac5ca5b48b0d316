"""The table of headline numbers, and what says where a result comes from."""

import getpass
import json
import platform
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import noisekit as nk
from noisekit.results import make_example_tree, provenance
from noisekit.results.summary import COLUMNS


def test_numbers_of_the_table_are_those_of_the_tree():
    tree = make_example_tree()
    table = nk.summary(tree).set_index(["quantity", "of"])
    assert table.loc[("noise floor", "adam"), "value"] == float(tree["theory/adam/noise_floor"])
    scale = table.loc[("gradient noise scale", "")]
    low, high = tree["gradient_noise/total_noise_scale_interval"][-1].values
    assert (scale["lower"], scale["upper"]) == (low, high)
    assert scale["units"] == "samples"
    heavy = tree["noise_model/is_heavy_tailed"][-1].values.mean()
    assert table.loc[("fraction with heavy tails, of one sample", ""), "value"] == pytest.approx(heavy)
    heavy = tree["minibatch_noise/is_heavy_tailed"].values.mean()
    row = table.loc[("fraction with heavy tails, of a minibatch", "")]
    assert (row["value"], row["batch_size"]) == (pytest.approx(heavy), 64)
    gap = table.loc[("mean relative gap of loss", "sgd")]
    assert gap["value"] == float(tree["comparison/sgd/mean_relative_gap"][0])
    assert gap["note"] == "held"


def test_a_lazy_file_gives_the_same_table(tmp_path):
    tree = make_example_tree()
    with nk.open_tree(nk.save_tree(tree, tmp_path / "a.nc")) as back:
        assert nk.summary(back).drop(columns="batch_size").equals(nk.summary(tree).drop(columns="batch_size"))


@pytest.mark.parametrize("missing", [*make_example_tree().children])
def test_any_group_may_be_missing(missing):
    tree = make_example_tree()
    del tree[missing]
    assert len(nk.summary(tree))


def test_an_empty_tree_has_an_empty_table():
    table = nk.summary(xr.DataTree())
    assert table.columns.tolist() == COLUMNS
    assert table.empty


def test_provenance_names_versions_but_no_person_and_no_place():
    made = provenance(problem="quadratic", seed=1, config={"steps": 3}, command="noisekit run", batch_size=4)
    assert json.loads(made["versions"])["noisekit"] == nk.__version__
    assert json.loads(made["config_json"]) == {"steps": 3}
    assert made["batch_size"] == 4
    text = json.dumps(made)
    for private in (str(Path.home()), str(Path.cwd()), platform.node()):
        assert private not in text
    assert f'"{getpass.getuser()}"' not in text
    assert all(isinstance(v, str | int | float) for v in made.values())
    assert np.datetime64(made["created_at"].removesuffix("Z")) > np.datetime64("2020")
