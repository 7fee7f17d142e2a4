"""The teacher: exact where the solution is known, honest about its own error, and cached under what it depends on."""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from math import atan2, cos, hypot, sin
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from solversearch import models
from solversearch.cache import cache_folder
from solversearch.errors import UserError
from solversearch.judging.objectives.endpoint import endpoint_mse
from solversearch.models.base import Clock, Model, NotFinite
from solversearch.noise import PICTURES, fresh_noise
from solversearch.runtime import Node
from solversearch.schedules import VE, CosineVP, DiscreteVP, Flow, NoiseSchedule
from solversearch.teacher import cost, teach
from tests.cli.calling import COINS

MEAN, STD = 0.3, 0.7


@pytest.fixture
def coins() -> Model:
    return models.load(f"{COINS}:factory")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SOLVERSEARCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def gaussian(schedule: NoiseSchedule) -> Model:
    """Data N(MEAN, STD^2) in every pixel: the denoiser, and the flow to any time, are known."""

    def network(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = float(schedule.alpha(float(t[0]))), float(schedule.sigma(float(t[0])))
        q = alpha**2 * STD**2 + sigma**2
        return (alpha * STD**2 * x + sigma**2 * MEAN) / q

    return Model(f"gaussian {type(schedule).__name__}", network, schedule, "sample", (3,))


def exact(model: Model, noise: Tensor, node: Node) -> Tensor:
    """The standardised state (x - alpha MEAN) / sqrt(alpha^2 STD^2 + sigma^2) never changes along the flow."""
    schedule = model.schedule
    start = schedule.node(schedule.t_start)
    x = noise.double() * schedule.initial_scale(start.t)
    standard = (x - start.alpha * MEAN) / hypot(start.alpha * STD, start.sigma)
    return node.alpha * MEAN + hypot(node.alpha * STD, node.sigma) * standard


@pytest.mark.parametrize("share", [1.0, 0.6])
@pytest.mark.parametrize("schedule", [DiscreteVP.named(), CosineVP(), Flow(), VE()], ids=lambda s: type(s).__name__)
def test_a_gaussian_is_solved_exactly(schedule: NoiseSchedule, share: float, cache: Path) -> None:
    model = gaussian(schedule)
    model = model.started(schedule.start_of(share))
    teacher = teach(model, "fit", 20)
    schedule = model.schedule
    end = schedule.node(schedule.t_end)
    q = end.alpha**2 * STD**2 + end.sigma**2
    clean = (end.alpha * STD**2 * exact(model, teacher.noise, end) + end.sigma**2 * MEAN) / q
    error = float((teacher.endpoint - clean).square().mean())
    assert error < 2 * teacher.error + 1e-10 and teacher.error < 1e-4
    atol = 1e-2 if isinstance(schedule, VE) else 1e-3  # over noise 80 times the data
    for fraction in (0.05, 0.3, 0.5, 0.8, 0.99):
        node = schedule.node(float(schedule.at_fraction(fraction)))
        scale = hypot(node.alpha, node.sigma)
        torch.testing.assert_close(teacher.state(node).double() / scale, exact(model, teacher.noise, node) / scale, atol=atol, rtol=0)


def test_states_agree_with_a_finer_solve(coins: Model, cache: Path) -> None:
    teacher, fine = teach(coins, "fit", 50), teach(coins, "fit", 50, steps=512)
    for angle in (teacher.angles[:-1] + teacher.angles[1:]) / 2:  # halfway between the nodes of the teacher
        node = coins.schedule.node(float(coins.schedule.time_of_angle(float(angle))))
        error = float((teacher.state(node) - fine.state(node)).double().square().mean())
        assert error < 1e-5, f"at sigma = {node.sigma}"


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_the_error_estimate_is_honest(coins: Model, cache: Path, guidance: float) -> None:
    """By step doubling it is an estimate for half the steps, so the true error must not exceed it."""
    teacher = teach(coins, "validate", 100, guidance)
    fine = teach(coins, "validate", 100, guidance, steps=256)
    true = float(endpoint_mse(teacher.endpoint, fine.endpoint).mean())
    assert 0 < true < teacher.error < 1e-2


def test_angles_fall_from_noise_to_data_and_states_begin_with_the_noise(coins: Model, cache: Path) -> None:
    teacher = teach(coins, "fit", 10)
    angles = teacher.angles.tolist()
    assert angles == sorted(angles, reverse=True) and len(angles) == 64
    first = coins.schedule.node(coins.schedule.t_start)
    assert angles[0] == pytest.approx(atan2(first.sigma, first.alpha))
    torch.testing.assert_close(teacher.state(first), teacher.noise)


def test_states_between_the_nodes_are_the_cubic_through_values_and_slopes(coins: Model, cache: Path) -> None:
    """Of p = 1 - 2 phi + 3 phi^2 - phi^3, p itself; beyond the ends what is there."""
    teacher = teach(coins, "fit", 4)
    given = [1.0, -2.0, 3.0, -1.0]
    p = np.polynomial.Polynomial(given)

    def along(function: np.polynomial.Polynomial) -> Tensor:
        return torch.from_numpy(function(teacher.angles.numpy())).view(-1, 1, 1, 1, 1).expand(-1, 4, *coins.shape)

    cubic = replace(teacher, states=along(p), slopes=along(p.deriv()))
    last, first = float(teacher.angles[-1]), float(teacher.angles[0])
    for angle in (last - 0.001, last, 0.2, 0.7, 1.3, first, first + 0.001):
        expected = 2 * p(min(max(angle, last), first))
        state = cubic.state(Node(0.0, 2 * cos(angle), 2 * sin(angle)))
        torch.testing.assert_close(state, torch.full_like(state, expected), rtol=1e-6, atol=0)


def test_without_trajectory_only_the_endpoint_is_kept(coins: Model, cache: Path) -> None:
    teacher = teach(coins, "held_out", 10, trajectory=False)
    assert len(teacher.states) == len(teacher.angles) == 0
    torch.testing.assert_close(teacher.endpoint, teach(coins, "held_out", 10).endpoint, atol=0, rtol=0)
    again = teach(coins, "held_out", 10, trajectory=False)  # from the file of the whole trajectories
    assert len(again.states) == len(again.slopes) == len(again.angles) == 0


def test_first_is_the_teacher_of_fewer(coins: Model, cache: Path) -> None:
    few, many = teach(coins, "fit", 16), teach(coins, "fit", 48).first(16)
    for name in ("noise", "conditions", "endpoint", "states", "slopes"):
        torch.testing.assert_close(getattr(few, name), getattr(many, name), atol=1e-6, rtol=1e-6)
    assert len(many) == 16


def test_noised_pictures_are_the_models_own_with_other_noise(coins: Model, cache: Path) -> None:
    start = coins.schedule.start_of(0.5)
    assert start is not None
    model, clock = coins.started(start), Clock()
    teacher = teach(model, "fit", 32, clock=clock)
    assert clock.evaluations == cost(32, pictures=True) > cost(32)
    pictures = teach(coins, "fit", 32, steps=16)
    added = (teacher.noise - start.alpha * pictures.endpoint) / start.sigma
    torch.testing.assert_close(added, fresh_noise(coins, "fit", range(32), PICTURES), atol=1e-4, rtol=1e-4)
    assert torch.equal(teacher.conditions, pictures.conditions)  # type: ignore[arg-type]
    torch.testing.assert_close(teacher.state(model.schedule.node(start.t)), teacher.noise, atol=1e-5, rtol=1e-5)
    plain = gaussian(Flow())  # without conditions, whose draws come before the noise
    unconditional = teach(plain.started(plain.schedule.start_of(0.5)), "fit", 500).noise - 0.5 * teach(plain, "fit", 500, steps=16).endpoint
    assert abs(float((unconditional * teach(plain, "fit", 500).noise).mean())) < 0.05
    assert torch.equal(teach(model, "fit", 32, steps=12).noise, teacher.noise)
    few = teach(model, "fit", 8)
    for name in ("noise", "endpoint"):
        torch.testing.assert_close(getattr(few, name), getattr(teacher.first(8), name), atol=1e-5, rtol=1e-5)


def test_teachers_of_different_starts_are_kept_apart_and_the_model_is_one(coins: Model, cache: Path) -> None:
    starts = [coins.schedule.start_of(share) for share in (0.5, 0.8, 1.0)]
    found = [teach(coins.started(start), "fit", 8) for start in starts]
    again = [teach(coins.started(start), "fit", 8) for start in starts]
    assert all(torch.equal(one.endpoint, other.endpoint) for one, other in zip(found, again, strict=True))
    assert not torch.equal(found[0].endpoint, found[1].endpoint) and torch.equal(found[2].endpoint, teach(coins, "fit", 8).endpoint)
    model = coins.started(starts[0])
    assert model.digest == coins.digest and model.fingerprint == coins.fingerprint and model.start == starts[0]
    assert model.started(starts[0]) is model and model.started(None) is coins
    assert model.started(starts[1]).schedule.t_start == coins.started(starts[1]).schedule.t_start


# The cache -----------------------------------------------------------------------------------------------------


class Counter:
    """What `progress` was told: nothing where the cache answered."""

    def __init__(self) -> None:
        self.told: list[int] = []

    def __call__(self, done: int) -> None:
        self.told.append(done)


def test_the_second_time_comes_from_the_cache(coins: Model, cache: Path) -> None:
    first, second = Counter(), Counter()
    made, read = (teach(coins, "fit", 10, progress=counter) for counter in (first, second))
    assert first.told == list(range(1, 97)) and second.told == []
    assert cache_folder() == cache and len(list(cache.iterdir())) == 1
    for name in ("noise", "conditions", "endpoint", "states", "slopes", "angles"):
        torch.testing.assert_close(getattr(made, name), getattr(read, name), atol=0, rtol=0)
    assert made.error == read.error


def test_whatever_the_result_depends_on_is_in_the_key(coins: Model, cache: Path) -> None:
    other = models.load(f"{COINS}:other_weights")
    runs = [
        teach(coins, "fit", 10), teach(coins, "fit", 10, 2.0), teach(coins, "fit", 10, seed=1), teach(coins, "validate", 10),
        teach(coins, "fit", 11), teach(coins, "fit", 10, steps=32), teach(coins, "fit", 10, trajectory=False), teach(other, "fit", 10),
        teach(replace(coins, dtype=torch.float64, network=coins.network.double()), "fit", 10),  # type: ignore[attr-defined]
    ]  # fmt: skip
    assert len(list(cache.iterdir())) == len(runs) - 1  # the endpoints alone are those of the whole trajectories


@pytest.mark.parametrize(
    "content", [b"", b"not safetensors", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "], ids=["empty", "garbage", "no tensors"]
)
def test_a_damaged_file_is_made_again(coins: Model, cache: Path, content: bytes) -> None:
    made = teach(coins, "fit", 10)
    (file,) = cache.iterdir()
    file.write_bytes(content)
    counter = Counter()
    again = teach(coins, "fit", 10, progress=counter)
    assert counter.told
    torch.testing.assert_close(again.endpoint, made.endpoint, atol=0, rtol=0)


@pytest.mark.parametrize(
    "change",
    [
        {"states": torch.zeros(63, 10, 1, 2, 2)}, {"angles": torch.zeros(64, dtype=torch.int32)}, {"error": torch.zeros(1)},
        {"more": torch.zeros(())},
    ],
)  # fmt: skip
def test_a_file_of_another_kind_is_made_again(coins: Model, cache: Path, change: dict[str, Tensor]) -> None:
    first = teach(coins, "fit", 10)
    (file,) = cache.iterdir()
    content = {name: tensor.clone() for name, tensor in load_file(file).items()}
    save_file({**content, **change, "endpoint": content["endpoint"] + 1}, file)
    again = teach(coins, "fit", 10)
    assert torch.equal(again.endpoint, first.endpoint) and torch.equal(again.angles, first.angles)


def test_a_cache_that_cannot_be_written_costs_time_not_the_run(coins: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SOLVERSEARCH_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(UserWarning, match="the teacher could not be cached in"):
        teacher = teach(coins, "fit", 10)
    assert torch.isfinite(teacher.endpoint).all()


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SOLVERSEARCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "solversearch"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "solversearch"


def test_what_was_used_least_lately_makes_room(coins: Model, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teach(coins, "fit", 10)
    (first,) = cache.iterdir()
    size = first.stat().st_size
    monkeypatch.setenv("SOLVERSEARCH_CACHE_LIMIT", str(2.5 * size / 2**30))
    teach(coins, "fit", 10, seed=1)
    (second,) = set(cache.iterdir()) - {first}
    for age, file in ((200, first), (100, second)):
        os.utime(file, (time.time() - age,) * 2)
    (cache / "mine.safetensors").write_bytes(b"0" * 3 * size)
    teach(coins, "fit", 10)  # the first has been used again
    teach(coins, "fit", 10, seed=2)
    assert first.exists() and not second.exists() and len(list(cache.iterdir())) == 3
    monkeypatch.setenv("SOLVERSEARCH_CACHE_LIMIT", "0")
    last = teach(coins, "fit", 10, seed=3)
    assert [file.name for file in cache.iterdir()] == ["mine.safetensors"]
    assert torch.isfinite(last.states).all() and last.states.shape == (64, 10, 1, 2, 2)  # what is in use stays


@pytest.mark.parametrize("text", ["much", "-1", "nan"])
def test_a_limit_that_is_none_is_told_before_the_solve(coins: Model, cache: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("SOLVERSEARCH_CACHE_LIMIT", text)
    counter = Counter()
    with pytest.raises(UserError, match=f"SOLVERSEARCH_CACHE_LIMIT '{text}' is no number of GiB, such as 20"):
        teach(coins, "fit", 10, progress=counter)
    assert counter.told == []


# What goes wrong -------------------------------------------------------------------------------------------------------


def failing(coins: Model, value: float, rows: Callable[[Tensor], Tensor], **changes: Any) -> Model:
    """The network returns the value at the noisiest time for the samples that rows picks from their noise."""
    clean = coins.network

    def network(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        bad = rows(x) & (t == coins.schedule.t_start)
        return clean(x, t, condition).nan_to_num().where(~bad.view(-1, 1, 1, 1), value)

    return replace(coins, network=network, name="failing", **changes)


def first_pixel(x: Tensor) -> Tensor:
    return x[:, 0, 0, 0] > 1.0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_held_out_samples_fail_alone(coins: Model, cache: Path, value: float, clip: float | None) -> None:
    """A network that makes numbers of NaN again does not hide it."""
    plain = replace(coins, clip=clip)
    whole = teach(plain, "held_out", 200)
    with_bad = teach(failing(plain, value, first_pixel), "held_out", 200)
    bad = first_pixel(whole.noise)
    assert 0 < bad.sum() < 100
    assert torch.isnan(with_bad.endpoint[bad]).all() and torch.equal(with_bad.endpoint[~bad], whole.endpoint[~bad])
    coarse = teach(plain, "held_out", 200, steps=32)
    expected = (whole.endpoint - coarse.endpoint)[~bad][:128].double().square().mean()
    assert with_bad.error == pytest.approx(float(expected), rel=1e-5)
    again = teach(failing(plain, value, first_pixel), "held_out", 200)
    torch.testing.assert_close(again.endpoint, with_bad.endpoint, atol=0, rtol=0, equal_nan=True)


def test_what_fits_or_validates_must_be_finite_and_some_held_out_sample(coins: Model, cache: Path) -> None:
    for split in ("fit", "validate"):
        with pytest.raises(NotFinite, match="returned NaN or inf at t = 1;"):
            teach(failing(coins, float("nan"), first_pixel), split, 50)
    with pytest.raises(NotFinite, match="returned NaN or inf at t = 1;"):
        teach(failing(coins, float("nan"), lambda x: x[:, 0, 0, 0] == x[:, 0, 0, 0]), "held_out", 50)
    assert not cache.exists() or not list(cache.iterdir())


def test_the_error_is_estimated_on_the_first_samples(coins: Model, cache: Path) -> None:
    clock = Clock()
    teacher = teach(coins, "fit", 200, clock=clock)
    assert clock.evaluations == cost(200) == 64 * 200 + 32 * 128 and cost(100) == 96 * 100
    half = teach(coins, "fit", 200, steps=32)
    expected = (teacher.endpoint - half.endpoint)[:128].double().square().mean()
    assert teacher.error == pytest.approx(float(expected), rel=1e-5)
