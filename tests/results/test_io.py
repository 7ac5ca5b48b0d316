"""Files come back as they went, nothing half is left, and wrong files are named in one sentence."""

import asyncio
import errno
import importlib
import json
import shutil
import threading
import time
from itertools import count
from types import SimpleNamespace

import h5netcdf
import numpy as np
import pytest
import xarray as xr

import noisekit as nk
from noisekit.errors import FileFormatError, InputError, NoisekitError
from noisekit.results import io, make_example_tree, require_group


@pytest.fixture
def tree():
    """A few groups of the example: writing all of them takes longer."""
    whole = make_example_tree()
    groups = ("/training", "/gradient_noise", "/gradient_noise/samples", "/sde/sgd")
    part = xr.DataTree.from_dict({path: whole[path].to_dataset(inherit=False) for path in groups})
    part.attrs = whole.attrs
    return part


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_a_tree_comes_back_identical(tmp_path, suffix):
    tree = make_example_tree()
    path = nk.save_tree(tree, tmp_path / f"run{suffix}")
    back = nk.open_tree(path)
    assert {n.path for n in back.subtree} == {n.path for n in tree.subtree}
    for node in tree.subtree:
        for name, variable in node.to_dataset(inherit=False).variables.items():
            np.testing.assert_array_equal(back[node.path].variables[name].values, variable.values)
            assert back[node.path].variables[name].attrs == variable.attrs
    assert back.attrs == tree.attrs
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    back.close()


def test_xarray_alone_opens_the_file(tree, tmp_path):
    path = nk.save_tree(tree, tmp_path / "run.nc")
    with xr.open_dataset(path, group="/sde/sgd", engine="h5netcdf") as data:
        assert data["loss"].dims == ("replicate", "time")


def test_reading_is_lazy(tree, tmp_path):
    with nk.open_tree(nk.save_tree(tree, tmp_path / "run.nc")) as back:
        assert back["gradient_noise/samples/noise"].chunks is not None


def test_types_that_files_cannot_hold_are_converted(tmp_path):
    values = {"loss": ("step", np.ones(3, np.float16)), "good": ("step", np.array([True, False, True]))}
    tree = xr.DataTree.from_dict({"/training": xr.Dataset(values)})
    tree.attrs = {"Conventions": "noisekit-1", "deterministic": True, "missing": None, "config": {"a": [1]}}
    with nk.open_tree(nk.save_tree(tree, tmp_path / "a.nc")) as back:
        assert back["training/loss"].dtype == np.float32
        assert back["training/good"].values.tolist() == [1, 0, 1]
        assert back.attrs["deterministic"] == 1
        assert back.attrs["missing"] == ""
        assert json.loads(back.attrs["config"]) == {"a": [1]}


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_nothing_is_overwritten_unasked(tree, tmp_path, suffix):
    path = nk.save_tree(tree, tmp_path / f"run{suffix}")
    with pytest.raises(InputError, match="exists"):
        nk.save_tree(tree, path)
    tree.attrs["title"] = "second"
    nk.save_tree(tree, path, overwrite=True)
    with nk.open_tree(path) as back:
        assert back.attrs["title"] == "second"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_missing_folder_and_a_wrong_suffix_are_named(tree, tmp_path):
    with pytest.raises(InputError, match=r"folder .*absent does not exist"):
        nk.save_tree(tree, tmp_path / "absent" / "run.nc")
    with pytest.raises(InputError, match=r"suffix '.pkl'"):
        nk.save_tree(tree, tmp_path / "run.pkl")


@pytest.mark.parametrize(("name", "reason"), [("run.nc", "is a folder"), ("run.zarr", "no zarr store")])
def test_a_folder_of_other_things_is_never_replaced(tree, tmp_path, name, reason):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "thesis.tex").write_text("important")
    with pytest.raises(InputError, match=reason):
        nk.save_tree(tree, folder, overwrite=True)
    assert (folder / "thesis.tex").read_text() == "important"


def test_a_store_that_cannot_be_written_is_told_beforehand(tmp_path, monkeypatch):
    monkeypatch.setattr(io.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(NoisekitError, match=r"noisekit\[zarr\]"):
        io.check_output(tmp_path / "run.zarr")
    io.check_output(tmp_path / "run.nc")


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_write_leaves_nothing_new(tree, tmp_path, monkeypatch, interruption):
    path = nk.save_tree(tree, tmp_path / "run.nc")
    before = path.read_bytes()

    def stop(_tree, partial, _suffix):
        partial.write_bytes(b"half")
        raise interruption

    monkeypatch.setattr(io, "_write", stop)
    expected = KeyboardInterrupt if interruption is KeyboardInterrupt else NoisekitError
    with pytest.raises(expected) as caught:
        nk.save_tree(tree, path, overwrite=True)
    if expected is NoisekitError:
        assert "disk is full" in str(caught.value)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["run.nc"]


def test_no_writer_of_zarr_outlives_a_failure(tree, tmp_path, monkeypatch):
    local = importlib.import_module("zarr.storage._local")
    put = local._put

    def slow_or_full(path, *args, **kwargs):
        if path.name == ".zattrs":
            raise OSError(errno.ENOSPC, "No space left on device")
        time.sleep(0.2)
        return put(path, *args, **kwargs)

    monkeypatch.setattr(local, "_put", slow_or_full)
    with pytest.raises(NoisekitError, match="disk is full"):
        nk.save_tree(tree, tmp_path / "run.zarr")
    time.sleep(0.5)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def late_write(monkeypatch):
    """A write in zarr's event loop that goes on until it is told to end, and a failure of another one."""
    sync = importlib.import_module("zarr.core.sync").sync
    end, tasks = threading.Event(), []

    async def write():
        while not end.is_set():
            await asyncio.sleep(0.001)

    async def begin():
        tasks.append(asyncio.create_task(write()))

    def failing(*arguments, **options):
        sync(begin())
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(xr.DataTree, "to_zarr", failing)
    monkeypatch.setattr(io, "_PATIENCE", 0.02)
    yield SimpleNamespace(end=end, tasks=tasks)
    end.set()


def test_a_disk_that_hangs_is_an_error(tree, tmp_path, late_write):
    with pytest.raises(NoisekitError, match=r"The disk of .* hangs: 1 writes did not end .* in 0.02 s"):
        nk.save_tree(tree, tmp_path / "run.zarr")
    assert not late_write.tasks[0].done()


def test_a_slow_disk_is_waited_for(tree, tmp_path, late_write, monkeypatch):
    sizes = count()

    def growing(folder):
        size = next(sizes)
        if size >= 4:
            late_write.end.set()
        return size

    monkeypatch.setattr(io, "_size", growing)
    with pytest.raises(NoisekitError, match="could not be written: Input/output error"):
        nk.save_tree(tree, tmp_path / "run.zarr")
    assert late_write.tasks[0].done()


def test_what_a_folder_holds_is_counted(tmp_path):
    (tmp_path / "group").mkdir()
    (tmp_path / "a").write_bytes(b"123")
    (tmp_path / "group" / "b").write_bytes(b"4567")
    assert io._size(tmp_path) == 7


def test_wrong_files_are_named(tree, tmp_path):
    with pytest.raises(InputError, match="no file"):
        nk.open_tree(tmp_path / "absent.nc")
    text = tmp_path / "text.nc"
    text.write_text("not a netCDF file")
    with pytest.raises(FileFormatError, match="not in netCDF-4"):
        nk.open_tree(text)
    whole = nk.save_tree(tree, tmp_path / "run.nc").read_bytes()
    cut = tmp_path / "cut.nc"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FileFormatError, match="cut short"):
        nk.open_tree(cut)
    (tmp_path / "empty.nc").touch()
    with pytest.raises(FileFormatError, match=r"empty\.nc"):
        nk.open_tree(tmp_path / "empty.nc")
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileFormatError, match="folder"):
        nk.open_tree(tmp_path / "folder")


def test_a_file_of_someone_else_and_another_version_are_named(tmp_path):
    foreign = tmp_path / "foreign.nc"
    with h5netcdf.File(foreign, "w") as file:
        file.attrs["Conventions"] = "CF-1.10"
    with pytest.raises(FileFormatError, match="not written by noisekit"):
        nk.open_tree(foreign)
    later = tmp_path / "later.nc"
    with h5netcdf.File(later, "w") as file:
        file.attrs["Conventions"] = "noisekit-9"
    with pytest.raises(FileFormatError, match=r"'noisekit-9'.*'noisekit-1'"):
        nk.open_tree(later)


def test_a_variable_with_wrong_axes_is_named_with_its_group(tmp_path):
    tree = xr.DataTree.from_dict({"/gradient_noise": xr.Dataset({"trace": ("step", np.ones(3))})})
    path = nk.save_tree(tree, tmp_path / "run.nc")
    with pytest.raises(
        FileFormatError,
        match=r"trace in group /gradient_noise has the axes \(step\) and needs \(step, block\)",
    ):
        nk.open_tree(path)


def test_pickled_zarr_arrays_are_refused(tree, tmp_path):
    path = nk.save_tree(tree, tmp_path / "run.zarr")
    metadata = path / "training" / "loss" / ".zarray"
    content = json.loads(metadata.read_text()) | {"filters": [{"id": "pickle", "protocol": 5}]}
    metadata.write_text(json.dumps(content))
    with pytest.raises(FileFormatError, match="run code"):
        nk.open_tree(path)


def test_a_damaged_zarr_store_is_named(tree, tmp_path):
    path = nk.save_tree(tree, tmp_path / "run.zarr")
    (path / ".zmetadata").write_text("{")
    with pytest.raises(FileFormatError, match="damaged"):
        nk.open_tree(path)
    shutil.rmtree(path)


def test_a_missing_group_is_named_with_the_nearest(tree):
    assert require_group(tree, "sde/sgd").path == "/sde/sgd"
    with pytest.raises(FileFormatError, match=r"'/sde/sdg'.*Did you mean '/sde/sgd'"):
        require_group(tree, "/sde/sdg")


def test_no_file_is_larger_than_what_is_reserved_for_it(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(io, "_reserve", lambda path, size: asked.append(size))
    trees = [make_example_tree(), xr.DataTree.from_dict({"/": xr.Dataset(attrs={"note": "ä" * 10**5})})]
    for i, tree in enumerate(trees):
        path = nk.save_tree(tree, tmp_path / f"{i}.nc")
        assert path.stat().st_size < asked[-1]


@pytest.mark.parametrize("errno_", [errno.EOPNOTSUPP, errno.EINVAL, None])
def test_without_a_way_to_reserve_the_free_space_is_looked_up(tmp_path, monkeypatch, errno_):
    def refuse(*_):
        raise OSError(errno_, "no")

    if errno_ is None:
        monkeypatch.delattr(io.os, "posix_fallocate", raising=False)
    else:
        monkeypatch.setattr(io.os, "posix_fallocate", refuse, raising=False)
    tree = xr.DataTree.from_dict({"/training": xr.Dataset({"loss": ("step", [1.0, 2.0])})})
    nk.save_tree(tree, tmp_path / "fits.nc")
    monkeypatch.setattr(io.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(NoisekitError, match="disk is full"):
        nk.save_tree(tree, tmp_path / "too-large.nc")
    assert [p.name for p in tmp_path.iterdir()] == ["fits.nc"]
