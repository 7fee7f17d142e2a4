"""The denoiser: data prediction, guidance, batches and cost, on a network small enough to check by hand."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from solversearch.errors import UserError
from solversearch.models import base
from solversearch.models.base import Clock, Denoiser, Model, NotFinite
from solversearch.runtime import Node
from solversearch.schedules import DiscreteVP

SHAPE = (2, 8)
PAD = 16
NODE = Node(500.0, 0.8, 0.6)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.label = nn.Linear(16, 64), nn.Linear(64, 16), nn.Embedding(4, 64)
        self.register_buffer("steps", torch.tensor(3))
        self.seen: list[tuple[int, torch.dtype, torch.dtype]] = []

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        self.seen.append((len(x), x.dtype, t.dtype))
        hidden = torch.tanh(self.first(x.flatten(1)) + self.label(condition) + (t[:, None] / 1000).to(x.dtype))
        return self.second(hidden).view_as(x)


def model_of(network: Any = None, **changes: Any) -> Model:
    fields: dict[str, Any] = {
        "name": "tiny",
        "network": network or Network().eval().requires_grad_(False),
        "schedule": DiscreteVP.named(),
        "prediction_type": "sample",
        "shape": SHAPE,
        "pad": PAD,
        "conditions": torch.arange(3),
        "null_condition": torch.tensor(3),
    }
    return Model(**{**fields, **changes})


@pytest.fixture
def x() -> Tensor:
    return torch.randn(70, *SHAPE, generator=torch.Generator().manual_seed(0))


CONDITIONS = torch.arange(70) % 3


def raw(model: Model, x: Tensor, conditions: Tensor, t: float = NODE.t) -> Tensor:
    return model.network(x, torch.full((len(x),), t), conditions)


# What is returned ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "flow", "sample", "edm"])
def test_prediction_types(x: Tensor, prediction_type: str) -> None:
    """A network that knows the clean sample, told in each type, gives it back."""
    clean = x[: 4 * PAD]
    eps = torch.randn_like(clean)
    alpha, sigma = NODE.alpha, NODE.sigma
    outputs = {"epsilon": eps, "v_prediction": alpha * eps - sigma * clean, "flow": eps - clean, "sample": clean, "edm": clean}
    model = model_of(lambda x, t: outputs[prediction_type], prediction_type=prediction_type, conditions=None, null_condition=None)
    torch.testing.assert_close(Denoiser(model, None)(alpha * clean + sigma * eps, NODE), clean, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("prediction_type", ["v_prediction", "flow", "sample"])
def test_pure_noise_is_regular(x: Tensor, prediction_type: str) -> None:
    model = model_of(prediction_type=prediction_type)
    result = Denoiser(model, CONDITIONS)(x, Node(999.0, 0.0, 1.0))
    sign = 1 if prediction_type == "sample" else -1
    offset = x if prediction_type == "flow" else 0
    torch.testing.assert_close(result, offset + sign * raw(model, x, CONDITIONS, 999.0), atol=1e-5, rtol=1e-5)


def test_epsilon_at_pure_noise_is_refused(x: Tensor) -> None:
    with pytest.raises(UserError, match="alpha = 0"):
        Denoiser(model_of(prediction_type="epsilon"), CONDITIONS)(x, Node(999.0, 0.0, 1.0))


@pytest.mark.parametrize("guidance", [0.0, 1.0, 2.5, 7.5])
@pytest.mark.parametrize("prediction_type", ["epsilon", "sample"])
def test_guidance(x: Tensor, guidance: float, prediction_type: str) -> None:
    model = model_of(prediction_type=prediction_type)
    conditional, unconditional = raw(model, x, CONDITIONS), raw(model, x, torch.full((70,), 3))
    output = unconditional + guidance * (conditional - unconditional)  # linear, so it may be applied before or after
    expected = output if prediction_type == "sample" else (x - NODE.sigma * output) / NODE.alpha
    node = replace(NODE, guidance=guidance)
    torch.testing.assert_close(Denoiser(model, CONDITIONS)(x, node), expected, atol=2e-5, rtol=2e-5)
    prediction, difference = Denoiser(model, CONDITIONS, split=True)(x, node)
    torch.testing.assert_close(prediction, expected, atol=2e-5, rtol=2e-5)
    scale = 1 if prediction_type == "sample" else -NODE.sigma / NODE.alpha
    torch.testing.assert_close(difference, scale * (conditional - unconditional), atol=2e-5, rtol=2e-5)


def test_conditions_may_be_vectors(x: Tensor) -> None:
    def network(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        return x * condition[:, None]

    model = model_of(network, conditions=torch.eye(8), null_condition=torch.zeros(8))
    conditions = torch.eye(8)[torch.arange(70) % 8]
    torch.testing.assert_close(Denoiser(model, conditions)(x, replace(NODE, guidance=3.0)), 3 * x * conditions[:, None])


# Batches, cost, dtypes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 7, 16, 33, 64, 256])
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_batch_size_never_changes_a_bit(x: Tensor, batch_size: int, guidance: float) -> None:
    model, node = model_of(), replace(NODE, guidance=guidance)
    whole = Denoiser(model, CONDITIONS)(x, node)
    assert torch.equal(Denoiser(model, CONDITIONS, batch_size)(x, node), whole)  # type: ignore[arg-type]
    for some in (slice(0, 1), slice(5, 22), slice(69, 70)):
        assert torch.equal(Denoiser(model, CONDITIONS[some])(x[some], node), whole[some])  # type: ignore[arg-type]


def test_network_batches_are_multiples_of_the_padding(x: Tensor) -> None:
    network = Network()
    Denoiser(model_of(network), CONDITIONS, batch_size=40)(x, NODE)
    assert [size for size, _, _ in network.seen] == [3 * PAD, 2 * PAD]


def test_a_batch_as_large_as_asked_for_is_one_batch(x: Tensor) -> None:
    """So that times given one a sample, as the polish does, still match."""
    network, times = Network(), torch.linspace(400, 600, 70)
    together = Denoiser(model_of(network), CONDITIONS, batch_size=70)(x, Node(times, 0.8, 0.6))  # type: ignore[arg-type]
    assert len(network.seen) == 1
    alone = Denoiser(model_of(network), CONDITIONS[9:10])(x[9:10], Node(float(times[9]), 0.8, 0.6))
    assert torch.equal(together[9:10], alone)  # type: ignore[arg-type]


@pytest.mark.parametrize("guidance, split, calls", [(1.0, False, 1), (2.0, False, 2), (1.0, True, 2)])
def test_the_clock_counts_samples_and_guidance_twice(x: Tensor, guidance: float, split: bool, calls: int) -> None:
    clock = Clock()
    Denoiser(model_of(), CONDITIONS, 32, split, clock)(x, replace(NODE, guidance=guidance))
    assert clock.evaluations == calls * 70 and clock.seconds > 0
    Denoiser(model_of(), CONDITIONS, 32, split, clock)(x, replace(NODE, guidance=guidance))
    assert clock.evaluations == 2 * calls * 70


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-6), (torch.float32, 1e-6), (torch.bfloat16, 3e-2), (torch.float16, 3e-3)])
def test_network_dtypes(x: Tensor, dtype: torch.dtype, tolerance: float) -> None:
    """The network works in its own precision, the sampler in the samples'."""
    network = Network().to(dtype)
    for given in (x, x.double()):
        result = Denoiser(model_of(network, dtype=dtype, prediction_type="flow"), CONDITIONS)(given, NODE)
        assert isinstance(result, Tensor) and result.dtype == given.dtype
        expected = Denoiser(model_of(prediction_type="flow"), CONDITIONS)(x, NODE)
        torch.testing.assert_close(result, expected, atol=tolerance, rtol=tolerance, check_dtype=False)
    assert {seen[1:] for seen in network.seen} == {(dtype, torch.float64 if dtype == torch.float64 else torch.float32)}


def test_half_precision_still_tells_times_apart(x: Tensor) -> None:
    told: list[float] = []

    def network(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        told.append(float(t[0]))
        return x

    Denoiser(model_of(network, dtype=torch.bfloat16), CONDITIONS)(x, replace(NODE, t=999.0))
    assert told == [999.0] != [float(torch.tensor(999.0, dtype=torch.bfloat16))]


@pytest.mark.parametrize("split", [False, True])
def test_the_guided_prediction_is_clipped_and_the_difference_is_not(x: Tensor, split: bool) -> None:
    node = replace(NODE, guidance=7.0)
    prediction, difference = Denoiser(model_of(), CONDITIONS, split=True)(x, node)
    assert float(prediction.abs().max()) > 0.2 and float(difference.abs().max()) > 0.05
    output = Denoiser(model_of(clip=0.05), CONDITIONS, split=split)(x, node)
    clipped = output[0] if isinstance(output, tuple) else output
    assert torch.equal(clipped, prediction.clip(-0.05, 0.05))
    assert not isinstance(output, tuple) or torch.equal(output[1], difference)


# Several at once, and little memory ----------------------------------------------------------------------------


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("batch_size", [32, 512])
def test_evaluations_made_together_are_those_made_alone(x: Tensor, batch_size: int, split: bool) -> None:
    nodes = [NODE, Node(3.0, 0.99, 0.1), Node(800.0, 0.3, 0.95, 4.0), Node(500.0, 0.8, 0.6, 2.0)]
    requests = [(x * k, node) for k, node in enumerate(nodes, 1)]
    alone, together = Clock(), Clock()
    denoise = Denoiser(model_of(prediction_type="v_prediction"), CONDITIONS, batch_size, split, together)
    for request, output in zip(requests, denoise.together(requests), strict=True):
        expected = Denoiser(denoise.model, CONDITIONS, batch_size, split, alone)(*request)
        pairs = zip(output, expected, strict=True) if split else [(output, expected)]  # type: ignore[arg-type]
        assert all(torch.equal(a, b) for a, b in pairs)  # type: ignore[arg-type]
    assert alone.evaluations == together.evaluations == 70 * (8 if split else 6)


def test_one_that_is_not_finite_fails_alone(x: Tensor) -> None:
    def network(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        return torch.where((t == 7)[:, None, None], torch.nan, x)

    good, bad, other = Denoiser(model_of(network), CONDITIONS).together([(x, NODE), (x, replace(NODE, t=7.0)), (2 * x, NODE)])
    assert isinstance(bad, NotFinite) and "at t = 7" in str(bad)
    assert isinstance(good, Tensor) and isinstance(other, Tensor) and torch.equal(2 * good, other)


class Little(Network):
    """On a device with room for so many samples."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        if len(x) > self.room:
            self.seen.append((-len(x), x.dtype, t.dtype))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(x, t, condition)


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_FITTED", {})


@torch.no_grad()
def test_a_batch_that_does_not_fit_is_halved_for_good(x: Tensor, forgotten: None) -> None:
    network, clock = Little(20), Clock()
    model = model_of(network)
    result = Denoiser(model, CONDITIONS, 64, clock=clock)(x, NODE)
    assert [size for size, _, _ in network.seen] == [-64, -32, 16, 16, 16, 16, 16] and clock.evaluations == 70
    assert torch.equal(result, Denoiser(model_of(), CONDITIONS)(x, NODE))  # type: ignore[arg-type]
    network.seen.clear()
    later = Denoiser(model, CONDITIONS, 512)  # whoever asks next
    assert later.batch_size == 16 and torch.equal(later(x, NODE), result)  # type: ignore[arg-type]
    assert {size for size, _, _ in network.seen} == {16}


@torch.no_grad()
def test_not_even_one_sample_fits(x: Tensor, forgotten: None) -> None:
    with pytest.raises(UserError, match="model 'tiny' runs out of memory on cpu with a network batch of 16; use ") as caught:
        Denoiser(model_of(Little(3)), CONDITIONS)(x, NODE)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="with a network batch of 1;"):
        Denoiser(model_of(Little(0), pad=1), CONDITIONS)(x, NODE)


def test_what_a_gradient_keeps_is_not_the_denoisers_to_share_out(x: Tensor, forgotten: None) -> None:
    with pytest.raises(torch.OutOfMemoryError):
        Denoiser(model_of(Little(20)), CONDITIONS)(x, NODE)


# What goes wrong -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_not_finite_is_told(x: Tensor, bad: float) -> None:
    def network(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        return torch.where(torch.arange(len(x))[:, None, None] == 40, bad, x)

    with pytest.raises(NotFinite, match=r"the network of 'tiny' returned NaN or inf at t = 500; check its weights and dtype") as caught:
        Denoiser(model_of(network), CONDITIONS)(x, NODE)
    assert isinstance(caught.value, UserError)


@pytest.mark.parametrize("split, guidance", [(True, 1.0), (False, 2.0)])
def test_guidance_needs_a_null_condition(x: Tensor, split: bool, guidance: float) -> None:
    denoise = Denoiser(model_of(null_condition=None), CONDITIONS, split=split)
    with pytest.raises(UserError, match=r"model 'tiny' has no null condition, so guidance is not possible; use guidance 1"):
        denoise(x, replace(NODE, guidance=guidance))
    assert denoise.clock.evaluations == 0
