"""Files say what to do, never what to run: nothing in one is unpickled, imported or evaluated, and none leads to another file."""

import ast
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import create_trial

import solversearch
from solversearch import models
from solversearch.cli.loading import Load
from solversearch.errors import UserError
from solversearch.judging.compare import ParetoPoint
from solversearch.plan import Plan
from solversearch.report.dashboard import open_run
from solversearch.report.page import write_page
from solversearch.report.page.files import importances
from solversearch.spaces import SearchSpace
from tests.cli.calling import bad
from tests.report.conftest import whole, write_journal, write_run
from tests.test_report import PLANS

SOURCES = sorted(Path(solversearch.__file__).parent.rglob("*.py"))
PICKLES = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
RUNS = {"eval", "exec", "__import__", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "pandas.read_pickle"}
SAFELY = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False), "numpy.load": ("allow_pickle", False)}
IMPORTERS = {
    "models/custom.py": "python:FILE_OR_MODULE:FACTORY, named on the command line",
    "models/pipelines/library.py": "the libraries that adapters name",
    "notebook.py": "the report, by a name that stands there",
    "search/strategies/__init__.py": "--strategy MODULE:CLASS",
    "search/strategies/context.py": "the files of the strategies that the registry names",
}
"""Modules that import what they are told, and who tells them."""
REGISTRIES = {f"{folder}/__init__.py" for folder in ("export", "judging/objectives", "models", "solvers")}
"""Modules that import files beside them alone, which they list themselves."""


# The source ----------------------------------------------------------------------------------------------------------


def calls(source: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def imported(source: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (each.name.partition(".")[0] for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def findings(source: Path) -> list[str]:
    """What of a module could run what a file says."""
    found = [f"imports {name}" for name in imported(source) if name in PICKLES]
    for name, call in calls(source):
        if name in RUNS:
            found.append(f"calls {name}")
        if name in SAFELY:
            key, value = SAFELY[name]
            given = {each.arg: ast.literal_eval(each.value) for each in call.keywords if isinstance(each.value, ast.Constant)}
            if given.get(key) != value:
                found.append(f"calls {name} without {key}={value}")
        if any(each.arg == "trust_remote_code" for each in call.keywords):
            found.append(f"passes trust_remote_code to {name}")
    return found


def test_no_module_unpickles_or_evaluates() -> None:
    assert len(SOURCES) > 80
    assert {source.name: findings(source) for source in SOURCES if findings(source)} == {}


@pytest.mark.parametrize(
    "text",
    ["import pickle", "from joblib import load", "eval('1')", "torch.load(path)", "torch.load(path, weights_only=False)", "np.load(path)",
     "import os; os.system('x')", "f(trust_remote_code=True)"],
)  # fmt: skip
def test_the_search_for_such_modules_finds_them(tmp_path: Path, text: str) -> None:
    (tmp_path / "module.py").write_text(text)
    assert findings(tmp_path / "module.py")


def test_modules_are_imported_by_name_where_it_is_known_who_names_them() -> None:
    root = Path(solversearch.__file__).parent
    dynamic = {"import_module", "importlib.import_module", "found.loader.exec_module", "spec_from_file_location"}
    found = {str(source.relative_to(root)) for source in SOURCES if any(name in dynamic for name, _ in calls(source))}
    assert found == set(IMPORTERS) | REGISTRIES
    for registry in REGISTRIES:
        named = [ast.unparse(call.args[0]) for name, call in calls(root / registry) if name in dynamic]
        assert named and all(name.startswith("f'{__name__}.{") for name in named)
    with pytest.raises(UserError, match="unknown model"):
        models.load("base")


# Journals ------------------------------------------------------------------------------------------------------------


class Payload:
    """Unpickled, it writes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.write_text, (self.target, "taken")


def test_pickles_in_a_journal_are_left_alone(tmp_path: Path) -> None:
    """Optuna's CMA-ES keeps its state as a pickle in attributes of trials, and would load it."""
    folder, target = tmp_path / "run", tmp_path / "taken"
    write_run(folder, PLANS["unipc"], whole(PLANS["unipc"]))
    study = optuna.load_study(study_name="search", storage=JournalStorage(JournalFileBackend(str(folder / "journal.log"))))
    trial, attributes = study.trials[0], {"cma:optimizer:0": pickle.dumps(Payload(target)).hex()}
    study.add_trial(create_trial(params=trial.params, distributions=trial.distributions, value=0.1, system_attrs=attributes))
    assert isinstance(importances(folder / "journal.log"), dict)
    open_run(folder, tmp_path / "artifacts")
    write_page(folder, tmp_path / "page.html")
    assert not target.exists()
    again = optuna.load_study(study_name="search", storage=study._storage, sampler=optuna.samplers.CmaEsSampler())
    with pytest.raises(AttributeError, match="'int' object"):  # what the payload returned is no optimiser
        again.ask(trial.distributions)
    assert target.exists(), "it would have gone off"


# Code that a file names ----------------------------------------------------------------------------------------------


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module that leaves a trace when it is imported."""
    (tmp_path / "trap.py").write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'taken')!r}).touch()\nfactory = strategy = None\n")
    monkeypatch.chdir(tmp_path)
    yield tmp_path / "trap.py"
    assert not (tmp_path / "taken").exists()


def test_a_space_names_no_code(trap: Path) -> None:
    trap.with_name("space.yaml").write_text("search: {strategy: 'trap:strategy'}")
    with pytest.raises(UserError, match="named on the command line"):
        SearchSpace.read(trap.with_name("space.yaml"))
    assert "--strategy MODULE:CLASS" in bad("optimize", "--model", "digits", "--nfe", 3, "--space", "space.yaml")


@pytest.mark.parametrize("name", ["python:trap.py:factory", "python:trap:factory", "trap:factory", "elsewhere"])
def test_a_plan_names_no_code_and_no_folder(trap: Path, name: str) -> None:
    trap.with_name("elsewhere").mkdir()
    with pytest.raises(UserError, match="name it with --model"):
        Load().from_file(name)
    plan = PLANS["unipc"]
    kept = {field: getattr(plan, field) for field in Plan.model_fields if field not in ("digest", "provenance")}
    Plan(**kept, provenance=plan.provenance.model_copy(update={"model": name})).write("plan.json")
    assert "name it with --model" in bad("cpr", "fit", "plan.json", "plan.json")


@pytest.mark.parametrize("name", ["digits", "sdxl", "hf:somebody/pipeline"])
def test_the_package_s_own_models_may_be_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Load, "__call__", lambda self, name: name)
    assert str(Load().from_file(name)) == name


# Paths that a file names ---------------------------------------------------------------------------------------------


def test_paths_in_a_comparison_are_shown_and_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret.json").write_text("secret content")
    point = ParetoPoint(file="../secret.json", network_calls=1, values={"endpoint": 1.0})
    folder = write_run(tmp_path / "run", PLANS["unipc"], whole(PLANS["unipc"], pareto=(point,)))
    page = write_page(folder, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "../secret.json" in page and "secret content" not in page
    open_run(folder, tmp_path / "artifacts")
    assert not any("secret content" in path.read_text(errors="replace") for path in (tmp_path / "artifacts").iterdir())


def test_a_journal_is_never_made_by_looking(tmp_path: Path) -> None:
    write_journal(tmp_path / "journal.log", 2)
    assert isinstance(importances(tmp_path / "journal.log"), str)
    assert [path.name for path in tmp_path.iterdir()] == ["journal.log"]
