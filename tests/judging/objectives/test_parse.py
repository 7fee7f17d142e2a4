"""Objectives as text."""

import pytest

from solversearch.errors import UserError
from solversearch.judging.objectives import OBJECTIVES, parse, parse_many
from solversearch.models.base import Model
from tests.judging.objectives.conftest import Ran


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_a_name_is_the_registered_objective(name: str) -> None:
    assert parse(f" {name} ") is OBJECTIVES[name]


def test_a_sum_is_weighted_and_unites_what_is_needed(ran: Ran) -> None:
    outcome, total = ran("ddim", 3), parse("endpoint+ .5*frechet +1e+1*trajectory")
    endpoint, frechet, trajectory = (OBJECTIVES[name].value(outcome) for name in ("endpoint", "frechet", "trajectory"))
    assert total.name == "endpoint + .5*frechet + 1e+1*trajectory"
    assert total.needs == {"features", "states", "trajectory"} and total.direction == "minimize"
    assert total.value(outcome) == pytest.approx(endpoint + 0.5 * frechet + 10 * trajectory, rel=1e-12)
    assert all(OBJECTIVES[name].cost in total.cost for name in ("endpoint", "frechet", "trajectory"))
    assert parse("2*endpoint").value(outcome) == pytest.approx(2 * endpoint, rel=1e-12)


def test_a_sum_checks_its_parts(featureless: Model, coins: Model) -> None:
    parse("endpoint + kid").check(coins)
    with pytest.raises(UserError, match="needs a feature network"):
        parse("endpoint + kid").check(featureless)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("frechett", "unknown objective 'frechett'; did you mean 'frechet'"),
        ("endpoint + 0.1*fidd", "unknown objective 'fidd'; did you mean 'fid'"),
        ("0*endpoint", "the weight of 'endpoint' must be positive and finite, got 0"),
        ("endpoint + -1*kid", "the weight of 'kid' must be positive"),
        ("1e999*kid", "must be positive and finite, got 1e999"),
        ("nan*kid", "cannot read the objective"),
        ("", "cannot read the objective"),
        ("endpoint +", "cannot read the objective"),
        ("+ endpoint", "cannot read the objective"),
        ("endpoint - kid", "cannot read the objective"),
        ("endpoint kid", "cannot read the objective"),
        ("0.1 frechet", "cannot read the objective"),
        ("endpoint*0.1", "cannot read the objective"),
        ("__import__('os')", "cannot read the objective|unknown objective"),
        ("endpoint\n+\nkid\n!", "cannot read the objective"),
    ],
)
def test_mistakes_are_one_line(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


def test_a_list_is_a_pareto_set() -> None:
    assert parse_many("endpoint, network_calls") == (OBJECTIVES["endpoint"], OBJECTIVES["network_calls"])
    assert parse_many("klub") == (OBJECTIVES["klub"],)
    assert [o.name for o in parse_many("endpoint + 0.1*kid,network_calls")] == ["endpoint + 0.1*kid", "network_calls"]


@pytest.mark.parametrize("text", ["endpoint, endpoint", "endpoint + kid, endpoint+kid"])
def test_an_objective_is_listed_once(text: str) -> None:
    with pytest.raises(UserError, match="is named twice"):
        parse_many(text)


@pytest.mark.parametrize("text", ["", " , ", "endpoint,", ", endpoint"])
def test_a_list_has_no_gaps(text: str) -> None:
    with pytest.raises(UserError, match="cannot read the objective"):
        parse_many(text)
