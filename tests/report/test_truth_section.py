"""The report and the summary of a study of truth say what the study found."""

import numpy as np
import pytest
import xarray as xr

import noisekit as nk
from noisekit.report import render_report
from noisekit.report.truth import insights_table, is_study, truth_sentences, truth_table
from noisekit.results.example_truth import truth_groups
from noisekit.truth.insights.labelled import insight_dataset, variable


@pytest.fixture
def study():
    groups = truth_groups(np.random.default_rng(0))
    groups["/insight/noise_floors"] = insight_dataset(
        "noise_floors",
        "The floor is quadratic.",
        {"slope": variable("optimizer", [2.0], "slope")},
        {"optimizer": ["sgd"]},
        verdict="The slope is 1.0.",
        finding="failed",
        settings={"seed": 0},
    )
    return xr.DataTree.from_dict(groups)


def test_the_page_of_a_study_has_its_tables_and_no_empty_sections(study):
    page = render_report(study)
    assert "Is it true?" in page
    assert "example_sgd" in page
    assert "The slope is 1.0." in page
    for title in ("How far the mean is off", "How far the spread is off"):
        assert title in page
    assert "Tail index by layer" not in page
    assert "no record of the gradient noise" not in page


def test_each_row_is_that_of_the_sde_with_the_ode_beside_it(study):
    data = study["truth/example_sgd"]
    row = [cell.text for cell in truth_table(study).rows[0]]
    own = float(data["gap"].sel(arm="consistent", observable="loss"))
    ode = float(data["gap"].sel(arm="ode", observable="loss"))
    assert row[0] == "example_sgd"
    assert float(row[1].split()[0]) == pytest.approx(100 * own, abs=0.06)
    assert float(row[5].split()[0]) == pytest.approx(100 * ode, rel=0.05)
    mood = insights_table(study).rows[0][1]
    assert (mood.text, mood.mood) == ("failed", "bad")


def test_the_sentences_count(study):
    first, last = truth_sentences(study)
    assert first.startswith("In 2 experiments the mean loss of the SDE is off by 0.")
    assert last == "Of 1 published insight 1 failed."
    assert truth_sentences(xr.DataTree()) == ["This file holds no finished experiment."]


def test_what_does_not_exist_and_what_was_lost_is_said(study):
    data = study["truth/example_sgd"].to_dataset().copy(deep=True)
    data["refusal"] = data["refusal"].astype(object)
    data["refusal"].loc[{"arm": "consistent"}] = "infinite variance"
    for name in ("gap", "std_ratio"):
        data[name].loc[{"arm": "consistent"}] = np.nan
    other = study["truth/example_adam"].to_dataset().copy(deep=True)
    other["n_diverged"].loc[{"arm": "consistent"}] = 7
    tree = xr.DataTree.from_dict({"/truth/a": data, "/truth/b": other})
    refused, lossy = truth_table(tree).rows
    assert refused[1].text == "no SDE: infinite variance"
    assert "7 paths lost" in lossy[1].text
    assert "In 1 experiment the noise has no variance" in " ".join(truth_sentences(tree))


def test_groups_of_that_name_with_other_contents_are_left_alone():
    tree = xr.DataTree.from_dict({"/truth/a": xr.Dataset({"y": 1.0}), "/insight/b": xr.Dataset({"y": 1.0})})
    assert is_study(tree)
    assert truth_table(tree) is None
    assert "<h1>" in render_report(tree)
    assert nk.summary(tree)["topic"].tolist() == ["insight"]


def test_the_summary_has_gap_and_spread_of_each_experiment_and_every_finding(study):
    table = nk.summary(study).set_index(["quantity", "of"])
    data = study["truth/example_adam"].sel(arm="consistent", observable="loss")
    gap = table.loc[("relative gap of the mean loss", "example_adam")]
    assert gap["value"] == float(data["gap"])
    assert gap["upper"] == pytest.approx(float(data["gap"] + 1.96 * data["gap_error"]))
    assert "without noise" in gap["note"]
    spread = table.loc[("standard deviation of the loss over that of the runs", "example_adam")]
    assert spread["value"] == float(data["std_ratio"])
    assert table.loc[("noise floors", ""), "note"] == "failed: The slope is 1.0."
