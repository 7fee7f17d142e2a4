"""What a plan remembers of the pipeline of diffusers that it was made for. Standard library only.

It stands under ``pipeline`` in a plan's decisions; sampling by the table alone does not need it, a pipeline that takes the plan does.
"""

from collections.abc import Mapping
from math import isfinite
from typing import Any

KEY = "pipeline"


def facts(kind: str, scheduler: Mapping[str, Any], arguments: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The entry of a plan's decisions: the pipeline's class, its scheduler's settings, and what its call must be told besides guidance.

    scheduler is the content of scheduler_config.json, or the config of a scheduler, of which what was left to its class is left out.
    arguments are such as the guidance scale that was distilled into the network.
    """
    defaults = scheduler.get("_use_default_values", ())
    settings = {
        name: value
        for name, value in scheduler.items()
        if (name[0] != "_" or name == "_class_name") and name not in defaults and not (isinstance(value, float) and not isfinite(value))
    }
    return {KEY: {"class": kind, "scheduler": settings, "arguments": dict(arguments or {})}}


def facts_of(decisions: Mapping[str, Any]) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Class, scheduler's settings and arguments in a plan's decisions; empty where it does not say, or says something else there."""
    given = decisions.get(KEY)
    given = given if isinstance(given, dict) else {}
    kind, scheduler, arguments = given.get("class"), given.get("scheduler"), given.get("arguments")
    return (
        kind if isinstance(kind, str) else "",
        scheduler if isinstance(scheduler, dict) and isinstance(scheduler.get("_class_name"), str) else {},
        arguments if isinstance(arguments, dict) else {},
    )


def shown(decisions: Mapping[str, Any]) -> dict[str, Any]:
    """Decisions for people, who want the pipeline's class and not its settings."""
    kind = facts_of(decisions)[0]
    return {name: value for name, value in decisions.items() if name != KEY} | ({KEY: kind} if kind else {})
