"""Noise models, SDEs and optimizers refuse what is no number, no flag or no tensor in one sentence."""

import math

import pytest
import torch

import noisekit as nk
from noisekit.errors import InputError
from noisekit.optimizers.named import build_optimizer
from noisekit.sde.named import build_sde

NO_NUMBER = [
    "x",
    None,
    True,
    math.nan,
    -1.0,
    [1, "a"],
    {"a": "x"},
    torch.ones(3, 3, 3),
    torch.ones(0),
    object(),
]
NO_FLAG = ["x", None, 1.0, [], torch.ones(2)]
NOISE = nk.GaussianNoise(scale=1.0)


def params():
    return [torch.nn.Parameter(torch.ones(2))]


def gradient(x):
    return x


MAKERS = {
    "gaussian scale": lambda v: nk.GaussianNoise(scale=v, factor=None),
    "gaussian factor": lambda v: nk.GaussianNoise(scale=1.0, factor=v),
    "gaussian batch size": lambda v: nk.GaussianNoise(scale=1.0, batch_size=v),
    "student scale": lambda v: nk.StudentTNoise(scale=v, df=3.0),
    "student df": lambda v: nk.StudentTNoise(scale=1.0, df=v),
    "sgd learning rate": lambda v: nk.SGDSDE(gradient, NOISE, v),
    "sgd momentum": lambda v: nk.SGDSDE(gradient, NOISE, 0.1, momentum=v),
    "sgd weight decay": lambda v: nk.SGDSDE(gradient, NOISE, 0.1, weight_decay=v),
    "sgd order": lambda v: nk.SGDSDE(gradient, NOISE, 0.1, order=v),
    "sgd curvature": lambda v: nk.SGDSDE(gradient, NOISE, 0.1, curvature=v),
    "signsgd weight decay": lambda v: nk.SignSGDSDE(gradient, NOISE, 0.1, weight_decay=v),
    "rmsprop beta": lambda v: nk.RMSpropSDE(gradient, NOISE, 0.1, beta=v),
    "rmsprop eps": lambda v: nk.RMSpropSDE(gradient, NOISE, 0.1, eps=v),
    "adam betas": lambda v: nk.AdamSDE(gradient, NOISE, 0.1, betas=v),
    "adam beta": lambda v: nk.AdamSDE(gradient, NOISE, 0.1, betas=(0.9, v)),
    "SignSGD lr": lambda v: nk.SignSGD(params(), lr=v),
    "SignSGD weight decay": lambda v: nk.SignSGD(params(), weight_decay=v),
    "RMSpropW alpha": lambda v: nk.RMSpropW(params(), alpha=v),
    "optimizer state": lambda v: nk.optimizer_state(v),
    "law learning rate": lambda v: nk.stationary_law("adam", [1.0], [1.0], v),
    "floor noise": lambda v: nk.noise_floor("sgd", v, 0.1),
    "steps": lambda v: nk.integrate(nk.SGDSDE(gradient, NOISE, 0.1), torch.ones(2), steps=v),
    "start": lambda v: nk.integrate(nk.SGDSDE(gradient, NOISE, 0.1), v, steps=1),
}
MEANT = {
    ("gaussian factor", None),
    ("gaussian batch size", None),
    ("sgd curvature", None),
}


@pytest.mark.parametrize("value", NO_NUMBER, ids=lambda v: type(v).__name__)
@pytest.mark.parametrize("name", MAKERS)
def test_what_is_no_number_is_refused(name, value):
    if value is None and (name, None) in MEANT:
        MAKERS[name](value)
        return
    with pytest.raises(InputError) as refused:
        MAKERS[name](value)
    assert "\n" not in str(refused.value).replace(repr(value), "")


FLAGS = {
    "multivariate": lambda v: nk.StudentTNoise(1.0, 3.0, multivariate=v),
    "nesterov": lambda v: nk.SGDSDE(gradient, NOISE, 0.1, momentum=0.5, nesterov=v),
    "keep_state": lambda v: nk.integrate(
        nk.SGDSDE(gradient, NOISE, 0.1), torch.ones(2), steps=1, keep_state=v
    ),
    "maximize": lambda v: nk.SignSGD(params(), maximize=v),
}


@pytest.mark.parametrize("value", NO_FLAG, ids=lambda v: type(v).__name__)
@pytest.mark.parametrize("name", FLAGS)
def test_what_is_no_flag_is_refused(name, value):
    with pytest.raises(InputError, match=f"{name} is .*True or False"):
        FLAGS[name](value)
    FLAGS[name](True)


def test_a_checkpoint_is_a_path():
    with pytest.raises(InputError, match="checkpoint is a bool"):
        nk.integrate(nk.SGDSDE(gradient, NOISE, 0.1), torch.ones(2), steps=1, checkpoint=True)


NAMED = {
    "build_sde": lambda name, **settings: build_sde(name, gradient, NOISE, 0.1, **settings),
    "build_optimizer": lambda name, **settings: build_optimizer(name, 0.1, **settings)(params()),
}


@pytest.mark.parametrize("build", NAMED.values(), ids=NAMED)
@pytest.mark.parametrize(
    ("name", "setting", "nearest"),
    [
        ("sgd", "momentun", "momentum"),
        ("signsgd", "weigth_decay", "weight_decay"),
        ("rmspropw", "bata", "beta"),
        ("adamw", "beta", "betas"),
    ],
)
def test_settings_that_an_optimizer_has_not(build, name, setting, nearest):
    with pytest.raises(InputError) as caught:
        build(name, **{setting: 0.5})
    text = str(caught.value)
    assert text.startswith(f"There is no setting of {name} {setting!r}. Did you mean {nearest!r}? Known: ")
    assert "weight_decay" in text.partition("Known: ")[2].rstrip(".").split(", ")


def test_decay_is_said_by_the_name():
    assert build_sde("adam", gradient, NOISE, 0.1).decay == "l2"
    assert build_sde("rmspropw", gradient, NOISE, 0.1).decay == "decoupled"
    with pytest.raises(InputError, match="no setting of adam 'decay'"):
        build_sde("adam", gradient, NOISE, 0.1, decay="decoupled")
