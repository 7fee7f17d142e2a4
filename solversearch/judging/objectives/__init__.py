"""The registry of objectives: `OBJECTIVES` by name, one of each file of `FILES` (see ADDING.md).

`parse` reads a weighted sum of them, `parse_many` a list for a Pareto set.
"""

import re
from functools import reduce
from importlib import import_module
from math import inf

from solversearch.errors import UserError, nearest
from solversearch.judging.objectives.base import Objective, Outcome

__all__ = ["OBJECTIVES", "Objective", "Outcome", "describe_objectives", "parse", "parse_many"]

FILES = ("endpoint", "mean", "tail", "feature", "frechet", "fid", "kid", "klub", "trajectory", "network_calls")
OBJECTIVES: dict[str, Objective] = {each.name: each for each in (import_module(f"{__name__}.{file}").OBJECTIVE for file in FILES)}

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_TERM = re.compile(rf"\s*(?:({_NUMBER})\s*\*\s*)?([A-Za-z_]\w*)\s*")


def parse(text: str) -> Objective:
    """The objective of a text: a name, or a sum such as "endpoint + 0.1*frechet". Raises `UserError`."""
    terms: list[tuple[float, Objective]] = []
    names: list[str] = []
    position = 0
    while position == 0 or position < len(text):
        position += position > 0  # the plus
        match = _TERM.match(text, position)
        if match is None or text[match.end() : match.end() + 1] not in ("", "+"):
            raise UserError(f"cannot read the objective {text!r}: write a name, or a sum like 'endpoint + 0.1*frechet'")
        number, name = match.groups()
        if name not in OBJECTIVES:
            raise UserError(nearest(name, list(OBJECTIVES), "objective"))
        weight = float(number or 1)
        if not 0 < weight < inf:
            raise UserError(f"the weight of {name!r} must be positive and finite, got {number} in {text!r}")
        terms.append((weight, OBJECTIVES[name]))
        names.append(f"{number}*{name}" if number else name)
        position = match.end()
    if names == [terms[0][1].name]:
        return terms[0][1]
    return _weighted_sum(" + ".join(names), terms)


def parse_many(text: str) -> tuple[Objective, ...]:
    """The objectives of a list such as "endpoint, network_calls". Raises `UserError`."""
    objectives = tuple(map(parse, text.split(",")))
    for i, objective in enumerate(objectives):
        if objective.name in [earlier.name for earlier in objectives[:i]]:
            raise UserError(f"objective {objective.name!r} is named twice in {text!r}; name it once")
    return objectives


def describe_objectives() -> list[dict[str, str]]:
    """One row an objective, for people."""
    return [
        {"name": o.name, "direction": o.direction, "needs": ", ".join(sorted(o.needs)) or "nothing", "cost": o.cost, "source": o.source}
        for o in OBJECTIVES.values()
    ]


def _weighted_sum(name: str, terms: list[tuple[float, Objective]]) -> Objective:
    parts = dict.fromkeys(objective for _, objective in terms)
    return Objective(
        name,
        lambda outcome: sum(weight * objective.value(outcome) for weight, objective in terms),
        cost="; ".join(f"{part.name}: {part.cost}" for part in parts),
        source="; ".join(f"{part.name}: {part.source}" for part in parts),
        needs=reduce(frozenset.union, (part.needs for part in parts)),
        bound=max(part.bound for part in parts),
    )
