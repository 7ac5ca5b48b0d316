"""Everything public runs on an accelerator, with the numbers of the CPU: no tensor is left on the host, no
generator is of the other device, and nothing hands a tensor of the device to numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from emulated_device import emulated
from torch import Tensor, nn

import noisekit as nk
from noisekit.errors import InputError
from noisekit.sde.normals import BlockNormals
from noisekit.study import StudyConfig
from noisekit.study.problem import _moved_to as moved_to

EQUATIONS = {"sgd": nk.SGDSDE, "signsgd": nk.SignSGDSDE, "rmsprop": nk.RMSpropSDE, "adam": nk.AdamSDE}
OPTIMIZERS = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.AdamW,
    "signsgd": nk.SignSGD,
    "rmsprop": nk.RMSpropW,
}
SCALE, HESSIAN = torch.tensor([0.5, 1.0, 2.0]), torch.tensor([1.0, 2.0, 3.0])
FACTOR = torch.tensor([[1.0, 0.0], [0.5, 0.7], [0.0, 0.3]])
NOISES: dict[str, Callable[[Any], nk.NoiseModel]] = {
    "diagonal": lambda device: nk.GaussianNoise(scale=SCALE.to(device)),
    "made on the CPU": lambda _: nk.GaussianNoise(scale=SCALE),
    "correlated": lambda device: nk.GaussianNoise(factor=FACTOR.to(device)),
    "student_t": lambda device: nk.StudentTNoise(SCALE.to(device), df=4.0),
    "multivariate": lambda device: nk.StudentTNoise(SCALE.to(device), df=4.0, multivariate=True),
    "empirical": lambda device: nk.EmpiricalNoise(samples(device)[:, :3]),
}
CPU = torch.device("cpu")


@pytest.fixture
def device() -> Iterator[torch.device]:
    with emulated("xpu") as found:
        yield found


@pytest.fixture
def lean() -> Iterator[torch.device]:
    """A device without float64."""
    with emulated("mps", float64=False) as found:
        yield found


@pytest.fixture
def same_normals(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU draws its normals as devices do."""
    build = BlockNormals.__init__

    def elsewhere(self: BlockNormals, *arguments: Any) -> None:
        build(self, *arguments)
        self.on_cpu = False

    monkeypatch.setattr(BlockNormals, "__init__", elsewhere)


def samples(device: Any) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    normal, uniform = (f(200, 5, generator=generator) for f in (torch.randn, torch.rand))
    return (normal / uniform.pow(0.3)).to(device)


def network(device: Any) -> tuple[nn.Module, nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Dropout(0.2), nn.Linear(4, 2))
    inputs, labels = torch.randn(8, 3), torch.randint(2, (8,))
    loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0]))
    return model.to(device), loss.to(device), inputs.to(device), labels.to(device)


def quadratic(device: Any) -> nk.Quadratic:
    return nk.Quadratic(HESSIAN.to(device), x0=torch.ones(3).to(device))


def recorded(device: Any, **options: Any) -> nk.GradientRecord:
    model, loss_fn, inputs, labels = network(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    options = {"schedule": nk.every(2), "coordinates": 10, "sketch": 8} | options
    with nk.GradientNoiseRecorder(model, loss_fn, optimizer, **options) as recorder:
        for _ in range(3):
            optimizer.zero_grad()
            loss_fn(model(inputs), labels).backward()
            optimizer.step()
    return recorder.result()


def numbers(found: Any) -> dict[str, Tensor]:
    """Return the tensors and numbers in ``found`` by name, on the CPU."""
    if isinstance(found, dict):
        return {f"{k}.{name}": v for k, part in found.items() for name, v in numbers(part).items()}
    if isinstance(found, Tensor | float):
        return {"": torch.as_tensor(found).detach().cpu()}
    parts = getattr(found, "__dataclass_fields__", {})
    return numbers({k: getattr(found, k) for k in parts if k != "elapsed_time"})


def assert_same(run: Callable[[Any], Any], device: torch.device, tolerance: float = 2e-3) -> None:
    there, here = numbers(run(device)), numbers(run(CPU))
    assert here
    assert there.keys() == here.keys()
    for name, value in here.items():
        torch.testing.assert_close(
            there[name], value, rtol=tolerance, atol=tolerance, equal_nan=True, msg=f"{name} differs"
        )


GRADIENTS: dict[str, Callable[[Any], Any]] = {
    "statistics": lambda device: nk.gradient_statistics(*network(device), coordinates=5, sketch=8),
    "directions": lambda device: nk.noise_directions(*network(device), components=2)[0],
    "record": recorded,
    "record without moments": lambda device: recorded(device, moments=False, gram=False),
    "chosen coordinates": lambda device: recorded(device, coordinates=torch.tensor([1, 4], device=device)),
    "sizes of micro-batches": lambda device: recorded(device, schedule=nk.logarithmic(3), sketch=0),
}
for _engine in ("hooks", "loop"):
    GRADIENTS[f"per sample, {_engine}"] = lambda device, engine=_engine: nk.per_sample_gradients(
        *network(device), engine=engine
    )
ESTIMATES: dict[str, Callable[[Any], Any]] = {
    "fit": lambda device: nk.fit_noise(samples(device)).df,
    "multivariate fit": lambda device: nk.fit_multivariate_student_t(samples(device)),
    "goodness of fit": lambda device: nk.goodness_of_fit(samples(device)[:50, :2], draws=19),
    "held out": lambda device: nk.held_out_log_likelihood(samples(device)),
    "hill plot": lambda device: nk.hill_plot(samples(device)),
    "noise scale": lambda device: nk.gradient_noise_scale(samples(device)),
    "noise scale of layers": lambda device: nk.gradient_noise_scale({"a": samples(device)}),
    "participation": lambda device: nk.participation_ratio(samples(device)),
    "dense": lambda device: nk.noise_covariance(samples(device), kind="dense", shrinkage="oas"),
    "low rank": lambda device: nk.noise_covariance(samples(device), kind="low_rank").variance,
    "rows in a list": lambda device: nk.noise_covariance(list(samples(device))),
}
for _estimator in ("gpd", "moment", "hill", "ecf", "block_sum"):
    ESTIMATES[_estimator] = lambda device, estimator=_estimator: nk.tail_index(
        samples(device), estimator=estimator, pooled=True
    )


def law(device: Any) -> Any:
    return nk.stationary_law("adam", HESSIAN.to(device), NOISES["diagonal"](device), 0.01)


def transient(device: Any) -> Any:
    hessian, scale = HESSIAN.to(device), SCALE.to(device)
    return nk.transient_law("sgd", hessian, scale, 0.01, x0=scale, steps=3)


def gauges(device: Any) -> Any:
    noise, gradient = NOISES["diagonal"](device), HESSIAN.to(device)
    return nk.regimes("adam", 0.01, gradient=gradient, noise=noise, sharpness=3.0)


THEORY: dict[str, Callable[[Any], Any]] = {
    "law": lambda device: float(law(device).covariance.sum()),
    "transient": lambda device: float(transient(device).loss[-1]),
    "gauges": lambda device: float(gauges(device)[0].value),
    "floor": lambda device: nk.noise_floor("sgd", NOISES["correlated"](device), 0.01),
    "floor from a list": lambda device: nk.noise_floor("sgd", [s.to(device) for s in SCALE], 0.01),
    "critical noise": lambda device: nk.critical_noise(NOISES["student_t"](device), 0.01),
    "phase": lambda device: float(
        nk.signsgd_phase(HESSIAN.to(device), NOISES["student_t"](device)).ratio.sum()
    ),
}
RUNS: list[tuple[str, str, dict[str, Any]]] = [
    (name, noise, options)
    for name in EQUATIONS
    for noise in ("diagonal", "made on the CPU", "correlated", "student_t", "empirical")
    for options in ({}, {"order": 2}, {"solver": nk.StochasticHeun()}, {"fused": True})
    if "order" not in options or (noise == "diagonal" and name != "signsgd")
]


@pytest.mark.parametrize("what", GRADIENTS)
def test_gradients(what: str, device: torch.device) -> None:
    assert_same(GRADIENTS[what], device)


@pytest.mark.parametrize("what", ESTIMATES)
def test_estimates(what: str, device: torch.device) -> None:
    assert_same(ESTIMATES[what], device)


@pytest.mark.parametrize("what", THEORY)
def test_theory(what: str, device: torch.device) -> None:
    assert_same(THEORY[what], device)


@pytest.mark.parametrize("what", [*GRADIENTS, *ESTIMATES, *THEORY])
def test_without_float64_too(what: str, lean: torch.device) -> None:
    assert_same((GRADIENTS | ESTIMATES | THEORY)[what], lean)


@pytest.mark.parametrize("name", NOISES)
def test_noise_models(name: str, device: torch.device) -> None:
    noise, x = NOISES[name](device), torch.ones(4, 3, device=device)
    assert noise.variance(x).device == device
    assert noise.expected_sign(x, x).device == device
    assert noise.sample(x, torch.Generator(device=device)).device == device
    normals = torch.ones(4, noise.n_normals(x), device=device)
    assert_same(lambda d: NOISES[name](d).sqrt_covariance_product(x.to(d), normals.to(d)), device)


@pytest.mark.usefixtures("same_normals")
@pytest.mark.parametrize(("name", "noise", "options"), RUNS, ids=str)
def test_equations(name: str, noise: str, options: dict[str, Any], lean: torch.device) -> None:
    def run(device: Any) -> Any:
        problem, given = quadratic(device), dict(options)
        order = {"order": given.pop("order")} if "order" in given else {}
        sde = EQUATIONS[name](problem.gradient, NOISES[noise](device), 0.01, **order)
        found = nk.integrate(
            sde, problem.x0, steps=4, substeps=2, replicates=5, observables={"loss": problem.loss}, **given
        )
        return found.state | found.observables

    assert_same(run, lean, 1e-5)


@pytest.mark.usefixtures("same_normals")
@pytest.mark.parametrize("law", ["gaussian", "empirical"])
def test_the_noise_of_minibatches(law: Any, lean: torch.device) -> None:
    def run(device: Any) -> Any:
        problem = nk.load_problem("breast-cancer-mlp", device=device)
        noise = nk.MinibatchNoise(problem, 16, law=law)
        sde = nk.SignSGDSDE(problem.gradient, noise, 1e-3)
        return nk.integrate(sde, problem.x0, steps=2, substeps=2, replicates=2).state

    assert_same(run, lean, 1e-4)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_ensembles_and_their_comparison(name: str, lean: torch.device, tmp_path: Path) -> None:
    problem, noise = quadratic(lean), nk.GaussianNoise(scale=0.1)
    observables, few = {"loss": problem.loss}, {"keep_state": False, "quantiles": [0.1, 0.5]}

    def make(parameters: Any) -> Any:
        return OPTIMIZERS[name](parameters, lr=0.01)

    real = nk.simulate_optimizer(
        problem, make, problem.x0, steps=4, replicates=8, noise=noise, observables=observables
    )
    assert real.state["x"].device == lean
    sde = EQUATIONS[name](problem.gradient, noise, 0.01)
    assert "steps" in repr(nk.integrate(sde, problem.x0, steps=2, observables=observables, **few))
    again = [
        nk.integrate(
            sde,
            problem.x0,
            steps=4,
            replicates=8,
            observables=observables,
            seed=1,
            checkpoint=tmp_path / "checkpoint.pt",
        )
        for _ in range(2)
    ]
    assert torch.equal(again[0].state["x"], again[1].state["x"])
    predicted = again[1]
    assert nk.compare(predicted, real)["loss"].gap.shape == (5,)
    tree = nk.to_datatree(solutions=[predicted, real], record=recorded(lean))
    nk.save_tree(tree, tmp_path / "study.nc")
    assert "sde" in nk.open_tree(tmp_path / "study.nc")


@pytest.mark.parametrize("name", ["quadratic", "rosenbrock", "linear-regression", "digits-mlp"])
def test_problems(name: str, lean: torch.device) -> None:
    def run(device: Any) -> Any:
        problem = nk.load_problem(name, device=device)
        x = problem.x0[None].repeat(2, 1)
        found = {"loss": problem.loss(x), "gradient": problem.gradient(x)}
        if isinstance(problem, nk.SampledProblem):
            index = torch.arange(6).reshape(2, 3).to(device)
            found["minibatch"] = problem.minibatch_gradient(x, index)
        return found

    assert_same(run, lean, 1e-3)


def test_robustness(lean: torch.device) -> None:
    rates = {"sgd": {"learning_rate": 0.01}, "signsgd": {"learning_rate": 0.01}}
    noise, run = NOISES["diagonal"](lean), {"target": 5.0, "steps": 4, "replicates": 4}
    assert len(nk.robustness(quadratic(lean), noise, rates, sweep="noise", values=[0.5], **run)) == 2


def test_analysis_of_a_record(lean: torch.device) -> None:
    assert nk.analyze(recorded(lean, schedule=nk.every(1), coordinates=20)).rows


@pytest.mark.slow
def test_a_study_and_what_its_file_predicts(device: torch.device, tmp_path: Path) -> None:
    problem = nk.load_problem("breast-cancer-mlp", device=device)
    config = StudyConfig(optimizers=("sgd",), steps=4, save_every=2, training_steps=4, replicates=2)
    tree = nk.run_study(problem, config)
    assert tree.attrs["device"] == "xpu"
    nk.save_tree(tree, tmp_path / "study.nc")
    assert nk.predict(nk.open_tree(tmp_path / "study.nc"), "adam", learning_rate=1e-3)
    assert "gradient_noise" in nk.collect(problem, nk.CollectConfig(steps=4))


def test_a_problem_on_another_device_of_its_kind_is_moved(device: torch.device) -> None:
    assert moved_to(quadratic(device), "xpu").x0.device == device
    with pytest.raises(InputError, match=r"lives on xpu:0; make it on 'xpu:1'"):
        moved_to(quadratic(device), "xpu:1")


def test_a_planted_mistake_is_caught(device: torch.device) -> None:
    problem = quadratic(device)
    sde = nk.SGDSDE(lambda x: x * HESSIAN, NOISES["diagonal"](device), 0.01)
    with pytest.raises(RuntimeError, match="same device"):
        nk.integrate(sde, problem.x0, steps=1)
