"""One small digits teacher for all tests of the search."""

import pytest

from solversearch import models
from solversearch.models.base import Model
from solversearch.teacher import Teacher, teach


@pytest.fixture(scope="session")
def digits() -> Model:
    return models.load("digits")


@pytest.fixture(scope="session")
def fitting(digits: Model) -> Teacher:
    return teach(digits, "fit", 96)


@pytest.fixture(scope="session")
def validation(digits: Model) -> Teacher:
    return teach(digits, "validate", 96)


@pytest.fixture(scope="session")
def held_out(digits: Model) -> Teacher:
    return teach(digits, "held_out", 192, trajectory=False)
