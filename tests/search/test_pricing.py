"""What evaluations may be at a price."""

from dataclasses import replace

import numpy as np
import pytest

from solversearch.errors import UserError
from solversearch.grids import grid
from solversearch.models.base import Variant
from solversearch.overriding import Cached
from solversearch.plan import PlanVariant
from solversearch.search.pricing import EvaluationKind, affordable, counts, declared, drawn, kinds, patterned, too_many
from solversearch.search.settings import Settings, check
from solversearch.solvers import get
from solversearch.spaces import SearchSpace
from tests.assets import coins

PLAIN = coins.factory()
MODEL = replace(
    PLAIN, variants={"small": Variant(PLAIN.network, 0.25, "weights"), "skip1": Variant(PLAIN.network, 0.7, skips=("block.1",))}
)
OWN, SKIPS, SMALL = EvaluationKind("", False, 1.0), EvaluationKind("skip1", False, 0.7), EvaluationKind("small", False, 0.25)


def test_what_there_is_is_told_dearest_first() -> None:
    assert kinds(MODEL, 1.0, False) == (OWN, SKIPS, SMALL) and kinds(PLAIN, 1.0, False) == (OWN,)
    guided = kinds(MODEL, 4.0, True)
    assert [(kind.variant, kind.reuses, kind.price) for kind in guided] == [
        ("", False, 2.0), ("skip1", False, 1.4), ("", True, 1.0), ("skip1", True, 0.7), ("small", False, 0.5), ("small", True, 0.25),
    ]  # fmt: skip
    assert not any(kind.reuses for kind in kinds(MODEL, 4.0, False))
    for cheaper, names in ((["blocks"], ["", "skip1"]), (["networks"], ["", "small"]), (["reuse"], ["", ""]), ([], [""])):
        assert [kind.variant for kind in kinds(MODEL, 4.0, True, cheaper)] == names  # type: ignore[arg-type]


@pytest.mark.parametrize(("budget", "guidance", "nfe"), [(4.0, 1.0, 4), (3.9, 1.0, 3), (10.0, 4.0, 5), (9.9, 4.0, 4)])
def test_how_many_of_its_own_are_afforded(budget: float, guidance: float, nfe: int) -> None:
    assert affordable(budget, guidance) == nfe


def test_too_little_is_told() -> None:
    with pytest.raises(UserError, match=r"--budget 1\.5 has no room for an evaluation, which costs 2"):
        affordable(1.5, 4.0)


def test_counts_spend_the_budget() -> None:
    known = (OWN, SMALL)
    assert counts(known, 4, 4.0) == []  # four of its own are what others are compared with
    assert counts(known, 6, 4.0) == [(OWN,) * 3 + (SMALL,) * 3] and counts(known, 7, 4.0) == [(OWN,) * 3 + (SMALL,) * 4]
    assert counts(known, 17, 4.0) == []
    for some in counts((OWN, SKIPS, SMALL), 5, 4.0):
        left = 4.0 - sum(kind.price for kind in some)
        assert left + 1e-9 >= 0 and all(left + 1e-9 < 0.3 for kind in some if kind == SKIPS)
    reusing = EvaluationKind("", True, 1.0)
    guiding = EvaluationKind("", False, 2.0)
    assert counts((guiding, reusing), 4, 6.0) == [(guiding, guiding, reusing, reusing)]
    assert counts((guiding, reusing), 6, 6.0) == []  # somebody has to compute the difference


def test_too_many_are_not_gone_through() -> None:
    eight = kinds(replace(MODEL, variants={f"skip{k}": Variant(PLAIN.network, k / 4, skips=("block",)) for k in (1, 2, 3)}), 4.0, True)
    assert len(eight) == 8 and not too_many(eight, 15) and counts(eight, 40, 50.0) == []
    with pytest.raises(UserError, match=r"--budget 60 has room for 31 evaluations of 6 kinds, too many patterns to go through"):
        check(MODEL, Settings.of(SearchSpace(cheaper=("blocks", "networks", "reuse")), nfe=30, guidance=4.0, budget=60.0))
    check(MODEL, Settings.of(SearchSpace(), nfe=8, guidance=4.0, budget=16.0))


def test_patterns_are_drawn_alike_and_begin_with_one_that_computes() -> None:
    guiding, reusing = EvaluationKind("", False, 2.0), EvaluationKind("", True, 1.0)
    which = counts((guiding, reusing), 5, 6.0) + counts((guiding, reusing), 5, 8.0)
    found = list(drawn(np.random.default_rng(0), which, 200))
    assert found == list(drawn(np.random.default_rng(0), which, 200)) and len(set(found)) > 4
    assert all(pattern[0] == guiding and tuple(sorted(pattern, key=lambda kind: -kind.price)) in which for pattern in found)


def test_features_come_after_one_that_computes_them() -> None:
    model = replace(MODEL, variants={"features1": Variant(PLAIN.network, 0.4, skips=("block.1",), reuses=(Cached("block.1"),))})
    own, alone, stale, stale_alone = kinds(model, 4.0, True)
    assert (own, stale) == (EvaluationKind("", False, 2.0), EvaluationKind("features1", False, 0.8, stale=True))
    assert kinds(model, 4.0, True, ["features"]) == (own, stale) and kinds(model, 4.0, True, ["blocks", "reuse"]) == (own, alone)
    which = [some for nfe in (3, 4, 5) for some in counts((own, stale, alone, stale_alone), nfe, 4.0)]
    assert which and all(own in some for some in which if stale in some or stale_alone in some)
    assert all(pattern[0] == own for pattern in drawn(np.random.default_rng(0), which, 100))
    table = patterned(get("unip_2").tableau(MODEL.schedule, grid("logsnr", MODEL.schedule, 2)).guided(4.0), (own, stale))
    assert declared(model, table) == {"features1": PlanVariant(cost=0.4, skips=("block.1",), reuses_features=True)}


def test_a_table_takes_a_pattern_and_its_plan_says_which_networks() -> None:
    table = get("unip_2").tableau(MODEL.schedule, grid("logsnr", MODEL.schedule, 3)).guided(4.0)
    changed = patterned(table, (EvaluationKind("", False, 2.0), EvaluationKind("small", True, 0.25), EvaluationKind("skip1", False, 1.4)))
    assert [(node.variant, node.guidance) for node in changed.nodes] == [("", 4.0), ("small", 1.0), ("skip1", 4.0)]
    assert changed.rows == table.rows and [node.t for node in changed.nodes] == [node.t for node in table.nodes]
    assert declared(MODEL, changed) == {
        "skip1": PlanVariant(cost=0.7, skips=("block.1",)), "small": PlanVariant(cost=0.25, digest="weights"),
    }  # fmt: skip
    assert declared(MODEL, table) == {}
