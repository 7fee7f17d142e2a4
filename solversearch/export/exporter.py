"""What an exporter is."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from solversearch.errors import UserError
from solversearch.plan import Plan

NO_ANCHOR = (
    "the plan needs an anchor for each sample, such as the degraded picture that is restored, which {} does not have: sample in Python, or "
    "export to numpy"
)


def check_consumer(plan: Plan, place: str) -> None:
    """Raises `UserError` for a plan that calls variants of its network, where a place has but one, or that needs an anchor."""
    if plan.tableau.anchored:
        raise UserError(NO_ANCHOR.format(place))
    if plan.variants:
        raise UserError(
            f"the plan calls other networks than the model's own at some evaluations ({', '.join(plan.variants)}), which {place} cannot: "
            "sample in Python, or in a pipeline of diffusers"
        )


@dataclass(frozen=True)
class Exporter:
    """write(plan, out, overwrite=False) writes the export and returns the paths of its files.

    It raises `UserError` for a plan that has no place there, and where out is not ours, unless it may be overwritten.

    place is where it goes unless a person names another; use says what to do with it, {out} being its path and {name} its module's.
    text gives what is printed, and nothing written, where no path is named. notes are what a person should know about the plan before
    it samples there, a sentence each.
    """

    name: str
    description: str
    write: Callable[..., list[Path]]
    place: str
    use: str
    text: Callable[[Plan], str] | None = None
    notes: Callable[[Plan], list[str]] = lambda plan: []
