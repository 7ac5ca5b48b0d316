"""What ModelProblem refuses, and with which sentence."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from noisekit.errors import InputError, NonFiniteError, UnsupportedModelError
from noisekit.problems import ModelProblem, mlp


def make(model=None, loss_fn=None, inputs=None, targets=None, **options):
    inputs = torch.linspace(-1, 1, 12).reshape(6, 2) if inputs is None else inputs
    targets = torch.tensor([0, 1, 2, 0, 1, 2]) if targets is None else targets
    return ModelProblem(
        model or nn.Sequential(nn.Linear(2, 3)), loss_fn or nn.CrossEntropyLoss(), inputs, targets, **options
    )


def test_batchnorm_in_training_mode_is_named():
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    with pytest.raises(UnsupportedModelError, match="1 \\(BatchNorm1d\\) in training mode mixes samples"):
        make(model)
    make(model.eval())


def test_dropout_in_training_mode_is_named():
    with pytest.raises(UnsupportedModelError, match=r"Dropout\) makes the loss random"):
        make(nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.5)))
    make(nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.0)))


def test_a_model_that_mixes_samples_is_refused():
    class Centred(nn.Linear):
        def forward(self, x):
            y = super().forward(x)
            return y - y.mean(0)

    with pytest.raises(UnsupportedModelError, match="mixes samples"):
        make(Centred(2, 3))


def test_a_loss_with_class_weights_is_refused():
    loss_fn = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 9.0]))
    with pytest.raises(UnsupportedModelError, match="weights them"):
        make(loss_fn=loss_fn)


def test_a_loss_that_is_not_reduced_is_refused():
    with pytest.raises(InputError, match=r"loss_fn returns \(4,\) for 4 samples"):
        make(loss_fn=lambda o, t: functional.cross_entropy(o, t, reduction="none"))


def test_a_model_without_a_tensor_output_is_refused():
    class Pair(nn.Linear):
        def forward(self, x):
            return x, x

    with pytest.raises(InputError, match="returns a tuple"):
        make(Pair(2, 3))


def test_nan_in_the_data_is_refused():
    inputs = torch.ones(6, 2)
    inputs[0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match="NaN"):
        make(inputs=inputs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": [0, 1]}, "targets is a list; it needs to be one tensor"),
        ({"targets": torch.zeros(5, dtype=torch.int64)}, "same number of samples"),
        ({"inputs": torch.zeros(0, 2), "targets": torch.zeros(0, dtype=torch.int64)}, "at least one"),
        ({"replicates": "parallel"}, "'auto', 'vmap' or 'loop'"),
        ({"chunk_size": 0}, "chunk_size is 0"),
        ({"model": nn.Sequential(nn.Linear(2, 3)).requires_grad_(False)}, "no trainable parameter"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        make(**options)


def test_x_weights_and_index_of_a_wrong_shape_are_refused():
    problem = make(name="mine")
    x = problem.x0[None]
    with pytest.raises(InputError, match=r"mine needs \(replicate, 9\)"):
        problem.gradient(problem.x0)
    with pytest.raises(InputError, match=r"x is torch\.float64 and mine is torch\.float32"):
        problem.gradient(x.double())
    with pytest.raises(InputError, match=r"weights has shape \(1, 5\); it needs \(1, 6\)"):
        problem.weighted_gradient(x, torch.ones(1, 5))
    with pytest.raises(InputError, match="index has shape"):
        problem.minibatch_gradient(x, torch.zeros(4, dtype=torch.int64))


def test_metadata_counts_the_parameters_and_keeps_what_is_given():
    problem = make(mlp((2, 4, 3)), metadata={"dataset": "mine"})
    assert problem.metadata == {"n_parameters": 2 * 4 + 4 + 4 * 3 + 3, "dataset": "mine"}
