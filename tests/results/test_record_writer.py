"""A store that grows while training goes on: what readers see, what a kill leaves, how a run goes on."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from streamed_training import BATCH, WIDTH, training

import noisekit as nk
from noisekit.errors import FileFormatError, InputError
from noisekit.results import RecordWriter, growing_store, stream_record
from noisekit.results.record_writer import select_steps


def whole_run(steps, **options):
    """The record of an undisturbed run, as a tree."""
    recorder, train = training(**options)
    with recorder:
        train(0, steps)
    return nk.to_datatree(record=recorder.result())


def assert_same(tree, expected, leave_out=("elapsed_time",)):
    assert {n.path for n in tree.subtree} == {n.path for n in expected.subtree}
    for node in expected.subtree:
        want = node.to_dataset(inherit=False).drop_vars(leave_out, errors="ignore")
        have = tree[node.path].to_dataset(inherit=False).drop_vars(leave_out, errors="ignore").load()
        xr.testing.assert_allclose(have, want, rtol=1e-5)


@pytest.mark.parametrize(("flush_every", "keep"), [(1, True), (3, False)])
def test_a_streamed_store_is_the_record(tmp_path, flush_every, keep):
    recorder, train = training()
    path, seen = tmp_path / "run.zarr", []
    recorder.on_record = seen.append
    with recorder, stream_record(recorder, path, flush_every=flush_every, keep_in_memory=keep) as writer:
        for last in range(1, 8):
            train(last - 1, last)
            expected = last // flush_every * flush_every
            assert writer.n_steps == expected
            if expected:
                with xr.open_datatree(path, engine="zarr") as tree:
                    assert tree["training"].sizes["step"] == expected
                    assert np.isfinite(tree["gradient_noise/samples/noise"]).all()
    with nk.open_tree(path) as tree:
        assert_same(tree, whole_run(7))
    assert len(seen) == 7
    assert recorder.on_record == seen.append
    assert len(recorder.result().step) == (7 if keep else 1)


@pytest.fixture
def child():
    """Start a training in another process, which this test or the child itself kills."""
    script = Path(__file__).parents[1] / "streamed_training.py"

    def start(path, die_at=-1):
        command = [sys.executable, str(script), str(path), str(die_at)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    return start


def resume(path, first, last, **options):
    """Go on as a run that loaded the checkpoint of step ``first`` does."""
    recorder, train = training()
    train(0, first)
    recorder.step = first
    with recorder, stream_record(recorder, path, resume=True, **options):
        train(first, last)


@pytest.mark.slow
def test_a_killed_run_is_readable_and_goes_on_without_duplicates(tmp_path, child):
    path = tmp_path / "run.zarr"
    with child(path) as process:
        for line in process.stdout:
            if int(line) >= 5:
                os.kill(process.pid, signal.SIGKILL)
                break
    assert process.wait() == -signal.SIGKILL
    with nk.open_tree(path) as tree:
        stored = tree["training"]["step"].values
        assert len(stored) >= 5
        np.testing.assert_array_equal(stored, np.arange(len(stored)))
        assert_same(tree, whole_run(len(stored)))
    expected = whole_run(len(stored) + 4)
    for repeated in ("keep", "replace"):
        again = tmp_path / f"{repeated}.zarr"
        shutil.copytree(path, again)
        resume(again, 3, len(stored) + 4, repeated=repeated)
        with nk.open_tree(again) as tree:
            assert_same(tree, expected)
            assert "continued after step" in tree.attrs["history"]


@pytest.mark.slow
def test_a_kill_in_the_middle_of_a_write_leaves_whole_steps(tmp_path, child):
    path = tmp_path / "run.zarr"
    process = child(path, die_at=4)
    process.communicate()
    torn = json.loads((path / "training/loss/.zarray").read_text())["shape"]
    assert torn == [5]
    with xr.open_datatree(path, engine="zarr") as tree:
        assert tree["training"].sizes["step"] == 4
    with nk.open_tree(path) as tree:
        assert_same(tree, whole_run(4))
    resume(path, 4, 6)
    with nk.open_tree(path) as tree:
        assert_same(tree, whole_run(6))
        assert json.loads((path / "training/loss/.zarray").read_text())["shape"] == [6]


def test_arrays_of_unequal_length_are_cut_to_whole_steps(tmp_path):
    path = tmp_path / "run.zarr"
    recorder, train = training()
    with recorder:
        train(0, 5)
    record = recorder.result()
    writer = RecordWriter(path)
    writer.append(select_steps(record, np.arange(5) < 3))
    import zarr

    torn = zarr.open_group(path, mode="r+", use_consolidated=False)["gradient_noise/trace"]
    torn.resize((4, 2))
    torn[3] = 7.0
    again = RecordWriter(path, resume=True)
    assert again.append(record) == 2
    with nk.open_tree(path) as tree:
        assert_same(tree, nk.to_datatree(record=record))


def test_rows_at_one_point_are_all_kept(tmp_path):
    recorder, _ = training()
    batches = [(torch.randn(BATCH, WIDTH), torch.randint(2, (BATCH,))) for _ in range(3)]
    with recorder, stream_record(recorder, tmp_path / "run.zarr") as writer:
        recorder.repeat(batches)
    assert writer.n_steps == 3


def test_another_model_or_batch_is_refused(tmp_path):
    path = tmp_path / "run.zarr"
    recorder, train = training()
    with recorder, stream_record(recorder, path):
        train(0, 2)
    for options, batch, text in (
        ({"coordinates": [0, 1, 2, 3, 4, 5, 6, 7]}, BATCH, "coordinate in /gradient_noise/samples differs"),
        ({"sketch": 0}, BATCH, "only one of both has gradient_noise/samples/sketch"),
        ({}, BATCH + 1, "holds batches of 24 samples and a batch of 25 came"),
    ):
        other, train = training(**options)
        other.step = 2
        with pytest.raises(InputError, match=text), other, stream_record(other, path, resume=True):
            train(2, 3, batch)
    with nk.open_tree(path) as tree:
        assert tree["training"].sizes["step"] == 2


def test_what_exists_is_neither_continued_nor_replaced_unasked(tmp_path):
    path = tmp_path / "run.zarr"
    recorder, train = training()
    with recorder, stream_record(recorder, path):
        train(0, 2)
    with pytest.raises(InputError, match="exists; choose another name or allow overwriting"):
        RecordWriter(path)
    with pytest.raises(InputError, match=r"needs one of \.zarr"):
        RecordWriter(tmp_path / "run.nc")
    with pytest.raises(InputError, match="Did you mean 'keep'"):
        RecordWriter(path, resume=True, repeated="kep")
    with (
        pytest.raises(InputError, match="flush_every = 0"),
        stream_record(recorder, tmp_path / "b.zarr", flush_every=0),
    ):
        pass
    (path / ".zmetadata").unlink()
    with pytest.raises(FileFormatError, match="cannot be continued"):
        RecordWriter(path, resume=True)
    recorder, train = training()
    with recorder, stream_record(recorder, path, overwrite=True):
        train(0, 1)
    with nk.open_tree(path) as tree:
        assert tree["training"].sizes["step"] == 1


def test_a_full_disk_leaves_the_steps_before(tmp_path, monkeypatch):
    path = tmp_path / "run.zarr"
    recorder, train = training()
    with recorder, stream_record(recorder, path) as writer:
        train(0, 3)
        monkeypatch.setattr(growing_store.os, "replace", _full)
        with pytest.raises(nk.results.io.NoisekitError, match="first 3 steps are whole"):
            train(3, 4)
        assert writer.n_steps == 3
        with nk.open_tree(path) as tree:
            assert_same(tree, whole_run(3))
        monkeypatch.undo()  # there is space again: the step that waits is written at the end
    with nk.open_tree(path) as tree:
        assert tree["training"].sizes["step"] == 4


def _full(*_):
    raise OSError(28, "No space left on device")
