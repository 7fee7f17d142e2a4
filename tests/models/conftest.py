"""Tiny pipelines, built when a test first asks for them."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests import tiny


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a family. Tests that change it copy it first."""
    return cache(lambda family: tiny.build(family, tmp_path_factory.mktemp("pipelines") / family))


@pytest.fixture(scope="session")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("prompts") / "prompts.txt"
    file.write_text("\n".join(tiny.CAPTIONS) + "\n", encoding="utf-8")
    return file
