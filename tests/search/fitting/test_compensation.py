"""Fits of compensation ratios."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from solversearch import models
from solversearch.grids import grid
from solversearch.judging.objectives.endpoint import endpoint_mse, tempered
from solversearch.models.base import Model
from solversearch.runtime import Node
from solversearch.sampling import sample
from solversearch.search.fitting.compensation import SAMPLES, corrected_table, greedy_ratios, table
from solversearch.solvers import get
from solversearch.teacher import Teacher, teach

GUIDANCE = 4.0


def nodes_of(model: Model, name: str = "logsnr", nfe: int = 5) -> list[Node]:
    return [replace(node, guidance=GUIDANCE) for node in grid(name, model.schedule, nfe)]


def error(model: Model, nodes: Sequence[Node], ratios: Sequence[float], teacher: Teacher, scale: float | None = None) -> float:
    samples = sample(model, table(model.schedule, nodes, ratios), teacher)
    return float(tempered(endpoint_mse(samples, teacher.endpoint), scale).mean())


@pytest.fixture(scope="module", params=["digits", "mixture"])
def model(request: pytest.FixtureRequest) -> Model:
    return models.load(request.param)


@pytest.fixture(scope="module")
def guided(model: Model) -> Teacher:
    return teach(model, "fit", 64, GUIDANCE)


def test_ratios_of_one_are_unipc(model: Model) -> None:
    nodes = nodes_of(model)
    assert table(model.schedule, nodes, [1.0] * 5).rows == get("unipc_3").tableau(model.schedule, nodes).rows


def test_the_corrected_state_lies_nearer_to_the_teacher_than_the_predicted_one(model: Model, guided: Teacher) -> None:
    nodes, few = nodes_of(model, "quadratic", 8), guided.first(SAMPLES)
    whole = table(model.schedule, nodes, [1.0] * 8)
    for i in (3, 5):
        seen = corrected_table(model.schedule, nodes, [1.0] * i)
        assert seen.nodes == tuple(nodes[: i + 1])
        predicted = replace(seen, nodes=whole.nodes[:i], rows=whole.rows[: i + 1])
        first, second = (float(endpoint_mse(sample(model, each, few), few.state(nodes[i])).mean()) for each in (seen, predicted))
        assert first < second


def test_the_greedy_fit_lowers_the_error(model: Model, guided: Teacher) -> None:
    nodes = nodes_of(model)
    held_out = teach(model, "held_out", 192, GUIDANCE, trajectory=False)
    greedy = greedy_ratios(model, nodes, guided.first(SAMPLES))
    assert greedy[:2] == (1.0, 1.0) and len(greedy) == 5
    assert greedy == greedy_ratios(model, nodes, guided.first(SAMPLES))
    assert error(model, nodes, greedy, held_out) < 0.5 * error(model, nodes, [1.0] * 5, held_out)


def test_two_steps_have_no_ratio_to_fit(model: Model, guided: Teacher) -> None:
    assert greedy_ratios(model, nodes_of(model, nfe=2), guided.first(4)) == (1.0, 1.0)
