"""Statistics against the same quantities computed from a float64 loop over samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from noisekit.errors import InputError, NonFiniteError
from noisekit.gradients import (
    GradientNoiseRecorder,
    GradientRecord,
    GradientStatistics,
    column_blocks,
    contributions,
    convolution,
    every,
    gradient_statistics,
    half_precision,
    hooks,
    lookup,
    noise_directions,
    outer,
    selection,
)
from noisekit.problems.gpt import GPT, GPTConfig, next_token_loss

Case = tuple[nn.Module, Any, Any, Any]
Reference = Callable[..., dict[str, Tensor]]


def flat(gradients: dict[str, Tensor]) -> Tensor:
    return torch.cat([g.flatten(1) for g in gradients.values()], 1)


def assert_close(found: Tensor, expected: Tensor, what: str) -> None:
    assert found.shape == expected.shape, what
    assert float((found - expected).abs().max()) <= 1e-9 * float(expected.abs().max()), what


@pytest.fixture(
    params=["small parameters together", "each parameter", "few samples at a time", "blocks of outputs"]
)
def memory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lower the sizes at which the engine changes its ways, so that small models take each of them."""
    if request.param == "small parameters together":
        return
    monkeypatch.setattr(selection, "SMALL", 0)
    if request.param == "blocks of outputs":
        measure_as_on_a_gpu(monkeypatch)
    if request.param == "few samples at a time":
        monkeypatch.setattr(contributions, "CACHED_ELEMENTS", 30)
        monkeypatch.setattr(convolution, "CACHED_INPUTS", 300)
        for module in (contributions, lookup):
            monkeypatch.setattr(module, "MOST_ELEMENTS", 60)


def measure_as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure sums of outer products in blocks of few outputs."""
    monkeypatch.setattr(outer, "by_columns", lambda _: True)
    monkeypatch.setattr(column_blocks, "BLOCK_BYTES", 300)
    monkeypatch.setattr(column_blocks, "_FEWEST_OUTPUTS", 2)
    monkeypatch.setattr(column_blocks, "_SHORTEST_PRODUCT", 2)


@pytest.mark.usefixtures("memory")
def test_every_statistic_agrees_with_the_loop(any_case: Case, reference: Reference) -> None:
    model, loss_fn, inputs, targets = any_case
    torch.manual_seed(1)
    gradients = reference(model, loss_fn, inputs, targets)
    for _ in range(
        2
    ):  # the first pass asks autograd for the gradients of the parameters, the second does not
        torch.manual_seed(1)
        found = gradient_statistics(model, loss_fn, inputs, targets, coordinates=10, sketch=8, seed=3)
        assert_all_close(found, gradients)
        torch.manual_seed(1)
        moments = gradient_statistics(
            model, loss_fn, inputs, targets, coordinates=0, sketch=0, gram=False, seed=3
        )
        assert_moments_close(moments, flat(gradients))


def assert_all_close(found: GradientStatistics, gradients: dict[str, Tensor]) -> None:
    rows = flat(gradients)
    assert found.n_samples == len(rows)
    assert found.coverage == 1
    assert found.uncovered == []
    assert list(found.mean) == list(gradients)
    assert_moments_close(found, rows)
    assert found.gram is not None
    assert_close(found.gram, rows @ rows.T, "Gram matrix")
    assert found.coordinate_index is not None
    assert found.coordinate_values is not None
    assert_close(found.coordinate_values, rows[:, found.coordinate_index], "coordinates")
    assert_close(found.total_trace, rows.var(0).sum(), "trace")
    covariance = torch.cov(rows.T)
    top = torch.linalg.eigvalsh(covariance).flip(0)[: len(found.eigenvalues)]
    assert_close(found.eigenvalues, top, "eigenvalues")
    assert found.sketch is not None
    assert found.sketch.shape == (len(rows), 8)


def assert_moments_close(found: GradientStatistics, rows: Tensor) -> None:
    mean = torch.cat([m.flatten() for m in found.mean.values()])
    assert_close(mean, rows.mean(0), "mean")
    variance = torch.cat([v.flatten() for v in found.variance.values()])
    assert_close(variance, rows.var(0), "variance")
    assert_close(found.squared_norms, rows.square().sum(1), "squared norms")


@pytest.mark.parametrize(
    ("kind", "large"), [("vectors", True), ("sequences", True), ("convolution", True), ("convolution", False)]
)
def test_sketch_is_unbiased(kind: str, large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    layers: dict[str, tuple[nn.Module, Tensor]] = {
        "vectors": (nn.Linear(9, 7), torch.randn(3, 9)),
        "sequences": (nn.Sequential(nn.Embedding(8, 6), nn.Linear(6, 7)), torch.randint(0, 8, (3, 4))),
        "convolution": (nn.Conv2d(3, 4, 3), torch.randn(3, 3, 6, 6)),
    }
    model, x = layers[kind]
    model = model.double()
    x = x.double() if x.is_floating_point() else x
    y = torch.randn_like(model(x))
    draws = []
    if large:
        monkeypatch.setattr(selection, "SMALL", 0)
        monkeypatch.setattr(lookup, "MOST_ELEMENTS", 0)
    for seed in range(150):
        found = gradient_statistics(model, nn.MSELoss(), x, y, coordinates=0, sketch=32, seed=seed)
        assert found.sketch is not None
        draws.append(found.sketch @ found.sketch.T)
    products = torch.stack(draws)
    error = products.std(0) / len(draws) ** 0.5
    assert found.gram is not None
    assert float(((products.mean(0) - found.gram) / error).abs().max()) < 4
    assert float((products.std(0).diagonal() / found.gram.diagonal()).max()) < 0.5


def test_what_is_left_out_is_none() -> None:
    model, x = nn.Linear(3, 2), torch.randn(4, 3)
    found = gradient_statistics(
        model, nn.MSELoss(), x, torch.randn(4, 2), coordinates=0, sketch=0, gram=False
    )
    assert (found.gram, found.coordinate_index, found.coordinate_values, found.sketch) == (None,) * 4


def test_noise_directions_are_eigenvectors(reference: Reference) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Dropout(0.2), nn.Linear(5, 2)).double()
    x, y = torch.randn(8, 4).double(), torch.randn(8, 2).double()
    torch.manual_seed(1)
    covariance = torch.cov(flat(reference(model, nn.MSELoss(), x, y)).T)
    torch.manual_seed(1)
    values, directions = noise_directions(model, nn.MSELoss(), x, y, components=3)
    vectors = flat(directions)
    assert_close(vectors @ vectors.T, torch.eye(3).double(), "unit directions")
    assert_close(covariance @ vectors.T, (vectors.T * values), "eigenvectors")


def test_unused_parameters_are_named() -> None:
    model = nn.ModuleDict({"used": nn.Linear(3, 2), "idle": nn.Linear(3, 2)})
    model.forward = lambda x: model["used"](x)  # type: ignore[method-assign]
    found = gradient_statistics(model, nn.MSELoss(), torch.randn(4, 3), torch.randn(4, 2), sketch=0)
    assert found.uncovered == ["idle.weight", "idle.bias"]
    assert found.coverage == 0.5
    assert "idle.weight" not in found.mean


def test_chosen_coordinates(reference: Reference) -> None:
    model, x, y = nn.Linear(3, 2).double(), torch.randn(4, 3).double(), torch.randn(4, 2).double()
    found = gradient_statistics(model, nn.MSELoss(), x, y, coordinates=[0, 5, 7], sketch=0)
    assert found.coordinate_values is not None
    expected = flat(reference(model, nn.MSELoss(), x, y))[:, [0, 5, 7]]
    assert_close(found.coordinate_values, expected, "chosen")


def test_not_a_number_in_one_sample() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    x, y = torch.randn(6, 3), torch.randn(6, 2)
    gradient_statistics(model, nn.MSELoss(), x, y, sketch=0)
    y[4, 1] = torch.nan
    with pytest.raises(NonFiniteError, match=r"sample 4 .*2\.(weight|bias)"):
        gradient_statistics(model, nn.MSELoss(), x, y, sketch=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 0}, "batch is empty"),
        ({"n": 1}, "one sample"),
        ({"sketch": 1000}, "larger than the model"),
        ({"coordinates": [3, 2]}, "increasing order"),
        ({"coordinates": [99]}, "positions 0..7"),
        ({"coordinates": -1}, "how many to keep"),
        ({"engine": "hook"}, "Did you mean 'hooks'"),
        ({"loss_fn": nn.MSELoss(reduction="none")}, "one number"),
        ({"loss_fn": lambda out, y: (out[:2] - y[:2]).square().mean()}, "leave some samples out"),
        ({"loss_fn": lambda out, y: (out - y).square().mean() ** 2}, "mixes samples"),
        ({"loss_fn": lambda out, y: (out - y).square().sum() / len(y) ** 0.5}, "neither a mean nor a sum"),
    ],
)
def test_bad_input(change: dict[str, Any], message: str) -> None:
    options = dict(change)
    n, loss_fn = options.pop("n", 6), options.pop("loss_fn", nn.MSELoss())
    with pytest.raises(InputError, match=message):
        gradient_statistics(nn.Linear(3, 2), loss_fn, torch.randn(n, 3), torch.randn(n, 2), **options)


def test_frozen_model() -> None:
    model = nn.Linear(3, 2).requires_grad_(False)
    with pytest.raises(InputError, match="unfreeze"):
        gradient_statistics(model, nn.MSELoss(), torch.randn(4, 3), torch.randn(4, 2))


def test_halves_are_multiplied_as_they_are_where_a_device_is_faster_at_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One training in bfloat16, measured in float32 and as on a GPU, agrees to the digits of bfloat16."""
    monkeypatch.setattr(selection, "SMALL", 0)
    torch.manual_seed(0)
    config = GPTConfig(vocabulary=20, context=9, layers=2, heads=2, width=16)
    model, x = GPT(config), torch.randint(20, (6, 9))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)

    def record() -> GradientRecord:
        with GradientNoiseRecorder(
            model, next_token_loss, optimizer, schedule=every(1), coordinates=40, sketch=32
        ) as recorder:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                outputs = model(x)
            next_token_loss(outputs.float(), x.roll(-1)).backward()
            optimizer.step()
        return recorder.result()

    plain = record()
    kept: list[torch.dtype] = []
    measure_as_on_a_gpu(monkeypatch)
    monkeypatch.setattr(hooks, "multiplies_halves", lambda t: t.dtype == torch.bfloat16)
    measured = column_blocks.measure_by_columns

    def note(left: Tensor, right: Tensor, request: Any) -> Any:
        kept.extend((left.dtype, right.dtype))
        return measured(left, right, request)

    monkeypatch.setattr(outer, "measure_by_columns", note)
    halves = record()
    assert set(kept) == {torch.bfloat16}
    assert len(kept) == 16  # eight layers that no other shares its weight with
    for name, tolerance in {
        "squared_norm": 1e-3,
        "gram": 1e-3,
        "trace": 1e-3,
        "coordinate_values": 1e-5,
        "sketch": 1e-2,
    }.items():
        one, other = getattr(plain, name), getattr(halves, name)
        assert one.dtype == other.dtype == torch.float32, name
        assert float((one - other).abs().max()) <= tolerance * float(one.abs().max()), name


def test_products_of_halves_are_summed_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    a, b = torch.randn(3, 4, 300).bfloat16(), torch.randn(3, 300, 5).bfloat16()
    exact = a.double() @ b.double()
    asked: list[torch.dtype] = []

    def wide(left: Tensor, right: Tensor, out_dtype: torch.dtype) -> Tensor:
        asked.append(out_dtype)
        return left.float() @ right.float()

    monkeypatch.setattr(half_precision, "multiplies_halves", lambda _: True)
    for can in (False, True):
        monkeypatch.setattr(half_precision, "sums_in_float32", lambda _, can=can: can)
        if can:
            monkeypatch.setattr(torch, "bmm", wide)
        found = half_precision.batched_product(a, b)
        assert found.dtype == torch.float32
        assert torch.allclose(found.double(), exact, rtol=1e-5, atol=1e-4)
    assert asked == [torch.float32]
