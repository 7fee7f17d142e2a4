"""What a person should know about a plan before it samples elsewhere."""

from solversearch.export import get
from solversearch.plan import Plan


def notes(plan: Plan, to: str) -> list[str]:
    """One sentence each, for the exporter of that name."""
    return get(to).notes(plan)
