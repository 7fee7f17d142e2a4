"""The surrogates of the network, fitted to the teacher's samples: what ranks baselines, finds the instant plan and predicts at first."""

from solversearch.search.stages.task import Task
from solversearch.search.surrogates.surrogates import Surrogates
from solversearch.teacher import ROUGH, Teacher


def run(task: Task, fitting: Teacher, validation: Teacher) -> Surrogates:
    """A guided surrogate needs unguided samples of the teacher as well."""
    settings, unguided = task.settings, tuple[Teacher, ...]()
    if settings.guidance != 1:
        unguided = (
            task.teacher("fit", settings.fit_samples, trajectory=False, guidance=1.0, steps=ROUGH),
            task.teacher("validate", settings.validation_samples, trajectory=False, guidance=1.0, steps=ROUGH),
        )
    return Surrogates.of(task.model, fitting, validation, unguided, settings.guidance, settings.seed)
