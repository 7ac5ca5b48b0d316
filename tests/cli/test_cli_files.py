"""Every command on the file another wrote: by run, collect, a recorder of one's own, netCDF and zarr."""

import json

import pytest
import torch

import noisekit as nk
from noisekit.cli import main
from noisekit.errors import InputError

COLLECT = (
    "collect breast-cancer-mlp --steps 24 --batch-size 64 --every 3 --coordinates 24 --sketch 4 --seed 3"
)
RUN = (
    "run breast-cancer-mlp --optimizers adam --steps 4 --warmup-steps 0 --save-every 2 --replicates 4 "
    "--n-samples 60 --batch-size 8 --training-steps 12 --training-batch-size 32 --record-every 3 "
    "--coordinates 16 --sketch 4 --no-report"
)


def recorded_by_hand():
    torch.manual_seed(0)
    model, loss_fn = torch.nn.Linear(4, 2), torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with nk.GradientNoiseRecorder(model, loss_fn, optimizer, schedule=nk.every(1)) as recorder:
        for _ in range(10):
            x = torch.randn(32, 4)
            optimizer.zero_grad()
            loss_fn(model(x), (x[:, 0] > 0).long()).backward()
            optimizer.step()
    return nk.to_datatree(record=recorder.result())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    for line, stem in ((COLLECT, "collected"), (RUN, "run")):
        assert main([*line.split(), "--output", str(folder / f"{stem}.nc")]) == 0
    nk.save_tree(recorded_by_hand(), folder / "own.nc")
    for stem in ("collected", "run", "own"):
        with nk.open_tree(folder / f"{stem}.nc") as tree:
            nk.save_tree(tree, folder / f"{stem}.zarr")
    return folder


def said(capsys, *words):
    assert main([*map(str, words)]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["nc", "zarr"])
@pytest.mark.parametrize("stem", ["collected", "run", "own"])
def test_every_command_reads_every_file(folder, tmp_path, capsys, stem, suffix):
    file = folder / f"{stem}.{suffix}"
    assert "gradient norm" in said(capsys, "summary", file)
    topics = {row["topic"] for row in json.loads(said(capsys, "analyze", file, "--json"))}
    assert topics >= {"noise", "tail"}
    for optimizer in ("sgd", "adamw", "signsgd") if suffix == "nc" else ("adamw",):
        found = json.loads(said(capsys, "predict", file, "--optimizer", optimizer, "--lr", 0.01, "--json"))
        assert found["optimizer"] == optimizer
        assert "noise floor" in {f["quantity"] for f in found["figures"]} or found["unknown"]
        assert found["gauges"]
    said(capsys, "scale", file, "--optimizer", "adam", "--lr", 0.01, "--batch-ratio", 2)
    said(capsys, "export", file, "--to", "csv", "--output", tmp_path / "tables")
    again = tmp_path / f"again.{'zarr' if suffix == 'nc' else 'nc'}"
    to = "zarr" if suffix == "nc" else "netcdf"
    said(capsys, "export", file, "--to", to, "--output", again)
    assert said(capsys, "summary", again) == said(capsys, "summary", file)
    compared = main(["compare", str(file)])
    assert compared == (0 if stem == "run" else 1)


@pytest.mark.slow
def test_analysis_can_be_kept_and_is_then_read_not_made(folder, tmp_path, capsys):
    kept = tmp_path / "kept.nc"
    made = said(capsys, "analyze", folder / "collected.nc", "--output", kept)
    assert main(["analyze", str(kept)]) == 0
    out, err = capsys.readouterr()
    assert "Fitting" not in err
    assert out == made


def test_collect_keeps_what_it_saw_and_its_line_repeats_it(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with nk.open_tree(folder / "collected.nc") as tree:
        assert set(tree.children) == {"training", "gradient_noise"}
        assert tree["gradient_noise/samples/noise"].shape == (8, 64, 24)
        assert tree["training"].attrs["sharpness"] > 0
        assert float(tree["gradient_noise/mean_gradient_error"].max()) < 1e-5
        command = tree.attrs["command"]
        first = tree["gradient_noise/trace"].values
    assert command == f"noisekit {COLLECT}"
    assert main(command.split()[1:]) == 0
    out, err = capsys.readouterr()
    assert f"To repeat this: {command}" in err
    assert out.splitlines()[-1] == "Data: noisekit-runs/breast-cancer-mlp-record.nc"
    with nk.open_tree("noisekit-runs/breast-cancer-mlp-record.nc") as tree:
        assert (tree["gradient_noise/trace"].values == first).all()


def test_collect_takes_another_optimizer_and_schedule(tmp_path, capsys):
    file = tmp_path / "adam.nc"
    options = "--optimizer adamw --lr 0.01 --weight-decay 0.1 --steps 40 --logarithmic 4"
    said(capsys, "collect", "breast-cancer-mlp", *options.split(), "--output", file)
    with nk.open_tree(file) as tree:
        assert tree["training"]["step"].values.tolist() == [k for k in range(40) if nk.logarithmic(4)(k)]
        rates = tree["training"]["learning_rate"].values
        assert rates.tolist() == pytest.approx([0.01] * len(rates))
        assert tree["training"].attrs["optimizer"] == "adamw"
        assert "--learning-rate 0.01 --weight-decay 0.1 --logarithmic 4" in tree.attrs["command"]


def test_collect_trains_on_a_folder_of_images(tmp_path, capsys):
    rng = torch.Generator().manual_seed(0)
    images = tmp_path / "my-images"
    images.mkdir()
    for part, n in (("train", 40), ("t10k", 8)):
        pixels = torch.randint(0, 256, (n, 8, 8), generator=rng, dtype=torch.uint8).numpy()
        labels = (torch.arange(n) % 3).to(torch.uint8).numpy()
        for name, values in ((f"{part}-images-idx3-ubyte", pixels), (f"{part}-labels-idx1-ubyte", labels)):
            head = bytes([0, 0, 8, values.ndim]) + b"".join(k.to_bytes(4, "big") for k in values.shape)
            (images / name).write_bytes(head + values.tobytes())
    file = tmp_path / "images.nc"
    said(
        capsys,
        "collect",
        images,
        "--steps",
        4,
        "--every",
        2,
        "--batch-size",
        8,
        "--coordinates",
        8,
        "--output",
        file,
    )
    with nk.open_tree(file) as tree:
        assert tree.attrs["n_samples"] == 40
        assert tree.attrs["command"].startswith("noisekit collect my-images ")


def test_a_comparison_of_two_files_sets_paths_beside_the_runs_of_the_other(folder, capsys):
    rows = json.loads(said(capsys, "compare", folder / "run.nc", folder / "run.zarr", "--json"))
    by_file = {}
    for row in rows:
        by_file.setdefault(row["file"], {})[row["observable"]] = row
    assert set(by_file) == {"run.nc", "run.zarr", "run.nc → run.zarr"}
    for observable, own in by_file["run.nc"].items():
        crossed = by_file["run.nc → run.zarr"][observable]
        assert crossed["gap"] == pytest.approx(own["gap"])
        assert crossed["error"] > 0
        assert crossed["discretisation"] is None


def test_another_tolerance_judges_anew(folder, capsys):
    own = json.loads(said(capsys, "compare", folder / "run.nc", "--json"))
    strict = json.loads(said(capsys, "compare", folder / "run.nc", "--tolerance", 1e-9, "--json"))
    same = json.loads(said(capsys, "compare", folder / "run.nc", "--tolerance", 0.05, "--json"))
    assert [r["text"] for r in same] == [r["text"] for r in own]
    assert [r["verdict"] for r in same] == [r["verdict"] for r in own]
    assert {r["verdict"] for r in strict} <= {"unclear", "missed"}
    for a, b in zip(own, strict, strict=True):
        assert b["gap"] == pytest.approx(a["gap"])
        assert b["discretisation"] == pytest.approx(a["discretisation"])


def test_scale_prints_what_the_library_says(capsys):
    options = "--optimizer adamw --lr 0.001 --betas 0.9 0.99 --weight-decay 0.1 --batch-ratio 4 --steps 1000"
    found = json.loads(said(capsys, "scale", *options.split(), "--json"))
    given = {"lr": 0.001, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.1, "steps": 1000}
    assert [v["preset"] for v in found["variants"]] == ["sde", "sqrt", "fixed_lr"]
    for variant in found["variants"]:
        expected = nk.scale_hyperparameters("adamw", given, 4, preset=variant["preset"])
        assert variant["hyperparameters"] == expected | {"betas": list(expected["betas"])}
        assert set(variant["reasons"]) == set(given)
        largest = variant["largest_ratio"]
        nk.scale_hyperparameters("adamw", given, largest * 0.999, preset=variant["preset"])
        with pytest.raises(nk.errors.InputError, match="stay positive"):
            nk.scale_hyperparameters("adamw", given, largest * 1.001, preset=variant["preset"])


def test_scale_shows_the_rules_that_work_beside_the_one_that_does_not(capsys):
    out = said(
        capsys, *["scale", "--optimizer", "sgd", "--lr", "0.1", "--momentum", "0.9", "--batch-ratio", "16"]
    )
    assert "less than 10 times" in out
    assert "sqrt" in out
    assert "—" in out


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_commands_and_options(shell, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--print-completion", shell])
    assert not ended.value.code
    script = capsys.readouterr().out
    for word in ("collect", "predict", "--batch-ratio"):
        assert word in script


LINES = ["scale --optimizer adam --lr 0.001 --batch-ratio 3", "predict {} --optimizer adam --lr 0.001"]


@pytest.mark.parametrize("line", LINES)
def test_numbers_are_short(folder, capsys, line):
    out = said(capsys, *line.format(folder / "collected.nc").split())
    digits = [word.strip(",;:()").replace(".", "") for word in out.split()]
    assert not [word for word in digits if word.isdigit() and len(word.lstrip("0")) > 6]
    assert max(map(len, out.splitlines())) < 160


@pytest.fixture(scope="module")
def joined(tmp_path_factory):
    file = tmp_path_factory.mktemp("joined") / "joined.nc"
    runs = [nk.make_example_tree(seed) for seed in (0, 1)]
    for run in runs:
        for name in set(run.children) - {"training", "gradient_noise", "comparison"}:
            del run[name]
    nk.save_tree(nk.concat(runs), file)
    return file


READERS = {
    "predict": "--optimizer adam --lr 0.001 --batch-size 32",
    "compare": "",
    "scale": "--optimizer sgd --lr 0.1 --batch-size 32 --batch-ratio 2",
    "report": "",
}


@pytest.mark.parametrize("command", READERS)
def test_of_joined_runs_one_is_chosen(joined, capsys, command):
    words = [command, str(joined), *READERS[command].split()]
    assert main(words) == 2
    assert "joins runs of the seeds 0, 1; choose one, such as --seed 0." in capsys.readouterr().err
    if command == "predict":
        assert main([*words, "--seed", "7"]) == 2
        assert "has no run of seed 7" in capsys.readouterr().err
    if command != "report":
        assert said(capsys, *words, "--seed", 1)


def test_joined_runs_are_refused_in_python_too(joined):
    with nk.open_tree(joined) as tree, pytest.raises(InputError, match=r"by_seed\(tree\)\[0\]"):
        nk.predict(tree, "sgd", learning_rate=0.1)


def test_a_seed_that_a_file_has_not_is_refused(folder, capsys):
    words = ["predict", str(folder / "collected.nc"), "--optimizer", "sgd", "--lr", "0.1", "--seed"]
    assert main([*words, "4"]) == 2
    assert "holds one run, whose seed is 3; leave out --seed 4" in capsys.readouterr().err
    assert main([*words, "3"]) == 0


@pytest.mark.parametrize(
    ("name", "said_of_it"),
    [
        ("no/such/folder", "There is no folder no/such/folder"),
        ("my_module.py", "give my_module.py:make_problem"),
    ],
)
def test_a_path_that_is_no_problem(capsys, tmp_path, name, said_of_it):
    assert main(["collect", name, "--output", str(tmp_path / "out.nc")]) == 2
    assert said_of_it in capsys.readouterr().err


def test_an_unstable_rate_never_arrives(folder, capsys):
    words = ["predict", folder / "collected.nc", "--optimizer", "sgd", "--lr", 500, "--sharpness", 1]
    text = said(capsys, *words)
    assert text.startswith("sgd is unstable at learning rate 500")
    assert "never" in text
    assert "half the learning rate" not in text


@pytest.mark.parametrize("name", ["run", "collect", "predict", "scale", "study"])
def test_help_shows_no_default_that_says_nothing(capsys, name):
    with pytest.raises(SystemExit):
        main([name, "--help"])
    text = capsys.readouterr().out
    assert "(default: 0)" in text or name in ("predict", "scale")
    for nothing in ("None", "False", "default: ''", "default: )"):
        assert nothing not in text


def test_files_say_that_paths_and_runs_are_paired_and_hold_deviations(folder):
    with nk.open_tree(folder / "run.nc") as tree:
        assert tree["comparison/adam"].attrs["paired"] == 1
    for stem in ("collected", "run", "own"):
        with nk.open_tree(folder / f"{stem}.nc") as tree:
            noise = tree["gradient_noise"]
            assert noise["deviation_sum"].dims == ("step", "block")
            # Σσ lies between √Σσ² and √(d Σσ²).
            square = noise["deviation_sum"] ** 2 / noise["trace"]
            assert bool(((square >= 0.999) & (square <= 1.001 * noise["block_size"])).all())


def test_analyze_says_in_words_what_its_numbers_say(folder, capsys):
    text = said(capsys, "analyze", folder / "run.nc")
    assert "the noise of one sample's gradient" in text.partition("topic")[0]
    assert "95 % interval" in text
    assert "tail index says which moments are finite" in text


def test_one_file_given_twice_is_shown_once(folder, capsys):
    rows = json.loads(said(capsys, "compare", folder / "run.nc", folder / "run.nc", "--json"))
    seen = [(row["file"], row["observable"]) for row in rows]
    assert len(seen) == len(set(seen))
    assert {file for file, _ in seen} == {"run.nc", "run.nc → run.nc"}


def test_the_report_of_a_bare_record_fits_it(folder, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert main(["report", str(folder / "collected.nc"), "--output", str(page)]) == 0
    assert "Fitting the noise" in capsys.readouterr().err
    text = page.read_text(encoding="utf-8")
    assert "the noise of one sample" in text
    assert "Nothing has been fitted" not in text


@pytest.mark.parametrize("name", ["collect", "analyze", "predict", "compare", "scale", "report", "export"])
def test_help_ends_with_an_example_and_its_groups_have_names(capsys, name):
    with pytest.raises(SystemExit):
        main([name, "--help"])
    text = capsys.readouterr().out
    assert f"Example: noisekit {name} " in text
    assert "settings options" not in text
    assert "{FLOAT" not in text


def test_the_list_of_commands_is_short(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert "Example:" not in text
    assert len(text.splitlines()) < 40


def test_all_that_is_missing_is_named_at_once(capsys):
    assert main(["predict"]) == 2
    assert "needs --optimizer, --learning-rate and a FILE; see" in capsys.readouterr().err


def test_predictions_show_intervals_and_what_is_not_told(folder, capsys):
    text = said(capsys, "predict", folder / "collected.nc", "--optimizer", "sgd", "--lr", 0.1)
    assert "In brackets: 95 % intervals." in text
    assert "Floors are known to a factor of " in text
    assert "not known" not in text.partition("Does the theory apply?")[0]
