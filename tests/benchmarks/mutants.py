"""Which small mistakes no test would notice: `python -m tests.benchmarks.mutants --count 200`, from the root of the repository.

A mutant is a module with one line changed: a comparison or condition turned round, a sign, a term left out, a number off by one, min for
max, a result thrown away. For each, a process with everything heavy already imported is forked, takes the module from memory, and runs
the tests that guard it, those that call the changed function first; a test that fails has noticed. What lives is printed. The working
tree is not touched. Tolerances and other numbers outside 0.1 .. 10 are let be, as are messages, annotations, assertions and zip's strict.
"""

import argparse
import ast
import json
import os
import random
import re
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib.abc import MetaPathFinder
from importlib.machinery import SourceFileLoader
from importlib.util import spec_from_file_location
from itertools import chain, pairwise, zip_longest
from pathlib import Path
from typing import Any, NoReturn

GUARDS: dict[str, tuple[str, ...]] = {
    "runtime.py": ("tests/test_runtime.py",),
    "plan.py": ("tests/test_plan.py",),
    "solvers/*.py": ("tests/solvers",),
    "spaces/*.py": ("tests/test_spaces.py", "tests/solvers/test_mixed.py"),
    "search/fitting/fit.py": ("tests/search/fitting/test_fit.py",),
    "search/fitting/design_matrix.py": ("tests/search/fitting/test_fit.py", "tests/search/fitting/test_polish.py"),
    "teacher.py": ("tests/test_teacher.py",),
    "judging/compare.py": ("tests/judging/test_compare.py", "tests/test_report.py"),
    "judging/race.py": ("tests/judging/test_race.py",),
    "judging/measures.py": ("tests/judging/test_measures.py", "tests/judging/test_compare.py"),
    "judging/verdict.py": ("tests/judging/test_verdict.py",),
    "judging/intervals.py": ("tests/judging/test_intervals.py", "tests/judging/test_verdict.py"),
    "judging/distances.py": ("tests/judging/objectives/test_distances.py", "tests/judging/test_race.py"),
    "cpr/*.py": ("tests/test_cpr.py",),
}
"""Modules of the package, and the tests that guard them."""

EQUIVALENT: dict[str, Sequence[tuple[str, str, str]]] = {
    "only memory or time": (
        ("teacher.py", "steps // 2, False, progress)", "steps // 2, True, progress)"),
        ("teacher.py", "_read(path, drawn.noise, steps if trajectory else 0", "_read(path, drawn.noise, steps"),
        ("teacher.py", "_read(path, drawn.noise, steps if trajectory else 0", "_read(path, drawn.noise, steps if trajectory else 1"),
        ("search/fitting/design_matrix.py", "CHUNK = 2**23", "CHUNK = 3**23"),
        ("search/fitting/design_matrix.py", "CHUNK = 2**23", "CHUNK = 2*23"),
        ("search/fitting/design_matrix.py", "count = max(1, CHUNK", "count = min(1, CHUNK"),
        ("search/fitting/design_matrix.py", "count = max(1, CHUNK", "count = max(2, CHUNK"),
        ("search/fitting/design_matrix.py", "self.noise[0].numel()", "self.noise[1].numel()"),
        ("plan.py", "include_context=False", "include_context=True"),
        ("spaces/source.py", "LONGEST + 1", "LONGEST + 2"),
        ("judging/race.py", "MORE = 4", "MORE = 5"),
        ("judging/race.py", "COARSE, CARRIED = 12.0", "COARSE, CARRIED = 13.0"),
        ("judging/race.py", "max(len(missing), 1)", "max(len(missing), 2)"),
        ("judging/race.py", "sorted(best - set(leaders))", "sorted(best)"),  # what has been run is not run again
    ),
    "both forms are right there": (
        ("judging/intervals.py", "min(centre + half, 1.0)", "min(centre + half, 2.0)"),  # against rounding errors alone
        ("judging/distances.py", "len(rows) <= rows.shape[1]", "len(rows) < rows.shape[1]"),
        ("judging/race.py", "while size < n", "while size <= n"),  # then all samples have been seen
        ("solvers/integrals.py", "if h > 2:", "if h > 3:"),
        ("solvers/ghvb.py", "10**6", "10**7"),
        ("solvers/ghvb.py", "10**6", "10*6"),  # after 60 steps 0.2^60 is left of a velocity
        ("solvers/ddim.py", "order=1", "order=2"),  # of whatever history, its step takes the newest evaluation
        ("solvers/deis.py", "[-rho(s.node), rho(t)]", "[rho(s.node), rho(t)]"),  # the other nodes' polynomials vanish at s
        ("solvers/dpmpp_2m_sde.py", "x + problem.noise()", "x - problem.noise()"),  # whose distribution is symmetric
        ("spaces/domain.py", "t_start - self.schedule.t_end", "t_start + self.schedule.t_end"),  # whole times end at 0
        ("spaces/space.py", "t_start - schedule.t_end", "t_start + schedule.t_end"),
        ("spaces/sections.py", "END = Kind(0.0,", "END = Kind(1.0,"),  # only the type of such a default counts
        ("spaces/sections.py", "Kind(False,", "Kind(True,"),
        ("spaces/sections.py", "set(content) <= {", "set(content) < {"),  # none is written with all three
        ("teacher.py", "VERSION = 3", "VERSION = 4"),  # any number that no earlier version had
        ("cpr/regression.py", "plans[0].threshold", "plans[1].threshold"),  # all have the same
        ("plan.py", "allow_nan=False", "allow_nan=True"),  # a plan's numbers are finite
        ("solvers/mixed.py", "self.order > 2", "self.order >= 2"),  # a history of two is never `low`
    ),
    "weights count relative to each other, so that the unit of the errors does not matter": (
        ("search/fitting/fit.py", ".clamp(min=0) / self.teacher.noise[0].numel()", ".clamp(min=0) * self.teacher.noise[0].numel()"),
        ("search/fitting/fit.py", "self.teacher.noise[0].numel()", "self.teacher.noise[1].numel()"),
        ("search/fitting/fit.py", "weight / weight.mean()", "weight * weight.mean()"),
        ("search/fitting/fit.py", "weight = 1 /", "weight = 2 /"),
    ),
    "guards a division by zero that needs errors of exactly zero": (
        ("search/fitting/fit.py", "error.median() + 1e-12", "error.median() - 1e-12"),
        ("search/fitting/fit.py", "error.median() + 1e-12", "error.median()"),
        ("search/fitting/fit.py", "gram.diagonal() + 1e-12", "gram.diagonal()"),
    ),
    "a choice, as good as its neighbour": (("cpr/tuning.py", "TIMES_U, U, G, N = 5, 4,", "TIMES_U, U, G, N = 5, 5,"),),
}
"""Why nothing could notice: (module, part of the line, the same part changed)."""

HEAVY = (
    "torch",
    "scipy.optimize",
    "scipy.stats",
    "sklearn.cluster",
    "pydantic",
    "optuna",
    "hypothesis",
    "pytest",
    "diffusers",
    "transformers",
)
ROOM = 16 * 2**30
"""Bytes of address space beyond the parent's."""
SLOWER, LEAST = 4.0, 30.0
"""A mutant has so many times the seconds that its tests take, at least so many."""

SWAPS = {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "==", "is": "is not", "is not": "is", "in": "not in", "not in": "in",
         "+": "-", "-": "+", "*": "/", "/": "*", "//": "/", "**": "*", "and": "or", "or": "and"}  # fmt: skip
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "amax": "amin", "amin": "amax"}
SKIPPED = (ast.Raise, ast.JoinedStr, ast.Assert)


@dataclass(frozen=True)
class Mutant:
    """A module of the package with one line changed; function is the first line of the innermost function around it."""

    module: str
    line: int
    before: str
    after: str
    source: str
    function: int

    def __str__(self) -> str:
        return f"{self.module}:{self.line}\n    - {self.before.strip()}\n    + {self.after.strip()}"


# Making them ---------------------------------------------------------------------------------------------------


def mutants_of(module: str) -> list[Mutant]:
    """All mutants of a module, in its order."""
    text = Path("solversearch", module).read_text()
    lines, tree, found = text.splitlines(keepends=True), ast.parse(text), {}
    for node, function in _walk(tree, 0):
        for line, start, end, put in _changes(node, lines):
            before = lines[line - 1]
            after = before[:start] + put + before[end:]
            source = "".join([*lines[: line - 1], after, *lines[line:]])
            try:
                different = ast.dump(ast.parse(source)) != ast.dump(tree)
            except SyntaxError:
                continue
            if different and after.strip():
                found[line, after] = Mutant(module, line, before, after, source, function)
    return [found[key] for key in sorted(found)]


def _walk(node: ast.AST, function: int) -> Iterator[tuple[ast.AST, int]]:
    """Every node that is executed, with the function it belongs to."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or isinstance(child, SKIPPED) or getattr(child, "arg", None) == "strict":
                continue
            inside = function
            if isinstance(child, ast.FunctionDef):
                inside = min([child.lineno, *(each.lineno for each in child.decorator_list)])
            yield child, inside
            yield from _walk(child, inside)


Change = tuple[int, int, int, str]
"""Line, start, end, and what stands there instead."""


def _changes(node: Any, lines: Sequence[str]) -> Iterator[Change]:
    """The changes to the node itself; lines are ASCII wherever it matters."""
    kind = type(node)
    if kind is ast.Constant:
        if isinstance(node.value, bool):
            yield node.lineno, node.col_offset, node.end_col_offset, str(not node.value)
        elif isinstance(node.value, int | float) and (node.value == 0 or 0.1 <= node.value <= 10):
            yield node.lineno, node.col_offset, node.end_col_offset, repr(node.value + 1)
    elif kind is ast.Name and node.id in NAMES:
        yield node.lineno, node.col_offset, node.end_col_offset, NAMES[node.id]
    elif kind is ast.Attribute and node.attr in NAMES:
        yield node.end_lineno, node.end_col_offset - len(node.attr), node.end_col_offset, NAMES[node.attr]
    elif kind is ast.IfExp and node.lineno == node.end_lineno:
        yield node.lineno, node.body.end_col_offset, node.end_col_offset, ""  # always
    elif kind in (ast.If, ast.While):
        yield node.test.lineno, node.test.col_offset, node.test.col_offset, "not "
    elif kind is ast.Return and node.value is not None and node.lineno == node.end_lineno:
        yield node.lineno, node.value.col_offset, node.end_col_offset, "None"
    else:
        yield from _operators(node, lines)


def _operators(node: Any, lines: Sequence[str]) -> Iterator[Change]:
    kind, operands = type(node), list[Any]()
    if kind is ast.UnaryOp and isinstance(node.op, ast.Not | ast.USub):
        yield node.lineno, node.col_offset, node.operand.col_offset, ""
    elif kind is ast.Compare:
        operands = [node.left, *node.comparators]
    elif kind is ast.BoolOp:
        operands = node.values
    elif kind is ast.BinOp:
        operands = [node.left, node.right]
        if isinstance(node.op, ast.Add | ast.Sub) and node.left.end_lineno == node.end_lineno:
            yield node.end_lineno, node.left.end_col_offset, node.end_col_offset, ""  # the term left out
    for left, right in pairwise(operands):
        if left.end_lineno == right.lineno and left.end_col_offset is not None:
            found = re.search(r"is not|not in|[^\s()]+", lines[right.lineno - 1][left.end_col_offset : right.col_offset])
            if found and found[0] in SWAPS:
                yield right.lineno, left.end_col_offset + found.start(), left.end_col_offset + found.end(), SWAPS[found[0]]


# Running them --------------------------------------------------------------------------------------------------


class _InMemory(MetaPathFinder):
    """Finds one module of the package in memory."""

    def __init__(self, mutant: Mutant) -> None:
        path = Path("solversearch", mutant.module).absolute()
        parts = ("solversearch", *Path(mutant.module).with_suffix("").parts)
        self.name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

        class Loader(SourceFileLoader):
            def get_code(self, fullname: str) -> Any:
                return compile(mutant.source, path, "exec")

        inside = [str(path.parent)] if parts[-1] == "__init__" else None
        self.spec = spec_from_file_location(self.name, path, loader=Loader(self.name, str(path)), submodule_search_locations=inside)

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        return self.spec if fullname == self.name else None


class _Course:
    """What a run of the tests without any change teaches: the seconds of each, and the functions of the package that it calls."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.calls: dict[str, list[str]] = {}

    def pytest_runtest_protocol(self, item: Any, nextitem: Any) -> None:
        self.now, self.began = item.nodeid, time.perf_counter()
        sys.settrace(self._trace)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        sys.settrace(None)
        self.seconds[nodeid] = time.perf_counter() - self.began

    def _trace(self, frame: Any, event: str, argument: Any) -> None:
        code = frame.f_code
        _, package, module = code.co_filename.rpartition(f"{os.sep}solversearch{os.sep}")
        if package:
            callers = self.calls.setdefault(f"{module}:{code.co_firstlineno}", [])
            if callers[-1:] != [self.now]:
                callers.append(self.now)


class _Order:
    """The tests that call the changed function first, each group by the seconds that they take."""

    def __init__(self, course: _Course, mutant: Mutant) -> None:
        self.seconds, self.callers = course.seconds, set(course.calls.get(f"{mutant.module}:{mutant.function}", ()))

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items.sort(key=lambda item: (item.nodeid not in self.callers, self.seconds.get(item.nodeid, 0.0)))


def forked(tests: Sequence[str], folder: Path, plugin: object, mutant: Mutant | None = None) -> int:
    """Starts the tests in a process of its own, whose files lie in the folder; returns its number. Its exit code is pytest's."""
    pid = os.fork()
    if pid:
        return pid
    _tests(tests, folder, plugin, mutant)


def _tests(tests: Sequence[str], folder: Path, plugin: object, mutant: Mutant | None) -> NoReturn:
    import pytest

    code: int = 3
    try:
        os.setsid()  # so that it can be ended with all that it has started
        resource.setrlimit(resource.RLIMIT_AS, (ROOM + int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize(),) * 2)
        output = os.open(folder / "output", os.O_WRONLY | os.O_CREAT)
        os.dup2(output, 1)
        os.dup2(output, 2)
        tempfile.tempdir = str(folder)
        if mutant:
            sys.meta_path.insert(0, _InMemory(mutant))
        code = pytest.main([*tests, "-x", "-q", "-p", "no:cacheprovider", f"--basetemp={folder / 'pytest'}"], plugins=[plugin])
        if isinstance(plugin, _Course):
            (folder / "course").write_text(json.dumps([plugin.seconds, plugin.calls]))
    finally:
        os._exit(int(code))


def watched(tests: Sequence[str]) -> _Course:
    """The course of the tests on the code as it is, which must pass."""
    with tempfile.TemporaryDirectory() as folder:
        pid = forked(tests, Path(folder), course := _Course())
        _, status = os.waitpid(pid, 0)
        if status:
            sys.exit(f"the tests fail without any change:\n{(Path(folder) / 'output').read_text()[-3000:]}")
        course.seconds, course.calls = json.loads((Path(folder) / "course").read_text())
    return course


def outcomes(mutants: Sequence[tuple[Mutant, tuple[str, ...], _Course]], jobs: int) -> Iterator[tuple[Mutant, str]]:
    """Each mutant, as it ends, with what became of it: noticed, lives or endless."""
    waiting, running = list(reversed(mutants)), dict[int, tuple[Mutant, Any, float]]()
    while waiting or running:
        while waiting and len(running) < jobs:
            mutant, tests, course = waiting.pop()
            folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
            pid = forked(tests, Path(folder.name), _Order(course, mutant), mutant)
            running[pid] = mutant, folder, time.monotonic() + max(LEAST, SLOWER * sum(course.seconds.values()))
        time.sleep(0.02)
        for pid, (mutant, folder, until) in list(running.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if not ended and time.monotonic() > until:
                os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            if ended or time.monotonic() > until:
                del running[pid]
                folder.cleanup()
                yield mutant, "endless" if not ended else "noticed" if status else "lives"


# The command ---------------------------------------------------------------------------------------------------


def draw(parts: Sequence[Sequence[Mutant]], count: int, seed: int) -> tuple[list[Mutant], int]:
    """So many mutants, as many of each part as of any other as long as it has some; and how many there are."""
    shuffled = [random.Random(seed).sample(part, len(part)) for part in map(list, parts)]
    turns = [mutant for mutant in chain(*zip_longest(*shuffled)) if mutant]
    return turns[:count], len(turns)


def equivalent(mutant: Mutant) -> bool:
    """Whether the mutant is listed in `EQUIVALENT`."""
    listed = [each for group in EQUIVALENT.values() for each in group if each[0] == mutant.module]
    return any(mutant.before.replace(part, changed) == mutant.after != mutant.before for _, part, changed in listed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="mutants that are drawn, as many of each part")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=["*"], nargs="+", help="modules, such as plan.py 'solvers/*'")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    asked = parser.parse_args()
    modules = {glob: [str(path.relative_to("solversearch")) for path in sorted(Path("solversearch").glob(glob))] for glob in GUARDS}
    parts = [[each for each in modules[glob] if any(fnmatch(each, only) for only in asked.only)] for glob in GUARDS]
    guards = {module: tests for modules, tests in zip(parts, GUARDS.values(), strict=True) for module in modules}
    drawn, possible = draw([[m for module in modules for m in mutants_of(module)] for modules in parts], asked.count, asked.seed)
    drawn.sort(key=lambda mutant: (mutant.module, mutant.line))
    known = [mutant for mutant in drawn if equivalent(mutant)]
    _prepare()
    courses = {tests: watched(tests) for tests in {guards[mutant.module] for mutant in drawn}}
    tried = [(mutant, guards[mutant.module], courses[guards[mutant.module]]) for mutant in drawn if mutant not in known]
    counts, start = {mutant.module: Counter[str]() for mutant in drawn}, time.monotonic()
    for mutant in known:
        counts[mutant.module]["equivalent"] += 1
    for mutant, outcome in outcomes(tried, asked.jobs):
        counts[mutant.module][outcome] += 1
        if outcome == "lives":
            print(mutant, flush=True)
    columns = ("noticed", "endless", "equivalent", "lives")
    print(f"\n{'module':28}" + "".join(f"{name:>12}" for name in columns))
    for module, count in counts.items():
        print(f"{module:28}" + "".join(f"{count[name]:12}" for name in columns))
    lives = sum(count["lives"] for count in counts.values())
    share = f"{lives / max(len(drawn), 1):.1%}"
    print(f"\n{lives} of {len(drawn)} live ({share}); {possible} could be made; {time.monotonic() - start:.0f} s")


def _prepare() -> None:
    """Everything heavy is imported once, and nothing is written beside the sources or kept between runs."""
    os.environ |= {"OMP_NUM_THREADS": "1", "HYPOTHESIS_STORAGE_DIRECTORY": tempfile.mkdtemp(prefix="mutants-")}
    sys.dont_write_bytecode = True
    for name in HEAVY:
        __import__(name)
    import hypothesis
    import torch

    torch.set_num_threads(1)
    hypothesis.settings.register_profile("mutants", derandomize=True, database=None, deadline=None)
    hypothesis.settings.load_profile("mutants")


if __name__ == "__main__":
    main()
