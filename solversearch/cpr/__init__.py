"""Cascade polynomial regression (CPR) of plans over NFE, guidance and step; see `polynomial`, `parameters`, `regression`, `tuning`."""

from collections.abc import Callable, Sequence
from pathlib import Path

from solversearch.cpr.regression import Cpr, fit
from solversearch.cpr.tuning import ITERATIONS, tune
from solversearch.errors import UserError
from solversearch.models.base import Model
from solversearch.plan import Plan
from solversearch.run_files import plan_files

__all__ = ["ITERATIONS", "Cpr", "fit", "fit_runs", "read_plans", "tune"]


def read_plans(places: Sequence[Path]) -> list[Plan]:
    """The plans of run folders and plan files, and all of the folders of sweeps and studies; of these without the baselines among them."""
    if not places:
        raise UserError("no plans to regress; give the folders of at least 3 runs, for different --nfe or --guidance")
    plans: list[Plan] = []
    for place in places:
        inside = [Plan.read(file) for file in plan_files(place)]
        plans += inside if len(inside) == 1 else [plan for plan in inside if "baseline" not in plan.decisions]
    return plans


def fit_runs(
    plans: Sequence[Plan],
    model: Model,
    iterations: int = ITERATIONS,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> Cpr:
    """The regression of the plans, tuned where they are taken as coefficients, unless iterations is 0."""
    found = fit(plans, model)
    return tune(found, plans, model, iterations, progress=progress) if found.kind == "coefficients" and iterations else found
