"""No step of an SDE makes the host wait for a GPU: values are looked at between saved steps only."""

import pytest
import torch
from host_syncs import HostSyncs

import noisekit as nk
from noisekit.sde.integrate import _Runner
from noisekit.sde.normals import BlockNormals

EQUATIONS = {"sgd": nk.SGDSDE, "signsgd": nk.SignSGDSDE, "rmsprop": nk.RMSpropSDE, "adam": nk.AdamSDE}
FACTOR = torch.tensor([[1.0, 0.0], [0.5, 0.7], [0.0, 0.3]])
NOISES = {
    "diagonal": nk.GaussianNoise(scale=torch.tensor([0.5, 1.0, 2.0])),
    "correlated": nk.GaussianNoise(factor=FACTOR),
    "student_t": nk.StudentTNoise(scale=torch.tensor([0.5, 1.0, 2.0]), df=4.0),
}


@pytest.fixture
def syncs(monkeypatch):
    """What the loops between saved steps ask the host for, as if the state were on a GPU."""
    found = []
    advance, build = _Runner.advance, BlockNormals.__init__

    def watched(self, chunk, first, last):
        with HostSyncs() as seen:
            advance(self, chunk, first, last)
        found.extend(seen.seen)

    def elsewhere(self, *arguments):
        build(self, *arguments)
        self.on_cpu = False

    monkeypatch.setattr(_Runner, "advance", watched)
    monkeypatch.setattr(BlockNormals, "__init__", elsewhere)
    return found


@pytest.mark.parametrize("substeps", [1, 2])
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("name", EQUATIONS)
def test_steps_ask_the_host_for_nothing(name, noise, substeps, syncs):
    problem = nk.Quadratic(torch.tensor([1.0, 2.0, 3.0]))
    sde = EQUATIONS[name](problem.gradient, NOISES[noise], 0.01)
    solution = nk.integrate(sde, problem.x0, steps=4, substeps=substeps, replicates=5, save_every=2)
    assert not syncs
    assert solution.state["x"].isfinite().all()


@pytest.mark.parametrize("name", ["sgd", "rmsprop", "adam"])
def test_steps_of_order_two_ask_for_nothing_either(name, syncs):
    sde = EQUATIONS[name](lambda x: x.pow(3), NOISES["diagonal"], 0.01, order=2)
    nk.integrate(sde, torch.ones(3), steps=2, substeps=2, replicates=5)
    assert not syncs


@pytest.mark.parametrize("substeps", [1, 2])
@pytest.mark.parametrize("name", EQUATIONS)
def test_steps_with_the_noise_of_minibatches_ask_for_nothing(name, substeps, syncs):
    problem = nk.load_problem("breast-cancer-mlp")
    sde = EQUATIONS[name](problem.gradient, nk.MinibatchNoise(problem, 16), 1e-3)
    given = {"v": torch.full_like(problem.x0, 1e-2)}
    nk.integrate(sde, problem.x0, steps=2, substeps=substeps, replicates=2, init_state=given)
    assert not syncs


def test_a_gradient_that_looks_at_values_is_seen(syncs):
    sde = nk.SGDSDE(lambda x: x * float(x[0, 0] > -9), NOISES["diagonal"], 0.01)
    nk.integrate(sde, torch.ones(3), steps=1, substeps=2, replicates=5)
    assert [line.split()[0] for line in syncs] == ["_local_scalar_dense"] * 2
