"""KLUB, the bound by which Align Your Steps chooses times: see `judging.klub`."""

from solversearch.judging.objectives.base import Objective, Outcome


def _value(outcome: Outcome) -> float:
    from solversearch.judging.klub import klub

    return klub(outcome.model, outcome.table.nodes, outcome.teacher, batch_size=outcome.batch_size, clock=outcome.clock)


OBJECTIVE = Objective(
    "klub",
    _value,
    cost="two more network evaluations a sample for every evaluation of the table",
    source="Align Your Steps, Sabour et al. 2024, arXiv:2404.14507",
)
