"""What each hand-set number of the search is worth: the search with it at half and at double.

    python -m tests.benchmarks.sensitivity [--models digits,digits@4,mixture,coins] [--constants REGEX] [--seeds 3] [--json OUT]

The numbers are the literals of the upper-case names of the modules in solversearch/search; `NOT_TUNED` has those that are not tried, with
reasons. Each is measured at 5 evaluations, with few samples, after the stage that it acts on (`RUNS`), before later stages hide it. A ratio
is of the geometric mean error on the same held-out noise to the search's as it is: ln, mean over seeds and standard error of one mean,
pooled over all numbers tried on that model. A star stands where it is more than two standard errors. Seconds are over those of the search
as it is, in all models together. An equal plan is told as =, a search that fails as !.

Each value is tried in a process of its own, in which the module is compiled with it, so that whatever is derived from it, takes it as a
default or has imported it has it too. One after the other; minutes a number. Run by hand, on an idle machine.
"""

import argparse
import ast
import json
import multiprocessing
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any

import numpy as np
import optuna
import torch
from rich.console import Console
from rich.table import Table

PACKAGE = Path(__file__).parents[2] / "solversearch"
MODELS = "digits,digits@4,mixture,coins"
NFE, SAMPLES, HELD_OUT = 5, 64, 512
SOLVERS = ("ddim", "unip_2", "unipc_2", "unipc_3", "dpmpp_2m", "dpmpp_3m", "deis_tab3", "ipndm_3")
"""The baselines, on every grid: all of them would take most of the time."""

NOT_TUNED = {
    r"estimate:.*": "what --dry-run estimates, not the search",
    r"evaluating\..*": "patience with workers and disks, not the search",
    r".*:CHUNK": "memory: tables together, which changes no result",
    r"quasi_newton:TOO_FAR": "a bad place for a line search, far above any loss",
    r"gaussian:HUGE|anchored:WORST": "the loss of a table that runs away",
    r"instant:CLOSEST": "keeps times from coinciding",
    r"instant:GRID": "fineness of an interpolation",
    r"settings:LEAST": "the least that is asked for",
    r"task:OF_PLAN": "how exact the teacher of the comparison is, not the search",
    r"loop:REPEATS|proposer:_TRIES": "when a finite space is exhausted",
    r"proposer:RECENT": "memory: signatures kept",
    r"reseeded:(RANDOM|FEW|FEWEST|SEEN)": "bounds of time, at more trials than are run here",
    r"predictor:(WINDOW|BAD)": "what is told of the predictor",
    r"predictor:OTHERS": "of evaluations of other runs, of which there are none here",
    r"pricing:EXACT": "rounding errors of sums",
    r"pricing:MOST": "a bound of time",
    r"(by_gradient|dmn|gits|gs|ld3|oss|s4s|learnable):.*": "recipes of papers, which say what the published method is, and their numerics",
    r"evolution:(POPULATION|MUTATIONS|CROSSOVERS|PARENTS|RATE)": "AutoDiffusion's, as published",
    r"compensation:.*": "DC-Solver's fit, as published, and the step of a difference",
}
"""Limits, format, numerical safety and what papers fix: MODULE:NAME, beginning anywhere in the dotted name."""

RUNS: dict[str, dict[str, Any]] = {
    r"stages\.price:|surrogates:LEVELS|instant:WIDER": {"budget": float(NFE), "polish": False},
    r"instant:SAMPLES|guided_mixture:COMPONENTS": {"search": False, "polish": False, "fit_samples": 256, "validation_samples": 256},
    r"instant:|guided_mixture:": {"search": False, "polish": False},
    r"evolution:": {"strategy": "evolution", "trials": 150, "instant": False, "polish": False},
    r"strategies\.proposals:|reseeded:": {"strategy": "tpe", "trials": 60, "polish": False},
    r"descent:": {"space": "times", "trials": 16},
    r"time_shift:": {"space": "time_shift", "objective": "endpoint", "trials": 16},
    r"stages[\w.]*:SEARCHED": {"strategy": "s3", "trials": 24, "evaluations": 100_000},
    r"baseline:GUIDED": {"guidance": 4.0, "strategy": "tpe", "trials": 16, "polish": False},
    r"settings:RARE": {"objective": "mean", "fit_samples": 256, "validation_samples": 0},
    r"settings:TRIALS": {"strategy": "s3", "polish": False},
    r"polish:(DAMPING_MANY|MANY)": {"nfe": 9, "fit_samples": 256},
    r"polish:|coordinates:|components:|task:": {"fit_samples": 256},
    r"": {"strategy": "s3", "trials": 40, "polish": False},
}
"""How the search is run for a number: the first that fits."""


@dataclass(frozen=True)
class Constant:
    """value is a number or a tuple of numbers, whose entries are changed together."""

    module: str
    name: str
    value: Any

    @property
    def key(self) -> str:
        return f"{self.module.removeprefix('solversearch.search.')}:{self.name}"

    def changed(self, factor: float) -> Any:
        """Times the factor, whole numbers at least 1; None where that is the value itself."""

        def scaled(value: float) -> float:
            return max(1, round(value * factor)) if isinstance(value, int) else value * factor

        new = tuple(map(scaled, self.value)) if isinstance(self.value, tuple) else scaled(self.value)
        return None if new == self.value else new

    @property
    def asked(self) -> dict[str, Any]:
        return next(asked for pattern, asked in RUNS.items() if re.search(rf"(^|\.)({pattern})" if pattern else "", self.key))


def constants() -> Iterator[Constant]:
    """Every hand-set number: upper-case names of modules that a literal is assigned to."""
    for file in sorted((PACKAGE / "search").rglob("*.py")):
        module = ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        for name, value in assigned(ast.parse(file.read_text(encoding="utf-8"))):
            numbers = value if isinstance(value, tuple) else (value,)
            if all(isinstance(each, int | float) and not isinstance(each, bool) for each in numbers):
                constant = Constant(module, name, value)
                if not any(re.search(rf"(^|\.)({pattern})$", constant.key) for pattern in NOT_TUNED):
                    yield constant


def assigned(tree: ast.Module) -> Iterator[tuple[str, Any]]:
    """Upper-case names of the module and their literals, where they are literals."""
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value:
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            pairs: Sequence[tuple[ast.expr, ast.expr]] = [(target, node.value)]
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = list(zip(target.elts, node.value.elts, strict=True))
            for name, value in pairs:
                if isinstance(name, ast.Name) and re.fullmatch(r"_?[A-Z][A-Z_]*", name.id):
                    try:
                        yield name.id, ast.literal_eval(value)
                    except ValueError:  # computed from others
                        continue


# One value, in a process of its own ------------------------------------------------------------------------------


class Changed(SourceFileLoader):
    """Compiles a module with another value of one of its names."""

    def __init__(self, spec: ModuleSpec, name: str, value: Any) -> None:
        super().__init__(spec.name, str(spec.origin))
        self.changed, self.value = name, value

    def get_code(self, fullname: str) -> CodeType:
        tree = ast.parse(self.get_data(self.path))
        names = [
            [each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)] for node in tree.body
        ]
        place = next(i for i, found in enumerate(names) if self.changed in found)
        tree.body[place + 1 : place + 1] = ast.parse(f"{self.changed} = {self.value!r}").body
        return compile(tree, self.path, "exec")


class Finder:
    def __init__(self, constant: Constant, value: Any) -> None:
        self.constant, self.value = constant, value

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != self.constant.module:
            return None
        spec = PathFinder.find_spec(name, path)
        assert spec is not None
        spec.loader = Changed(spec, self.constant.name, self.value)
        return spec


def child(constant: Constant | None, value: Any, asked: dict[str, Any], models: str, seeds: int, out: Any) -> None:
    if constant is not None:
        sys.meta_path.insert(0, Finder(constant, value))
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    found: dict[str, tuple[float, float]] = {}
    try:
        for model in models.split(","):
            for seed in range(seeds):
                found[f"{model} {seed}"] = searched(model, seed, asked)
    except Exception as error:
        out.send(f"{type(error).__name__}: {error}")
    else:
        out.send(found)


def searched(name: str, seed: int, asked: dict[str, Any]) -> tuple[float, float]:
    """Mean ln error of the plan found, on held-out noise, and the seconds of the search without its teachers."""
    from solversearch import models
    from solversearch.judging import baselines
    from solversearch.judging.objectives.endpoint import endpoint_mse
    from solversearch.sampling import sample
    from solversearch.search.pipeline import run_stages
    from solversearch.search.settings import Settings
    from solversearch.search.stages.task import Task
    from solversearch.solvers import get
    from solversearch.spaces import SearchSpace
    from solversearch.teacher import teach

    vars(baselines)["SOLVERS"] = {each: get(each) for each in SOLVERS}
    model_name, _, guidance = name.partition("@")
    asked = dict(asked)
    space = SearchSpace.named(asked.pop("space", "default"))
    asked = {"fit_samples": SAMPLES, "validation_samples": SAMPLES, **asked}
    if model_name == "coins":
        from tests.assets.coins import factory

        model = factory()
    else:
        model = models.load(model_name)
    if not model.variants:  # nothing is cheaper than its own evaluations
        asked.pop("budget", None)
    asked = {"nfe": NFE, "guidance": float(guidance or 1), **asked}
    settings = Settings.of(space, seed=seed, samples=HELD_OUT, **asked).sized(model)
    task = Task(model, settings, lambda stage, done, total, note: None)
    task.teacher("fit", settings.fit_samples)  # kept in the cache
    task.teacher("validate", settings.validation_samples)
    start = time.perf_counter()
    best = run_stages(task).best
    seconds = time.perf_counter() - start
    held_out = teach(model, "held_out", HELD_OUT, settings.guidance, trajectory=False)
    assert best is not None
    with torch.no_grad():
        errors = endpoint_mse(sample(model, best.table, held_out), held_out.endpoint)
    return float(errors.double().clamp(min=1e-30).log().mean()), seconds


def run(constant: Constant | None, value: Any, asked: dict[str, Any], given: argparse.Namespace) -> dict[str, tuple[float, float]] | str:
    here, there = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=child, args=(constant, value, asked, given.models, given.seeds, there))
    process.start()
    there.close()
    try:
        found: dict[str, tuple[float, float]] | str = here.recv()
    except EOFError:
        found = "the process died"
    process.join()
    return found


# The table -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tried:
    """One constant at one value: ln ratios of the geometric mean error, by model and seed, or why there are none; ratio of the seconds."""

    constant: Constant
    factor: float
    value: Any
    ratios: dict[str, list[float]]
    seconds: float = float("nan")
    failure: str = ""


def compared(constant: Constant, factor: float, value: Any, base: Any, found: Any, models: Sequence[str]) -> Tried:
    if isinstance(found, str):
        return Tried(constant, factor, value, {}, failure=found)
    ratios = {model: [found[key][0] - base[key][0] for key in base if key.rpartition(" ")[0] == model] for model in models}
    return Tried(constant, factor, value, ratios, sum(s for _, s in found.values()) / sum(s for _, s in base.values()))


def standard_errors(tried: Sequence[Tried]) -> dict[str, float]:
    """Of a mean over seeds, by model: from the differences of seeds about their mean, of all that had an effect."""
    found: dict[str, list[list[float]]] = {}
    for each in tried:
        for model, ratios in each.ratios.items():
            if any(ratios) and len(ratios) > 1:
                found.setdefault(model, []).append(ratios)
    return {model: float(np.sqrt(np.mean([np.var(each, ddof=1) / len(each) for each in rows]))) for model, rows in found.items()}


def cell(tried: Tried, model: str, errors: dict[str, float]) -> str:
    if tried.failure:
        return "!"
    ratios = tried.ratios[model]
    if not any(ratios):
        return "="
    mean, error = float(np.mean(ratios)), errors.get(model, float("nan"))
    return f"{mean:+.3f}" + "*" * matters(ratios, error)


def matters(ratios: Sequence[float], error: float) -> bool:
    return abs(float(np.mean(ratios))) > 2 * error


def show(tried: Sequence[Tried], models: Sequence[str]) -> None:
    errors = standard_errors(tried)
    table = Table("constant", "value", "tried", *models, "seconds", "verdict", title="ln ratio of the geometric mean error")
    for each in tried:
        starred = sum(matters(ratios, errors.get(model, float("nan"))) for model, ratios in each.ratios.items())
        same = not each.failure and not any(map(any, each.ratios.values()))
        verdict = each.failure[:40] or ("no effect here" if same else "matters" if starred else "within noise")
        cells = [cell(each, model, errors) for model in models]
        table.add_row(each.constant.key, str(each.constant.value), str(each.value), *cells, f"{each.seconds:.2f}", verdict)
    table.caption = "standard error of a mean: " + ", ".join(f"{model} {error:.3f}" for model, error in errors.items())
    Console(width=170).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description="The search with each hand-set number at half and at double.")
    parser.add_argument("--models", default=MODELS, help="name or name@guidance, with commas between")
    parser.add_argument("--constants", default="", help="a regular expression of MODULE:NAME")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="where the numbers are written, too, after each")
    given = parser.parse_args()
    models, tried, bases = given.models.split(","), list[Tried](), dict[str, Any]()
    for constant in constants():
        if not re.search(given.constants, constant.key):
            continue
        asked = json.dumps(constant.asked)
        if asked not in bases:
            bases[asked] = run(None, None, constant.asked, given)
            if isinstance(bases[asked], str):
                raise SystemExit(f"the search as it is fails with {asked}: {bases[asked]}")
        for factor in (0.5, 2.0):
            if (value := constant.changed(factor)) is not None:
                tried.append(compared(constant, factor, value, bases[asked], run(constant, value, constant.asked, given), models))
                print(constant.key, value, tried[-1].ratios or tried[-1].failure, f"{tried[-1].seconds:.2f}", flush=True)
        if given.json:
            rows = [{**vars(each), "constant": each.constant.key, "was": each.constant.value} for each in tried]
            given.json.write_text(json.dumps({"models": models, "seeds": given.seeds, "rows": rows}, indent=1), encoding="utf-8")
    show(tried, models)


if __name__ == "__main__":
    main()
