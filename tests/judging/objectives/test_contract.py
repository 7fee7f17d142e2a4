"""What every registered objective promises."""

from dataclasses import replace
from types import ModuleType

import pytest
import torch

from solversearch.errors import UserError
from solversearch.judging import objectives
from solversearch.judging.objectives import OBJECTIVES, Objective, Outcome, describe_objectives, parse
from solversearch.models.base import Model, NotFinite
from solversearch.teacher import Teacher, teach
from tests.contracts import docstring_lacks, entries, files_are_registered, lacks, one_line
from tests.judging.objectives.conftest import Ran

TO_THE_TEACHER = ["endpoint", "feature", "frechet", "kid", "trajectory"]


@pytest.fixture(scope="module", params=list(OBJECTIVES))
def objective(request: pytest.FixtureRequest) -> Objective:
    return OBJECTIVES[request.param]


def perfect(outcome: Outcome) -> Outcome:
    """The same table, had it gone where the teacher goes."""
    states = tuple(outcome.teacher.state(node) for node in outcome.table.nodes)
    return replace(outcome, samples=outcome.teacher.endpoint, states=states)


def test_every_file_of_objectives_is_registered() -> None:
    files_are_registered(objectives, "OBJECTIVE")
    assert [objective for _, objective in entries(objectives, "OBJECTIVE")] == list(OBJECTIVES.values())


@pytest.mark.parametrize(("module", "added"), list(entries(objectives, "OBJECTIVE")), ids=OBJECTIVES)
def test_an_objective_says_what_it_is(module: ModuleType, added: Objective) -> None:
    lacks(added.name, [
        *docstring_lacks(module, added.source),
        (not added.name.isidentifier(), "a name that `parse` reads: letters, digits and _"),
        (not one_line(added.cost), "what it costs, in one line"),
        (not one_line(added.source), "its source, in one line"),
    ])  # fmt: skip


def test_states_direction_needs_cost_and_source(objective: Objective) -> None:
    assert objective.direction == "minimize"
    assert objective.needs <= {"features", "states", "trajectory"}
    assert len(objective.cost) > 10 and len(objective.source) > 10 and "\n" not in objective.cost + objective.source
    described = {row["name"]: row for row in describe_objectives()}
    assert list(described) == list(OBJECTIVES)
    assert described[objective.name].keys() == {"name", "direction", "needs", "cost", "source"}


@pytest.mark.parametrize("name", TO_THE_TEACHER)
def test_the_teachers_own_samples_are_at_zero(name: str, ran: Ran) -> None:
    assert OBJECTIVES[name].value(perfect(ran("ddim", 3))) == pytest.approx(0, abs=1e-9)


def test_ddim_at_3_is_worse_than_unipc_at_8(objective: Objective, ran: Ran) -> None:
    bad, good = objective.value(ran("ddim", 3)), objective.value(ran("unipc_2", 8))
    if objective.name == "network_calls":
        assert (bad, good) == (3, 8)
    elif objective.name == "fid":  # to the data, from which the teacher is some way off, too
        assert bad > 1.1 * good
    else:
        assert bad > 2 * good


def test_does_not_depend_on_the_batch_size(objective: Objective, ran: Ran) -> None:
    assert objective.value(ran("unipc_2", 5)) == objective.value(ran("unipc_2", 5, batch_size=7))


def test_same_value_twice_and_the_outcome_is_left_as_it_was(objective: Objective, ran: Ran) -> None:
    outcome = ran("unipc_2", 5)
    samples, value = outcome.samples.clone(), objective.value(outcome)
    assert objective.value(outcome) == value
    assert torch.equal(outcome.samples, samples)


def test_says_what_a_model_lacks(objective: Objective, featureless: Model, coins: Model) -> None:
    objective.check(coins)
    if "features" not in objective.needs:
        objective.check(featureless)
        return
    with pytest.raises(UserError, match=r"needs a feature network; model 'coins.unconditional' has none: add `features`") as caught:
        objective.check(featureless)
    assert "\n" not in str(caught.value) and objective.name in str(caught.value)


@pytest.mark.parametrize("name", [*TO_THE_TEACHER, "fid"])
def test_what_is_not_finite_fails_the_candidate(name: str, ran: Ran) -> None:
    outcome = ran("ddim", 3)
    broken = torch.where(torch.arange(len(outcome.samples)).view(-1, 1, 1, 1) == 5, torch.nan, outcome.samples)
    with pytest.raises(NotFinite, match=f"objective '{name}' is |features .* are not finite"):
        OBJECTIVES[name].value(replace(outcome, samples=broken))
    with pytest.raises(NotFinite):
        parse(f"network_calls + 2*{name}").value(replace(outcome, samples=broken))


def test_states_and_trajectory_must_have_been_kept(ran: Ran, coins: Model) -> None:
    outcome, trajectory = ran("ddim", 3), OBJECTIVES["trajectory"]
    with pytest.raises(ValueError, match="states"):
        trajectory.value(replace(outcome, states=None))
    with pytest.raises(ValueError, match="trajectory"):
        trajectory.value(replace(outcome, teacher=teach(outcome.model, "validate", 128, trajectory=False)))


def test_features_of_another_teacher_are_not_mistaken_for_the_last(ran: Ran, teacher: Teacher) -> None:
    outcome, feature = ran("ddim", 3), OBJECTIVES["feature"]
    shifted = replace(teacher, endpoint=teacher.endpoint + 0.1)
    assert feature.value(replace(outcome, teacher=shifted)) != feature.value(outcome)
    assert feature.value(replace(outcome, teacher=shifted, samples=shifted.endpoint)) == 0
