"""Results print in a few readable lines at the prompt."""

import dataclasses
import math
import re

import numpy as np
import pytest
import torch

import noisekit.noise as room
from noisekit._readable import typical
from noisekit.noise import (
    BlockNoise,
    HessianAlignment,
    correlation_spectrum,
    fit_multivariate_student_t,
    fit_noise,
    fit_student_t,
    goodness_of_fit,
    gradient_dependence,
    gradient_noise_scale,
    held_out_log_likelihood,
    hill_plot,
    noise_covariance,
    noise_drift,
    participation_ratio,
    skewness,
    tail_index,
)

X = torch.tensor(np.random.default_rng(0).standard_t(4, (400, 6)))
DEAD = torch.cat([X, torch.zeros(400, 1)], dim=1)


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (fit_noise(DEAD), "6 of 6 coordinates are heavy-tailed"),
        (fit_noise(torch.zeros(20, 2)), "nothing was fitted"),
        (fit_student_t(DEAD), r"400 samples of 7 coordinates \(1 set aside\)"),
        (tail_index(DEAD), "one for each of 7; n = 400, k = 60"),
        (tail_index(DEAD, estimator="block_sum", pooled=True), "pooled.*\n.*symmetric α-stable"),
        (hill_plot(DEAD), "k = 5: α median"),
        (gradient_noise_scale(1 + X), r"noise scale .* \(95 %"),
        (noise_covariance(X), "diagonal, 6 coordinates from 400 samples at B = 1"),
        (noise_covariance(X, kind="low_rank", rank=1), "1 components, the largest"),
        (noise_covariance(X, kind="dense", shrinkage="oas"), "shrinkage .*\n6 eigenvalues"),
        (fit_multivariate_student_t(X), "6 coordinates, 400 samples"),
        (held_out_log_likelihood(DEAD), "of 7 coordinates"),
        (goodness_of_fit(DEAD, draws=19), "of 6 coordinates"),
        (participation_ratio(X), "directions share the noise"),
        (correlation_spectrum(DEAD), "1 constant"),
        (skewness(DEAD), "of 6 coordinates asymmetric"),
        (noise_drift(torch.arange(4), torch.ones(4)), "drift unknown"),
        (gradient_dependence(torch.ones(9), torch.ones(9)), "too noisy"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_results_print_in_a_few_lines(result, words):
    text = repr(result)
    assert text.startswith(f"{type(result).__name__}: ")
    assert str(result) in text
    assert "tensor(" not in text
    lines = text.splitlines()
    assert len(lines) <= 6
    assert max(map(len, lines)) <= 150
    assert re.search(words, text)


def test_no_result_of_the_room_prints_as_its_fields():

    results = [getattr(room, name) for name in room.__all__]
    results = [r for r in results if dataclasses.is_dataclass(r)]
    assert {BlockNoise, HessianAlignment} < set(results)
    for result in results:
        assert "__repr__" not in vars(result)
        assert "__str__" in vars(result)


def test_typical_values():
    assert typical(torch.tensor([1.0, 2.0, math.inf, math.nan])) == "median 2 (1 to inf)"
    assert typical(torch.tensor([2.0, 2.0])) == "2"
    assert typical(torch.tensor([math.nan])) == "unknown"
