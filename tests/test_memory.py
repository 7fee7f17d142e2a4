"""What is told of memory before anything starts."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from solversearch import memory, models
from solversearch.memory import Backward, backward, batch_size, footprint
from solversearch.models.base import Model
from solversearch.schedules import DiscreteVP

WIDTH, LAYERS, NUMBERS = 4096, 6, 64


class Deep(nn.Module):
    """Layers of known size: a linear one keeps nothing but its input's shape for the frozen weights, a sigmoid keeps its output."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(NUMBERS, WIDTH), nn.Linear(WIDTH, NUMBERS)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        h = self.first(x)
        for _ in range(LAYERS):
            h = torch.sigmoid(h)
        return self.last(h)


def deep() -> Model:
    return Model("deep", Deep().eval().requires_grad_(False), DiscreteVP.named(), "sample", (NUMBERS,))


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(memory, "_KNOWN", {})
    yield


def free(monkeypatch: pytest.MonkeyPatch, size: float) -> None:
    monkeypatch.setattr(memory, "free", lambda device: int(size / memory.SHARE["cpu"]))


def test_a_call_is_measured_to_the_byte_but_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 2**20)
    found = footprint(deep())
    assert found.weights == 4 * (2 * NUMBERS * WIDTH + WIDTH + NUMBERS)
    assert found.kept == pytest.approx(LAYERS * 4 * WIDTH, rel=0.02)
    assert found.forward == pytest.approx(2 * 4 * WIDTH, rel=0.05)  # a layer's input and output


def test_where_memory_does_not_matter_nothing_is_measured_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 2**40)
    monkeypatch.setattr(memory, "_peak", None)
    assert batch_size(models.load("digits")) == batch_size(deep()) == memory.MOST


@pytest.mark.parametrize(("room", "size"), [(100.0, 64), (64.5, 64), (63.5, 32), (1.5, 1), (0.1, 1)])
def test_the_batch_is_the_power_of_two_that_fits(monkeypatch: pytest.MonkeyPatch, room: float, size: int) -> None:
    model = deep()
    free(monkeypatch, 2**20)
    each = footprint(model).forward
    free(monkeypatch, room * each)
    assert batch_size(model) == size


def test_the_polish_keeps_all_where_it_can_else_makes_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model, calls = deep(), 10
    free(monkeypatch, 2**20)
    whole, again = (Backward(16, way).bytes(model, calls) for way in (False, True))
    assert whole > 5 * again > 0
    expected = {1.01 * whole: (16, False), 0.99 * whole: (16, True), 1.01 * again: (16, True), 0.99 * again: (8, True), 1: (1, True)}
    for size, way in expected.items():
        free(monkeypatch, size)
        assert backward(model, calls, 16, 512) == way
    free(monkeypatch, 2**40)
    assert backward(model, calls, 100, 7) == Backward(7, False)
    digits = models.load("digits")
    assert backward(digits, calls, 256, 512) == Backward(256, False)
    free(monkeypatch, 1)
    assert backward(digits, calls, 256, 512) == Backward(digits.pad, True)


def test_free_memory_is_the_systems() -> None:
    assert 2**24 < memory.free("cpu") < 2**50
