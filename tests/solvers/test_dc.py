"""Dynamic compensation: ratio 1 is UniPC, and the interpolation is exact for outputs quadratic in t."""

import numpy as np
import pytest

from solversearch.errors import UserError
from solversearch.grids import grid
from solversearch.runtime import Node
from solversearch.schedules import DiscreteVP
from solversearch.solvers import get
from solversearch.solvers.base import Past
from solversearch.solvers.dc import compensated, compensation
from solversearch.solvers.unipc import Variant
from solversearch.tableau import trace

SCHEDULE = DiscreteVP.named()


@pytest.mark.parametrize(("name", "order", "variant"), [("unipc_3", 3, "bh2"), ("unipc_2_bh1", 2, "bh1"), ("unipc_1", 1, "bh2")])
def test_ratio_one_is_unipc(name: str, order: int, variant: Variant) -> None:
    nodes = grid("linspace", SCHEDULE, 6)
    assert trace(compensated([1.0] * 6, order, variant), SCHEDULE, nodes) == get(name).tableau(SCHEDULE, nodes)


def test_the_newest_output_is_moved_along_the_quadratic_through_three() -> None:
    times = [300.0, 500.0, 800.0]
    past = [Past(SCHEDULE.node(t), np.zeros(1), np.array([2 + 3 * t - 0.01 * t**2]), np.zeros(1)) for t in times]
    moved = 0.7 * 300 + 0.3 * 500
    assert compensation(0.7)(past).d[0] == pytest.approx(2 + 3 * moved - 0.01 * moved**2, rel=1e-13)
    assert compensation(0.7)(past[:2]) is past[0]


def test_compensation_leaves_the_first_two_steps_and_changes_the_later_ones() -> None:
    nodes: list[Node] = grid("linspace", SCHEDULE, 5)
    plain, ours = get("unipc_3").tableau(SCHEDULE, nodes), trace(compensated([0.5] * 5), SCHEDULE, nodes)
    assert [a == b for a, b in zip(plain.rows, ours.rows, strict=True)] == [True, True, True, False, False, False]


def test_the_number_of_ratios_is_that_of_the_steps() -> None:
    with pytest.raises(UserError, match="5 steps need 5 compensation ratios, got 3"):
        trace(compensated([1.0] * 3), SCHEDULE, grid("linspace", SCHEDULE, 5))
