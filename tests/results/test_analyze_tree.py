"""A recorded file analysed piece by piece: the numbers of the whole at once, in less memory than the file."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
import xarray as xr

import noisekit as nk
from noisekit.errors import FileFormatError, InputError
from noisekit.results import analyze_tree, save_tree

STEPS, SAMPLES, BLOCKS = 10, 64, {"a": 30, "b": 50, "dead": 4}


def recorded_tree(seed=0, *, sketch=16):
    """A tree of a record whose block a is Gaussian, b Student-t with ν = 3, and dead constant."""
    rng = np.random.default_rng(seed)
    d = sum(BLOCKS.values())
    noise = rng.normal(size=(STEPS, SAMPLES, d))
    noise[..., 30:80] = rng.standard_t(3, size=(STEPS, SAMPLES, 50))
    noise[..., 80:] = 0
    noise -= noise.mean(1, keepdims=True)
    trace = np.stack([noise[..., :30].var(1, ddof=1).sum(-1), noise[..., 30:80].var(1, ddof=1).sum(-1)], -1)
    trace = np.concatenate([trace, np.zeros((STEPS, 1))], 1)
    owner = np.repeat(list(BLOCKS), list(BLOCKS.values()))
    samples = {
        "noise": (("step", "sample", "coordinate"), noise.astype(np.float32)),
        "sketch": (("step", "sample", "projection"), rng.normal(size=(STEPS, SAMPLES, sketch))),
    }
    step = 5 * np.arange(STEPS)
    groups = {
        "/gradient_noise": xr.Dataset(
            {
                "trace": (("step", "block"), trace),
                "mean_squared_norm": (("step", "block"), trace / SAMPLES + 0.3),
            },
            {"step": step, "block": list(BLOCKS)},
            {"batch_size": SAMPLES},
        ),
        "/gradient_noise/samples": xr.Dataset(
            samples, {"step": step, "coordinate": np.arange(d), "coordinate_block": ("coordinate", owner)}
        ),
    }
    tree = xr.DataTree.from_dict(groups)
    tree.attrs["Conventions"] = "noisekit-1"
    return tree


@pytest.fixture(scope="module")
def tree():
    return recorded_tree()


@pytest.mark.parametrize("memory", [2**26, 120_000])
def test_pieces_give_the_fits_of_the_whole(tree, memory):
    found = analyze_tree(tree, memory=memory)
    model = found["noise_model"]
    np.testing.assert_array_equal(model["step"], [0, 20, 45])
    for row, step in enumerate((0, 4, 9)):
        noise = torch.as_tensor(tree["gradient_noise/samples/noise"].values[step])
        fit = nk.fit_noise(noise)
        for name in ("location", "scale", "df", "df_interval", "log_likelihood", "p_value", "q_value"):
            np.testing.assert_allclose(model[name][row], getattr(fit, name), rtol=0.05, atol=1e-3)
        np.testing.assert_array_equal(model["is_heavy_tailed"][row], fit.is_heavy_tailed)
        np.testing.assert_array_equal(model["is_set_aside"][row], fit.is_constant)
    assert not model["is_heavy_tailed"].values[:, 80:].any()
    assert model["is_heavy_tailed"].values[:, 30:80].mean() > 0.3


def test_tails_are_those_of_the_blocks(tree):
    tail = analyze_tree(tree)["tail_index"]
    noise = torch.as_tensor(tree["gradient_noise/samples/noise"].values[9])
    for block, own in (("a", slice(0, 30)), ("b", slice(30, 80))):
        for estimator in ("gpd", "moment", "hill"):
            expected = nk.tail_index(noise[:, own], estimator=estimator, pooled=True)
            at = tail.sel(block=block, estimator=estimator).isel(step=-1)
            assert float(at["alpha"]) == pytest.approx(float(expected.alpha), rel=1e-5)
            np.testing.assert_allclose(at["alpha_interval"], expected.interval.reshape(2), rtol=1e-5)
    assert np.isnan(tail["alpha"].sel(block="dead")).all()


def test_scales_are_ratios_of_averages_and_the_spectrum_is_of_the_sketches(tree):
    found = analyze_tree(tree)["gradient_noise"]
    trace = tree["gradient_noise/trace"].values
    signal = 0.3 * np.ones_like(trace)
    expected = trace.sum() / signal.sum()
    assert float(found["pooled_noise_scale"]) == pytest.approx(expected, rel=1e-6)
    low, high = found["total_noise_scale_interval"].values[-1]
    assert low < float(found["total_noise_scale"][-1]) < high
    sketch = tree["gradient_noise/samples/sketch"].values
    centred = sketch - sketch.mean(1, keepdims=True)
    values = np.linalg.svd(centred, compute_uv=False) ** 2 / (SAMPLES - 1)
    np.testing.assert_allclose(found["eigenvalue"], values, rtol=1e-6)
    assert found.attrs["eigenvalue_source"] == "sketch"
    assert "total_noise_scale" not in tree["gradient_noise"]  # the given tree is left as it was


@pytest.mark.parametrize(
    ("suffix", "chunks"), [(".nc", "stored"), (".nc", None), (".zarr", "auto"), (".zarr", {"step": 10})]
)
def test_every_way_of_reading_gives_the_same_numbers(tree, tmp_path, suffix, chunks):
    path = save_tree(tree, tmp_path / f"a{suffix}")
    with nk.open_tree(path, chunks=chunks) as opened:
        lazy = opened["gradient_noise/samples/noise"].variable
        assert (lazy.chunks is None) == (chunks is None)
        found = analyze_tree(opened, steps=1)
        expected = analyze_tree(tree, steps=1)
        for group in ("noise_model", "tail_index"):
            xr.testing.assert_allclose(found[group].to_dataset(), expected[group].to_dataset())
        assert len(nk.summary(found)) > 5
        save_tree(found, tmp_path / f"b{suffix}")
    with nk.open_tree(tmp_path / f"b{suffix}") as again:
        assert again["noise_model"].sizes["step"] == 1


def test_what_cannot_be_analysed_is_one_sentence(tree):
    with pytest.raises(FileFormatError, match="no group '/gradient_noise'"):
        analyze_tree(xr.DataTree())
    with pytest.raises(InputError, match="must be 1 or more"):
        analyze_tree(tree, steps=0)
    with pytest.raises(InputError, match="no recorded step"):
        analyze_tree(tree.isel(step=slice(0, 0)))
    few = tree.isel(sample=slice(0, 8))
    assert "noise_model" not in analyze_tree(few).children


CAP = 100 * 2**20
CHILD = """
import re, sys
from pathlib import Path
import noisekit as nk
from noisekit.results import analyze_tree
import torch
torch.set_num_threads(1)

def peak():  # of this process image alone; getrusage counts what ran before exec too
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

with nk.open_tree(sys.argv[1]) as small:  # all that is imported on the way is in the baseline
    analyze_tree(small); nk.summary(small)
before = peak()
with nk.open_tree(sys.argv[2]) as tree:
    found = analyze_tree(tree, steps=1)
    nk.summary(found)
    print(peak() - before, found["noise_model"].sizes["coordinate"])
"""


@pytest.mark.slow
def test_a_store_four_times_the_memory_is_analysed(big_store):
    small, big, nbytes = big_store
    assert nbytes > 4 * CAP
    command = [sys.executable, "-c", textwrap.dedent(CHILD), str(small), str(big)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    grown, coordinates = map(int, output.split())
    assert coordinates == 32_768
    assert grown < CAP, f"{grown / 2**20:.0f} MiB"
    print(f"{nbytes / 2**20:.0f} MiB of noise in {grown / 2**20:.0f} MiB")


@pytest.fixture(scope="module")
def big_store(tmp_path_factory):
    """A small store, and one whose per-sample noise is over 400 MiB, written step by step."""
    folder = tmp_path_factory.mktemp("big")
    small, big = folder / "small.zarr", folder / "big.zarr"
    save_tree(recorded_tree(), small)
    rng, steps, samples, d = np.random.default_rng(0), 52, 64, 2**15
    noise = rng.standard_normal((samples, d), dtype=np.float32)
    noise -= noise.mean(0)
    owner = np.array([f"layer{i}" for i in range(4)]).repeat(d // 4)
    from noisekit.results.growing_store import GrowingStore

    store = None
    for step in range(steps):
        noise = np.roll(noise, 1, axis=0)
        trace = np.full((1, 4), float(d // 4))
        groups = {
            "/gradient_noise": xr.Dataset(
                {
                    "trace": (("step", "block"), trace),
                    "mean_squared_norm": (("step", "block"), trace / samples + rng.normal(1, 0.1)),
                },
                {"step": [step], "block": sorted(set(owner))},
                {"batch_size": samples},
            ),
            "/gradient_noise/samples": xr.Dataset(
                {
                    "noise": (("step", "sample", "coordinate"), noise[None]),
                    "sketch": (("step", "sample", "projection"), noise[None, :, :32]),
                },
                {"coordinate": np.arange(d), "coordinate_block": ("coordinate", owner)},
            ),
        }
        tree = xr.DataTree.from_dict(groups)
        if store is None:
            tree.attrs["Conventions"] = "noisekit-1"
            store = GrowingStore.create(big, tree)
        else:
            store.append(tree)
    return small, big, steps * noise.nbytes
