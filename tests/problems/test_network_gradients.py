"""ModelProblem against a loop over replicates and samples with autograd on the module itself, in float64."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from noisekit.problems import GPT, GPTConfig, ModelProblem, SampledProblem, cnn, mlp, next_token_loss, resnet
from noisekit.problems.dense import is_mlp


class SharedLayer(nn.Module):
    """One layer used twice and one frozen parameter: what no layer rule may get wrong."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.frozen = nn.Parameter(torch.full((4,), 0.5), requires_grad=False)

    def forward(self, x):
        return self.layer(torch.tanh(self.layer(x)) * self.frozen)


def sum_of_squares(outputs, targets):
    return (outputs - targets).square().sum()


def classes(n, count):
    return torch.arange(n) % count


CASES = {
    "mlp": (lambda: mlp((4, 6, 3)), nn.CrossEntropyLoss(), (4,), classes(7, 3)),
    "mlp-relu-deep": (
        lambda: mlp((4, 5, 5, 3), activation=nn.ReLU),
        nn.CrossEntropyLoss(),
        (4,),
        classes(7, 3),
    ),
    "mlp-on-images": (
        lambda: mlp((9, 5, 3), flatten=True),
        functional.cross_entropy,
        (1, 3, 3),
        classes(7, 3),
    ),
    "mlp-regression": (lambda: mlp((4, 6, 2)), nn.MSELoss(), (4,), torch.linspace(-1, 1, 14).reshape(7, 2)),
    "mlp-sum": (lambda: mlp((4, 6, 2)), sum_of_squares, (4,), torch.linspace(-1, 1, 14).reshape(7, 2)),
    "cnn": (lambda: cnn(1, 8, 3, widths=(2, 3)), nn.CrossEntropyLoss(), (1, 8, 8), classes(7, 3)),
    "resnet": (
        lambda: resnet(3, 3, widths=(4, 8), stem_stride=1, groups=2),
        nn.CrossEntropyLoss(),
        (3, 8, 8),
        classes(7, 3),
    ),
    "shared": (SharedLayer, nn.MSELoss(), (4,), torch.linspace(-1, 1, 28).reshape(7, 4)),
    "gpt": (lambda: GPT(GPTConfig(5, context=4, layers=1, width=4)), next_token_loss, "tokens", None),
}


def build(case, **options):
    make, loss_fn, shape, targets = CASES[case]
    torch.manual_seed(0)
    model = make()
    if shape == "tokens":
        inputs, targets = torch.randint(5, (7, 4)), torch.randint(5, (7, 4))
    else:
        inputs = torch.randn(7, *shape)
    return ModelProblem(model, loss_fn, inputs, targets, dtype=torch.float64, **options)


def points(problem):
    noise = torch.randn(
        3, problem.n_parameters, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    return problem.x0 + 0.1 * noise


def looped(problem, x):
    """Return losses (replicate, sample) and gradients (replicate, sample, coordinate), one by one."""
    model = copy.deepcopy(problem.model)
    trainable = [p for p in model.parameters() if p.requires_grad]
    losses, gradients = [], []
    for row in x:
        vector_to_parameters(row.clone(), trainable)
        for i in range(problem.n_samples):
            loss = problem.loss_fn(model(problem.inputs[i : i + 1]), problem.targets[i : i + 1])
            losses.append(loss.detach())
            gradients.append(parameters_to_vector(torch.autograd.grad(loss, trainable)))
    shape = (len(x), problem.n_samples)
    return torch.stack(losses).reshape(shape), torch.stack(gradients).reshape(*shape, -1)


@pytest.mark.parametrize("chunk_size", [None, 3])
@pytest.mark.parametrize("replicates", ["auto", "vmap", "loop"])
@pytest.mark.parametrize("case", CASES)
def test_everything_agrees_with_the_loop(case, replicates, chunk_size):
    problem = build(case, replicates=replicates, chunk_size=chunk_size)
    assert isinstance(problem, SampledProblem)
    x = points(problem)
    losses, gradients = looped(problem, x)
    close = {"rtol": 1e-9, "atol": 1e-11}

    torch.testing.assert_close(problem.sample_losses(x), losses, **close)
    torch.testing.assert_close(problem.loss(x), losses.mean(1), **close)
    torch.testing.assert_close(problem.gradient(x), gradients.mean(1), **close)
    torch.testing.assert_close(problem.per_sample_gradients(x), gradients, **close)

    mean, second = problem.gradient_moments(x)
    torch.testing.assert_close(mean, gradients.mean(1), **close)
    torch.testing.assert_close(second, gradients.square().mean(1), **close)

    weights = torch.linspace(-1, 2, 21, dtype=torch.float64).reshape(3, 7)
    expected = torch.einsum("rn,rnc->rc", weights, gradients)
    torch.testing.assert_close(problem.weighted_gradient(x, weights), expected, **close)

    index = torch.tensor([[0, 0, 1, 6], [6, 3, 2, 1], [2, 5, 5, 5]])
    expected = torch.stack([g[i].mean(0) for g, i in zip(gradients, index, strict=True)])
    torch.testing.assert_close(problem.minibatch_gradient(x, index), expected, **close)


@pytest.mark.parametrize("case", ["mlp", "cnn"])
def test_replicates_do_not_touch_each_other(case):
    problem = build(case)
    x = points(problem)
    other = x.clone()
    other[1:] += 1.0
    torch.testing.assert_close(problem.gradient(x)[0], problem.gradient(other)[0], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("case", ["mlp", "cnn"])
def test_nothing_of_the_caller_is_changed(case):
    problem = build(case)
    x = points(problem)
    before = x.clone()
    problem.gradient(x)
    problem.gradient_moments(x)
    assert torch.equal(x, before)
    assert not x.requires_grad
    assert all(p.grad is None for p in problem.model.parameters())
    assert torch.equal(parameters_to_vector(problem.model.parameters()), problem.x0)


def test_gradients_are_available_under_no_grad():
    problem = build("mlp")
    with torch.no_grad():
        assert problem.gradient(points(problem)).abs().max() > 0


def test_flatten_and_unflatten_are_inverse():
    problem = build("resnet")
    x = points(problem)
    named = problem.unflatten(x)
    assert list(named) == problem.parameter_names
    assert [tuple(v.shape[1:]) for v in named.values()] == [tuple(s) for s in problem.parameter_shapes]
    assert torch.equal(problem.flatten(named), x)
    assert torch.equal(problem.flatten(problem.unflatten(x[0])), x[0])


def test_outputs_are_those_of_the_model():
    problem = build("cnn")
    with torch.no_grad():
        expected = problem.model(problem.inputs)
    torch.testing.assert_close(problem.outputs(problem.x0, problem.inputs), expected)


def test_a_module_at_other_parameters_leaves_the_model_alone():
    problem = build("gpt")
    x = points(problem)[0]
    module = problem.module_at(x)
    with torch.no_grad():
        torch.testing.assert_close(module(problem.inputs), problem.outputs(x, problem.inputs))
    assert module.head.weight is module.token.weight
    assert torch.equal(parameters_to_vector(problem.model.parameters()), problem.x0)


def test_tied_weights_are_one_block_of_coordinates():
    problem = build("gpt")
    assert "head.weight" not in problem.parameter_names
    assert "token.weight" in problem.parameter_names


def test_a_module_under_two_names_keeps_its_parameters():
    module = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))
    module.alias = module[0]
    module.forward = lambda x: module[2](torch.tanh(module.alias(module[1](module[0](x)))))
    inputs, targets = torch.randn(6, 4), torch.randn(6, 1)
    problem = ModelProblem(module, nn.MSELoss(), inputs, targets)
    found = problem.gradient(problem.x0[None])
    assert all(isinstance(p, nn.Parameter) for p in (module[0].weight, module[0].bias))
    expected = torch.autograd.grad(nn.MSELoss()(module(inputs), targets), list(module.parameters()))
    assert torch.allclose(found[0], torch.cat([part.reshape(-1) for part in expected]), atol=1e-6)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: mlp((4, 6, 3)), True),
        (lambda: nn.Sequential(nn.Linear(4, 3, bias=False)), True),
        (lambda: nn.Sequential(*[nn.Linear(4, 4)] * 2), False),
        (lambda: nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)), False),
        (lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))), False),
        (lambda: nn.Linear(4, 4), False),
    ],
)
def test_only_plain_chains_take_the_way_of_dense_networks(make, expected):
    assert is_mlp(make(), torch.ones(2, 4)) is expected
    assert not is_mlp(make(), torch.ones(2, 3, 4))
    assert not is_mlp(make(), torch.ones(2))


def test_a_shared_bias_is_counted_twice():
    model = mlp((3, 3, 3))
    model[2].bias = model[0].bias
    problem = ModelProblem(
        model, nn.MSELoss(), torch.ones(2, 3).double(), torch.ones(2, 3), dtype=torch.float64
    )
    x = points(problem)
    _, gradients = looped(problem, x)
    torch.testing.assert_close(problem.gradient_moments(x)[1], gradients.square().mean(1))
    torch.testing.assert_close(problem.per_sample_gradients(x), gradients)


class CountingNet(nn.Linear):
    """Counts its passes."""

    passes = 0

    def forward(self, x):
        CountingNet.passes += 1
        return super().forward(x)


class Unbatchable(CountingNet):
    """Looks at a value, which vmap refuses."""

    def forward(self, x):
        if self.weight.sum().item() > 1e9:
            raise AssertionError
        return super().forward(x)


@pytest.mark.parametrize(("model", "passes"), [(CountingNet, 1), (Unbatchable, 3)])
def test_minibatches_of_all_replicates_go_through_in_one_pass_where_that_is_possible(model, passes):
    problem = ModelProblem(model(4, 3), nn.CrossEntropyLoss(), torch.ones(80, 4), classes(80, 3))
    x = points(problem).float()
    CountingNet.passes = 0
    problem.minibatch_gradient(x, torch.arange(12).reshape(3, 4))
    assert CountingNet.passes == passes
    CountingNet.passes = 0
    problem.gradient(x)
    assert CountingNet.passes == 3


def test_dense_networks_go_through_in_one_pass_whatever_the_number_of_samples():
    sequential = mlp((4, 3))
    problem = ModelProblem(sequential, nn.CrossEntropyLoss(), torch.ones(80, 4), classes(80, 3))
    calls = []
    sequential[0].register_forward_hook(lambda *_: calls.append(1))
    problem.gradient(points(problem).float())
    assert len(calls) == 1


def test_a_parameter_that_has_no_part_in_the_loss_has_gradient_0():
    class Apart(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.apart = nn.Linear(3, 2), nn.Linear(2, 2)

        def forward(self, inputs):
            return self.used(inputs).relu()

    problem = ModelProblem(Apart(), nn.CrossEntropyLoss(), torch.randn(20, 3), torch.arange(20) % 2)
    x = problem.x0[None]
    mean, second = problem.gradient_moments(x)
    torch.testing.assert_close(mean, problem.gradient(x))
    assert mean.shape == second.shape == (1, 14)
    assert not mean[0, 8:].any()
    assert second[0, :8].any()
    assert problem.per_sample_gradients(x).shape == (1, 20, 14)
