"""The sampling loop on every array type, against a dense reference in float64."""

import random
import weakref
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from solversearch.runtime import Node, Row, Tableau, clamp, dynamic_threshold, run
from solversearch.schedules import Floats

SHAPE = (3, 2, 4, 4)


def to_numpy(array: Any) -> Floats:
    return np.asarray(array.double() if isinstance(array, torch.Tensor) else array, dtype=np.float64)


def numpy_as(dtype: str) -> Callable[[Floats], Any]:
    return lambda array: array.astype(dtype)


def torch_as(dtype: torch.dtype) -> Callable[[Floats], Any]:
    return lambda array: torch.from_numpy(array).to(dtype)


def jax_as(dtype: str) -> Callable[[Floats], Any]:
    def convert(array: Floats) -> Any:
        import jax.numpy as jnp

        return jnp.asarray(array, dtype=dtype)

    return convert


no_jax = pytest.mark.skipif(find_spec("jax") is None, reason="needs JAX")
ARRAYS = [
    pytest.param(numpy_as("float64"), 1e-14, id="numpy-float64"),
    pytest.param(numpy_as("float32"), 2e-6, id="numpy-float32"),
    pytest.param(numpy_as("float16"), 2e-2, id="numpy-float16"),
    pytest.param(torch_as(torch.float64), 1e-14, id="torch-float64"),
    pytest.param(torch_as(torch.float32), 2e-6, id="torch-float32"),
    pytest.param(torch_as(torch.float16), 2e-2, id="torch-float16"),
    pytest.param(torch_as(torch.bfloat16), 2e-1, id="torch-bfloat16"),
    pytest.param(jax_as("float32"), 2e-6, id="jax-float32", marks=no_jax),
    pytest.param(jax_as("float16"), 2e-2, id="jax-float16", marks=no_jax),
    pytest.param(jax_as("bfloat16"), 2e-1, id="jax-bfloat16", marks=no_jax),
]


def table(nfe: int = 4, split: bool = True, noises: int = 2, seed: int = 0) -> Tableau:
    """A dense table of random coefficients."""
    rng = random.Random(seed)

    def weights(size: int) -> tuple[float, ...]:
        return tuple(rng.uniform(-1, 1) for _ in range(size))

    nodes = tuple(Node(nfe - i, rng.uniform(0.1, 1), rng.uniform(0.1, 1), 2.0 if split else 1.0) for i in range(nfe))
    return Tableau(nodes, tuple(Row(rng.uniform(-1, 1), weights(i), weights(i if split else 0), weights(noises)) for i in range(nfe + 1)))


def denoise(x: Any, node: Node) -> tuple[Any, Any]:
    """Any function of x and the node will do."""
    return x * node.alpha - 0.1 * node.t, x * x * node.sigma


def dense(table: Tableau, noise: Floats, fresh: list[Floats]) -> Floats:
    """The loop as one matrix: columns are noise, outputs, differences and fresh noises, zeros where nothing is."""
    n, m = table.nfe, len(fresh)
    matrix = np.zeros((n + 1, 1 + 2 * n + m))
    for i, row in enumerate(table.rows):
        matrix[i, 0] = row.x
        matrix[i, 1 : 1 + len(row.d)] = row.d
        matrix[i, 1 + n : 1 + n + len(row.delta)] = row.delta
        matrix[i, 1 + 2 * n : 1 + 2 * n + len(row.z)] = row.z
    columns = np.zeros((matrix.shape[1], *noise.shape))
    columns[0], columns[1 + 2 * n :] = noise, fresh
    for i, node in enumerate(table.nodes):
        columns[1 + i], columns[1 + n + i] = denoise(np.tensordot(matrix[i], columns, 1), node)
    return np.asarray(np.tensordot(matrix[n], columns, 1))


@pytest.fixture
def noise() -> Floats:
    return np.random.default_rng(0).standard_normal(SHAPE)


@pytest.fixture
def fresh() -> list[Floats]:
    return list(np.random.default_rng(1).standard_normal((2, *SHAPE)))


# Every array type ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("convert, tolerance", ARRAYS)
def test_agrees_with_the_dense_reference(convert: Callable[[Floats], Any], tolerance: float, noise: Floats, fresh: list[Floats]) -> None:
    whole, start = table(), convert(noise)
    dtypes = set()

    def observed(x: Any, node: Node) -> tuple[Any, Any]:
        dtypes.add(x.dtype)
        assert x.shape == SHAPE
        return denoise(x, node)

    result = run(whole.nodes, whole.rows, observed, start, lambda k: convert(fresh[k]))
    expected = dense(whole, noise, fresh)
    assert np.abs(to_numpy(result) - expected).max() <= tolerance * np.abs(expected).max()
    assert dtypes == {start.dtype} and result.dtype == start.dtype and type(result) is type(start)
    np.testing.assert_array_equal(to_numpy(start), to_numpy(convert(noise)))  # the caller's noise is left alone


@pytest.mark.parametrize("convert, tolerance", [case for case in ARRAYS if "16" in str(case.id)])
def test_half_precision_accumulates_in_float32(convert: Callable[[Floats], Any], tolerance: float, noise: Floats) -> None:
    """Large coefficients of both signs, as extrapolating solvers have: adding up in half precision loses the digits that remain."""
    nodes = [Node(1.0, 1.0, 1.0)] * 4
    weights = (30.0, -29.7, 12.3, -11.9)
    rows = [Row(1.0), *[Row(0.5, (0.1,))] * 3, Row(0.01, weights)]
    outputs = [convert(noise + 0.01 * i) for i in range(4)]
    remaining = iter(outputs)
    start = convert(noise)
    careful = to_numpy(run(nodes, rows, lambda x, node: next(remaining), start))
    naive = start * 0.01
    for weight, output in zip(weights, outputs, strict=True):
        naive = naive + output * weight
    exact = 0.01 * to_numpy(start) + sum(w * to_numpy(d) for w, d in zip(weights, outputs, strict=True))
    assert np.abs(careful - exact).max() < 1e-2 * np.abs(exact).max()
    assert np.abs(to_numpy(naive) - exact).mean() > 10 * np.abs(careful - exact).mean()


@pytest.mark.parametrize("percentile, limit", [(None, 0.7), (0.9, 0.7), (0.995, 1.0), (1.0, 30.0)])
@pytest.mark.parametrize("convert, tolerance", ARRAYS)
def test_thresholds(convert: Callable[[Floats], Any], tolerance: float, percentile: float | None, limit: float, noise: Floats) -> None:
    given = convert(noise * np.array([0.1, 1.0, 3.0]).reshape(3, 1, 1, 1))
    result = (clamp(limit) if percentile is None else dynamic_threshold(percentile, limit))(given)
    assert result.dtype == given.dtype and type(result) is type(given) and result.shape == given.shape
    expected = []
    for sample in to_numpy(given):
        magnitudes = sorted(abs(sample.ravel()))
        position = (percentile or 0) * (len(magnitudes) - 1)
        low, part = int(position), position % 1
        s = max(limit, magnitudes[low] + part * (magnitudes[min(low + 1, len(magnitudes) - 1)] - magnitudes[low]))
        expected.append(np.clip(sample, -limit, limit) if percentile is None else np.clip(sample, -s, s) / s * limit)
    np.testing.assert_allclose(to_numpy(result), expected, rtol=tolerance, atol=1e-3 * tolerance)


def test_the_default_threshold_is_imagens() -> None:
    """The 99.5th percentile (Saharia et al. 2022, section 2.3), at least 1."""
    x = np.linspace(-4, 4, 801)[None]
    np.testing.assert_allclose(dynamic_threshold()(x), np.clip(x / np.quantile(np.abs(x), 0.995), -1, 1))


def test_threshold_is_seen_by_rows_and_callback(noise: Floats) -> None:
    seen: list[Floats] = []
    rows = [Row(1.0), Row(0.0, (1.0,))]
    result = run([Node(1.0, 1.0, 1.0)], rows, lambda x, node: 9 * x, noise, threshold=clamp(), callback=lambda i, x, d: seen.append(d))
    np.testing.assert_array_equal(result, np.clip(9 * noise, -1, 1))
    np.testing.assert_array_equal(seen[0], result)


@no_jax
def test_compiles_under_jax(noise: Floats) -> None:
    import jax

    whole = table(noises=0)

    def sample(start: Any) -> Any:
        return run(whole.nodes, whole.rows, denoise, start, threshold=dynamic_threshold(0.9))

    start = jax_as("float32")(noise)
    np.testing.assert_allclose(jax.jit(sample)(start), sample(start), rtol=1e-4, atol=1e-5)


def test_shape_is_free() -> None:
    whole = table(split=False, noises=0)
    for shape in ((), (1,), (2, 3), (1, 4, 8, 8), (1, 2, 3, 4, 5)):
        start = torch.ones(shape)
        assert run(whole.nodes, whole.rows, lambda x, node: x, start).shape == shape


# What the loop asks for ----------------------------------------------------------------------------------------


def test_fresh_noise_is_drawn_once_and_only_where_it_counts() -> None:
    rows = [Row(1.0, z=(0.0, 0.0)), Row(1.0, (0.5,), z=(0, 2.0)), Row(1.0, (0.5,), z=(0.0, 3.0, 0.0, 1.0)), Row(0.0, z=(-0.0,))]
    asked: list[int] = []

    def draw(k: int) -> Floats:
        asked.append(k)
        return np.full(2, 10.0**k)

    seen: list[Floats] = []
    run([Node(1.0, 1.0, 1.0)] * 3, rows, lambda x, node: 0 * x, np.ones(2), draw, callback=lambda i, x, d: seen.append(x))
    assert asked == [1, 3]
    assert [x[0] for x in seen] == [1, 1 + 20, 1 + 30 + 1000]


@pytest.mark.parametrize(
    "row, message",
    [
        (Row(1.0, z=(0.0, 0.5)), r"fresh noise 1, but no draw\(k\)"),
        (Row(1.0, delta=(0.5,)), "difference of evaluation 0, but denoise returned no"),
    ],
)
def test_what_is_not_supplied_is_named(row: Row, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run([Node(1.0, 1.0, 1.0)], [Row(1.0), row], lambda x, node: x, np.ones(2))


def test_callback_sees_every_evaluation_in_order(noise: Floats) -> None:
    whole = table(split=False, noises=0)
    events: list[tuple[str, Any]] = []

    def told(x: Any, node: Node) -> Any:
        events.append(("denoise", node.t))
        return denoise(x, node)[0]

    def callback(i: int, x: Any, d: Any) -> None:
        events.append(("callback", i))
        np.testing.assert_array_equal(d, denoise(x, whole.nodes[i])[0])

    run(whole.nodes, whole.rows, told, noise, callback=callback)
    assert events == [(kind, value) for i in range(4) for kind, value in (("denoise", whole.nodes[i].t), ("callback", i))]


def test_rows_may_stop_early_or_end_in_zeros(noise: Floats) -> None:
    nodes = [Node(1.0, 0.9, 0.1)] * 3
    short = [Row(1.0), Row(0.5, (0.5,)), Row(0.5), Row(0.0, (0.0, 1.0))]
    filled = [Row(r.x, r.d + (0.0,) * (i - len(r.d)), (0.0,) * i, (0.0,) * 9) for i, r in enumerate(short)]
    results = [run(nodes, rows, lambda x, node: denoise(x, node)[0], noise) for rows in (short, filled)]
    np.testing.assert_array_equal(*results)


def test_a_result_does_not_depend_on_the_batch(noise: Floats) -> None:
    whole, start = table(split=False, noises=0), torch_as(torch.float32)(noise)
    together = run(whole.nodes, whole.rows, lambda x, node: denoise(x, node)[0], start)
    for i in range(len(start)):
        alone = run(whole.nodes, whole.rows, lambda x, node: denoise(x, node)[0], start[i : i + 1])
        assert torch.equal(alone, together[i : i + 1])


# Gradients -----------------------------------------------------------------------------------------------------


def test_gradients_through_coefficients_and_times(noise: Floats) -> None:
    """Weights (B, 1, 1, 1) and times (B,), one copy a sample, as the polish gives them."""
    whole, start = table(noises=0), torch.from_numpy(noise)
    size = len(start)

    def flat(row: Row) -> list[float]:
        return [row.x, *row.d, *row.delta]

    numbers = torch.tensor([*(node.t for node in whole.nodes), *(w for row in whole.rows for w in flat(row))], dtype=torch.float64)

    def told(x: Any, node: Node) -> tuple[Any, Any]:
        t = torch.as_tensor(node.t, dtype=torch.float64).expand(size).view(-1, 1, 1, 1)
        return torch.tanh(x * t), x * x * node.sigma

    def sample(copies: torch.Tensor) -> Any:
        columns: Iterator[Any] = iter(copies.unbind(1))
        nodes = [Node(next(columns), node.alpha, node.sigma) for node in whole.nodes]
        weights: Iterator[Any] = iter([column.view(-1, 1, 1, 1) for column in columns])
        rows = [Row(next(weights), tuple(next(weights) for _ in row.d), tuple(next(weights) for _ in row.delta)) for row in whole.rows]
        return run(nodes, rows, told, start)

    copies = numbers.expand(size, -1).clone().requires_grad_()
    torch.testing.assert_close(sample(copies), run(whole.nodes, whole.rows, told, start))
    assert torch.autograd.gradcheck(lambda c: sample(c).flatten(1).mean(1), copies)


def test_gradients_through_inputs_and_mixed_rows(noise: Floats) -> None:
    """Learned weights beside numbers: the loop's own sums must not overwrite what the backward pass needs."""
    weight = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    start = torch.from_numpy(noise).requires_grad_()

    def sample(x: torch.Tensor, w: torch.Tensor) -> Any:
        rows = [Row(1.0), Row(w, (0.5,)), Row(0.1, (w, 0.7)), Row(0.0, (0.2, w, w))]
        return run([Node(1.0, 0.5, 0.5)] * 3, rows, lambda x, node: torch.sin(x), x).sum()

    assert torch.autograd.gradcheck(sample, (start, weight))


# The table -----------------------------------------------------------------------------------------------------

NODE, INF, NAN = Node(1.0, 0.5, 0.5), float("inf"), float("nan")


@pytest.mark.parametrize(
    "nodes, rows, message",
    [
        ((), (Row(1.0),), "N >= 1, got 0 nodes and 1 rows"),
        ((NODE,), (Row(1.0),), "got 1 nodes and 1 rows"),
        ((NODE,), (Row(1.0), Row(1.0), Row(1.0)), "got 1 nodes and 3 rows"),
        ((NODE,), (Row(1.0, (1.0,)), Row(1.0)), "row 0 reads the future"),
        ((NODE,), (Row(1.0), Row(1.0, (0.0, 0.0))), "row 1 reads the future"),
        ((NODE,), (Row(1.0), Row(1.0, (), (0.0, 0.0))), "row 1 reads the future: only 1 evaluations"),
        *(((NODE,), (Row(1.0), row), "row 1 is not finite") for row in (Row(NAN), Row(0, (INF,)), Row(0, (), (NAN,)), Row(0, z=(INF,)))),
        *(((node,), (Row(1.0), Row(1.0)), "node 0 needs") for node in (
            Node(NAN, 0.5, 0.5), Node(1, -0.1, 0.5), Node(1, 0.5, 0.0), Node(1, 0.5, -1.0), Node(1, INF, 0.5), Node(1, 0.5, 0.5, NAN),
        )),
    ],
)  # fmt: skip
def test_impossible_tables_are_refused(nodes: tuple[Node, ...], rows: tuple[Row, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tableau(nodes, rows)


def test_a_table_derives_its_cost() -> None:
    plain = Tableau((NODE, NODE), (Row(1.0), Row(1.0), Row(1.0, (0.5, 0.5), (0.0,), (0.0,))))
    assert (plain.nfe, plain.network_calls, plain.split, plain.stochastic) == (2, 2, False, False)
    assert plain.guided(7.5).network_calls == 4 and plain.guided(7.5).nodes[1] == Node(1.0, 0.5, 0.5, 7.5)
    assert Tableau((Node(1.0, 0.5, 0.5, 2.0), NODE), plain.rows).network_calls == 3
    assert table(split=True).split and table(split=True).network_calls == 8
    assert table(noises=1).stochastic and Tableau((NODE,), (Row(1.0), Row(0.0, (), (0.5,)))).network_calls == 2


def test_memory_is_the_outputs_and_little_more() -> None:
    """While the network runs, the loop holds its input and the outputs that later rows use: nothing else."""
    import tracemalloc

    whole, size = table(nfe=5, split=False, noises=0), 2**20
    start = np.ones(size // 8)
    held = []

    def told(x: Any, node: Node) -> Any:
        held.append(tracemalloc.get_traced_memory()[0] / size)
        return 0.5 * x

    tracemalloc.start()
    run(whole.nodes, whole.rows, told, start)
    peak = tracemalloc.get_traced_memory()[1] / size
    tracemalloc.stop()
    assert held == pytest.approx([1, 2, 3, 4, 5], abs=0.1)
    assert peak < 5 + 4  # all outputs, the last input, and a sum under way


# Memory --------------------------------------------------------------------------------------------------------


class Latents(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the tensors of a size that are alive, and the most there ever were."""

    def __init__(self, numbers: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.numbers, self.most = numbers, 0
        self.alive: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        storage = result.untyped_storage()
        if result.numel() == self.numbers and storage._cdata not in self.alive:
            self.alive.add(storage._cdata)
            weakref.finalize(storage, self.alive.discard, storage._cdata)
            self.most = max(self.most, len(self.alive))
        return result


def test_five_steps_hold_at_most_six_latents() -> None:
    """Every row uses everything: the five outputs and one state are alive at most, beside the noise that the caller has."""
    noise, inside = torch.randn(4, 8, 8), []
    nodes = [Node(float(t), 0.6, 0.8) for t in range(5)]
    rows = [Row(1.0, (0.5,) * i) for i in range(6)]
    with Latents(noise.numel()) as counter:

        def denoise(x: torch.Tensor, node: Node) -> torch.Tensor:
            inside.append(len(counter.alive))
            return x * 0.5

        result = run(nodes, rows, denoise, noise)
    assert inside == [1, 2, 3, 4, 5]  # while the network works: earlier outputs and its input
    assert counter.most == 6 and len(counter.alive) == 1 and torch.isfinite(result).all()
