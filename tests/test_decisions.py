"""What every decision of a search space promises: it is described, it has an effect, and has none where it says so."""

import re
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from solversearch.errors import UserError
from solversearch.grids import grid
from solversearch.runtime import Tableau
from solversearch.schedules import DiscreteVP
from solversearch.solvers.mixed import FAMILIES, Decision, mixed
from solversearch.spaces import SearchSpace, presets
from solversearch.spaces.candidate import Candidate, canonical
from solversearch.spaces.grammar import KINDS, Kind
from solversearch.tableau import trace
from tests.contracts import lacks, one_line

SCHEDULE, NFE = DiscreteVP.named(), 4
NODES = grid("karras", SCHEDULE, NFE)
STEPS = [field.name for field in fields(Decision)]
"""Decisions of a step."""
BESIDE = [
    Decision(order=3, corrector=True),
    Decision(order=3, prediction="noise"),
    Decision("deis_rhoab", 1, corrector=True),
    Decision(history=1.0),
]
"""Steps at which a decision may have an effect."""
ROWS = dict(re.findall(r"^\| `(\w+)` \|(.*)$", (presets()["default"].parent / "README.md").read_text(encoding="utf-8"), re.MULTILINE))


def others(key: str, kind: Kind) -> Sequence[Any]:
    """Other values than the default."""
    if isinstance(kind.default, bool):
        return [not kind.default]
    low, high = kind.bounds
    numbers: list[float] = [] if low == -float("inf") else [low + (high - low) / 4, high]
    values = [*kind.names, *((max(low, round(each)) for each in numbers) if kind.whole else numbers)]
    return [value for value in values if value != kind.default]


def table(decisions: Sequence[Decision]) -> Tableau:
    return trace(mixed(decisions), SCHEDULE, NODES)


def with_one(decision: Decision, step: int, **changed: Any) -> list[Decision]:
    return [replace(decision, **changed) if i == step else decision for i in range(NFE)]


@pytest.mark.parametrize("key", KINDS)
def test_a_decision_is_described(key: str) -> None:
    kind, candidate = KINDS[key], [field.name for field in fields(Candidate)]
    default = {field.name: field.default for field in fields(Decision)}.get(key, kind.default)
    lacks(f"decision {key}", [
        (key not in ROWS, "a row under Decisions in search_spaces/README.md"),
        (key not in (*STEPS, *candidate, "lower_final_order"), "a field of `Decision` in solvers/mixed.py, or of `Candidate`"),
        (key in STEPS and key not in (Decision.__doc__ or ""), "a line in the docstring of `Decision`"),
        (default != kind.default, f"one default: {default!r} in `Decision`, {kind.default!r} in KINDS"),
        (kind.parsed(kind.default) != kind.default, "a default that is one of its values"),
        (kind.plan_only and (kind.after > 0 or not kind.last), "sense: what is chosen once a plan has no `after` nor `last`"),
    ])  # fmt: skip
    assert getattr(SearchSpace.model_validate({"name": "other"}), key).choose == (kind.default,)


@pytest.mark.parametrize("key", STEPS)
def test_a_decision_has_an_effect_and_none_where_it_says_so(key: str) -> None:
    lacks("KINDS of spaces/grammar.py", [(key not in KINDS, f"a line for {key!r}, a field of `Decision`")])
    kind = KINDS[key]
    found = dict.fromkeys(range(NFE), False)
    for decision in BESIDE:
        for value in others(key, kind):
            if key == "solver" and FAMILIES[value][0] < decision.order:
                continue
            for step in range(NFE):
                changed = with_one(decision, step, **{key: value})
                found[step] |= table(changed) != table(with_one(decision, step))
                lacks(f"decision {key}", [
                    (table(canonical(changed, False)) != table(changed), f"the same table in `canonical`, with {value!r} at step {step}"),
                ])  # fmt: skip
    acts = [kind.after <= step and (kind.last or step < NFE - 1) for step in range(NFE)]
    lacks(f"decision {key}", [
        (not any(found.values()), "an effect on the table at any step"),
        *((found[i] and not acts[i], f"truth: it has an effect at step {i}; see `after` and `last` in KINDS") for i in range(NFE)),
        *((acts[i] and not found[i] and 0 < i < NFE - 1, f"truth: it has none at step {i}; see `after` in KINDS") for i in range(NFE)),
    ])  # fmt: skip


def test_a_rate_of_no_history_is_none() -> None:
    assert canonical([Decision(history_rate=0.3)] * NFE, False) == canonical([Decision()] * NFE, False)
    assert canonical([Decision(history=1.0, history_rate=0.3)] * NFE, False)[3].history_rate == 0.3


@pytest.mark.parametrize("key", KINDS)
def test_a_value_that_cannot_be_is_one_line(key: str, tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(f"name: mine\n{key}: nonsense\n")
    with pytest.raises(UserError) as caught:
        SearchSpace.read(path)
    told = str(caught.value)
    lacks(f"decision {key}", [(not one_line(told) or f"space.yaml:2: {key}" not in told, f"one line with file, line and key in {told!r}")])
