"""A file broken in one place: the error names file, group and variable, and what would mend it."""

import json
import shutil

import numpy as np
import pytest
import xarray as xr

import noisekit as nk
from noisekit.errors import FileFormatError, InputError
from noisekit.results import analyze_tree, make_example_tree, save_tree


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """A small whole file in each format."""
    folder = tmp_path_factory.mktemp("whole")
    tree = make_example_tree()
    small = xr.DataTree.from_dict(
        {path: tree[path].to_dataset(inherit=False) for path in ("/training", "/gradient_noise")}
    )
    small.attrs = tree.attrs
    return {suffix: save_tree(small, folder / f"whole{suffix}") for suffix in (".nc", ".zarr")}


def opened(path):
    with nk.open_tree(path) as tree:
        return nk.summary(tree)


def edit_metadata(path, change):
    known = json.loads((path / ".zmetadata").read_text())
    change(known["metadata"])
    (path / ".zmetadata").write_text(json.dumps(known))


def unequal(path):
    (path / ".zmetadata").unlink()
    array = path / "training/loss/.zarray"
    array.write_text(json.dumps(json.loads(array.read_text()) | {"shape": [99]}))


def pickled(metadata):
    metadata["training/loss/.zarray"] |= {"dtype": "|O", "filters": [{"id": "pickle"}]}


ZARR = {
    "torn metadata": (lambda p: (p / ".zmetadata").write_text("{"), r"is damaged: \.zmetadata is not JSON"),
    "unequal lengths": (
        unequal,
        # Arrays of a group come in any order, so either length can be named first.
        r"damaged in the group /training: conflicting sizes for dimension 'step': .*length 99 on .*'loss'.*"
        "leave out the variable",
    ),
    "no axes": (
        lambda p: edit_metadata(p, lambda m: m["training/loss/.zattrs"].pop("_ARRAY_DIMENSIONS")),
        "in the group /training",
    ),
    "pickle": (lambda p: edit_metadata(p, pickled), "holds pickled objects, which could run code"),
    "damaged values": (
        lambda p: (p / "training/loss/0").write_bytes(b"xx"),
        "Values in the group /training cannot be read.*copy or make it again",
    ),
    "no store": (lambda p: [shutil.rmtree(p), p.mkdir()], "it holds no zarr store"),
}


@pytest.mark.parametrize("what", ZARR)
def test_a_broken_zarr_store_says_where(stores, tmp_path, what):
    path = tmp_path / "run.zarr"
    shutil.copytree(stores[".zarr"], path)
    assert len(opened(path)) > 3
    change, text = ZARR[what]
    change(path)
    with pytest.raises(FileFormatError, match=text) as caught:
        opened(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda b: b[: len(b) // 2], "it is cut short; copy or make it again"),
        (lambda b: b"", "not in netCDF-4"),
        (lambda b: b"step,loss\n1,2\n", "not in netCDF-4"),
    ],
)
def test_a_broken_netcdf_file_says_how(stores, tmp_path, change, text):
    path = tmp_path / "run.nc"
    path.write_bytes(change(stores[".nc"].read_bytes()))
    with pytest.raises(FileFormatError, match=text) as caught:
        opened(path)
    assert "run.nc" in str(caught.value)


def training(change):
    """The example's training group with a change, as a tree of its own."""
    tree = make_example_tree()
    own = xr.DataTree.from_dict({"/training": change(tree["training"].to_dataset(inherit=False))})
    own.attrs = tree.attrs
    return own


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            lambda d: d.rename(step="steps"),
            r"loss in group /training has the axes \(steps\) and needs \(step\); rename or transpose",
        ),
        (lambda d: d.assign(loss=1.0), r"loss in group /training has the axes \(\) and needs \(step\)"),
        (
            lambda d: d.assign(loss=("step", np.array(["a"] * d.sizes["step"]))),
            "loss in group /training holds .* and needs real numbers; convert it",
        ),
    ],
)
@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_what_the_schema_does_not_allow_is_named(tmp_path, suffix, change, text):
    path = save_tree(training(change), tmp_path / f"run{suffix}")
    with pytest.raises(FileFormatError, match=text) as caught:
        nk.open_tree(path)
    assert str(path) in str(caught.value)


def test_another_version_and_another_tool_are_told_apart(tmp_path):
    for conventions, text in (("noisekit-9", "this noisekit reads 'noisekit-1'"), ("CF-1", "not written by")):
        tree = training(lambda data: data)
        tree.attrs["Conventions"] = conventions
        path = save_tree(tree, tmp_path / "run.nc", overwrite=True)
        with pytest.raises(FileFormatError, match=text):
            nk.open_tree(path)


def test_damaged_values_are_named_by_figures_and_analysis_too(tmp_path):
    whole = make_example_tree()
    groups = ("/gradient_noise", "/gradient_noise/samples")
    tree = xr.DataTree.from_dict({path: whole[path].to_dataset(inherit=False) for path in groups})
    path = save_tree(tree, tmp_path / "run.zarr")
    for chunk in (path / "gradient_noise/samples/noise").glob("[0-9]*"):
        chunk.write_bytes(b"xx")
    with nk.open_tree(path) as lazy:
        with pytest.raises(FileFormatError, match="group /gradient_noise/samples cannot be read"):
            nk.plot_hill(lazy)
        with pytest.raises(FileFormatError, match="group /gradient_noise/samples cannot be read"):
            analyze_tree(lazy)


def test_chunks_need_dask_and_a_missing_file_a_name(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="There is no file"):
        nk.open_tree(tmp_path / "none.nc")
    path = save_tree(training(lambda data: data), tmp_path / "run.nc")
    monkeypatch.setattr(nk.results.io.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(nk.errors.NoisekitError, match="needs the package dask"):
        nk.open_tree(path, chunks="auto")
