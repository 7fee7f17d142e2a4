"""What the contract tests of all registries ask of a file: that it is registered, once, and says where its formula is from.

Each failure says what is missing, and where. `solversearch/ADDING.md` is the page for people.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any


def lacks(what: object, missing: Iterable[tuple[bool, str]]) -> None:
    """Fails with all that is missing of it: pairs of whether it is and how to say so."""
    told = [text for absent, text in missing if absent]
    assert not told, f"{what} lacks: " + "; ".join(told) + " (see solversearch/ADDING.md)"


def files_are_registered(package: ModuleType, attribute: str) -> None:
    """Every file of the package that has entries stands in its `FILES`, and no name is given twice."""
    names: list[str] = []
    for path in sorted(_folder(package).glob("[!_]*.py")):
        adds = any(_assigns(node, attribute) for node in ast.parse(path.read_text(encoding="utf-8")).body)
        known = path.stem in package.FILES
        lacks(path.name, [(adds and not known, f"a place in FILES of {package.__name__}"), (known and not adds, attribute)])
    for _, entry in entries(package, attribute):
        lacks(f"{package.__name__}: {entry.name}", [(entry.name in names, "a name of its own")])
        names.append(entry.name)


def entries(package: ModuleType, attribute: str) -> Iterator[tuple[ModuleType, Any]]:
    """Every entry with the module that adds it."""
    for file in package.FILES:
        module = getattr(package, file)
        found = getattr(module, attribute)
        for entry in found if isinstance(found, tuple) else (found,):
            yield module, entry


def docstring_lacks(module: ModuleType, source: str = "", formula: bool = False) -> list[tuple[bool, str]]:
    text = module.__doc__ or ""
    cited = re.findall(r"arXiv:\d{4}\.\d{5}", source)
    return [
        (not text, f"a docstring of {module.__name__}"),
        *((each not in text, f"the source {each} in the docstring of {module.__name__}") for each in cited),
        (formula and not re.search(r"\n\n {4}\S.*=", text), f"a formula, indented, in the docstring of {module.__name__}"),
    ]


def one_line(text: str) -> bool:
    return bool(text.strip()) and "\n" not in text


def _folder(package: ModuleType) -> Path:
    return Path(str(package.__file__)).parent


def _assigns(node: ast.stmt, attribute: str) -> bool:
    return isinstance(node, ast.Assign) and any(isinstance(target, ast.Name) and target.id == attribute for target in node.targets)
