"""Plans for the places where people sample. The registry of exporters: `EXPORTERS` by name, `get(name)`.

Each file of `FILES` says in `EXPORTERS` which it adds; see ADDING.md.
"""

from importlib import import_module

from solversearch.errors import UserError, nearest
from solversearch.export.exporter import Exporter

__all__ = ["EXPORTERS", "Exporter", "get"]

FILES = ("folders", "sigmas", "stock")
EXPORTERS: dict[str, Exporter] = {each.name: each for file in FILES for each in import_module(f"{__name__}.{file}").EXPORTERS}


def get(name: str) -> Exporter:
    """The named exporter; raises `UserError` with the nearest name."""
    if name.lower() == "diffusers":
        raise UserError(
            "diffusers needs no export: in Python, PlanScheduler.from_plan(PLAN) of solversearch.export.diffusers takes the plan itself "
            "into a pipeline, see 'Use a plan' in the README; diffusers-sigmas and diffusers-timesteps are for its stock schedulers"
        )
    if name not in EXPORTERS:
        raise UserError(nearest(name, list(EXPORTERS), "export"))
    return EXPORTERS[name]
