"""What an evaluation may be, and what it costs: which network it calls, and whether it computes a guidance difference of its own."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import combinations_with_replacement
from math import comb, inf
from typing import NamedTuple, get_args

import numpy as np

from solversearch.errors import UserError
from solversearch.models.base import Model, Variant
from solversearch.plan import PlanVariant
from solversearch.runtime import Tableau
from solversearch.spaces.sections import Cheaper

EXACT = 1e-9
"""Prices are sums of decimal numbers."""
MOST = 200_000
"""Combinations of kinds that are gone through in seconds: of eight kinds those of 15 evaluations, of three those of 600."""


class EvaluationKind(NamedTuple):
    """variant is the network, empty for the model's own; one that reuses has no guidance difference, at half the price. One that is stale
    has features of an earlier evaluation of the model's own network."""

    variant: str
    reuses: bool
    price: float
    stale: bool = False


Pattern = tuple[EvaluationKind, ...]
"""Of each evaluation, the first first."""


def kinds(model: Model, guidance: float, splits: bool, cheaper: Sequence[Cheaper] = get_args(Cheaper)) -> tuple[EvaluationKind, ...]:
    """All that there are and the space allows, dearest first. A price is in calls of the model's own network."""
    calls = 2 if guidance != 1 else 1
    known = {name: each for name, each in sorted(model.variants.items()) if _kind(each) in cheaper}
    networks = [("", 1.0, False), *((name, variant.cost, bool(variant.reuses)) for name, variant in known.items())]
    found = [EvaluationKind(name, False, calls * cost, stale) for name, cost, stale in networks]
    if guidance != 1 and splits and "reuse" in cheaper:
        found += [EvaluationKind(name, True, cost, stale) for name, cost, stale in networks]
    return tuple(sorted(found, key=lambda kind: (-kind.price, kind)))


def _kind(variant: Variant) -> Cheaper:
    return "features" if variant.reuses else "blocks" if variant.skips else "networks"


def affordable(budget: float, guidance: float) -> int:
    """Evaluations of the model's own network. Raises `UserError` where there is none."""
    calls = 2 if guidance != 1 else 1
    if budget < calls - EXACT:
        raise UserError(f"--budget {budget:g} has no room for an evaluation, which costs {calls:g}; ask for more")
    return int((budget + EXACT) / calls)


def too_many(known: Sequence[EvaluationKind], nfe: int) -> bool:
    return comb(nfe + len(known) - 1, nfe) > MOST


@lru_cache(64)
def counts(known: tuple[EvaluationKind, ...], nfe: int, budget: float) -> list[Pattern]:
    """Which kinds nfe evaluations may be of, in no order: within the budget, and such that none can be exchanged for the next dearer one.

    Not all of the model's own network, and one that computes what others reuse. None where there would be more than `MOST` to go through.
    """
    whole = max((kind for kind in known if not kind.variant), key=lambda kind: kind.price)
    found: list[Pattern] = []
    for some in () if too_many(known, nfe) else combinations_with_replacement(known, nfe):
        left = budget + EXACT - sum(kind.price for kind in some)
        if left < 0:
            continue
        there = set(some)
        steps = [kind.price - other.price for other in there for kind in known if kind.price > other.price + EXACT]
        fed = whole in there if any(kind.stale for kind in there) else not all(kind.reuses for kind in there)
        if min(steps, default=inf) > left and fed and any(kind.price < whole.price for kind in there):
            found.append(some)
    return found


def drawn(rng: np.random.Generator, which: Sequence[Pattern], count: int) -> Iterator[Pattern]:
    """Patterns at random. The first evaluation computes what others reuse: its guidance difference, or features, too."""
    for k in rng.integers(len(which), size=count):
        some = which[k]
        order = rng.permutation(len(some)).tolist()
        stale = any(kind.stale for kind in some)
        first = next(k for k, i in enumerate(order) if not some[i].reuses and not (stale and some[i].variant))
        order[0], order[first] = order[first], order[0]
        yield tuple(some[i] for i in order)


def patterned(table: Tableau, pattern: Pattern) -> Tableau:
    """The table whose evaluations are of those kinds."""
    nodes = [
        replace(node, guidance=1.0 if kind.reuses else node.guidance, variant=kind.variant)
        for node, kind in zip(table.nodes, pattern, strict=True)
    ]
    return replace(table, nodes=tuple(nodes))


def declared(model: Model, table: Tableau) -> dict[str, PlanVariant]:
    """The variants that a table calls, as its plan has them."""
    called = {name: model.variants[name] for name in sorted({node.variant for node in table.nodes} - {""})}
    return {
        name: PlanVariant(cost=each.cost, digest=each.digest, skips=each.skips, reuses_features=bool(each.reuses))
        for name, each in called.items()
    }
