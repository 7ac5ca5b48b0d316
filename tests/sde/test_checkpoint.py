"""Checkpoints: an interrupted or killed run resumes to the same numbers, and only its own file is taken."""

import signal
import subprocess
import sys

import pytest
import torch

import noisekit as nk
from noisekit.errors import FileFormatError, InputError

ETA = 0.05


def make_sde(kind=nk.SGDSDE, **options):
    gradient = nk.Quadratic(torch.linspace(0.5, 2.0, 6, dtype=torch.float64)).gradient
    noise = nk.GaussianNoise(scale=torch.linspace(0.5, 1.0, 6, dtype=torch.float64))
    return kind(gradient, noise, ETA, **options)


def start():
    return torch.ones(6, dtype=torch.float64)


@pytest.mark.parametrize("keep_state", [True, False])
def test_resuming_gives_the_same_numbers(tmp_path, keep_state):
    options = {"steps": 20, "replicates": 40, "substeps": 4, "save_every": 3, "keep_state": keep_state}
    whole = nk.integrate(make_sde(nk.AdamSDE), start(), **options, observables={"sum": lambda x: x.sum(1)})
    path = tmp_path / "run.ckpt"
    calls = 0

    def killed(x):
        nonlocal calls
        calls += 1
        if calls > 5:
            raise KeyboardInterrupt
        return x.sum(1)

    with pytest.raises(KeyboardInterrupt):
        nk.integrate(
            make_sde(nk.AdamSDE),
            start(),
            **options,
            observables={"sum": killed},
            checkpoint=path,
            checkpoint_every=4,
        )
    assert [p.name for p in tmp_path.iterdir()] == ["run.ckpt"]
    calls = -1000
    resumed = nk.integrate(
        make_sde(nk.AdamSDE),
        start(),
        observables={"sum": killed},
        checkpoint=path,
        checkpoint_every=4,
        **options,
    )
    assert calls < -990
    for group in ("state", "observables", "statistics"):
        for key, value in getattr(whole, group).items():
            assert torch.equal(value, getattr(resumed, group)[key])
    assert torch.equal(whole.diverged, resumed.diverged)


KILLED = """
import os, signal, sys, torch
import noisekit as nk
calls = 0
def killer(x):
    global calls
    calls += 1
    if calls == 9:
        os.kill(os.getpid(), signal.SIGKILL)
    return x.sum(1)
h = torch.linspace(0.5, 2.0, 6, dtype=torch.float64)
sde = nk.AdamSDE(nk.Quadratic(h).gradient, nk.GaussianNoise(scale=h), 0.05)
nk.integrate(sde, torch.ones(6, dtype=torch.float64), steps=20, replicates=5, observables={"sum": killer},
             checkpoint=sys.argv[1], checkpoint_every=3)
"""


@pytest.mark.slow
def test_a_run_killed_outright_resumes_to_the_same_numbers(tmp_path):
    path = tmp_path / "run.ckpt"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    h = torch.linspace(0.5, 2.0, 6, dtype=torch.float64)
    sde = nk.AdamSDE(nk.Quadratic(h).gradient, nk.GaussianNoise(scale=h), ETA)
    seen = []

    def observed(x):
        seen.append(1)
        return x.sum(1)

    options = {"steps": 20, "replicates": 5, "observables": {"sum": observed}}
    resumed = nk.integrate(sde, start(), checkpoint=path, checkpoint_every=3, **options)
    assert len(seen) == 20 - 6
    whole = nk.integrate(sde, start(), **options)
    for name, value in whole.state.items():
        assert torch.equal(value, resumed.state[name])
    assert torch.equal(whole.observables["sum"], resumed.observables["sum"])


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    path = tmp_path / "run.ckpt"
    nk.integrate(make_sde(), start(), steps=4, checkpoint=path)
    with pytest.raises(InputError, match="seed"):
        nk.integrate(make_sde(), start(), steps=4, seed=1, checkpoint=path)
    louder = nk.SGDSDE(make_sde().gradient_function, nk.GaussianNoise(scale=torch.ones(6)), ETA)
    with pytest.raises(InputError, match="another run: equation"):
        nk.integrate(louder, start(), steps=4, checkpoint=path)
    with pytest.raises(InputError, match="equation"):
        nk.integrate(make_sde(schedule=lambda k: 1 / (k + 1)), start(), steps=4, checkpoint=path)
    with pytest.raises(InputError, match="does not exist"):
        nk.integrate(make_sde(), start(), steps=4, checkpoint=tmp_path / "missing" / "run.ckpt")
    path.write_bytes(b"something else")
    with pytest.raises(FileFormatError, match="not a checkpoint"):
        nk.integrate(make_sde(), start(), steps=4, checkpoint=path)
