"""What can be asked of a search, and what is told before any work."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from solversearch.errors import UserError
from solversearch.models.base import Model, Variant
from solversearch.schedules import CosineVP, DiscreteVP
from solversearch.search.settings import Settings, check
from solversearch.spaces import SearchSpace
from tests.assets import coins

COINS = coins.factory()
PLAIN = Model("plain", lambda x, t: x, CosineVP(), "sample", (4,))
"""No conditions, no features."""


def settings(space: str = "default", **asked: Any) -> Settings:
    return Settings.of(SearchSpace.named(space), **{"nfe": 4, **asked})


def test_what_is_not_asked_for_is_what_the_space_says() -> None:
    own = settings("ays")
    assert (own.strategy, own.objective) == ("cmaes", "klub")
    assert (own.instant, own.fit, own.search, own.polish) == (False, False, True, False)
    assert settings("autodiffusion").integer and not own.integer
    asked = settings("ays", strategy="tpe", objective="endpoint", instant=True, fit=True, polish="coefficients", integer=True)
    assert (asked.strategy, asked.objective, asked.instant, asked.fit, asked.polish, asked.integer) == (
        "tpe", "endpoint", True, True, "coefficients", True,
    )  # fmt: skip
    assert settings("ays", strategy=None, fit=None, integer=None) == own


@pytest.mark.parametrize(
    ("space", "polish"), [("default", "all"), ("nonstationary", "coefficients"), ("times", "decisions"), ("ays", "all")]
)
def test_a_polish_that_is_asked_for_is_the_one_of_the_space(space: str, polish: str) -> None:
    assert settings(space, polish=True).polish == polish
    assert settings(space, polish=False).polish is False


@pytest.mark.parametrize(
    ("shape", "counts"),
    [((1, 8, 8), (1024, 256, 256)), ((3, 32, 32), (256, 64, 64)), ((4, 96, 96), (64, 32, 32)), ((16, 128, 128), (64, 16, 16))],
)
def test_counts_of_samples_suit_the_model(shape: tuple[int, ...], counts: tuple[int, ...]) -> None:
    model = Model("plain", lambda x, t: x, CosineVP(), "sample", shape)
    sized = settings().sized(model)
    assert (sized.samples, sized.fit_samples, sized.validation_samples) == counts and sized.batch_size >= 1
    assert sized.sized(COINS) == sized  # nothing is filled in twice
    asked = settings(samples=100, batch_size=3).sized(model)
    assert (asked.samples, asked.fit_samples, asked.batch_size) == (100, counts[1], 3)


def test_guidance_has_coefficients_of_its_own_where_coefficients_are_fitted() -> None:
    assert settings(guidance=3.0).splits and not settings().splits
    assert not settings("s3", guidance=3.0).splits and settings("s3", guidance=3.0, fit=True).splits
    assert not settings(guidance=3.0, split=False).splits and settings(split=True).splits


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"nfe": 0}, "nfe"), ({"nfe": 1001}, "nfe"), ({"guidance": float("inf")}, "guidance"), ({"seed": -1}, "seed"),
        ({"trials": -1}, "trials"), ({"evaluations": 0}, "evaluations"), ({"samples": 15}, "samples"), ({"batch_size": 0}, "batch_size"),
        ({"polish": "times"}, "polish"), ({"trails": 3}, "trails"), ({"fit_samples": 7}, "fit_samples"),
        ({"validation_samples": 0}, "validation_samples"), ({"start": 0.0}, "start"), ({"start": 1.1}, "start"),
    ],
)  # fmt: skip
def test_numbers_that_cannot_be(asked: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        settings(**asked)
    assert caught.value.errors()[0]["loc"][0] == field


@pytest.mark.parametrize(
    ("model", "asked", "message"),
    [
        (COINS, {"strategy": "tpee"}, r"unknown strategy 'tpee'; did you mean 'tpe'\?"),
        (COINS, {"objective": "endpont"}, r"unknown objective 'endpont'; did you mean 'endpoint'\?"),
        (COINS, {"objective": "endpoint, frechet"}, None),
        (COINS, {"objective": "endpoint, network_calls", "strategy": "s3"}, "'s3' minimises one objective, got 2; .* nsga2"),
        (COINS, {"objective": "endpoint, network_calls", "strategy": "nsga2"}, None),
        (PLAIN, {"objective": "frechet"}, "objective 'frechet' needs a feature network; model 'plain' has none"),
        (PLAIN, {"objective": "endpoint + 0.1*kid"}, "objective 'endpoint .* needs a feature network"),
        (PLAIN, {"guidance": 2.0}, "model 'plain' has no null condition, so only --guidance 1 is possible, got 2"),
        (PLAIN, {"split": True}, "no null condition to split the guidance from; leave out --split"),
        (PLAIN, {}, None),
        (COINS, {"split": True}, "guidance difference, and guidance 1 has none; leave it out, or ask for a --guidance"),
        (COINS, {"split": True, "guidance": 2.0}, None),
        (COINS, {"split": False}, None),
        (COINS, {"budget": 4.0}, "--budget: model .* has no cheaper evaluations than its own .*: no such variants"),
        (COINS, {"budget": 4.0, "guidance": 2.0, "split": False}, "ask for --nfe, or give it a --variant"),
        (COINS, {"budget": 4.0, "guidance": 2.0}, None),
        (COINS, {"budget": 4.0, "guidance": 2.0, "only_instant": True}, "--instant stops before cheaper evaluations are fitted"),
        (replace(COINS, variants={"half": Variant(COINS.network, 0.5)}), {"budget": 4.0}, None),
        (COINS, {"guidance": 2.0}, None),
        (COINS, {"strategy": "gs"}, None),
        (COINS, {"strategy": "gs", "guidance": 2.0}, None),
        (COINS, {"strategy": "gs", "trials": 5}, "strategy 'gs' learns by a recipe of its own and has no other stages; leave out --trials"),
        (COINS, {"strategy": "ld3", "fit": True, "polish": True}, "leave out --fit and --polish"),
        (COINS, {"strategy": "ld3", "only_instant": True}, "leave out --instant"),
        (COINS, {"strategy": "s4s", "split": True, "guidance": 2.0}, "leave out --split"),
        (COINS, {"strategy": "gits", "budget": 8.0, "guidance": 2.0}, "'gits' learns plans of .* own evaluations; ask for --nfe"),
        (COINS, {"strategy": "dmn", "integer": True}, "strategy 'dmn' learns times that are not whole; leave out --integer"),
        (COINS, {"strategy": "oss", "nfe": 64}, "'oss' picks the times among the teacher's 64; ask for fewer .*, got 64"),
        (COINS, {"strategy": "gits", "nfe": 63}, None),
        (COINS, {"strategy": "oss", "objective": "endpoint, network_calls"}, "'oss' minimises one objective, got 2"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(model: Model, asked: dict[str, Any], message: str | None) -> None:
    wanted = settings(**asked)
    if message is None:
        check(model, wanted)
        return
    with pytest.raises(UserError, match=message) as caught:
        check(model, wanted)
    assert "\n" not in str(caught.value)


def test_a_recipe_has_no_place_in_a_space_of_fresh_noise() -> None:
    with pytest.raises(UserError, match=r"strategy 'gs' .* space 'churn' adds fresh noise \(churn\); take another space"):
        check(COINS, settings("churn", strategy="gs", objective="endpoint"))


def test_whole_timesteps_run_out() -> None:
    few = Model("few", lambda x, t: x, DiscreteVP(np.full(10, 0.1)), "sample", (4,))
    check(few, settings(nfe=10, integer=True))
    check(few, settings(nfe=11))
    check(few, settings(nfe=5, integer=True, start=0.5))
    with pytest.raises(UserError, match="nfe 6 is more than the model's whole timesteps; ask for fewer"):
        check(few, settings(nfe=6, integer=True, start=0.5))
    with pytest.raises(UserError, match=r"--start 0\.05 leaves nothing of the model's times: ask for more, 1 is all"):
        check(few, settings(nfe=5, start=0.05))
    with pytest.raises(UserError, match="nfe 11 is more than the model's whole timesteps; ask for fewer"):
        check(few, settings(nfe=11, integer=True))


def test_guidance_zero_is_said_to_be_the_network_without_its_condition() -> None:
    with pytest.warns(UserWarning, match="guidance 0 is the network without its condition"):
        check(coins.factory(), Settings(nfe=3, guidance=0.0))


def test_a_search_is_what_is_asked_for_or_what_the_space_needs() -> None:
    assert settings().trials == 0 and not settings().searches and settings().straight
    assert settings(trials=3).searches and not settings(trials=3).straight
    assert settings(strategy="tpe").trials == settings(objective="endpoint, network_calls").trials == settings("s3").trials == 60
    assert not settings(strategy="tpe", search=False).searches and not settings("times", trials=0).straight


def test_rare_samples_need_more_of_them_to_validate() -> None:
    counts = [settings(objective=name).sized(coins.factory()).validation_samples for name in ("endpoint", "mean", "tail")]
    assert counts == [256, 1024, 1024]
    assert settings(objective="mean", validation_samples=32).sized(coins.factory()).validation_samples == 32
