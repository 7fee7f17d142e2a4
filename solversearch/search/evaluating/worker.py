"""What runs on a worker: its own copy of the model, and the same evaluator as the driver's."""

import os
import warnings
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter

from solversearch import models
from solversearch.errors import Halted, UserError
from solversearch.judging.objectives import parse_many
from solversearch.models.base import Clock, Denoiser
from solversearch.models.digest import exact
from solversearch.runtime import Start
from solversearch.search.evaluating.evaluations import Entry, arrivals
from solversearch.search.evaluating.evaluator import Evaluator, Failure
from solversearch.spaces import Candidate
from solversearch.teacher import Teacher
from solversearch.version import __version__

Shared = dict[str, Any]
"""A teacher as plain arrays, which the workers of one machine read from the same memory."""

CANDIDATES = TypeAdapter(list[Candidate])
"""Candidates travel as JSON: numbers and words, no code."""


@dataclass(frozen=True)
class Job:
    """What a worker must know to evaluate as the driver would."""

    version: str
    model: str
    options: models.Options
    start: Start | None
    exact: str
    folder: Path
    objective: str
    scale: float
    split: bool
    batch_size: int


def shared(teacher: Teacher) -> Shared:
    values = {each.name: getattr(teacher, each.name) for each in fields(teacher)}
    return {name: value.cpu().numpy() if isinstance(value, torch.Tensor) else value for name, value in values.items()}


def _teacher(values: Shared, device: str) -> Teacher:
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # shared arrays cannot be written, and nobody does
        arrays = {name: torch.from_numpy(value) for name, value in values.items() if isinstance(value, np.ndarray)}
    arrays |= {name: array.to(device) for name, array in arrays.items() if name not in ("angles", "states", "slopes")}
    return Teacher(**{**values, **arrays})


class Worker:
    """An actor of Ray."""

    def load(self, job: Job, fitting: Shared, validation: Shared) -> str:
        """Loads the model and takes the teachers; returns the name of its node. Raises `UserError` where the model is not the driver's."""
        import ray

        if job.version != __version__:
            raise UserError(f"has version {__version__} of the package, the driver {job.version}")
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        if job.folder.is_dir():  # names of files are relative to where the driver is
            os.chdir(job.folder)
        model = models.load(job.model, job.options, known=True).started(job.start)
        if exact(model) != job.exact:
            raise UserError(f"model {job.model!r} has other weights on a worker than on the driver, or another precision")
        teachers = _teacher(fitting, model.device), _teacher(validation, model.device)
        self.evaluator = Evaluator(model, *teachers, parse_many(job.objective), job.scale, job.split, job.batch_size, Clock())
        return ray.get_runtime_context().get_node_id()

    def evaluate(self, candidates: str, n: int | None) -> tuple[list[str], int]:
        """An `Entry` for each, keyed by its place, and how often memory ran out."""
        clock, batch = self.evaluator.clock, self._batch()
        evaluations, seconds = clock.evaluations, clock.seconds
        asked = CANDIDATES.validate_json(candidates)
        try:
            outcomes = self.evaluator.candidates(asked, n)
        except Halted:
            raise
        except (UserError, MemoryError) as error:  # there is no memory for one sample, which another process may have taken
            outcomes = [Failure(str(error) or "out of memory")] * len(asked)
        halved = (batch // self._batch()).bit_length() - 1
        arrived = arrivals(outcomes, clock.evaluations - evaluations, clock.seconds - seconds)
        return [
            Entry.of(str(each.place), each.outcome, each.evaluations, each.seconds).model_dump_json(exclude_defaults=True)
            for each in arrived
        ], halved

    def _batch(self) -> int:
        """What the network has room for, as far as it is known."""
        return Denoiser(self.evaluator.model, None, self.evaluator.batch_size).batch_size
