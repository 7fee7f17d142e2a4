"""The tableau: any linear solver, unrolled, as one lower-triangular table; and `trace`, which reads it off a rule.

A rule is a solver in the notation of its paper, written on vectors that know only ``+``, ``-`` and ``*`` with a number.
On basis vectors it is traced into a `Tableau`; on tensors it samples. The analogue of a Butcher tableau.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from solversearch.components import Components
from solversearch.parametrization import DATA, Parametrization
from solversearch.runtime import Node, Row, Tableau
from solversearch.schedules import NoiseSchedule

__all__ = ["Linear", "Problem", "Rule", "Tableau", "Vector", "trace"]

Vector = Any  # a Linear when traced, an array when sampled


@dataclass(frozen=True)
class Problem:
    """What a rule works with: the data prediction, fresh noise, the schedule, for nodes between the given ones, and what is known of the
    model, for rules that interpolate what suits it."""

    schedule: NoiseSchedule
    denoise: Callable[[Vector, Node], Vector]
    noise: Callable[[], Vector]
    parametrization: Parametrization = DATA


Rule = Callable[[Problem, Vector, Sequence[Node]], Vector]
"""rule(problem, x, nodes) -> result: from x at nodes[0] to nodes[-1], evaluating problem.denoise(x, node) on the way."""


class Linear:
    """A linear combination of named basis vectors: what a rule computes with while it is traced."""

    __slots__ = ("terms",)

    def __init__(self, terms: dict[tuple[str, int], float]) -> None:
        self.terms = terms

    def __add__(self, other: "Linear") -> "Linear":
        terms = dict(self.terms)
        for key, value in other.terms.items():
            terms[key] = terms.get(key, 0.0) + value
        return Linear(terms)

    def __mul__(self, factor: float) -> "Linear":
        factor = float(factor)
        return Linear({key: value * factor for key, value in self.terms.items()})

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> "Linear":
        return self * (1.0 / divisor)

    def __neg__(self) -> "Linear":
        return self * -1.0

    def __sub__(self, other: "Linear") -> "Linear":
        terms = dict(self.terms)
        for key, value in other.terms.items():
            terms[key] = terms.get(key, 0.0) - value
        return Linear(terms)

    def row(self) -> Row:
        def weights(kind: str) -> tuple[float, ...]:
            size = 1 + max((j for k, j in self.terms if k == kind), default=-1)
            return tuple(self.terms.get((kind, j), 0.0) for j in range(size))

        return Row(self.terms.get(("x", 0), 0.0), weights("d"), (), weights("z"))


@dataclass
class _Tracer:
    nodes: list[Node] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    noises: int = 0

    def denoise(self, x: Linear, node: Node) -> Linear:
        self.nodes.append(node)
        self.rows.append(x.row())
        return Linear({("d", len(self.nodes) - 1): 1.0})

    def noise(self) -> Linear:
        self.noises += 1
        return Linear({("z", self.noises - 1): 1.0})


def trace(rule: Rule, schedule: NoiseSchedule, nodes: Sequence[Node], parametrization: Parametrization = DATA) -> Tableau:
    """The table of a rule on a grid (n + 1 nodes, the last usually `CLEAN`), from unit noise to the result."""
    tracer = _Tracer()
    start = Linear({("x", 0): schedule.initial_scale(nodes[0].t)})
    result = rule(Problem(schedule, tracer.denoise, tracer.noise, parametrization), start, nodes)
    return Tableau(tuple(tracer.nodes), (*tracer.rows, result.row()))


def by_channel(tables: Sequence[Tableau]) -> Tableau:
    """Deterministic tables of one rule on the same nodes, one for each channel of a picture, as one."""
    rows = (
        Row(tuple(row.x for row in each), tuple(zip(*(row.d for row in each), strict=True)))
        for each in zip(*(t.rows for t in tables), strict=True)
    )
    own = Components(channels=tuple(tuple(float(i == j) for j in range(len(tables))) for i in range(len(tables))))
    return Tableau(tables[0].nodes, tuple(rows), components=own)
