"""What is saved is what is opened, and what is merged is the whole: properties, on generated trees."""

import json
import math
import string

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from streamed_training import training

import noisekit as nk
from noisekit.gradients.rows import ALONG_STEPS
from noisekit.gradients.streaming import RunningMoments
from noisekit.results import by_seed, concat, validate
from noisekit.results.export import export_tree, tables
from noisekit.results.record_writer import select_steps

FEW = settings(
    max_examples=12,
    derandomize=True,
    phases=[Phase.generate],
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
NAMES = st.text(string.ascii_letters + "äßλ中🙂_", min_size=1, max_size=6).filter(lambda n: n != "step")
FLOATS = st.floats(width=32, allow_nan=True, allow_infinity=True)
ATTRIBUTES = st.dictionaries(
    NAMES,
    st.one_of(
        st.text(max_size=8),
        st.integers(),
        st.floats(),
        st.booleans(),
        st.none(),
        st.lists(st.integers(-5, 5), max_size=3),
        st.dictionaries(NAMES, st.integers(-5, 5), max_size=2),
    ),
    max_size=4,
)
TEXT = st.text(st.characters(exclude_characters="\x00", exclude_categories=("Cs",)), max_size=5)


@st.composite
def datasets(draw, axes_names=("a", "b")):
    """A Dataset with an axis that may be empty, values of several types, and any attributes."""
    empty, full = axes_names
    sizes = {empty: draw(st.integers(0, 3)), full: draw(st.integers(1, 3))}
    values = {}
    for name in draw(st.lists(NAMES, min_size=1, max_size=3, unique=True)):
        axes = draw(st.sampled_from([(), (empty,), (empty, full), (full,)]))
        shape = tuple(sizes[axis] for axis in axes)
        array = draw(
            st.one_of(
                hnp.arrays(np.float32, shape, elements=FLOATS),
                hnp.arrays(np.float64, shape, elements=st.floats()),
                hnp.arrays(np.int64, shape, elements=st.integers(-(2**53), 2**53)),
                hnp.arrays(np.bool_, shape),
                hnp.arrays("U5", shape, elements=TEXT),
            )
        )
        if name not in sizes:
            values[name] = (axes, array, draw(ATTRIBUTES))
    return xr.Dataset(values, attrs=draw(ATTRIBUTES))


@st.composite
def trees(draw):
    """A tree with groups under any names, one of them nested."""
    names = draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))
    groups = {f"/{name}": draw(datasets()) for name in names}
    groups[f"/{names[0]}/inner"] = draw(datasets(("c", "d")))
    groups = {path: data for path, data in groups.items() if "inner" not in data.variables}
    tree = xr.DataTree.from_dict(groups)
    tree.attrs = draw(ATTRIBUTES) | {"Conventions": "noisekit-1"}
    return tree


def assert_same_values(have, want):
    """Values, axes and attributes agree, as a file can hold them."""
    assert have.dims == want.dims
    expected = want.values.astype(np.int8) if want.dtype == bool else want.values
    if expected.dtype.kind in "SUO":
        assert have.values.astype(str).tolist() == expected.astype(str).tolist()
    else:
        np.testing.assert_array_equal(have.values, expected)
    assert_same_attributes(have.attrs, want.attrs)


def assert_same_attributes(have, want):
    assert {str(k) for k in have} == {str(k) for k in want}
    for name, value in want.items():
        stored = have[name]
        if value is None:
            assert stored == ""
        elif isinstance(value, list | dict):
            assert json.loads(stored) == value
        elif isinstance(value, float) and math.isnan(value):
            assert math.isnan(stored)
        elif isinstance(value, int) and abs(value) >= 2**63:
            assert stored == str(value)
        elif isinstance(value, str):
            assert stored == value.replace("\x00", "\ufffd")
        else:
            assert stored == value


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
@given(tree=trees())
@FEW
def test_a_saved_tree_is_opened_as_it_was(tmp_path_factory, suffix, tree):
    path = tmp_path_factory.mktemp("trip") / f"a{suffix}"
    nk.save_tree(tree, path)
    with nk.open_tree(path) as again:
        assert {n.path for n in again.subtree} == {n.path for n in tree.subtree}
        assert_same_attributes(again.attrs, tree.attrs)
        for node in tree.subtree:
            have, want = (
                t.to_dataset(inherit=False) for t in (again[node.path] if node.path != "/" else again, node)
            )
            assert set(have.variables) == set(want.variables)
            for name in want.variables:
                assert_same_values(have.variables[name], want.variables[name])
            if node.path != "/":
                assert_same_attributes(have.attrs, want.attrs)


@pytest.mark.parametrize("to", ["csv", "parquet"])
@given(tree=trees())
@FEW
def test_exported_tables_hold_every_value(tmp_path_factory, to, tree):
    folder = export_tree(tree, tmp_path_factory.mktemp("export") / "tables", to)
    written = {p.stem for p in folder.glob(f"*.{to}")}
    expected = dict(tables(tree))
    assert written == set(expected)
    for name, table in expected.items():
        if to == "parquet":
            pd.testing.assert_frame_equal(pd.read_parquet(folder / f"{name}.parquet"), table)
            continue
        have = pd.read_csv(folder / f"{name}.csv", dtype=str, keep_default_na=False)
        assert list(have.columns) == list(table.columns)
        for column in table.columns:
            want = table[column]
            if want.dtype.kind in "fiu":
                numbers = [float(v) if v else np.nan for v in have[column]]
                np.testing.assert_array_equal(np.array(numbers).astype(want.dtype), want.to_numpy())
            else:
                assert have[column].tolist() == want.astype(str).tolist()


@pytest.fixture(scope="module")
def record():
    recorder, train = training()
    with recorder:
        train(0, 9)
    return recorder.result()


def assert_same_record(have, want):
    for name in ALONG_STEPS:
        assert torch.equal(getattr(have, name), getattr(want, name)), name


@given(cuts=st.tuples(st.integers(0, 9), st.integers(0, 9)).map(sorted))
@FEW
def test_parts_of_a_record_merge_to_the_whole_in_any_grouping(record, cuts):
    place = np.arange(9)
    ends = [0, *cuts, 9]
    parts = [select_steps(record, (place >= ends[i]) & (place < ends[i + 1])) for i in range(3)]
    one, two, three = parts
    left = nk.merge_records(nk.merge_records(one, two), three)
    right = nk.merge_records(one, nk.merge_records(two, three))
    assert_same_record(left, record)
    assert_same_record(right, record)
    tree = nk.to_datatree(record=left)
    xr.testing.assert_identical(tree["gradient_noise"].to_dataset(), _noise_of(record))


def _noise_of(record):
    return nk.to_datatree(record=record)["gradient_noise"].to_dataset()


@given(
    sizes=st.lists(st.integers(2, 40), min_size=3, max_size=3),
    shift=st.floats(-1e3, 1e3),
    scale=st.floats(1e-3, 1e3),
)
@FEW
def test_moments_merge_in_any_order_to_those_of_all_samples(sizes, shift, scale):
    generator = torch.Generator().manual_seed(sum(sizes))
    groups = [shift + scale * torch.randn(n, 4, generator=generator, dtype=torch.float64) for n in sizes]
    one, two, three = (RunningMoments.of_batch(len(x), {"w": x.mean(0)}, {"w": x.var(0)}) for x in groups)
    whole = torch.cat(groups)
    within = torch.cat([x - x.mean(0) for x in groups]).square().sum(0) / (sum(sizes) - 3)
    for merged in (one.merge(two).merge(three), one.merge(two.merge(three)), three.merge(one).merge(two)):
        torch.testing.assert_close(merged.mean["w"], whole.mean(0), rtol=1e-9, atol=1e-9 * scale)
        torch.testing.assert_close(merged.variance(pooled=False)["w"], whole.var(0), rtol=1e-6, atol=0)
        torch.testing.assert_close(merged.variance()["w"], within, rtol=1e-6, atol=0)


@given(order=st.permutations([3, 1, 4, 0]), count=st.integers(1, 4))
@settings(FEW, max_examples=3)
def test_seeds_join_in_any_order_and_come_apart(order, count):
    chosen = [nk.make_example_tree(seed) for seed in order[:count]]
    joined = concat(chosen)
    validate(joined)
    runs = by_seed(joined)
    assert list(runs) == order[:count]
    for tree, run in zip(chosen, runs.values(), strict=True):
        for path in ("training", "sde/sgd", "comparison/adam", "stationary/sgd"):
            xr.testing.assert_identical(tree[path].to_dataset(), run[path].to_dataset())
