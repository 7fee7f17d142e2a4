"""Network calls a sample: what a plan costs, where an evaluation with guidance counts twice. The other axis of a Pareto set."""

from solversearch.judging.objectives.base import Objective, Outcome


def _value(outcome: Outcome) -> float:
    return outcome.table.network_calls


OBJECTIVE = Objective("network_calls", _value, cost="nothing: it is read off the table", source="counted from the table")
