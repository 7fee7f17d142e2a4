"""The sampling loop: executes the table of a plan on torch, NumPy or JAX arrays.

Standard library only. A plan with N network evaluations is N nodes and N + 1 rows; row i forms the
input of evaluation i as a linear combination of the initial noise and the outputs so far, and the
last row forms the result:

    x_i = row.x * noise + sum_j row.d[j] * D_j + sum_j row.delta[j] * Delta_j + sum_k row.z[k] * z_k

``D_j`` is the data prediction of evaluation j, ``Delta_j`` the difference between its conditional and
unconditional data predictions (only in plans with split guidance, and not of every node, see `Node`),
``z_k`` a fresh standard normal.
Where a plan has `Components`, a coefficient may be a number for each of them; where it has a `Start`, a noised picture takes the place of
the noise; where its nodes have a ``beta``, the network sees x_i + beta_i * y, y being the anchor that each sample has: what it is made of.
"""

import sys
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any, Literal

from .components import Components, Transform  # relative, since exports carry both files

Array = Any  # a torch, NumPy or JAX array
Output = Array | tuple[Array, Array]
Coefficient = Any  # a float, or a tuple with one for each component


@dataclass(frozen=True, slots=True)
class Node:
    """Where the network is evaluated: the time it is told, and the frame x = alpha * x0 + sigma * noise of its input.

    A node of guidance 1 whose ``guidance_difference`` is "reuse" calls the network with the condition alone, also where rows split the
    guidance: it has no difference of its own, and rows make do with those of other nodes. ``variant`` names another network than the
    model's own, which the denoiser calls in its place. ``beta`` is None but for mean-reverting models, whose states are
    x = alpha * x0 + beta * anchor + sigma * noise.
    """

    t: float
    alpha: float
    sigma: float
    guidance: float = 1.0
    guidance_difference: Literal["compute", "reuse"] = "compute"
    variant: str = ""
    beta: float | None = None

    @property
    def reuses(self) -> bool:
        return self.guidance_difference == "reuse"


@dataclass(frozen=True, slots=True)
class Start:
    """The time, and its noise level, of the noised pictures from which a plan starts in place of noise: alpha * picture + sigma * noise.

    Raises ValueError where picture or noise have no part in that.
    """

    t: float
    alpha: float
    sigma: float

    def __post_init__(self) -> None:
        if not all(map(isfinite, (self.t, self.alpha, self.sigma))) or self.alpha <= 0 or self.sigma <= 0:
            raise ValueError(f"a start needs finite numbers, alpha > 0 and sigma > 0, got {self}")

    def noised(self, picture: Array, noise: Array) -> Array:
        """The state to start from, of the noise's shape and dtype."""
        return _cast(self.alpha * _wide(picture) + self.sigma * _wide(noise), noise.dtype)


@dataclass(frozen=True, slots=True)
class Row:
    """Coefficients of one state; ``d``, ``delta`` and ``z`` may be shorter than what is known so far."""

    x: Coefficient
    d: tuple[Coefficient, ...] = ()
    delta: tuple[Coefficient, ...] = ()
    z: tuple[Coefficient, ...] = ()


def scalars(coefficient: Coefficient) -> tuple[float, ...]:
    """Those of a coefficient."""
    return coefficient if isinstance(coefficient, tuple) else (coefficient,)


def used(coefficients: Sequence[Coefficient]) -> bool:
    """Whether any of them is not zero."""
    return any(any(scalars(each)) for each in coefficients)


@dataclass(frozen=True)
class Tableau:
    """N nodes and N + 1 rows: a linear solver, unrolled.

    Raises ValueError where a row reads the future, is not finite, or has another number of components.
    """

    nodes: tuple[Node, ...]
    rows: tuple[Row, ...]
    components: Components | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if not self.nodes or len(self.rows) != len(self.nodes) + 1:
            raise ValueError(f"N nodes need N + 1 rows and N >= 1, got {len(self.nodes)} nodes and {len(self.rows)} rows")
        for i, node in enumerate(self.nodes):
            if not all(map(isfinite, (node.t, node.alpha, node.sigma, node.guidance))) or node.alpha < 0 or node.sigma <= 0:
                raise ValueError(f"node {i} needs finite numbers, alpha >= 0 and sigma > 0, got {node}")
            if node.reuses and node.guidance != 1:
                raise ValueError(f"node {i} reuses guidance differences, so its guidance is 1, got {node.guidance:g}")
            if node.reuses and self.uses_difference(i):
                raise ValueError(f"node {i} reuses guidance differences, but a row has a coefficient for its own")
        betas = [node.beta for node in self.nodes if node.beta is not None]
        if len(betas) not in (0, len(self.nodes)) or not all(map(isfinite, betas)):
            raise ValueError("all nodes have a finite beta, or none has one")
        count = len(self.components or ())
        for i, row in enumerate(self.rows):
            for each in (row.x, *row.d, *row.delta, *row.z):
                if not all(map(isfinite, scalars(each))):
                    raise ValueError(f"row {i} is not finite")
                if isinstance(each, tuple) and len(each) != count:
                    raise ValueError(f"row {i} has a coefficient of {len(each)} components, the table has {count or 'none'}")
            if max(len(row.d), len(row.delta)) > i:
                raise ValueError(f"row {i} reads the future: only {i} evaluations are done before it")

    @property
    def nfe(self) -> int:
        return len(self.nodes)

    @property
    def split(self) -> bool:
        """Whether a row gives the guidance difference a coefficient of its own, so that the denoiser must return it."""
        return any(used(row.delta) for row in self.rows)

    def uses_difference(self, i: int) -> bool:
        """Whether a row gives the guidance difference of evaluation i a coefficient of its own."""
        return any(used(row.delta[i : i + 1]) for row in self.rows)

    @property
    def cheaper(self) -> bool:
        """Whether some evaluation calls a variant, or reuses guidance differences."""
        return any(node.reuses or node.variant for node in self.nodes)

    @property
    def anchored(self) -> bool:
        """Whether the network sees states that are drawn towards an anchor."""
        return self.nodes[0].beta is not None

    @property
    def stochastic(self) -> bool:
        return any(used(row.z) for row in self.rows)

    @property
    def calls(self) -> tuple[int, ...]:
        """Network calls of each node a sample: two if it guides, or computes a guidance difference where rows are split; else one."""
        split = self.split
        return tuple(2 if node.guidance != 1 or (split and not node.reuses) else 1 for node in self.nodes)

    @property
    def network_calls(self) -> int:
        return sum(self.calls)

    def guided(self, guidance: float) -> "Tableau":
        """The same table with every node at the given guidance scale."""
        return replace(self, nodes=tuple(replace(node, guidance=guidance) for node in self.nodes))


def run(
    nodes: Sequence[Node],
    rows: Sequence[Row],
    denoise: Callable[[Array, Node], Output],
    noise: Array,
    draw: Callable[[int], Array] | None = None,
    threshold: Callable[[Array], Array] | None = None,
    callback: Callable[[int, Array, Array], None] | None = None,
    components: Components | None = None,
    grid: tuple[int, int] | None = None,
    anchor: Array | None = None,
) -> Array:
    """Samples by the table; returns an array of the shape and dtype of ``noise``.

    denoise(x, node) returns the data prediction (guided where the node asks for it), or the pair
    (data prediction, conditional minus unconditional) for plans with ``delta`` coefficients, but at nodes that reuse.
    One that remembers between evaluations has a method anew(nodes), which returns such a function for this run alone.
    The rest is `steps`'s. Raises ValueError where a row asks for a fresh noise or a guidance difference that is not supplied.
    """
    if hasattr(denoise, "anew"):
        denoise = denoise.anew(nodes)
    sampler, output = steps(nodes, rows, noise, draw, threshold, callback, components, grid, anchor), None
    while True:
        try:
            x, node = sampler.send(output)
        except StopIteration as end:
            return end.value
        output = denoise(x, node)
        del x


def steps(
    nodes: Sequence[Node],
    rows: Sequence[Row],
    noise: Array,
    draw: Callable[[int], Array] | None = None,
    threshold: Callable[[Array], Array] | None = None,
    callback: Callable[[int, Array, Array], None] | None = None,
    components: Components | None = None,
    grid: tuple[int, int] | None = None,
    anchor: Array | None = None,
) -> Generator[tuple[Array, Node], Output, Array]:
    """The loop itself, for callers that run the network on their own: yields each (x, node), is sent what `run`'s denoise
    returns for it, and returns the result.

    noise is the initial standard normal, or what a plan's `Start` makes of it; any shape; half precision is accumulated in float32.
    draw(k) returns the k-th fresh standard normal; called only where a coefficient is not zero.
    threshold maps each data prediction, see `clamp` and `dynamic_threshold`.
    callback(i, x_i, D_i) is called after each evaluation, with the data prediction as later rows see it.
    components are those of the coefficients, grid is that of packed samples, see `Transform`.
    anchor is what nodes with a ``beta`` draw their states towards, of the noise's shape; rows combine states without it, and the result
    is the clean sample. Raises ValueError for one too few or too many.
    Weights, and the numbers of nodes, may be arrays that broadcast (weights of components: (B, components)): then the result is
    differentiable in them.
    """
    if (anchor is None) == any(node.beta is not None for node in nodes):
        has = "no beta: leave the anchor out" if anchor is not None else "a beta: give anchor=, what each sample is made of"
        raise ValueError(f"the plan's nodes have {has}")
    transform = Transform(components, _wide(noise), grid) if components else None

    def kept(array: Array) -> Array:
        return transform.forward(_wide(array)) if transform and array is not None else array

    start, dtype = kept(noise), noise.dtype
    d: list[Array] = []
    delta: list[Array] = []
    z = _Draws(draw, kept)
    for i, node in enumerate(nodes):
        x = _combine(rows[i], start, d, delta, z, transform)
        x = _cast(x if anchor is None else x + node.beta * _wide(anchor), dtype)
        output = yield x, node
        prediction, difference = output if isinstance(output, tuple) else (output, None)
        prediction = threshold(prediction) if threshold else prediction
        d.append(kept(prediction))
        delta.append(kept(difference))
        if callback:
            callback(i, x, prediction)
        del x, output, prediction, difference  # what later rows need is in d and delta: no state outlives its evaluation
    return _cast(_combine(rows[-1], start, d, delta, z, transform), dtype)


def _combine(row: Row, noise: Array, d: Sequence[Array], delta: Sequence[Array], z: "_Draws", transform: Transform | None) -> Array:
    """In float32 or wider."""
    total = (transform.weight(row.x) if transform else row.x) * _wide(noise)
    for weights, known in ((row.d, d), (row.delta, delta), (row.z, z)):
        for j, weight in enumerate(weights):
            number = isinstance(weight, float | int)
            if (number or isinstance(weight, tuple)) and not used((weight,)):
                continue
            if known[j] is None:
                raise ValueError(f"a row uses the guidance difference of evaluation {j}, but denoise returned no pair")
            array = _wide(known[j])
            # A learned weight is an array itself; for others torch multiplies and adds in one pass and in place.
            if number and hasattr(total, "add_"):
                total = total.add_(array, alpha=weight)
            elif isinstance(weight, tuple) and transform and hasattr(total, "addcmul_"):
                total = total.addcmul_(transform.weight(weight), array)
            else:
                total = total + (transform.weight(weight) if transform else weight) * array
    return transform.back(total) if transform else total


def initial(start: Start | None, noise: Array, picture: Array | None, anchor: Array | None = None) -> Array:
    """What a plan of this start begins with; where there is an anchor, that is its picture. Raises ValueError for a picture too few or too
    many."""
    if start is not None and anchor is not None:
        if picture is not None:
            raise ValueError("the plan starts from the noised anchor: leave the picture out")
        picture = anchor
    if (start is None) != (picture is None):
        what = "noise: leave the picture out" if start is None else "a noised picture: give it one"
        raise ValueError(f"the plan starts from {what}")
    return noise if start is None else start.noised(picture, noise)


class _Draws(dict[int, Array]):
    """Fresh noises, drawn when a coefficient first asks for them and kept for the rows that follow."""

    def __init__(self, draw: Callable[[int], Array] | None, kept: Callable[[Array], Array]) -> None:
        super().__init__()
        self.draw, self.kept = draw, kept

    def __missing__(self, k: int) -> Array:
        if self.draw is None:
            raise ValueError(f"the plan adds fresh noise {k}, but no draw(k) was given")
        self[k] = self.kept(self.draw(k))
        return self[k]


def clamp(limit: float = 1.0) -> Callable[[Array], Array]:
    """Static thresholding: data predictions are clipped to [-limit, limit]."""
    return lambda prediction: prediction.clip(-limit, limit)


def dynamic_threshold(percentile: float = 0.995, limit: float = 1.0) -> Callable[[Array], Array]:
    """Dynamic thresholding (Saharia et al. 2022, arXiv:2205.11487, section 2.3).

    Each sample is clipped to its own percentile s of absolute values, if that exceeds ``limit``, and scaled by limit / s.
    """

    def threshold(prediction: Array) -> Array:
        library = sys.modules[type(prediction).__module__.partition(".")[0]]
        if library.__name__ in ("jax", "jaxlib"):
            library = sys.modules["jax.numpy"]
        flat = abs(_wide(prediction)).reshape(prediction.shape[0], -1)
        # Sample by sample: some releases of torch refuse more than 16 million numbers at once.
        s = library.stack([library.quantile(sample, percentile) for sample in flat]).clip(limit, None)
        s = s.reshape(-1, *[1] * (len(prediction.shape) - 1))
        return _cast(library.maximum(library.minimum(_wide(prediction), s), -s) * (limit / s), prediction.dtype)

    return threshold


def _wide(array: Array) -> Array:
    if array.dtype.itemsize > 2:
        return array
    return array.float() if hasattr(array, "float") else array.astype("float32")


def _cast(array: Array, dtype: Any) -> Array:
    if array.dtype == dtype:
        return array
    return array.to(dtype) if hasattr(array, "to") else array.astype(dtype)
