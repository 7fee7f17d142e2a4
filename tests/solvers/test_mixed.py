"""A mixed solver with constant decisions is the named solver; decisions act on their own step."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solversearch.errors import UserError
from solversearch.schedules import DiscreteVP, Flow, NoiseSchedule, grid
from solversearch.solvers import get
from solversearch.solvers.dc import compensated
from solversearch.solvers.epsilon_scaling import epsilon_scaling
from solversearch.solvers.mixed import FAMILIES, Decision, mixed
from solversearch.tableau import trace

STEPS = 7
SCHEDULE = DiscreteVP.named()


def lowered(decision: Decision) -> list[Decision]:
    return [replace(decision, order=min(decision.order, STEPS - i)) for i in range(STEPS)]


@pytest.mark.parametrize(
    ("name", "decisions"),
    [
        ("ddim", [Decision(order=1)] * STEPS),
        ("ddim", [Decision("ipndm", 1, "noise")] * STEPS),
        ("unip_2", [Decision("unip", 2)] * STEPS),
        ("unip_3_full", [Decision("unip", 3)] * STEPS),
        ("unip_4", lowered(Decision("unip", 4))),
        ("unipc_3", lowered(Decision("unip_bh2", 3, corrector=True))),
        ("unipc_3_bh1", lowered(Decision("unip_bh1", 3, corrector=True))),
        ("unipc_3_noise", lowered(Decision("unip_bh2", 3, "noise", corrector=True))),
        ("dpmpp_2m", [Decision("dpmpp", 2)] * STEPS),
        ("dpmpp_3m_full", [Decision("dpmpp", 3)] * STEPS),
        ("dpm_3m", lowered(Decision("dpmpp", 3, "noise"))),
        ("deis_logrho3", lowered(Decision("unip", 3, "noise"))),
        ("deis_rhoab2", [Decision("deis_rhoab", 3)] * STEPS),
        ("deis_tab3", [Decision("deis_tab", 4)] * STEPS),
        ("ipndm_4", [Decision("ipndm", 4)] * STEPS),
        ("es_unipc_3", lowered(Decision("unip_bh2", 3, corrector=True, epsilon_scale=1.01))),
    ],
)
def test_constant_decisions_are_the_named_solver(name: str, decisions: list[Decision]) -> None:
    nodes = grid("logsnr", SCHEDULE, STEPS)
    ours, theirs = trace(mixed(decisions), SCHEDULE, nodes), get(name).tableau(SCHEDULE, nodes)
    assert ours.nodes == theirs.nodes
    for mine, other in zip(ours.rows, theirs.rows, strict=True):
        np.testing.assert_allclose([mine.x, *mine.d], [other.x, *other.d], rtol=0, atol=1e-13)


def test_compensation_is_that_of_dc_solver() -> None:
    ratios = [1, 1, 0.4, 0.9, 1.06, 1.04, 0.94]
    decisions = [replace(d, compensation=r) for d, r in zip(lowered(Decision("unip_bh2", 3, corrector=True)), ratios, strict=True)]
    nodes = grid("linspace", SCHEDULE, STEPS)
    assert trace(mixed(decisions), SCHEDULE, nodes) == trace(compensated(ratios), SCHEDULE, nodes)


def test_epsilon_scale_acts_on_its_own_evaluation() -> None:
    nodes = grid("linspace", SCHEDULE, 2)
    scaled = trace(mixed([Decision(order=1), Decision(order=1, epsilon_scale=1.1)]), SCHEDULE, nodes)
    plain, every = get("ddim").tableau(SCHEDULE, nodes), trace(epsilon_scaling(get("ddim").rule, 1.1), SCHEDULE, nodes)
    assert scaled.rows[1] == plain.rows[1] != every.rows[1]
    assert scaled.rows[2].d[1] == pytest.approx(1 / 1.1)


decisions = st.sampled_from(list(FAMILIES)).flatmap(
    lambda name: st.builds(
        Decision,
        st.just(name),
        st.integers(1, FAMILIES[name][0]),
        st.sampled_from(["data", "noise"]),
        st.booleans(),
        compensation=st.floats(0.5, 1.5),
    )
)


@settings(max_examples=60, deadline=None)
@given(st.lists(decisions, min_size=1, max_size=6), st.sampled_from(["vp", "zero_snr", "flow"]))
def test_any_decisions_reproduce_a_constant_denoiser(choice: list[Decision], kind: str) -> None:
    schedule: NoiseSchedule = {"vp": SCHEDULE, "zero_snr": DiscreteVP.named(zero_terminal_snr=True), "flow": Flow()}[kind]
    nodes = grid("linspace", schedule, len(choice))
    tableau = trace(mixed(choice), schedule, nodes)
    for node, row in zip((*tableau.nodes, nodes[-1]), tableau.rows, strict=True):
        size = 1 + abs(row.x) + sum(map(abs, row.d))
        assert abs(row.x * nodes[0].alpha + sum(row.d) - node.alpha) < 1e-11 * size
        assert abs(row.x * nodes[0].sigma - node.sigma) < 1e-11 * size


@pytest.mark.parametrize(
    "wrong",
    [{"solver": "unipp"}, {"order": 0}, {"order": 5}, {"solver": "dpmpp", "order": 4}, {"prediction": "noize"}, {"epsilon_scale": 0.0}],
)
def test_wrong_decisions_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        Decision(**wrong)


def test_the_number_of_decisions_is_that_of_the_steps() -> None:
    with pytest.raises(UserError, match="4 steps"):
        trace(mixed([Decision()] * 3), SCHEDULE, grid("linspace", SCHEDULE, 4))
