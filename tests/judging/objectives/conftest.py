"""Models, one teacher, and candidates that have been run, for all tests of the objectives."""

from collections.abc import Callable

import pytest
from torch import Tensor

from solversearch import models
from solversearch.grids import grid
from solversearch.judging.objectives import Outcome
from solversearch.models.base import Model
from solversearch.sampling import sample
from solversearch.solvers import get
from solversearch.teacher import Teacher, teach
from tests.cli.calling import COINS

Ran = Callable[..., Outcome]


@pytest.fixture(scope="session")
def featureless() -> Model:
    return models.load(f"{COINS}:unconditional")


@pytest.fixture(scope="session")
def digits() -> Model:
    return models.load("digits")


@pytest.fixture(scope="session")
def teacher(digits: Model) -> Teacher:
    return teach(digits, "validate", 128)


@pytest.fixture(scope="session")
def ran(digits: Model, teacher: Teacher) -> Ran:
    """A solver on the quadratic grid, run on digits."""

    def run(solver: str, nfe: int, batch_size: int = 512) -> Outcome:
        table, states = get(solver).tableau(digits.schedule, grid("quadratic", digits.schedule, nfe)), list[Tensor]()
        samples = sample(digits, table, teacher, batch_size, callback=lambda i, x, d: states.append(x))
        return Outcome(digits, teacher, table, samples, 0.01, tuple(states), batch_size)

    return run
