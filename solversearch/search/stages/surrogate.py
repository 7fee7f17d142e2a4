"""The surrogates of the network, fitted to the teacher's samples: what the instant plan is found on, and the predictor knows at first."""

from collections.abc import Sequence
from contextlib import suppress

from solversearch.models.base import NotFinite
from solversearch.runtime import Tableau
from solversearch.search.evaluating.evaluator import Evaluator
from solversearch.search.settings import Settings
from solversearch.search.stages.task import Task
from solversearch.search.strategies import predicts
from solversearch.search.surrogates.surrogates import Surrogates
from solversearch.teacher import Teacher


def needed(settings: Settings) -> bool:
    return settings.instant or settings.only_instant or (settings.search and predicts(settings.strategy))


def run(task: Task, evaluator: Evaluator) -> Surrogates:
    """A guided surrogate needs unguided samples of the teacher as well."""
    settings, unguided = task.settings, tuple[Teacher, ...]()
    if settings.guidance != 1:
        unguided = (
            task.teacher("fit", settings.fit_samples, trajectory=False, guidance=1.0),
            task.teacher("validate", settings.validation_samples, trajectory=False, guidance=1.0),
        )
    teachers = evaluator.fitting, evaluator.validation
    return Surrogates.of(task.model, *teachers, unguided, settings.guidance, settings.seed, evaluator.scale)


def observe(task: Task, surrogates: Surrogates, tables: Sequence[Tableau]) -> None:
    """Shows the surrogates what the network says where tables lead."""
    with suppress(NotFinite):  # what runs away teaches nothing
        surrogates.observe(tables, task.settings.batch_size, task.clock, task.parts(f"observation {surrogates.version}"))
