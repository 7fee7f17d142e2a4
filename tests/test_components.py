"""Bands and channels: the transform against SciPy's, what a coefficient does at a frequency, and plans that run alike everywhere."""

import re
from math import log
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.fft import dctn, idctn

from solversearch.components import Components, Transform
from solversearch.runtime import Node, Row, Tableau, run

RNG = np.random.default_rng(5)
Q = np.linalg.qr(RNG.normal(size=(3, 3)))[0]
DIRECTIONS = tuple(map(tuple, Q.tolist()))
BANDS = (0.05, 0.2, 1.0)
BOTH = Components(BANDS, DIRECTIONS)
NODES = (Node(0.9, 0.3, 0.9), Node(0.5, 0.7, 0.6))


def table(parts: Components | None, seed: int = 0) -> Tableau:
    draw = np.random.default_rng(seed)

    def each() -> Any:
        return tuple(draw.normal(size=len(parts)).tolist()) if parts else float(draw.normal())

    return Tableau(
        NODES, (Row(each()), Row(0.5, (each(),), (each(),)), Row(each(), (each(), 0.25), (0.0, each()), (each(),))), components=parts
    )


def denoise(x: Any, node: Node) -> Any:
    return 0.5 * x + 0.1 * node.t, 0.1 * x * x


def sampled(plan: Tableau, noise: Any, **rest: Any) -> Any:
    return run(plan.nodes, plan.rows, denoise, noise, draw=lambda k: 0.3 * noise + k, components=plan.components, **rest)


def by_hand(plan: Tableau, noise: np.ndarray) -> np.ndarray:
    """The same from the page of the format, with SciPy's transform and NumPy's interpolation."""
    parts = plan.components
    assert parts
    height, width = noise.shape[-2:]
    radius = np.hypot(*np.meshgrid(np.arange(height) / height, np.arange(width) / width, indexing="ij")) / np.sqrt(2)
    directions = np.array(parts.channels) if parts.channels else np.eye(noise.shape[1])

    def forward(y: np.ndarray) -> np.ndarray:
        return dctn(np.einsum("cd,bd...->bc...", directions, y), axes=(-2, -1), norm="ortho")

    def multiplied(coefficient: Any, y: np.ndarray) -> np.ndarray:
        if not isinstance(coefficient, tuple):
            return coefficient * y
        rows = np.array(coefficient).reshape(-1, len(parts.bands) or 1)
        rows = np.repeat(rows, noise.shape[1], 0) if len(rows) == 1 else rows
        maps = [
            np.interp(np.log(np.maximum(radius, 1e-9)), np.log(parts.bands), row) if parts.bands else row[0] + 0 * radius for row in rows
        ]
        return np.stack(maps).reshape(len(rows), *[1] * (noise.ndim - 4), height, width) * y

    d: list[np.ndarray] = []
    delta: list[np.ndarray] = []
    for i, row in enumerate(plan.rows):
        total = multiplied(row.x, forward(noise))
        for coefficients, known in ((row.d, d), (row.delta, delta), (row.z, [forward(0.3 * noise)])):
            total = total + sum(multiplied(c, y) for c, y in zip(coefficients, known, strict=False))
        x = np.einsum("dc,bd...->bc...", directions, idctn(total, axes=(-2, -1), norm="ortho"))
        if i == len(plan.nodes):
            return x
        outputs = denoise(x, plan.nodes[i])
        d.append(forward(outputs[0]))
        delta.append(forward(outputs[1]))
    raise AssertionError


@pytest.mark.parametrize("parts", [BOTH, Components(BANDS), Components((), DIRECTIONS), Components((0.3,), DIRECTIONS)])
@pytest.mark.parametrize("shape", [(2, 3, 12, 20), (1, 3, 2, 16, 7)])
def test_a_plan_is_what_its_page_says(parts: Components, shape: tuple[int, ...]) -> None:
    noise, plan = RNG.normal(size=shape), table(parts)
    expected = by_hand(plan, noise)
    np.testing.assert_allclose(sampled(plan, noise), expected, atol=1e-12)
    np.testing.assert_allclose(sampled(plan, torch.tensor(noise)), expected, atol=1e-12)
    np.testing.assert_allclose(sampled(plan, torch.tensor(noise, dtype=torch.float32)), expected, atol=2e-5)


def test_jax_samples_alike() -> None:
    jax = pytest.importorskip("jax.numpy", reason="needs JAX")
    noise, plan = RNG.normal(size=(2, 3, 12, 20)), table(BOTH)
    np.testing.assert_allclose(np.asarray(sampled(plan, jax.asarray(noise, dtype="float32"))), by_hand(plan, noise), atol=2e-5)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40))
def test_the_transform_keeps_lengths_and_comes_back(height: int, width: int) -> None:
    sample = RNG.normal(size=(2, 3, height, width))
    transform = Transform(Components((), DIRECTIONS), sample)
    there = transform.forward(sample)
    np.testing.assert_allclose((there**2).sum(), (sample**2).sum(), rtol=1e-12)
    np.testing.assert_allclose(transform.back(there), sample, atol=1e-12)


def test_equal_coefficients_are_those_of_the_plain_plan() -> None:
    plain = table(None)

    def many(values: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple((value,) * len(BOTH) for value in values)

    rows = tuple(Row(many((row.x,))[0], many(row.d), many(row.delta), many(row.z)) for row in plain.rows)
    noise = torch.tensor(RNG.normal(size=(2, 3, 16, 16)))
    torch.testing.assert_close(sampled(Tableau(NODES, rows, components=BOTH), noise), sampled(plain, noise), atol=1e-12, rtol=0)


def test_weights_are_interpolated_in_the_logarithm_of_the_frequency_at_any_size() -> None:
    coefficient = (1.0, 2.0, 4.0)
    for height, width in ((64, 64), (96, 40)):
        stored = Transform(Components(BANDS), np.zeros((1, 1, height, width))).weight(coefficient)[0]
        down, across = ([*range(0, n, 2), *range(1, n, 2)] for n in (height, width))
        weight = stored[np.argsort(down)][:, np.argsort(across)]
        assert weight[0, 0] == 1  # the mean belongs to the lowest band
        k, m = height // 4, width // 4  # of the frequency 1/4, wherever it stands
        assert weight[k, m] == pytest.approx(2 + 2 * log(0.25 / 0.2) / log(1 / 0.2))
        assert weight.max() < 4 and (np.diff(weight, axis=1) >= 0).all()


def test_packed_samples_are_those_of_the_picture() -> None:
    picture = RNG.normal(size=(2, 3, 8, 12))
    tokens = picture.reshape(2, 3, 4, 2, 6, 2).transpose(0, 2, 4, 1, 3, 5).reshape(2, 24, 12)
    plan, packed = table(BOTH), table(Components(BANDS, DIRECTIONS, 2))
    expected = sampled(plan, picture).reshape(2, 3, 4, 2, 6, 2).transpose(0, 2, 4, 1, 3, 5).reshape(2, 24, 12)
    np.testing.assert_allclose(sampled(packed, tokens, grid=(4, 6)), expected, atol=1e-12)
    np.testing.assert_allclose(sampled(packed, torch.tensor(tokens), grid=(4, 6)), expected, atol=1e-12)
    with pytest.raises(ValueError, match="24 tokens are no grid of 4 x 4: say the grid"):
        sampled(packed, tokens)


def test_half_precision_is_accumulated_in_single() -> None:
    noise, plan = torch.tensor(RNG.normal(size=(2, 3, 16, 16))), table(BOTH)
    half = sampled(plan, noise.bfloat16())
    assert half.dtype == torch.bfloat16
    scale = float(sampled(plan, noise).abs().max())
    assert float((half.double() - sampled(plan, noise)).abs().max()) < 0.05 * scale
    assert Transform(BOTH, noise.bfloat16().float()).forward(noise.float()).dtype == torch.float32


def test_learned_coefficients_have_one_copy_a_sample_and_a_gradient() -> None:
    noise = torch.tensor(RNG.normal(size=(2, 3, 12, 12)))
    parts, weight = Components(BANDS, DIRECTIONS), torch.tensor(RNG.normal(size=(2, 9)), requires_grad=True)

    def result(each: torch.Tensor) -> torch.Tensor:
        return run(NODES[:1], (Row(1.0), Row(0.5, (each,))), lambda x, _: 0.3 * x, noise, components=parts)

    torch.testing.assert_close(
        result(weight)[:1],
        run(NODES[:1], (Row(1.0), Row(0.5, (tuple(weight[0].tolist()),))), lambda x, _: 0.3 * x, noise[:1], components=parts),
    )
    assert torch.autograd.gradcheck(result, (weight,))


@pytest.mark.parametrize(
    ("parts", "shape", "said"),
    [
        (BOTH, (1, 4, 8, 8), "the plan's components have 3 channels, but samples have 4"),
        (Components(BANDS), (1, 2), "components act on pictures"),
        (Components((0.001, 0.002, 0.005, 1.0)), (1, 1, 8, 8), "8 x 8 is too small for the plan's components"),
        (Components(BANDS, (), 2), (1, 4, 6), "the plan is for packed samples of patches of 2, not for the shape (4, 6)"),
        (Components(BANDS, (), 2), (1, 5, 8), "5 tokens are no grid of 2 x 2"),
    ],
)  # fmt: skip
def test_samples_without_such_components_are_refused(parts: Components, shape: tuple[int, ...], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        Transform(parts, np.zeros(shape))


@pytest.mark.parametrize(
    "arguments",
    [((0.5,),), ((0.2, 0.1),), ((0.0, 0.1),), ((0.5, 1.1),), ((), ((1.0, 0.0),)), ((), ((1.0, 0.0), (1.0, 0.0))), (BANDS, (), -1)],
)
def test_components_that_are_none_are_refused(arguments: Any) -> None:
    with pytest.raises(ValueError, match="components: "):
        Components(*arguments)
