"""What every figure must do: return its axes, label them, fit its text, say what is missing."""

import itertools

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import noisekit.plots as plots
from noisekit.errors import InputError
from noisekit.results.example import make_example_tree

mpl.use("Agg")

NAMES = sorted(name for name in plots.__all__ if name.startswith("plot_"))


@pytest.fixture(scope="module")
def whole_tree():
    return make_example_tree()


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_is_labelled_and_no_text_overlaps(name, whole_tree):
    handle = getattr(plots, name)(whole_tree)
    figure = handle.figure
    for ax in figure.axes:
        assert ax.get_xlabel()
        assert ax.get_ylabel() or not ax.yaxis.get_major_locator()().size or named_ticks(ax)
        assert ax.get_title(loc="left")
    assert_no_text_overlaps(figure)


@pytest.mark.parametrize("floor", [1e-7, 0.004, 0.016, 0.7, 0.8])
def test_no_range_of_numbers_makes_labels_overlap(floor, whole_tree):
    tree = whole_tree.copy(deep=True)
    for name in ("sgd", "adam"):
        tree[f"theory/{name}"].dataset = tree[f"theory/{name}"].to_dataset().assign(noise_floor=floor)
    noise = tree["gradient_noise"].to_dataset()
    for name in ("total_noise_scale", "total_noise_scale_interval", "signal_to_noise"):
        noise[name] = noise[name] * floor
    tree["gradient_noise"].dataset = noise
    for plot in (plots.plot_noise_floors, plots.plot_noise_scale, plots.plot_signal_to_noise):
        assert_no_text_overlaps(plot(tree).figure)


def assert_no_text_overlaps(figure):
    figure.canvas.draw()
    boxes = [(t.get_text(), t.get_window_extent()) for t in visible_texts(figure)]
    inside = figure.bbox.padded(1)
    for text, box in boxes:
        assert inside.x0 <= box.x0, text
        assert box.x1 <= inside.x1, text
    for (a, first), (b, second) in itertools.combinations(boxes, 2):
        assert not first.padded(-1).overlaps(second.padded(-1)), f"{a!r} lies on {b!r}"


def named_ticks(ax):
    return any(label.get_text() and not label.get_text()[0].isdigit() for label in ax.get_yticklabels())


def visible_texts(figure):
    texts = [t for t in figure.findobj(mpl.text.Text) if t.get_text().strip() and t.get_visible()]
    hidden = []
    for ax in figure.axes:
        for axis, limits in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
            low, high = min(limits), max(limits)
            for minor in (False, True):
                labels = axis.get_ticklabels(minor=minor)
                for place, label in zip(axis.get_ticklocs(minor=minor), labels, strict=False):
                    if not low * (1 - 1e-9) <= place <= high * (1 + 1e-9):
                        hidden.append(label)
    return [t for t in texts if not any(t is h for h in hidden)]


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_group_is_one_sentence(name):
    with pytest.raises(InputError) as caught:
        getattr(plots, name)(xr.DataTree())
    message = str(caught.value)
    assert "needs the group /" in message
    assert message.endswith(".")
    assert "\n" not in message


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_draws_on_given_axes(name, whole_tree):
    ax = Figure().add_subplot()
    assert getattr(plots, name)(whole_tree, ax=ax) is ax
    assert ax.has_data() or ax.patches
    assert not plt.get_fignums()


def test_settings_of_the_user_are_left_alone(whole_tree):
    before = dict(mpl.rcParams)
    plots.plot_trajectories(whole_tree)
    plots.plot_noise_histogram(whole_tree)
    assert dict(mpl.rcParams) == before


def test_a_figure_refuses_what_is_no_tree():
    with pytest.raises(InputError, match="from a DataTree, not from Dataset"):
        plots.plot_hill(xr.Dataset())


def test_an_unrecorded_step_names_the_nearest(whole_tree):
    with pytest.raises(InputError, match="Step 37 was not recorded; the nearest is 40"):
        plots.plot_noise_histogram(whole_tree, step=37)


def test_an_unknown_optimizer_names_the_nearest(whole_tree):
    with pytest.raises(InputError, match="Did you mean 'adam'"):
        plots.plot_trajectories(whole_tree, optimizer="adm")


def test_hostile_names_are_drawn_as_they_are():
    tree = make_example_tree()
    for kind in ("sde", "optimizer", "theory", "comparison"):
        tree[f"{kind}/$\\frac{{"] = xr.DataTree(tree[f"{kind}/sgd"].to_dataset(inherit=False))
    for name in ("plot_trajectories", "plot_noise_floors", "plot_prediction_gap", "plot_floor_against_noise"):
        handle = getattr(plots, name)(tree)
        figure = handle.figure
        figure.canvas.draw()


def test_many_blocks_are_cut_to_the_largest():
    tree = make_example_tree()
    alpha = np.full((1, 40, 1), 3.0)
    data = xr.Dataset(
        {"alpha": (("step", "block", "estimator"), alpha)},
        {
            "step": [5],
            "block": [f"layers.{i}.attention.projection.weight" for i in range(40)],
            "estimator": ["gpd"],
        },
    )
    tree["tail_index"] = xr.DataTree(data)
    ax = plots.plot_tail_index(tree, max_blocks=12)
    assert isinstance(ax, Axes)
    assert len(ax.get_yticklabels()) == 12
    assert "12 of 40 blocks" in [t.get_text() for t in ax.texts]
