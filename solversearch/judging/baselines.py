"""The baselines: every published solver on every published grid at a given cost, and which of them are best."""

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from math import inf, isfinite

from solversearch.empirical import parametrization
from solversearch.errors import UserError
from solversearch.grids import GRIDS, grid
from solversearch.judging.objectives.endpoint import endpoint_mse
from solversearch.memo import NO_MEMO, Memo
from solversearch.models.base import Clock, Model, NotFinite
from solversearch.parametrization import DATA, Parametrization
from solversearch.runtime import Node, Tableau
from solversearch.sampling import sample_together
from solversearch.schedules import NoiseSchedule
from solversearch.solvers import SOLVERS
from solversearch.solvers.base import Solver
from solversearch.teacher import Teacher

SMALL = 1024
"""Numbers of a sample up to which errors are heavy-tailed, and samples cheap; larger ones average over more, and fewer are enough."""
LIMIT = 40
"""NFE up to which a plan's error is looked for among the baselines of small models; twice the plan's own for larger ones."""


def screening(samples: int) -> int:
    """Of so many samples, those on which a search tries baselines, and every candidate first."""
    return min(samples, max(8, min(64, samples // 4)))


@dataclass(frozen=True)
class Baseline:
    """A published solver on a published grid."""

    solver: str
    grid: str
    table: Tableau

    @property
    def name(self) -> str:
        return f"{self.solver} on {self.grid}"

    @property
    def plain(self) -> bool:
        """Whether a search can start from it, and its surrogates run it: no noise drawn, no components."""
        return not self.table.stochastic and self.table.components is None


def pairs(model: Model, nfe: int, integer: bool = False) -> list[tuple[Solver, str, list[Node]]]:
    """Every solver, and every grid by its name and nodes on which that can spend exactly nfe evaluations."""

    @cache
    def nodes(name: str, steps: int) -> list[Node] | None:
        with suppress(UserError):  # times that coincide
            return grid(name, model.schedule, steps, integer)
        return None

    found = []
    for solver in SOLVERS.values():
        with suppress(UserError):  # a count that this solver cannot spend
            steps = solver.steps(nfe)
            found += [(solver, name, own) for name in GRIDS if (own := nodes(name, steps)) is not None]
    return found


def baselines(
    model: Model, nfe: int, guidance: float, integer: bool = False, among: Collection[tuple[str, str]] | None = None,
    own: Callable[[], Parametrization] | None = None,
) -> list[Baseline]:  # fmt: skip
    """Every solver on every grid (or those pairs of them that are named) that can spend exactly nfe evaluations.

    Empirical solvers take the model's own parametrisation, measured by `own`; where that meets NaN or inf they are left out.
    """
    asked = [each for each in pairs(model, nfe, integer) if among is None or (each[0].name, each[1]) in among]
    suits = DATA
    if any(solver.empirical for solver, _, _ in asked):
        try:
            suits = own() if own else parametrization(model, guidance)
        except NotFinite:
            asked = [each for each in asked if not each[0].empirical]
    if not asked:
        raise UserError(f"no baseline can spend {nfe} evaluations on this model's schedule; ask for another --nfe")

    def table(solver: Solver, nodes: Sequence[Node]) -> Tableau:
        return _table(solver, model.schedule, tuple(nodes), suits if solver.empirical else DATA, guidance)

    return [Baseline(solver.name, name, table(solver, nodes)) for solver, name, nodes in asked]


@lru_cache(maxsize=8192)
def _table(solver: Solver, schedule: NoiseSchedule, nodes: tuple[Node, ...], suits: Parametrization, guidance: float) -> Tableau:
    """Traced once: a search, its comparison and its surrogates ask for the same tables, and the ladder for those of ten NFEs."""
    return solver.tableau(schedule, nodes, suits, guidance)


def screen(
    model: Model,
    candidates: Sequence[Baseline],
    teacher: Teacher,
    batch_size: int = 512,
    clock: Clock | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    memo: Memo = NO_MEMO,
) -> list[tuple[float, Baseline]]:
    """Mean endpoint error of every candidate on the teacher's noise, best first. Equal tables are run once."""
    errors = _errors(model, [candidate.table for candidate in candidates], teacher, batch_size, clock, progress, memo)
    ranked = sorted(((errors[candidate.table], candidate) for candidate in candidates), key=lambda pair: pair[0])
    if not any(isfinite(error) for error, _ in ranked):
        raise NotFinite(f"the network of {model.name!r} returned NaN or inf with every baseline; check its weights and dtype")
    return ranked


def _errors(
    model: Model, tables: Iterable[Tableau], teacher: Teacher, batch_size: int, clock: Clock | None, progress: Callable[[int, int], None],
    memo: Memo,
) -> dict[Tableau, float]:  # fmt: skip
    """Mean error of each table; infinite where it runs away."""
    different, known = list(dict.fromkeys(tables)), dict[Tableau, float]()
    together = max(1, batch_size // len(teacher))

    def errors(group: Sequence[Tableau]) -> list[float]:
        samples = sample_together(model, group, teacher, batch_size, clock)
        return [inf if isinstance(x, Exception) else float(endpoint_mse(x, teacher.endpoint).mean()) for x in samples]

    for first in range(0, len(different), together):
        group = different[first : first + together]
        known |= zip(group, memo.numbers(partial(errors, group)), strict=True)
        progress(first + len(group), len(different))
    return known
