"""The page on adding things names files and registries that there are."""

import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "solversearch"
PAGE = (PACKAGE / "ADDING.md").read_text(encoding="utf-8")
REGISTRIES = re.findall(r"`([A-Z_]+)` in `([\w/]+\.py)`", PAGE)


def test_every_file_that_it_names_is_there() -> None:
    named = [path for path in re.findall(r"`([\w/]+\.(?:py|md))`", PAGE) if "NAME" not in path]
    missing = [path for path in named if not any((root / path).is_file() for root in (PACKAGE, PACKAGE.parent))]
    assert len(named) > 15 and not missing
    tests = [path for command in re.findall(r"`pytest ([^`]+)`", PAGE) for path in command.split()]
    assert len(tests) > 8 and all((PACKAGE.parent / path).exists() for path in tests)


@pytest.mark.parametrize(("name", "path"), REGISTRIES)
def test_every_registry_is_in_its_file(name: str, path: str) -> None:
    file = next(root / path for root in (PACKAGE, PACKAGE.parent) if (root / path).is_file())
    assert re.search(rf"^{name}\b.* = ", file.read_text(encoding="utf-8"), re.MULTILINE), f"{path} has no {name}"
