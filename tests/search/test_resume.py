"""A search that is killed anywhere and resumed: the same plan in the end, nothing evaluated twice; and what is refused."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial
from torch import Tensor

import solversearch.judging.baselines as peers
import solversearch.search.surrogates.instant as stage_zero
from solversearch.errors import Interrupted, UserError
from solversearch.judging.compare import Comparison
from solversearch.models import DEFAULT, Model
from solversearch.plan import Plan, read_json
from solversearch.search.evaluating.evaluations import Entry, InProcess, Log
from solversearch.search.evaluating.run_folder import Run, held, without_password
from solversearch.search.evaluating.storage import Trials
from solversearch.search.evaluating.warm_start import read_records
from solversearch.search.fitting.compensation import greedy_ratios
from solversearch.search.optimize import optimize
from solversearch.search.settings import Settings
from solversearch.search.stages import baseline, polish, search
from solversearch.search.strategies import Context
from solversearch.search.surrogates.predictor import Record
from solversearch.spaces import SearchSpace, presets
from tests.assets import coins
from tests.search.postgres import server

MODEL = coins.factory()
SMALL: dict[str, Any] = {"nfe": 3, "trials": 20, "samples": 128, "fit_samples": 64, "validation_samples": 256}
SPACES: dict[str, dict[str, Any]] = {
    "default": {},
    "s3": {"instant": True, "polish": True},
    "autodiffusion": {"evaluations": 20_000, "trials": 1000},
    "default with a bound": {"evaluations": 30_000},
    "default, two objectives": {"strategy": "nsga2", "objective": "endpoint, network_calls", "guidance": 2.0},
    "default, CMA-ES": {"strategy": "cmaes"},
}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polish, "STEPS", 1)
    monkeypatch.setattr(baseline, "STARTS", 2)
    for name, value in (("RANDOM", 20), ("CHILDREN", 10)):
        monkeypatch.setattr(stage_zero, name, value)
    monkeypatch.setattr(search, "Context", partial(Context, children=100))
    for name, kept in (("SOLVERS", ("ddim", "unipc_2", "ipndm_3")), ("GRIDS", ("logsnr", "quadratic"))):
        monkeypatch.setattr(peers, name, {key: getattr(peers, name)[key] for key in kept})


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with server() as address:
        yield address


@pytest.fixture(params=["journal", "postgresql"])
def storage(request: pytest.FixtureRequest) -> str | None:
    """Where Optuna keeps the study; None is the journal in the run folder."""
    return None if request.param == "journal" else request.getfixturevalue("database")


class Killed(BaseException):
    """Stands for what a driver cannot catch: nothing is written after it."""


class Watched:
    """Evaluates one candidate after the other, and notes each that is done: the driver is killed before the next."""

    def __init__(self, patch: pytest.MonkeyPatch, kill_after: float = float("inf")) -> None:
        self.done: list[str] = []
        original = InProcess.stream

        def stream(source: InProcess, candidates: Any, n: int | None) -> Any:
            for place, candidate in enumerate(candidates):
                if len(self.done) >= kill_after:
                    raise Killed
                ((arrival,),) = original(source, [candidate], n)
                yield [arrival._replace(place=place)]
                self.done.append(f"{candidate.signature} {n}")

        patch.setattr(InProcess, "stream", stream)


class Told:
    """A display that knows the stages it was told of, and is the end of the driver in the middle of one."""

    def __init__(self, kill_in: str = "", at: int = 2) -> None:
        self.kill_in, self.at, self.stages = kill_in, at, list[str]()

    def __call__(self, stage: str, *_: object) -> None:
        self.stages.append(stage)
        if self.kill_in and self.stages.count(self.kill_in) == self.at:
            raise Killed


def run(folder: Path, space: str = "default", model: Model = MODEL, progress: Told | None = None, **asked: Any) -> Plan:
    own = {name: asked.pop(name) for name in ("resume", "storage", "records") if name in asked}
    settings = Settings.of(SearchSpace.named(space.partition(" ")[0].strip(",")), **{**SMALL, **SPACES.get(space, {}), **asked})
    return optimize(model, settings, folder, "test", progress or Told(), **own)[0]


def trials_of(folder: Path, storage: str | None = None) -> list[FrozenTrial]:
    asked = Run.read(folder)
    return Trials(folder, storage, asked.study, 1 + asked.settings.objective.count(","), resume=True).earlier


def tear(file: Path, text: str) -> None:
    """As if the power had gone in the middle of a line."""
    with file.open("a") as half:
        half.write(text)


@pytest.mark.parametrize("space", SPACES)
def test_a_resumed_search_ends_with_the_same_plan_and_repeats_nothing(space: str, tmp_path: Path) -> None:
    check_resumed(space, None, tmp_path)


def test_storages(storage: str | None, tmp_path: Path) -> None:
    check_resumed("default", storage, tmp_path)


def check_resumed(space: str, storage: str | None, tmp_path: Path) -> None:
    whole, parts, done = tmp_path / "whole", tmp_path / "parts", list[str]()
    with pytest.MonkeyPatch.context() as patch:
        evaluated = Watched(patch)
        plan = run(whole, space, storage=storage)
    for after in (3, 9):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            part = Watched(patch, after)
            run(parts, space, resume=bool(done), storage=storage)
        done += part.done
        tear(parts / "evaluations.log", '{"key":"8f2a64 al')
        if storage is None:
            tear(parts / "journal.log", '{"op_code":4,"worker_i')
            (parts / "journal.log.lock").symlink_to("journal.log")  # Optuna's, left by the dead
    with pytest.MonkeyPatch.context() as patch:
        part = Watched(patch)
        assert run(parts, space, resume=True, storage=storage) == plan
    assert done + part.done == evaluated.done and len(set(evaluated.done)) == len(evaluated.done) > 12
    uninterrupted, resumed = (
        [(trial.number, trial.params, trial.state, trial.values, trial.intermediate_values) for trial in trials_of(folder, storage)]
        for folder in (whole, parts)
    )
    assert uninterrupted == resumed and len(resumed) >= 20 - 8 * (space == "default with a bound")


class Counted:
    """The network and the log of one process: it is killed when an entry is to be written, after all that the entry has cost.

    rows are what the network evaluated, unwritten those since the last entry that was written.
    """

    def __init__(self, patch: pytest.MonkeyPatch, kill_at: str = "") -> None:
        self.rows = self.unwritten = 0
        self.paid: list[str] = []
        original = Log.add

        def add(log: Log, entries: Sequence[Entry]) -> None:
            if kill_at in [entry.key for entry in entries]:
                raise Killed
            original(log, entries)
            self.paid += [entry.key for entry in entries if entry.evaluations]
            self.unwritten = 0

        def network(x: Tensor, *told: Tensor) -> Tensor:
            self.rows += len(x)
            self.unwritten += len(x)
            return MODEL.network(x, *told)

        patch.setattr(Log, "add", add)
        self.model = replace(MODEL, network=network)
        assert self.model.fingerprint  # which every process takes
        self.rows = self.unwritten = 0


def kind_of(key: str) -> str:
    """Of an entry: candidates by how many samples they see, parts of a computation apart from the whole."""
    return re.sub(r"\d+", "#", re.sub(r", \d+ together", "", re.sub(r"^[0-9a-f]{16,}", "candidate", key)))


@pytest.mark.parametrize(
    ("space", "asked", "kinds"),
    [
        ("default", {}, {"screening, #", "screen #", "scale", "best baseline", "fit #", "candidate all", "polish #", "polish, #"}),
        ("s3", {"instant": True, "polish": True, "guidance": 2.0}, {"instant", "observation #, #", "candidate all", "polish, #"}),
        ("default", {"guidance": 2.0, "evaluations": 30_000}, {"fit #", "candidate all", "polish, #"}),
        ("times", {}, {"descent, #", "descended"}),
        ("dc", {"nfe": 4}, {"greedy ratios, #", "candidate all"}),
        ("ays", {"guidance": 2.0}, {"times of least KLUB, #", "candidate all"}),
    ],
)  # fmt: skip
def test_a_kill_costs_one_batch(
    space: str, asked: dict[str, Any], kinds: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process after the other is killed, each at another kind of evaluation, when that is done and not yet written."""
    monkeypatch.setattr(search, "greedy_ratios", partial(greedy_ratios, iterations=3))
    nfe, guided = asked.get("nfe", 3), 2 if "guidance" in asked else 1
    sizes = {"nfe": nfe, "trials": 10, "fit_samples": 32, "validation_samples": 64, "batch_size": 96}
    batch = 96 * nfe * guided + (space == "ays") * 64 * (2 * nfe + 1) * guided
    with pytest.MonkeyPatch.context() as patch:
        run(tmp_path / "teacher", space, Counted(patch).model, **{**sizes, **asked})  # whose solves are cached by now
    with pytest.MonkeyPatch.context() as patch:
        whole = Counted(patch)
        plan = run(tmp_path / "whole", space, whole.model, **{**sizes, **asked})
    last_rung = read_json(Comparison, tmp_path / "whole" / "comparison.json", "comparison").ladder[-1].nfe
    entries: dict[str, list[str]] = {}
    for key in whole.paid:
        entries.setdefault(kind_of(key), []).append(key)
    assert kinds <= entries.keys()
    rows = wasted = 0
    for k, key in enumerate(sorted((each[len(each) // 2] for each in entries.values()), key=whole.paid.index)):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            part = Counted(patch, key)
            run(tmp_path / "parts", space, part.model, resume=k > 0, **{**sizes, **asked})
        most = batch
        if key.startswith("comparison"):  # baselines of more evaluations; an objective without each of eight groups of samples
            most = max(96 * last_rung * guided, 128 * nfe * guided + (space == "ays") * (128 + 8 * 112) * (2 * nfe + 1) * guided)
        assert part.unwritten <= most
        rows, wasted = rows + part.rows, wasted + part.unwritten
    with pytest.MonkeyPatch.context() as patch:
        last = Counted(patch)
        assert run(tmp_path / "parts", space, last.model, resume=True, **{**sizes, **asked}) == plan
    assert rows + last.rows == whole.rows + wasted and wasted > 0
    one, other = (read_json(Comparison, tmp_path / name / "comparison.json", "comparison") for name in ("whole", "parts"))
    assert [stage.evaluations for stage in one.stages] == [stage.evaluations for stage in other.stages]
    assert not (tmp_path / "parts" / "kept").exists()


@pytest.mark.parametrize("space", ["default", "s3", "times"])
def test_a_search_may_be_killed_in_any_stage(space: str, tmp_path: Path) -> None:
    told = Told()
    plan = run(tmp_path / "whole", space, progress=told)
    passed = list(dict.fromkeys(told.stages))
    assert {"baselines", "search", "comparison"} < {*passed}
    for stage in passed[passed.index("baselines") :]:  # the teacher is cached by now
        with pytest.raises(Killed):
            run(tmp_path / "parts", space, progress=Told(stage, 1 + told.stages.count(stage) // 2), resume=stage != "baselines")
    assert run(tmp_path / "parts", space, resume=True) == plan


def test_what_was_warm_started_is_resumed_with_the_same_records(tmp_path: Path) -> None:
    run(tmp_path / "earlier", "s3", nfe=2, trials=10)
    records: tuple[Record, ...] = read_records(tmp_path / "earlier", MODEL)
    plan = run(tmp_path / "whole", "s3", records=records)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        Watched(patch, 16)
        run(tmp_path / "parts", "s3", records=records)
    assert run(tmp_path / "parts", "s3", resume=True) == plan


def test_interruption_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(polish, "run", interrupt)
        with pytest.raises(Interrupted, match=f"'solversearch optimize --resume {tmp_path}'"):
            run(tmp_path)
    run(tmp_path, resume=True)
    with pytest.raises(UserError, match="this run is finished"):
        run(tmp_path, resume=True)


def test_another_search_is_not_resumed(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(tmp_path, progress=Told("search"))
    for asked, named in (
        ({"seed": 1}, "another seed;"), ({"start": 0.5}, "another start;"),
        ({"nfe": 4}, "another nfe;"), ({"trials": 30, "polish": False}, "another trials, polish;"),
        ({"space": "s3"}, "another space, strategy, fit;"), ({"model": coins.other_weights()}, "another model;"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=f"{tmp_path}: was begun with {named}"):
            run(tmp_path, resume=True, **asked)
    written = (tmp_path / "run.json").read_text()
    (tmp_path / "run.json").write_text(written.replace('"version": 1', '"version": 2'))
    with pytest.raises(UserError, match=r"run\.json: version: Input should be 1"):
        run(tmp_path, resume=True)
    (tmp_path / "run.json").write_text(written.replace('"torch": "', '"torch": "0.'))
    with pytest.warns(UserWarning, match=r"was begun with torch 0\."):
        run(tmp_path, resume=True, batch_size=100)  # which changes nothing


def test_a_damaged_log_is_told_with_its_line(tmp_path: Path) -> None:
    """What the line had is evaluated again."""
    with pytest.raises(Killed):
        run(tmp_path, progress=Told("search"))
    lines = (tmp_path / "evaluations.log").read_text().splitlines(keepends=True)
    (tmp_path / "evaluations.log").write_text("".join([lines[0], '{"key": 7}\n', *lines[1:]]))
    with pytest.warns(UserWarning, match=r"evaluations\.log:2: key: Input should be a valid string; what this line had is evaluated again"):
        resumed = run(tmp_path, resume=True)
    assert resumed.rows == run(tmp_path / "whole").rows
    with pytest.raises(UserError, match=r"run\.json: cannot read the record of what the run was asked: No such file"):
        run(tmp_path / "nothing", resume=True)


def test_a_second_driver_is_refused(tmp_path: Path) -> None:
    with held(tmp_path):
        for resume in (False, True):
            with pytest.raises(UserError, match=f"{tmp_path}: another driver is at work"):
                run(tmp_path, resume=resume)
    run(tmp_path, polish=False, trials=1)


@pytest.mark.parametrize("name", presets())
def test_every_space_is_read_as_it_was_written(name: str, tmp_path: Path) -> None:
    settings = Settings.of(SearchSpace.named(name), nfe=3).sized(coins.factory())
    Run(model="coins", options=DEFAULT, model_digest="", settings=settings, command="", versions={}).write(tmp_path)
    assert Run.read(tmp_path).settings == settings


def test_passwords_are_not_written() -> None:
    assert without_password("--storage postgresql+psycopg://me:secret@host/runs") == "--storage postgresql+psycopg://me@host/runs"
    assert without_password("python:model.py:factory sqlite:///a@b") == "python:model.py:factory sqlite:///a@b"


def test_a_database_that_cannot_be_reached_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--storage postgresql\+psycopg://me@/x\?host=/nowhere: .*connection") as caught:
        run(tmp_path, storage="postgresql+psycopg://me:secret@/x?host=/nowhere")
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="--storage nonsense: "):
        run(tmp_path, storage="nonsense")
