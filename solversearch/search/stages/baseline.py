"""The best baseline: published solvers on published grids, ranked by the surrogates and then screened on validation noise.

The stage that all others start from. The comparison trusts no surrogate: it races all baselines.
"""

from collections.abc import Sequence

from solversearch.errors import UserError
from solversearch.judging.baselines import Baseline, baselines, screen, screening
from solversearch.judging.objectives.endpoint import endpoint_mse
from solversearch.runtime import Tableau
from solversearch.sampling import sample
from solversearch.search.evaluating.evaluator import Evaluated, Evaluator, Origin
from solversearch.search.stages.task import Task
from solversearch.search.surrogates.surrogates import Surrogates
from solversearch.teacher import Teacher

STARTS = 8
"""Grids of the best baselines that are fitted, and from which the search starts: each costs as much as a candidate of the search.
Halved or doubled: within noise on digits."""
SCREENED = 24
"""Tables of baselines that the network is asked about, the first in the surrogates' ranking. On digits, NFE 3 to 10, the true best of all
670 is never beyond place 160 there and half of the time among the first 15: enough for a start, too little for a verdict."""
GUIDED = 0.1
"""Under guidance errors are tempered from a tenth of the best baseline's median on: more samples end in another mode."""


def run(task: Task, fitting: Teacher, validation: Teacher, surrogates: Surrogates) -> tuple[list[Baseline], Evaluated, Evaluator]:
    """The best baselines of different grids, the very best first, and its result; and what evaluates tables from now on.

    The evaluator tempers errors by the median of the best baseline's. Raises `UserError` where those are zero already.
    """
    settings, model = task.settings, task.model
    found = _promising(surrogates, baselines(model, settings.nfe, settings.guidance, settings.integer, own=lambda: task.parametrization))
    ranked = task.log.numbers(f"screen {len(found)}", task.clock, lambda: _ranked(task, found, validation))
    starts: dict[str, Baseline] = {}
    for place in ranked:
        if len(starts) < STARTS:
            starts.setdefault(found[int(place)].grid, found[int(place)])
    best = found[int(ranked[0])]
    (median,) = task.log.numbers("scale", task.clock, lambda: [_median(task, best.table, validation)])
    scale = max(median * (1.0 if settings.guidance == 1 else GUIDED), 1e-12)
    evaluator = Evaluator(model, fitting, validation, task.objectives, scale, settings.splits, settings.batch_size, task.clock)
    origin: Origin = {"solver": best.solver, "grid": best.grid}
    result = task.once("best baseline", lambda: evaluator.table(best.table, origin))
    if not result.error.any():  # as where the network's output does not depend on its input
        raise UserError(
            f"there is nothing to search: at {settings.nfe} evaluations {best.name} already makes exactly the teacher's samples of "
            f"model {model.name!r}; check that its network looks at its input, or ask for a lower --nfe"
        )
    return list(starts.values()), result, evaluator


def _promising(surrogates: Surrogates, found: Sequence[Baseline]) -> list[Baseline]:
    """The best on the surrogates, one a table."""
    different = {each.table: each for each in reversed(found) if each.plain}
    tables = list(different)
    return [different[tables[place]] for place in surrogates.ranked(tables)[:SCREENED]]


def _ranked(task: Task, found: Sequence[Baseline], validation: Teacher) -> list[int]:
    """The places of baselines in the list, the best one's first."""
    few = validation.first(screening(len(validation)))
    screened = screen(
        task.model, found, few, task.settings.batch_size, task.clock, lambda done, total: task.progress("baselines", done, total, ""),
        memo=task.parts("screening"),
    )  # fmt: skip
    places = {(baseline.solver, baseline.grid): place for place, baseline in enumerate(found)}
    return [places[baseline.solver, baseline.grid] for _, baseline in screened]


def _median(task: Task, table: Tableau, validation: Teacher) -> float:
    samples = sample(task.model, table, validation, task.settings.batch_size, task.clock)
    return float(endpoint_mse(samples, validation.endpoint).median())
