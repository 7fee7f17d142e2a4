"""What all tests share."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Teachers are cached apart from the person's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOLVERSEARCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
