"""The networks: shapes, causality, tied weights, sizes."""

import pytest
import torch

from noisekit.errors import InputError
from noisekit.problems import GPT, GPTConfig, cnn, mlp, resnet


@pytest.mark.parametrize("side", [8, 28, 32])
@pytest.mark.parametrize("make", [cnn, lambda channels, side, n: resnet(channels, n)], ids=["cnn", "resnet"])
def test_image_networks_take_squares_of_any_side(make, side):
    assert make(3, side, 7)(torch.zeros(2, 3, side, side)).shape == (2, 7)


def test_mlp_has_the_widths_that_are_asked_for():
    model = mlp((30, *[20] * 10, 2), activation=torch.nn.ReLU)
    linear = [m for m in model if isinstance(m, torch.nn.Linear)]
    assert [m.out_features for m in linear] == [20] * 10 + [2]
    assert isinstance(model[-1], torch.nn.Linear)


def test_gpt_does_not_look_ahead():
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocabulary=11, context=6)).double()
    tokens = torch.randint(11, (2, 6))
    later = tokens.clone()
    later[:, 4:] = (later[:, 4:] + 1) % 11
    before, after = model(tokens), model(later)
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])


def test_gpt_attends_to_what_came_before():
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocabulary=11, context=6)).double()
    tokens = torch.randint(11, (1, 6))
    earlier = tokens.clone()
    earlier[:, 0] = (earlier[:, 0] + 1) % 11
    assert (model(tokens)[:, -1] - model(earlier)[:, -1]).abs().max() > 1e-8


def test_gpt_starts_near_the_uniform_guess():
    torch.manual_seed(0)
    probabilities = GPT(GPTConfig(vocabulary=11, context=6))(torch.randint(11, (4, 6))).softmax(-1)
    assert (probabilities - 1 / 11).abs().max() < 0.1


def test_tied_gpt_shares_one_matrix():
    tied, own = GPT(GPTConfig(11)), GPT(GPTConfig(11, tied=False))
    assert tied.head.weight is tied.token.weight
    count = [sum(p.numel() for p in model.parameters()) for model in (tied, own)]
    assert count[1] - count[0] == 11 * 32


def test_width_must_be_divisible_by_heads():
    with pytest.raises(InputError, match="multiple of heads"):
        GPTConfig(11, width=33)
