"""What an evaluation may be, and what it costs: which network it calls, and whether it computes a guidance difference of its own."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, get_args

import numpy as np

from solversearch.errors import UserError
from solversearch.models.base import Model
from solversearch.plan import PlanVariant
from solversearch.runtime import Tableau
from solversearch.spaces.sections import Cheaper

EXACT = 1e-9
"""Prices are sums of decimal numbers."""


class Kind(NamedTuple):
    """variant is the network, empty for the model's own; one that reuses has no guidance difference, at half the price."""

    variant: str
    reuses: bool
    price: float


Pattern = tuple[Kind, ...]
"""Of each evaluation, the first first."""


def kinds(model: Model, guidance: float, splits: bool, cheaper: Sequence[Cheaper] = get_args(Cheaper)) -> list[Kind]:
    """All that there are and the space allows, dearest first. A price is in calls of the model's own network."""
    calls = 2 if guidance != 1 else 1
    known = {name: each for name, each in sorted(model.variants.items()) if ("blocks" if each.skips else "networks") in cheaper}
    networks = [("", 1.0), *((name, variant.cost) for name, variant in known.items())]
    found = [Kind(name, False, calls * cost) for name, cost in networks]
    if guidance != 1 and splits and "reuse" in cheaper:
        found += [Kind(name, True, cost) for name, cost in networks]
    return sorted(found, key=lambda kind: (-kind.price, kind))


def affordable(budget: float, guidance: float) -> int:
    """Evaluations of the model's own network. Raises `UserError` where there is none."""
    calls = 2 if guidance != 1 else 1
    if budget < calls - EXACT:
        raise UserError(f"--budget {budget:g} has no room for an evaluation, which costs {calls:g}; ask for more")
    return int((budget + EXACT) / calls)


def fits(known: Sequence[Kind], nfe: int, budget: float) -> bool:
    """Whether so many evaluations can be had for the budget, if they are cheap enough."""
    return sum(kind.price for kind in _cheapest(known, nfe)) <= budget + EXACT


def drawn(rng: np.random.Generator, count: int, known: Sequence[Kind], nfe: int, budget: float) -> list[Pattern]:
    """Patterns at random that spend the budget: evaluations are exchanged for dearer kinds until none can be.

    The first evaluation computes its guidance difference, which all others may use.
    """
    found = []
    for _ in range(count):
        pattern = _cheapest(known, nfe)
        left = budget + EXACT - sum(kind.price for kind in pattern)
        while dearer := [
            (i, kind) for i, own in enumerate(pattern) for kind in known
            if own.price < kind.price <= own.price + left and not (i == 0 and kind.reuses)
        ]:  # fmt: skip
            i, kind = dearer[int(rng.integers(len(dearer)))]
            left -= kind.price - pattern[i].price
            pattern[i] = kind
        found.append(tuple(pattern))
    return found


def _cheapest(known: Sequence[Kind], nfe: int) -> list[Kind]:
    computing = [kind for kind in known if not kind.reuses]
    return [computing[-1], *[known[-1]] * (nfe - 1)]


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
    return {name: PlanVariant(cost=each.cost, digest=each.digest, skips=each.skips) for name, each in called.items()}
