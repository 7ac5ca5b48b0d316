"""Tables hold the numbers of the tree, and nothing is overwritten unasked."""

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from noisekit.errors import InputError
from noisekit.results import make_example_tree, open_tree
from noisekit.results.export import export_tree, tables


@pytest.fixture
def tree():
    return make_example_tree()


@pytest.mark.parametrize("to", ["csv", "parquet"])
def test_tables_come_back_with_the_numbers_of_the_tree(tree, tmp_path, to):
    folder = export_tree(tree, tmp_path / "tables", to)
    read = pd.read_csv if to == "csv" else pd.read_parquet
    table = read(folder / f"sde.sgd.replicate.time.{to}")
    wide = table.pivot(index="replicate", columns="time", values="loss")
    np.testing.assert_allclose(wide.to_numpy(), tree["sde/sgd/loss"].values, rtol=1e-12)
    attributes = json.loads((folder / "attributes.json").read_text())
    assert attributes["/"]["problem"] == "fashion-cnn"
    assert [p.name for p in tmp_path.iterdir()] == ["tables"]


def test_every_variable_is_in_a_table(tree):
    found = {(name.split(".")[0], column) for name, table in tables(tree) for column in table.columns}
    for node in tree.subtree:
        for name in node.data_vars:
            assert (node.path.split("/")[1], name) in found


def test_zarr_and_netcdf_are_result_files_again(tmp_path):
    tree = xr.DataTree.from_dict({"/training": make_example_tree()["training"].to_dataset()})
    tree.attrs = make_example_tree().attrs
    for to, suffix in (("zarr", ".zarr"), ("netcdf", ".nc")):
        with open_tree(export_tree(tree, tmp_path / f"a{suffix}", to)) as back:
            assert back.attrs == tree.attrs


def test_wrong_targets_are_named(tree, tmp_path):
    with pytest.raises(InputError, match=r"'cvs'.*Did you mean 'csv'"):
        export_tree(tree, tmp_path / "a", "cvs")
    with pytest.raises(InputError, match="does not exist"):
        export_tree(tree, tmp_path / "absent" / "a", "csv")
    export_tree(tree, tmp_path / "a", "csv")
    with pytest.raises(InputError, match="exists"):
        export_tree(tree, tmp_path / "a", "csv")
    export_tree(tree, tmp_path / "a", "csv", overwrite=True)


def test_a_folder_of_other_files_is_never_replaced(tree, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    for name in ("table.csv", "thesis.tex"):
        (mine / name).write_text("important")
        with pytest.raises(InputError, match="no export wrote"):
            export_tree(tree, mine, "csv", overwrite=True)
        assert (mine / name).read_text() == "important"
