"""The surrogates of the network, fitted to the teacher's samples: what the instant plan is found on, and the predictor knows at first."""

from solversearch.search.evaluating.evaluator import Evaluator
from solversearch.search.stages.task import Task
from solversearch.search.strategies import predicts
from solversearch.search.surrogates.surrogates import Surrogates
from solversearch.teacher import Teacher


def run(task: Task, evaluator: Evaluator) -> Surrogates | None:
    """None where no stage asks for them. A guided surrogate needs unguided samples of the teacher as well."""
    settings, unguided = task.settings, tuple[Teacher, ...]()
    if not (settings.instant or settings.only_instant or (settings.search and predicts(settings.strategy))):
        return None
    if settings.guidance != 1:
        unguided = (
            task.teacher("fit", settings.fit_samples, trajectory=False, guidance=1.0),
            task.teacher("validate", settings.validation_samples, trajectory=False, guidance=1.0),
        )
    teachers = evaluator.fitting, evaluator.validation
    return Surrogates.of(task.model, *teachers, unguided, settings.guidance, settings.seed, evaluator.scale)
