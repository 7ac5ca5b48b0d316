"""Commands that read files: data on stdout, one sentence on stderr, the right exit code."""

import json
import subprocess
import sys

import pandas as pd
import pytest
import xarray as xr
from small_tree import RECORD, small_tree

import noisekit as nk
from noisekit.cli import main
from noisekit.errors import InputError

TREE = small_tree(*RECORD, "tail_index", "noise_model", "theory/adam")


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    return nk.save_tree(TREE, tmp_path_factory.mktemp("data") / "run.nc")


@pytest.fixture(scope="module")
def without_noise(tmp_path_factory):
    tree = xr.DataTree.from_dict({"/training": TREE["training"].to_dataset()})
    return nk.save_tree(tree, tmp_path_factory.mktemp("data") / "empty.nc")


def test_summary_prints_every_number(example, capsys):
    assert main(["summary", str(example)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "gradient noise scale" in out
    table, _, below = out.partition("\n\n")
    assert table.count("\n") == len(nk.summary(TREE))
    assert "95 % interval" in below


def test_json_is_json_with_the_same_numbers(example, capsys):
    assert main(["summary", str(example), "--json"]) == 0
    found = json.loads(capsys.readouterr()[0])
    expected = nk.summary(TREE)
    assert [row["quantity"] for row in found] == expected["quantity"].tolist()
    assert [row["value"] for row in found] == pytest.approx(expected["value"].tolist())
    assert found[0]["lower"] is None


def test_analyze_keeps_to_the_noise(example, capsys):
    assert main(["analyze", str(example), "--json"]) == 0
    assert {row["topic"] for row in json.loads(capsys.readouterr()[0])} == {"noise", "fit", "tail"}


def test_export_writes_tables_and_prints_where(example, tmp_path, capsys):
    target = tmp_path / "tables"
    assert main(["export", str(example), "--to", "csv", "--output", str(target)]) == 0
    assert capsys.readouterr()[0].strip() == str(target)
    assert len(pd.read_csv(target / "training.step.csv")) == TREE["training"].sizes["step"] > 1


def test_list_shows_the_problems(capsys):
    assert main(["list", "--json"]) == 0
    assert {"quadratic", "fashion-cnn", "shakespeare-gpt"} <= {
        row["name"] for row in json.loads(capsys.readouterr()[0])
    }
    assert main(["list"]) == 0
    assert "fashion-cnn" in capsys.readouterr()[0]


@pytest.mark.slow
def test_report_writes_a_page(example, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert main(["report", str(example), "--output", str(page)]) == 0
    assert capsys.readouterr()[0].strip() == str(page)
    assert page.read_text(encoding="utf-8").lstrip().lower().startswith("<!doctype html")
    assert main(["report", str(example), "--output", str(page)]) == 2
    assert "exists" in capsys.readouterr()[1]


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["summary", "absent.nc"], 2, "no file"),
        (["summary", "text.nc"], 1, "not in netCDF-4"),
        (["summary", "cut.nc"], 1, "cut short"),
        (["analyze", "empty.nc"], 1, "no group '/gradient_noise'"),
        (["report", "RUN", "--output", "absent/page.html"], 2, "does not exist"),
        (["report", "RUN", "--output", "page.pdf"], 2, "suffix '.pdf'"),
        (["export", "RUN", "--to", "cvs"], 2, "Did you mean 'csv'"),
        (["export", "RUN", "--to", "csv", "--output", "absent/x"], 2, "does not exist"),
        (["export", "RUN", "--to", "netcdf", "--output", "RUN"], 2, "exists"),
        (["run", "fashon-cnn"], 2, "Did you mean 'fashion-cnn'"),
        (["run", "--output", "absent/run.nc"], 2, "does not exist"),
        (["run", "--output", "RUN"], 2, "exists"),
        (["run", "--output", "run.pkl"], 2, "suffix '.pkl'"),
        (["run", "--optimizers", "adamm"], 2, "Did you mean 'adam'"),
        (["run", "--steps", "-3"], 2, "steps is -3"),
        (["run", "--replicates", "1"], 2, "at least 2"),
        (["run", "absent.py:make"], 2, "absent.py"),
        (["run", "--output", ""], 2, "suffix ''"),
        (["run", "--output", "folder.nc", "--overwrite"], 2, "folder.nc is a folder"),
        (["run", "--output", "x.nc", "--report", "folder.html", "--overwrite"], 2, "folder.html is a folder"),
        (["summery", "x.nc"], 2, "There is no command 'summery'. Did you mean 'summary'?"),
        (
            ["run", "--replicats", "3"],
            2,
            "run has no option --replicats. Did you mean '--replicates'?",
        ),
        (["summary", "RUN", "--jason"], 2, "Did you mean '--json'?"),
        (["run", "--problem=quadratic"], 2, "noisekit run has no option --problem."),
    ],
)
def test_wrong_use_is_one_sentence(
    example, without_noise, tmp_path, monkeypatch, capsys, arguments, code, sentence
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.nc").write_text("hello")
    (tmp_path / "folder.nc").mkdir()
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "cut.nc").write_bytes(example.read_bytes()[:9000])
    (tmp_path / "empty.nc").write_bytes(without_noise.read_bytes())
    before = sorted(p.name for p in tmp_path.iterdir())
    assert main([a.replace("RUN", str(example)) for a in arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert sentence in err
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_debug_shows_where_an_error_comes_from():
    with pytest.raises(InputError):
        main(["summary", "absent.nc", "--debug"])


def test_help_and_version(capsys):
    for arguments in (["--help"], ["run", "--help"], ["export", "--help"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
    assert "csv" in capsys.readouterr()[0]
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr()[0] == f"noisekit {nk.__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["summary", "RUN"], ["export", "RUN"]])
def test_reading_commands_start_without_torch(example, tmp_path, arguments):
    words = [a.replace("RUN", str(example)) for a in arguments]
    if words[0] == "export":
        words += ["--to", "csv", "--output", str(tmp_path / "tables")]
    code = f"import sys; from noisekit.cli import main\ntry: main({words!r})\nexcept SystemExit: pass\n"
    code += "sys.exit(bool({'torch', 'scipy.stats'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


def test_a_reader_that_leaves_is_no_error(example):
    command = f"{sys.executable} -m noisekit summary {example} | head -n 1"
    done = subprocess.run(["bash", "-c", command], check=False, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
