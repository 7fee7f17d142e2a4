"""The model that the tests of what judges share."""

import pytest

from solversearch import models
from solversearch.models.base import Model
from tests.cli.calling import COINS


@pytest.fixture(scope="session")
def coins() -> Model:
    return models.load(f"{COINS}:factory")
