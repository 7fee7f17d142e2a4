"""`solversearch space show`."""

import json
import re

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from solversearch import models
from solversearch.grids import grid
from solversearch.spaces import Domain, SearchSpace, presets
from tests.cli.calling import COINS, bad, good


@pytest.mark.parametrize("name", presets())
def test_every_preset_is_shown(name: str) -> None:
    space = SearchSpace.named(name)
    shown = good("space", "show", name, "--nfe", 5)
    assert shown.startswith(f"{name}: {space.description}\n5 evaluations: ")
    assert f"Strategy {space.search.strategy}, objective {space.search.objective}, stages: " in shown
    for decision in space.decided():
        assert {"timesteps": "time"}.get(decision, decision) in shown
    steps = shown.partition("A random candidate")[2]
    times = [float(cells[2]) for line in steps.splitlines() if re.match(r"│ \d", line) and (cells := line.split("│"))]
    assert len(times) == 5 and times == sorted(times, reverse=True)
    assert good("space", "show", name, "--nfe", 5) == shown
    assert good("space", "show", name, "--nfe", 1)


def test_a_space_is_shown_as_data() -> None:
    shown = json.loads(good("space", "show", "s3", "--nfe", 3, "--json"))
    schedule, space = models.frame("digits")[0], SearchSpace.named("s3")
    domain = Domain.of(space, schedule, 3, 1.0, [grid(name, schedule, 3)[:-1] for name in ("linspace", "quadratic", "logsnr")])
    assert (shown["name"], shown["nfe"], shown["combinations"]) == ("s3", 3, space.size(3))
    assert shown["parameters"].keys() == domain.distributions.keys()
    for name, values in shown["parameters"].items():
        known = domain.distributions[name]
        if isinstance(known, CategoricalDistribution):
            assert values == list(known.choices)
        else:
            assert isinstance(known, FloatDistribution) and values["high"] == known.high
    times = shown["candidate"]["times"]
    assert len(times) == 3 and times == sorted(times, reverse=True) and shown["candidate"]["solver"]


def test_the_candidate_is_that_of_the_seed_and_the_model() -> None:
    shown = {good("space", "show", "s3", "--nfe", 3, "--seed", seed, "--model", model) for seed in (0, 1)
             for model in ("digits", f"{COINS}:factory")}  # fmt: skip
    assert len(shown) == 4


def test_guidance_shows_what_acts_under_it() -> None:
    from pathlib import Path

    Path("mine.yaml").write_text("guidance: {low: 0.5, high: 1.5, per: step}\nguidance_interval: {above: [0.0, 0.5]}")
    assert "guidance_above" not in good("space", "show", "mine.yaml")
    shown = good("space", "show", "mine.yaml", "--guidance", 4)
    assert shown.startswith("mine: no description") and "guidance_above" in shown and "0.5 to 1.5" in shown


def test_bad_requests() -> None:
    assert bad("space", "show", "fall").startswith("unknown search space 'fall'; did you mean 'full'?")
    assert "--nfe" in bad("space", "show", "full", "--nfe", 0)
    assert "unknown model" in bad("space", "show", "full", "--model", "digit")
    assert "cannot read the search space" in bad("space", "show", "nowhere.yaml")
