"""Tracing and the invariants that a table keeps."""

import pytest

from solversearch.runtime import Node, Row
from solversearch.schedules import CLEAN, DiscreteVP
from solversearch.solvers import get
from solversearch.tableau import Linear, Problem, Tableau, Vector, trace

NODE = Node(t=10.0, alpha=0.6, sigma=0.8)
NAN = float("nan")


def test_a_traced_rule_shows_its_coefficients() -> None:
    def rule(problem: Problem, x: Vector, nodes: object) -> Vector:
        first = problem.denoise(x, NODE)
        second = problem.denoise((x + first * 2 - problem.noise()) / 4, NODE)
        return -(x * 0.5) + 3 * first - second

    tableau = trace(rule, DiscreteVP.named(), [NODE, CLEAN])
    assert tableau.nodes == (NODE, NODE)
    assert tableau.rows == (Row(1.0), Row(0.25, (0.5,), (), (-0.25,)), Row(-0.5, (3.0, -1.0)))
    assert (tableau.nfe, tableau.stochastic, tableau.split, tableau.network_calls) == (2, True, False, 2)


def test_the_first_row_is_in_units_of_unit_noise() -> None:
    from solversearch.grids import grid
    from solversearch.schedules import VE

    assert get("ddim").tableau(VE(), grid("karras", VE(), 3)).rows[0] == Row(80.0)


def test_guidance_doubles_the_network_calls() -> None:
    tableau = Tableau((NODE, NODE), (Row(1.0), Row(1.0), Row(0.0, (0.0, 1.0))))
    assert tableau.network_calls == 2
    guided = tableau.guided(7.5)
    assert guided.network_calls == 4
    assert {node.guidance for node in guided.nodes} == {7.5}
    split = Tableau((NODE,), (Row(1.0), Row(0.0, (1.0,), (0.5,))))
    assert (split.split, split.network_calls) == (True, 2)


@pytest.mark.parametrize(
    ("nodes", "rows", "message"),
    [
        ((), (Row(1.0),), "got 0 nodes"),
        ((NODE,), (Row(1.0),), "got 1 nodes and 1 rows"),
        ((NODE,), (Row(1.0, (1.0,)), Row(1.0)), "row 0 reads the future"),
        ((NODE,), (Row(1.0), Row(1.0, (1.0,), (1.0, 1.0))), "row 1 reads the future"),
        ((NODE,), (Row(1.0), Row(NAN)), "row 1 is not finite"),
        ((NODE,), (Row(1.0), Row(1.0, (), (), (NAN,))), "row 1 is not finite"),
        ((Node(NAN, 1.0, 1.0),), (Row(1.0), Row(1.0)), "node 0 needs finite numbers"),
        ((Node(1.0, -1.0, 1.0),), (Row(1.0), Row(1.0)), "alpha >= 0"),
        ((CLEAN,), (Row(1.0), Row(1.0)), "sigma > 0"),
    ],
)
def test_tables_that_are_refused(nodes: tuple[Node, ...], rows: tuple[Row, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tableau(nodes, rows)


def test_linear_combinations_are_values() -> None:
    """Arithmetic leaves its operands as they are."""
    a, b = Linear({("x", 0): 1.0}), Linear({("d", 1): 2.0})
    total = a + b * 3
    assert (a.row(), b.row(), total.row()) == (Row(1.0), Row(0.0, (0.0, 2.0)), Row(1.0, (0.0, 6.0)))
