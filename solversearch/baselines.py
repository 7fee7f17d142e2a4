"""The baselines: every published solver on every published grid at a given cost, and which of them are best."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from math import inf, isfinite

from solversearch.errors import UserError
from solversearch.models.base import Clock, Model, NotFinite
from solversearch.objectives.endpoint import endpoint_mse
from solversearch.runtime import Tableau
from solversearch.sampling import sample_together
from solversearch.schedules import GRIDS, grid
from solversearch.solvers import SOLVERS
from solversearch.teacher import Teacher

SCREEN = 64
"""Samples on which every baseline is tried before each solver's best grid is measured in full."""


@dataclass(frozen=True)
class Baseline:
    """A published solver on a published grid."""

    solver: str
    grid: str
    table: Tableau

    @property
    def name(self) -> str:
        return f"{self.solver} on {self.grid}"


def baselines(
    model: Model, nfe: int, guidance: float, integer: bool = False, among: Collection[tuple[str, str]] | None = None
) -> list[Baseline]:
    """Every solver on every grid (or those pairs of them that are named) that can spend exactly nfe evaluations."""
    found = []
    for solver in SOLVERS.values():
        for name in GRIDS:
            if among is not None and (solver.name, name) not in among:
                continue
            try:
                nodes = grid(name, model.schedule, solver.steps(nfe), integer)
            except UserError:  # a count that this solver cannot spend, or a grid whose times coincide
                continue
            found.append(Baseline(solver.name, name, solver.tableau(model.schedule, nodes).guided(guidance)))
    if not found:
        raise UserError(f"no baseline can spend {nfe} evaluations on this model's schedule; ask for another --nfe")
    return found


def screen(
    model: Model,
    candidates: Sequence[Baseline],
    teacher: Teacher,
    batch_size: int = 512,
    clock: Clock | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[tuple[float, Baseline]]:
    """Mean endpoint error of every candidate on the teacher's noise, best first. Equal tables are run once."""
    different = list(dict.fromkeys(candidate.table for candidate in candidates))
    together = max(1, batch_size // len(teacher))
    known: dict[Tableau, float] = {}

    def errors(group: Sequence[Tableau]) -> list[float]:
        try:
            return [float(endpoint_mse(x, teacher.endpoint).mean()) for x in sample_together(model, group, teacher, clock)]
        except NotFinite:  # one of them ran away: alone, it costs the others nothing
            return [inf] if len(group) == 1 else [error for table in group for error in errors([table])]

    for first in range(0, len(different), together):
        group = different[first : first + together]
        known.update(zip(group, errors(group), strict=True))
        progress(first + len(group), len(different))
    if not any(map(isfinite, known.values())):
        raise NotFinite(f"the network of {model.name!r} returned NaN or inf with every baseline; check its weights and dtype")
    return sorted(((known[c.table], c) for c in candidates), key=lambda pair: pair[0])


def best_of_each_solver(screened: Sequence[tuple[float, Baseline]]) -> list[Baseline]:
    """The best grid of every solver, best first."""
    kept: dict[str, Baseline] = {}
    for _, candidate in screened:
        kept.setdefault(candidate.solver, candidate)
    return list(kept.values())
