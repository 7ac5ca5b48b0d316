"""Comparisons of ensembles whose gaps, errors and spreads are known because they were built."""

import dataclasses

import numpy as np
import pytest
import torch

from noisekit.errors import InputError
from noisekit.sde.solution import Solution
from noisekit.validation import compare, compare_curves

STEPS = 11


def ensemble(
    mean, std, replicates, seed, *, kind="sde", steps=None, diverged=(), name="loss", substeps=8, rate=0.1
):
    """Return a solution whose observable is independent normal at each instant."""
    rng = np.random.default_rng(seed)
    step = torch.arange(STEPS) if steps is None else torch.as_tensor(steps)
    values = torch.as_tensor(mean + std * rng.normal(size=(replicates, len(step))))
    mark = torch.full((replicates,), -1)
    for i in diverged:
        mark[i], values[i] = 3, float("nan")
    return Solution(
        optimizer="sgd",
        kind=kind,
        step=step,
        time=rate * step,
        state={"x": values.unsqueeze(-1)},
        observables={name: values},
        diverged=mark,
        learning_rate=rate,
        seed=seed,
        substeps=substeps,
    )


def test_numbers_are_those_of_numpy():
    p, r = ensemble(2.0, 0.5, 40, 1), ensemble(1.9, 0.4, 60, 2, kind="optimizer")
    result = compare(p, r)
    a, b = p.observables["loss"].numpy(), r.observables["loss"].numpy()
    loss = result["loss"]
    gap = a.mean(0) - b.mean(0)
    np.testing.assert_allclose(loss.gap, gap)
    np.testing.assert_allclose(loss.standard_error, np.sqrt(a.var(0, ddof=1) / 40 + b.var(0, ddof=1) / 60))
    np.testing.assert_allclose(loss.gap_in_std, gap / b.std(0, ddof=1))
    np.testing.assert_allclose(loss.std_ratio, a.std(0, ddof=1) / b.std(0, ddof=1))
    np.testing.assert_allclose(loss.relative_gap, gap / np.abs(b.mean(0)))
    assert loss.mean_relative_gap == pytest.approx(np.abs(gap).mean() / np.abs(b.mean(0)).mean())
    assert loss.max_relative_gap >= loss.mean_relative_gap
    assert np.isnan(loss.discretisation_error).all()
    np.testing.assert_allclose(result.time, 0.1 * np.arange(STEPS))
    assert result.table()[0]["observable"] == "loss"


def test_standard_error_is_the_spread_of_repeated_gaps():
    results = [compare(ensemble(1.0, 1.0, 20, s), ensemble(1.0, 2.0, 30, 1000 + s)) for s in range(200)]
    gaps = np.concatenate([r["loss"].gap for r in results])
    errors = np.concatenate([r["loss"].standard_error for r in results])
    assert gaps.std() == pytest.approx(np.sqrt((errors**2).mean()), rel=0.06)
    log_ratio = np.log(np.concatenate([r["loss"].std_ratio for r in results]))
    claimed = np.concatenate([r["loss"].std_ratio_error / r["loss"].std_ratio for r in results])
    assert log_ratio.std() == pytest.approx(np.sqrt((claimed**2).mean()), rel=0.15)


@pytest.mark.parametrize(
    ("mean", "std", "replicates", "verdict", "words"),
    [
        (1.0, 0.1, 100, "held", "Held within the Monte-Carlo error"),
        (1.03, 0.02, 100, "held", "Held within 5 %"),
        (1.3, 0.1, 100, "missed", "Missed"),
        (1.0, 2.0, 5, "unclear", "run more replicates"),
        (1.055, 0.1, 50, "unclear", "On the edge"),
    ],
)
def test_verdicts(mean, std, replicates, verdict, words):
    result = compare(ensemble(mean, std, replicates, 3), ensemble(1.0, std, replicates, 4, kind="optimizer"))
    assert result.verdict == verdict
    assert words in result.verdict_text


@pytest.mark.parametrize(("share", "verdict"), [(0.1, "held"), (0.25, "unclear"), (0.5, "missed")])
def test_a_loss_that_hardly_falls_is_not_held_by_its_size(share, verdict):
    fall = np.linspace(0, 0.04, STEPS)  # 2 % of the loss on average: any curve nearby is within 5 %
    reference = ensemble(1 - fall, 0.002, 50, 4, kind="optimizer")
    result = compare(ensemble(1 - (1 - share) * fall, 0.002, 50, 3), reference)
    assert result.verdict == verdict
    assert result["loss"].mean_gap_in_change == pytest.approx(share, abs=0.02)
    assert "% of how far it moves" in result.verdict_text
    still = compare(ensemble(1 + share * fall, 0.05, 50, 3), ensemble(1.0, 0.05, 50, 4))
    assert np.isnan(still["loss"].mean_gap_in_change)  # at rest only the law can be right
    assert still.verdict == "held"
    assert compare(ensemble(1 - (1 - share) * fall, 0.002, 50, 3), reference, change=np.inf).verdict == "held"
    with pytest.raises(InputError, match="change = 0"):
        compare(reference, reference, change=0)


def test_one_bad_instant_is_said_where_the_average_holds():
    p, r = ensemble(1.0, 0.01, 100, 5), ensemble(1.0, 0.01, 100, 6)
    for solution, end in ((p, 0.013), (r, 0.01)):  # a steep curve: 30 % off at its bottom
        solution.observables["loss"][:, -1] = end + solution.observables["loss"][:, -1] * 0.01 - 0.01
    result = compare(p, r)
    assert result.verdict == "held"
    assert "At instant 10 of 10 the gap is largest: 30" in result.verdict_text
    assert "largest" not in compare(p, r, tolerance=0.9).verdict_text
    crossing = compare_curves("x", np.array(2 * [[1.0, 0.1, -1.0]]), np.array(2 * [[1.0, 0.0, -1.0]]))
    assert "largest: 15 ± 0 %" in crossing.verdict_text  # .1 over the mean size ⅔


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_never_hold(bad):
    p, r = ensemble(1.0, 0.1, 50, 1), ensemble(1.0, 0.1, 50, 2)
    r.observables["loss"][7, 3] = bad
    result = compare(p, r)
    assert result.verdict == "unclear"
    assert "infinite or NaN in some replicate at 1 of 11 instants" in result.verdict_text


def test_results_print_as_sentences():
    p, r = ensemble(1.0, 0.1, 50, 1), ensemble(1.0, 0.1, 50, 2, kind="optimizer")
    result = compare(p, r)
    assert str(result).startswith(
        "held, sgd: 50 sde paths beside 50 optimizer runs at 11 instants up to step 10"
    )
    assert result["loss"].verdict_text in repr(result)
    assert "loss at the end: " in repr(result["loss"])
    assert "mean loss: " in repr(p)
    assert "x (50, 11, 1)" in repr(p)
    assert len(repr(result)) + len(repr(p)) < 600


def test_wrong_spread_is_said_even_where_the_mean_is_right():
    result = compare(ensemble(1.0, 0.1, 400, 5), ensemble(1.0, 0.5, 400, 6))
    assert "standard deviation is too small: 0.2" in result.verdict_text
    assert result["loss"].mean_std_ratio == pytest.approx(0.2, abs=0.01)


def test_a_wrong_spread_is_missed_although_the_mean_holds():
    reference = ensemble(1.0, 0.1, 400, 6)
    for std in (0.05, 0.2):
        result = compare(ensemble(1.0, std, 400, 5), reference)
        assert result.verdict == "missed"
        assert "The mean held and the spread did not" in result.verdict_text
    assert compare(ensemble(1.0, 0.05, 400, 5), reference, spread=3.0).verdict == "held"


def test_a_spread_that_few_replicates_show_to_be_wrong_is_not_held():
    def verdicts(std, replicates):
        pairs = (
            (ensemble(1.0, std, replicates, s), ensemble(1.0, 0.01, replicates, 100 + s)) for s in range(20)
        )
        return [compare(*pair).verdict for pair in pairs]

    assert verdicts(0.027, 8).count("held") == 0
    assert verdicts(0.01, 8).count("held") >= 18
    assert verdicts(0.027, 40).count("missed") == 20


def test_pairs_from_one_start_have_the_error_of_their_difference():
    start = ensemble(1.0, 0.3, 200, 7)
    one, other = (ensemble(0.0, 0.02, 200, seed) for seed in (8, 9))
    sides = [
        dataclasses.replace(s, observables={"loss": start.observables["loss"] + s.observables["loss"]})
        for s in (one, other)
    ]
    paired, apart = compare(*sides, paired=True)["loss"], compare(*sides)["loss"]
    assert paired.mean_standard_error == pytest.approx(0.02 * np.sqrt(2 / 200), rel=0.1)
    assert apart.mean_standard_error == pytest.approx(0.3 * np.sqrt(2 / 200), rel=0.15)
    np.testing.assert_array_equal(paired.gap, apart.gap)
    together = compare(*sides, paired=True)
    assert (together.paired, compare(*sides).paired) == (True, False)
    assert "200 sde runs, pair by pair, at" in str(together)
    assert "pair by pair" not in str(compare(*sides))
    with pytest.raises(InputError, match="paired=True needs replicate i"):
        compare(sides[0], ensemble(1.0, 0.1, 100, 3), paired=True)


def test_discretisation_error_and_surrogate_are_reported():
    coarse, fine = ensemble(1.1, 0.01, 50, 7), ensemble(1.0, 0.01, 50, 8, substeps=16)
    result = compare(coarse, ensemble(1.0, 0.01, 50, 9), refined=fine)
    assert result["loss"].mean_discretisation_error == pytest.approx(0.1, abs=0.01)
    assert "may be the step size" in result.verdict_text
    surrogate = compare(ensemble(1.0, 0.1, 50, 7, kind="surrogate", substeps=1), ensemble(1.0, 0.1, 50, 9))
    assert "surrogate of the optimizer, not its SDE" in surrogate.verdict_text


def test_diverged_replicates_are_counted_and_decide():
    few = compare(ensemble(1.0, 0.1, 50, 1, diverged=[0]), ensemble(1.0, 0.1, 50, 2))
    assert (few.n_diverged_prediction, few.n_diverged_reference) == (1, 0)
    assert "1 of 50 predicted paths" in few.verdict_text
    assert few.verdict == "held"
    many = compare(ensemble(1.0, 0.1, 50, 1, diverged=range(20)), ensemble(1.0, 0.1, 50, 2))
    assert many.verdict == "missed"
    with pytest.raises(InputError, match="1 usable replicate"):
        compare(ensemble(1.0, 0.1, 5, 1, diverged=range(4)), ensemble(1.0, 0.1, 5, 2))


def test_common_steps_and_functions_of_x():
    p = ensemble(1.0, 0.1, 30, 1, steps=[0, 2, 4, 6])
    r = ensemble(1.0, 0.1, 30, 2, steps=[0, 3, 6])
    result = compare(p, r, observables={"square": lambda x: (x**2).sum(-1)})
    np.testing.assert_array_equal(result.step, [0, 6])
    values = p.state["x"][:, [0, 3], 0].numpy() ** 2
    np.testing.assert_allclose(result["square"].prediction_mean, values.mean(0))


def test_kurtosis_sees_what_mean_and_variance_do_not():
    rng = np.random.default_rng(0)
    normal = rng.normal(size=(20_000, 2))
    signs = rng.choice([-1.0, 1.0], size=(20_000, 2))
    result = compare_curves("x", 5 + normal, 5 + signs)
    np.testing.assert_allclose(result.prediction_kurtosis, 3, atol=0.15)
    np.testing.assert_allclose(result.reference_kurtosis, 1, atol=1e-3)


def test_a_start_without_spread_is_no_error():
    p, r = ensemble(1.0, 0.1, 20, 1), ensemble(1.0, 0.1, 20, 2)
    for solution in (p, r):
        solution.observables["loss"][:, 0] = 4.0
    loss = compare(p, r)["loss"]
    assert np.isnan(loss.std_ratio[0])
    assert loss.gap[0] == 0
    assert np.isfinite(loss.mean_gap_in_std)
    assert np.isfinite(loss.mean_std_ratio)


def test_bad_input():
    p = ensemble(1.0, 0.1, 10, 1)
    with pytest.raises(InputError, match="Did you mean 'loss'"):
        compare(p, p, observables=["los"])
    with pytest.raises(InputError, match="no saved step in common"):
        compare(p, ensemble(1.0, 0.1, 10, 1, steps=[100]))
    with pytest.raises(InputError, match="learning rates differ"):
        compare(p, ensemble(1.0, 0.1, 10, 1, rate=0.2))
    with pytest.raises(InputError, match="No observable in common"):
        compare(p, ensemble(1.0, 0.1, 10, 1, name="accuracy"))
    for change, words in (
        ({"prediction": None}, "is None; a Solution"),
        ({"observables": []}, "observables is empty"),
        ({"observables": {"x": lambda x: x.expand(-1, 2)}}, "one real value a replicate"),
        ({"observables": {"x": 3}}, "a function of x"),
        ({"refined": ensemble(1.0, 0.1, 10, 1, name="accuracy")}, "refined solution has no observable"),
        ({"tolerance": "tight"}, "tolerance = 'tight'"),
    ):
        with pytest.raises(InputError, match=words):
            compare(**({"prediction": p, "reference": p} | change))
    with pytest.raises(InputError, match="same instants"):
        compare_curves("x", np.ones((3, 4)), np.ones((3, 5)))
    with pytest.raises(InputError, match="tolerance = 5"):
        compare(p, p, tolerance=5)
