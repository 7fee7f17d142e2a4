"""A person's model that is wrong is told so, and what would be right; a right one, hardly trained or not, never is."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from solversearch import models
from solversearch.errors import UserError
from solversearch.models.base import Denoiser, Model, Network
from solversearch.models.denoising import DenoisingTrial, check_samples
from solversearch.models.edm import Preconditioned, edm
from solversearch.schedules import VE, DiscreteVP, Flow, LinearVP, NoiseSchedule
from solversearch.teacher import teach
from tests.assets import coins

KINDS = ("epsilon", "v_prediction", "sample", "flow", "edm")
SCHEDULES: dict[str, NoiseSchedule] = {kind: DiscreteVP.named() for kind in KINDS[:3]} | {"flow": Flow(), "edm": VE()}


def blobs(count: int, seed: int = 0) -> Tensor:
    """Eight narrow Gaussians on a circle, (count, 2)."""
    rng = np.random.default_rng(seed)
    angle = rng.integers(8, size=count) * np.pi / 4
    centres = 2 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return torch.from_numpy(centres + 0.1 * rng.standard_normal((count, 2))).float()


class Perceptron(nn.Module):
    """x (B, 2) and t (B,), of which scale makes 0 .. 1, to (B, 2)."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.layers = nn.Sequential(nn.Linear(7, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 2))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        t = (t * self.scale).to(x.dtype)[:, None]
        waves = [wave(k * t) for k in (3, 9) for wave in (torch.sin, torch.cos)]
        return self.layers(torch.cat([x, t, *waves], dim=1))


@cache
def trained(kind: str, steps: int = 600) -> Model:
    """A perceptron that has learned blobs, whose loss is written out here."""
    torch.manual_seed(0)
    data, schedule = blobs(4000), SCHEDULES[kind]
    network = Perceptron(0.001 if schedule.discrete else 1.0)
    wrapped, spread = Preconditioned(network, float(data.std())), float(data.std())
    optimiser = torch.optim.Adam(network.parameters(), 2e-3)
    for _ in range(steps):
        x0 = data[torch.randint(0, len(data), (256,))]
        noise = torch.randn_like(x0)
        if kind == "edm":
            sigma = (1.2 * torch.randn(256) - 1.2).exp()
            weight = (sigma**2 + spread**2) / (sigma * spread) ** 2
            loss = (weight[:, None] * (wrapped(x0 + sigma[:, None] * noise, sigma) - x0) ** 2).mean()
        else:
            t = torch.randint(0, 1000, (256,)).float() if schedule.discrete else torch.rand(256)
            a, s = (torch.from_numpy(f(t.numpy())).float()[:, None] for f in (schedule.alpha, schedule.sigma))
            target = {"epsilon": noise, "v_prediction": a * noise - s * x0, "sample": x0, "flow": noise - x0}[kind]
            loss = (network(a * x0 + s * noise, t) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    network.eval().requires_grad_(False)
    if kind == "edm":
        return edm(network, (2,), sigma_data=spread, data=lambda: blobs(1000, 1))
    return Model("blobs", network, schedule, kind, (2,), data=lambda: blobs(1000, 1))


def wrong(model: Model, sign: bool = False, time: bool = False) -> Model:
    """The model with a network that learned minus its output, or with time the other way round."""
    network, ends = model.network, 999 if model.schedule.discrete else 1

    def other(x: Tensor, t: Tensor, *condition: Tensor) -> Tensor:
        output = network(x, ends - t if time else t, *condition)
        return -output if sign else output

    return replace(model, network=other)


def told(model: Model) -> tuple[str, str]:
    """What loading it says: an error, or a warning."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            models.load(model)
        except UserError as error:
            return "error", str(error)
    assert len(caught) <= 1
    return ("warning", str(caught[0].message)) if caught else ("", "")


# Right models ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [300, 600])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("data", [True, False], ids=["data", "its own samples"])
def test_a_right_model_is_not_told_of_however_little_it_was_trained(kind: str, steps: int, data: bool) -> None:
    model = trained(kind, steps)
    assert told(model if data else replace(model, data=None)) == ("", "")


@pytest.mark.parametrize("name", ["digits", "mixture", "coins"])
def test_models_of_the_package_denoise(name: str) -> None:
    model = coins.factory() if name == "coins" else models.load(name)
    for changes in ({}, {"data": None}, {"clip": 1.0}, {"guidance": 4.0}, {"null_condition": None}):
        assert told(replace(model, **changes)) == ("", "")


class Exact(nn.Module):
    """D of data N(mean, spread^2), (B, d), in closed form, told alpha and sigma by t of the schedule."""

    def __init__(self, schedule: NoiseSchedule, mean: float = 0.0, spread: float = 1.0) -> None:
        super().__init__()
        self.schedule, self.mean, self.spread = schedule, mean, spread

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        a, s = (torch.from_numpy(f(t.double().numpy()))[:, None] for f in (self.schedule.alpha, self.schedule.sigma))
        gain = a * self.spread**2 / (a**2 * self.spread**2 + s**2)
        return (self.mean + gain * (x.double() - a * self.mean)).float()


@pytest.mark.parametrize("schedule", [DiscreteVP.named(), DiscreteVP.named(zero_terminal_snr=True), LinearVP(), VE(), Flow(3.0, 1000.0)])
@pytest.mark.parametrize(("mean", "spread", "size"), [(0.0, 1.0, 2), (0.5, 0.2, 300), (-3.0, 2.0, 20_000)])
def test_exact_denoisers_of_other_scales_and_sizes_are_right(schedule: NoiseSchedule, mean: float, spread: float, size: int) -> None:
    data = mean + spread * torch.randn(200, size, generator=torch.Generator().manual_seed(0))
    model = Model("exact", Exact(schedule, mean, spread), schedule, "sample", (size,), data=lambda: data)
    assert told(model) == told(replace(model, data=None)) == ("", "")


# Mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS[:4])
def test_a_flipped_sign_is_an_error(kind: str) -> None:
    how, message = told(wrong(trained(kind), sign=True))
    assert how == "error" and message.startswith("blobs: the network does not denoise") and "\n" not in message
    assert "times with the sign of its output flipped" in message and "return minus" in message and "with time" not in message
    assert kind != "flow" or "flow is noise - data here, as in diffusers" in message


def test_the_flipped_sign_of_a_raw_edm_network_is_told() -> None:
    model = trained("edm", 1500)
    assert isinstance(model.network, Preconditioned)
    other = Preconditioned(model.network.network, model.network.sigma_data, negated=True)
    how, message = told(replace(model, network=other))
    assert how == "error" and "with the sign of its output flipped" in message


@pytest.mark.parametrize("kind", ["epsilon", "sample", "flow"])
def test_reversed_time_is_an_error(kind: str) -> None:
    how, message = told(wrong(trained(kind), time=True))
    assert how == "error" and "times with time reversed" in message and "sign" not in message
    assert ("noise is at t = 1 here, data at 0.001; give it 1 - t" if kind == "flow" else "give it 999 - t") in message


def test_reversed_time_that_hardly_matters_is_a_warning() -> None:
    how, message = told(wrong(trained("v_prediction", 300), time=True))
    assert how == "warning" and "may be read wrongly" in message and "with time reversed" in message


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample", "flow"])
def test_the_other_convention_of_flows_is_told_whole(kind: str) -> None:
    """Noise at 0, data at 1, and data - noise."""
    how, message = told(wrong(trained(kind), sign=True, time=True))
    assert how == "error" and "sign of its output flipped" in message and "and with time reversed" in message


@pytest.mark.parametrize("changes", [{"sign": True}, {"time": True}, {"sign": True, "time": True}])
def test_conditions_and_their_own_samples_do(changes: dict[str, bool]) -> None:
    for given in (coins.factory(), replace(coins.factory(), data=None), replace(coins.factory(), null_condition=None)):
        how, message = told(wrong(given, **changes))
        assert how == "error"
        assert ("sign of its output flipped" in message) == ("sign" in changes) and ("time reversed" in message) == ("time" in changes)


@pytest.mark.parametrize("kind", ["epsilon", "sample", "flow"])
def test_without_data_a_sign_is_told_by_its_own_samples(kind: str) -> None:
    how, message = told(replace(wrong(trained(kind), sign=True), data=None))
    assert how == "error" and "filters made of its own samples" in message and "sign of its output flipped" in message


@pytest.mark.parametrize("kind", KINDS)
def test_an_untrained_network_is_a_warning(kind: str) -> None:
    how, message = told(trained(kind, 0))
    assert how == "warning" and "hardly denoises" in message and "is it trained" in message


def test_an_untrained_network_without_data_leaves_its_noise() -> None:
    how, message = told(replace(trained("epsilon", 0), data=None))
    assert how == "warning" and "which the noise at t = 999 does not drown" in message


@pytest.mark.parametrize(
    ("kind", "given"), [("epsilon", "v_prediction"), ("epsilon", "sample"), ("sample", "epsilon"), ("flow", "epsilon")]
)
def test_another_prediction_type_is_named(kind: str, given: str) -> None:
    how, message = told(replace(trained(kind), prediction_type=given))
    assert how == "warning" and f"; read as {kind!r} it would denoise" in message


def test_another_unit_of_time_is_named() -> None:
    model = trained("flow")
    thousand = replace(model, network=lambda x, t: model.network(x, t / 1000))  # trained on 0 .. 1000
    how, message = told(thousand)
    assert how == "warning" and "; with times multiplied by 1000 it would denoise" in message


def test_data_on_another_scale_are_told() -> None:
    model = replace(trained("flow"), data=lambda: 127.5 + 60 * blobs(1000, 1))
    assert told(model)[0] == "warning"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda: torch.zeros(5, 3), r"data must return real samples, a tensor of the shape \(M, 2,\), got the shape \(5, 3\)"),
        (lambda: [1, 2], "got an object of type list"),
        (lambda: 1 / 0, "raised ZeroDivisionError: division by zero"),
    ],
)
def test_what_data_returns_is_checked(data: Callable[[], Tensor], message: str) -> None:
    with pytest.raises(UserError, match=message):
        models.load(replace(trained("flow"), data=data))


# The numbers -----------------------------------------------------------------------------------------------------


def test_errors_are_those_of_the_formulas() -> None:
    """Data N(0, 4): flat is the Wiener filter, with 4 s^2 / (4 a^2 + s^2) on average; nothing else knows more."""
    generator = torch.Generator().manual_seed(1)
    clean, others = (2 * torch.randn(n, 2, generator=generator) for n in (20_000, 2_000))
    model = Model("exact", Exact(Flow(), spread=2.0), Flow(), "sample", (2,))
    trial = DenoisingTrial(clean, None, others)
    assert trial.spread == pytest.approx(2, rel=0.05)
    nodes = trial.nodes(model)
    assert [node.sigma / node.alpha / trial.spread for node in nodes] == pytest.approx([0.3, 1, 3])
    expected = [4 * node.sigma**2 / (4 * node.alpha**2 + node.sigma**2) for node in nodes]
    for column in trial.errors(model).T:
        np.testing.assert_allclose(column, expected, rtol=0.02)


# After the teacher -----------------------------------------------------------------------------------------------


def test_samples_off_the_scale_of_the_data_are_a_warning() -> None:
    model = trained("flow")
    teacher = teach(model, "validate", 64, trajectory=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_samples(model, teacher)
        check_samples(replace(model, data=None), teacher)
    for scaled in (lambda: blobs(500) / 4, lambda: blobs(500) * 4, lambda: blobs(500) + 3):
        with pytest.warns(UserWarning, match="blobs: the teacher's samples are not on the scale of the data"):
            check_samples(replace(model, data=scaled), teacher)


# Networks that write ---------------------------------------------------------------------------------------------


class Writing(nn.Module):
    """Overwrites all that it is given, and returns the same memory every time."""

    def __init__(self, network: Network, buffer: bool = False) -> None:
        super().__init__()
        self.network, self.buffer = network, torch.empty(0) if buffer else None

    def forward(self, x: Tensor, t: Tensor, *condition: Tensor) -> Tensor:
        output = self.network(x, t, *condition)
        for given in (x, t, *condition):
            given.zero_()
        if self.buffer is None:
            return output
        if len(self.buffer) < len(output):
            self.buffer = torch.empty_like(output)
        return self.buffer[: len(output)].copy_(output)


@pytest.mark.parametrize("buffer", [False, True])
@pytest.mark.parametrize("batch_size", [3, 512])
@pytest.mark.parametrize("split", [False, True])
def test_networks_may_write_into_what_they_are_given(buffer: bool, batch_size: int, split: bool) -> None:
    model = coins.factory()
    written = replace(coins.factory(), network=Writing(model.network, buffer))
    assert told(written) == ("", "")
    assert torch.equal(written.conditions, model.conditions) and int(written.null_condition) == 2  # type: ignore[arg-type]
    x, conditions = torch.randn(7, *model.shape), torch.arange(7) % 2
    kept = x.clone()
    node = replace(model.schedule.node(0.6), guidance=2.0)
    found, expected = (Denoiser(each, conditions, batch_size, split)(x, node) for each in (written, model))
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
    assert torch.equal(x, kept) and torch.equal(conditions, torch.arange(7) % 2)
    assert teach(written, "fit", 5, 2.0, batch_size=2).endpoint.equal(teach(model, "fit", 5, 2.0, batch_size=2).endpoint)


def test_features_may_write_into_what_they_are_given() -> None:
    from solversearch.judging.measures import rivals

    model = coins.factory()
    written = replace(model, features=lambda x: x.mul_(2).flatten(1) / 2)
    teacher = teach(model, "held_out", 64, trajectory=False)
    before = teacher.endpoint.clone()
    found, expected = (rivals(each, 3, 1.0, teacher, among={("ddim", "linspace"), ("unipc_2", "logsnr")}) for each in (written, model))
    assert torch.equal(teacher.endpoint, before)
    assert [each.errors.tolist() for each in found.measured] == [each.errors.tolist() for each in expected.measured]
