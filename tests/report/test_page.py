"""The page is self-contained, escapes what it shows and opens whatever is missing."""

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
import xarray as xr

from noisekit.errors import InputError
from noisekit.report import figures, render_report, write_report
from noisekit.results import open_tree, save_tree
from noisekit.results.example import make_example_tree

HOSTILE = '<script>alert("x")</script>&$\\frac{'
VOID = {"meta", "link", "br", "path", "use", "rect"}


class Reader(HTMLParser):
    """Collects tags, ids, attributes and visible text, and checks that tags are closed in order."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.tags, self.ids, self.addresses, self.words, self.stack = [], [], [], [], []
        self.feed(page)
        self.close()
        assert not self.stack, f"never closed: {self.stack}"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        self.addresses += [
            v for name, v in attrs if name in ("src", "href", "xlink:href", "srcset", "action")
        ]
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.stack.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.stack.pop() == tag

    def handle_data(self, data):
        if "style" not in self.stack:
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def page():
    return render_report(make_example_tree())


def without(tree, *groups):
    """The tree without some groups and what is below them."""
    gone = tuple(f"/{group}/" for group in groups)
    kept = {n.path: n.to_dataset() for n in tree.subtree if not f"{n.path}/".startswith(gone)}
    return xr.DataTree.from_dict(kept)


def of_one_optimizer(tree):
    """The tree without the second optimizer of every kind of group: half as many figures."""
    return without(tree, *(node.path[1:] for node in tree.subtree if node.name == "adam"))


EXPERIMENTS = (
    "weak_order", "noise_sweep", "df_sweep", "batch_size_sweep", "batch_scaling", "stationary", "phases",
    "truth",
)  # fmt: skip
"""Groups that no other group's figures need."""


@pytest.fixture
def quick(monkeypatch):
    """Draw the figures but leave out turning them into SVG, which takes most of the time."""
    monkeypatch.setattr(figures, "to_inline_svg", lambda figure, name, label: "<svg></svg>")


def test_the_page_loads_nothing_and_runs_nothing(page):
    reader = Reader(page)
    assert not {"script", "iframe", "object", "embed", "base", "form", "img"} & set(reader.tags)
    assert all(address.startswith(("#", "data:")) for address in reader.addresses)
    assert "http" not in page.replace("http-equiv", "")
    assert "@import" not in page


def test_ids_are_unique_and_every_reference_is_there(page):
    ids = Reader(page).ids
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', page)) <= set(ids)


def test_figures_follow_the_colours_of_the_page(page):
    body = page.split("</style>")[1]
    assert not re.findall(r"#[0-9a-f]{6}\b", body)
    used = set(re.findall(r"var\((--[a-z]+)\)", body))
    for colours in page.split("prefers-color-scheme: dark"):
        assert all(f"{name}:" in colours for name in used)


def test_the_page_has_its_parts(page):
    text = Reader(page).text
    for heading in (
        "In numbers",
        "What the noise is",
        "What the optimizers do",
        "Regimes",
        "Where this comes from",
    ):
        assert heading in text
    assert "noisekit run fashion-cnn --seed 0" in text
    assert page.count("<figcaption>") == page.count("<svg") >= 12
    assert "could not be drawn" not in text
    assert all(len(reading) > 20 for reading in re.findall(r"<figcaption>(.*?)</figcaption>", page, re.S))


def test_no_number_has_many_digits(page):
    shown = re.sub(r"\S*(Z|\d\.\d+\.\d+)\b", "", Reader(page).text)
    assert not re.findall(r"\d*\.\d{6,}|\d{8,}", shown)


@pytest.mark.parametrize(
    "group",
    [
        "training",
        "gradient_noise",
        "gradient_noise/samples",
        "tail_index",
        "noise_model",
        "minibatch_noise",
        "sde",
        "optimizer",
        "theory",
        "comparison",
        "sde/adam",
        "optimizer/sgd",
    ],
)
def test_the_page_opens_without_a_group(group, quick):
    tree = without(make_example_tree(), group, *EXPERIMENTS, "gradient_noise/samples")
    if group not in ("sde/adam", "optimizer/sgd"):
        tree = of_one_optimizer(tree)
    reader = Reader(render_report(tree))
    assert "Where this comes from" in reader.text
    assert "could not be drawn" not in reader.text
    if group not in ("minibatch_noise", "theory", "sde", "optimizer", "sde/adam", "optimizer/sgd"):
        assert f"needs the group /{group}" in reader.text


def test_the_page_opens_for_an_empty_tree():
    text = Reader(render_report(xr.DataTree())).text
    assert "This file holds no record of the gradient noise." in text
    assert "This file holds no runs of an optimizer." in text
    assert "This file holds no comparison of a prediction with real runs." in text


@pytest.mark.slow
@pytest.mark.parametrize(
    "group", ["gradient_noise", "noise_model", "tail_index", "theory/sgd", "comparison/sgd"]
)
def test_the_page_opens_without_any_one_variable(group, quick):
    data = make_example_tree()[group].to_dataset()
    unread = {"prediction_mean", "prediction_std", "reference_mean", "reference_std", "gap", "gap_in_std"}
    for name in sorted(set(data.data_vars) - unread):
        tree = xr.DataTree.from_dict({f"/{group}": data.drop_vars(name)})
        assert "Where this comes from" in Reader(render_report(tree)).text


@pytest.mark.slow
def test_names_of_the_user_are_escaped():
    whole = make_example_tree()
    tree = of_one_optimizer(without(whole, "gradient_noise/samples", *EXPERIMENTS))
    tree.attrs |= whole.attrs | {
        "title": HOSTILE,
        "command": HOSTILE,
        "problem": HOSTILE,
        "history": HOSTILE,
        HOSTILE: HOSTILE,
    }
    tree.attrs["config_json"] = '{"a": "' + HOSTILE.replace('"', "'").replace("\\", "") + '"}'
    for group in ("gradient_noise", "tail_index"):
        data = tree[group].to_dataset()
        tree[group].dataset = data.assign_coords(block=[HOSTILE, *data["block"].values[1:]])
    tree["gradient_noise"].attrs |= {"coverage": 0.4, "uncovered": [HOSTILE, "b"]}
    tree["comparison/sgd"].attrs["verdict_text"] = HOSTILE
    data = tree["theory/sgd"].to_dataset()
    data["gauge_meaning"] = ("gauge", [HOSTILE] * data.sizes["gauge"])
    tree["theory/sgd"].dataset = data
    for kind in ("sde", "optimizer", "theory", "comparison"):
        tree[f"{kind}/{HOSTILE.replace('/', '')}"] = xr.DataTree(tree[f"{kind}/sgd"].to_dataset())
    page = render_report(tree)
    reader = Reader(page)
    assert "script" not in reader.tags
    assert "<script" not in page
    assert reader.text.count('<script>alert("x")') > 8
    assert "could not be drawn" not in reader.text


def test_a_figure_that_fails_leaves_the_rest(quick):
    tree = make_example_tree()
    data = tree["gradient_noise"].to_dataset()
    tree["gradient_noise"].dataset = data.drop_vars("eigenvalue").assign(eigenvalue=("step", np.ones(12)))
    text = Reader(render_report(tree)).text
    assert "Spectrum of the covariance : the data could not be drawn (ValueError" in text
    assert "Noise scale over training" in text


def test_writing_keeps_what_exists_and_leaves_no_partial_file(tmp_path, quick):
    path = tmp_path / "ü b.html"
    assert write_report(without(make_example_tree(), "gradient_noise/samples", *EXPERIMENTS), path) == path
    before = path.read_text(encoding="utf-8")
    with pytest.raises(InputError, match="exists"):
        write_report(xr.DataTree(), path)
    assert path.read_text(encoding="utf-8") == before
    write_report(xr.DataTree(), path, overwrite=True)
    assert path.read_text(encoding="utf-8") != before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("path", "message"),
    [("report.txt", "suffix '.txt'"), ("nowhere/report.html", "folder .* does not exist")],
)
def test_a_path_that_cannot_be_used_is_one_sentence(path, message, tmp_path):
    with pytest.raises(InputError, match=message):
        write_report(xr.DataTree(), tmp_path / path)


def test_what_is_no_tree_is_refused():
    with pytest.raises(InputError, match="from a DataTree, not from dict"):
        render_report({})


@pytest.mark.slow
def test_drawing_never_imports_torch():
    code = (
        "import sys, xarray; from noisekit.results.example import make_example_tree;"
        "from noisekit.report import render_report; import noisekit.plots as p;"
        "t = make_example_tree(); p.plot_hill(t); p.plot_noise_floors(t); render_report(xarray.DataTree());"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("width", [400, 1400])
def test_a_browser_shows_the_page_without_scrolling_sideways(page, tmp_path, width):
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        assert 'name="viewport"' in page
        return
    # A frame of the wanted width measures the page, because headless windows have a smallest width.
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    probe = (
        f"<iframe id=f src=page.html style='width:{width}px;height:900px;border:0'></iframe><script>"
        "f.onload = () => { const d = f.contentDocument.documentElement;"
        "document.title = d.scrollWidth + ' ' + d.clientWidth; }</script>"
    )
    (tmp_path / "probe.html").write_text(probe)
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    flags += ["--allow-file-access-from-files", "--virtual-time-budget=4000", "--dump-dom"]
    command = [browser, *flags, f"--user-data-dir={tmp_path / 'profile'}"]
    command.append((tmp_path / "probe.html").as_uri())
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    scroll, client = map(int, re.search(r"<title>(\d+) (\d+)</title>", done.stdout).groups())
    assert 0.9 * width < client <= width
    assert scroll <= client


@pytest.mark.slow
def test_a_file_opened_lazily_gives_the_same_page(tmp_path, quick):
    tree = of_one_optimizer(make_example_tree())
    expected = Reader(render_report(tree))
    with open_tree(save_tree(tree, tmp_path / "a.nc")) as opened:
        assert Reader(render_report(opened)).text == expected.text
