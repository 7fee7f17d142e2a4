"""The Python API, on which the command line stands.

    import solversearch

    result = solversearch.optimize("digits", nfe=5)
    result.plan, result.comparison                   # tables and pictures in a notebook
    images = result.plan.sample(denoise, noise)
    result.save("runs/mine")

Options have the names of the command line's. Whatever the person can mend is a `UserError` of one line. Imports stand inside functions, so
that `import solversearch` loads no torch.
"""

import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, Unpack, cast

from solversearch.errors import Interrupted, UserError, nearest
from solversearch.notebook import Shown
from solversearch.outputs import LOCK, check_free, claim, slug

if TYPE_CHECKING:
    from solversearch.judging.compare import Comparison
    from solversearch.models.base import Model
    from solversearch.models.options import Options
    from solversearch.plan import Plan
    from solversearch.report.progress import Display
    from solversearch.search.evaluating.fleet import Fleet
    from solversearch.search.settings import Settings
    from solversearch.spaces import SearchSpace

    Source: TypeAlias = str | Path | Model | Callable[[], Any]
    """A model: its name as for --model, a `Model`, a pipeline object of diffusers, or a factory as for python:FILE:FACTORY."""


class LoadingOptions(TypedDict, total=False):
    """How a model is loaded, see `models.options.Options`."""

    device: str | None
    dtype: str | None
    prompts: str | Path | None
    negative_prompt: str | None
    resolution: int | str | None
    frames: int | None
    config: str | Path | None
    lora: Sequence[str] | None
    variant: Sequence[str] | None
    quantize: str | None
    distilled_guidance: float | None
    compiled: bool
    offload: bool
    features: str | None
    inception_weights: str | Path | None
    reference: str | Path | None


class SearchOptions(LoadingOptions, total=False):
    """What `solversearch optimize --help` says; None and what is left out stand for the default. space may be a `SearchSpace`, too."""

    nfe: int | None
    guidance: float | None
    seed: int
    space: "str | Path | SearchSpace"
    strategy: str | None
    objective: str | None
    trials: int | None
    evaluations: int | None
    hours: float | None
    warm_start: Sequence[str | Path] | None
    samples: int | None
    fit_samples: int | None
    validation_samples: int | None
    instant: bool | None
    fit: bool | None
    search: bool
    polish: bool | None
    split: bool | None
    budget: float | None
    integer: bool | None
    start: float
    undecided: Literal["baseline", "plan"]
    batch_size: int | None
    out: str | Path | None
    overwrite: bool
    resume: str | Path | None
    storage: str | None
    workers: int
    gpus_per_worker: float
    ray_address: str | None
    time_limit: float


_LOADING, _SEARCH = frozenset(LoadingOptions.__annotations__), frozenset(SearchOptions.__annotations__)
_FLEET: dict[str, Any] = {"workers": 1, "gpus_per_worker": 0.0, "ray_address": None, "time_limit": 600.0}
ELSEWHERE = (*_FLEET, "storage", "batch_size", "out", "overwrite")
"""Options that say where and how fast, and change nothing in a plan: none of them is told in it."""
_PATHS = ("prompts", "config", "inception_weights", "reference", "out", "resume")


@dataclass(frozen=True)
class Result(Shown):
    """What a search found: the plan (or the baseline, where that is exported) and its comparison on held-out noise.

    folder is the run folder; where none was named it is a temporary one, and lives as long as this object. model is how messages call it.
    """

    plan: "Plan"
    comparison: "Comparison"
    folder: Path
    model: str

    def save(self, folder: str | Path, overwrite: bool = False) -> Path:
        """Copies the run folder. Raises `UserError` where that folder holds anything, unless it may be overwritten."""
        place = Path(folder)
        if place.resolve() != self.folder.resolve():
            check_free(place, overwrite)
            claim(place)
            try:
                shutil.copytree(self.folder, place, dirs_exist_ok=True, ignore=shutil.ignore_patterns(LOCK))
            except OSError as error:
                raise UserError(f"{place}: cannot write there: {error.strerror or error}; choose another folder") from None
        return place


def load_model(model: "Source", **options: Unpack[LoadingOptions]) -> "Model":
    """The model of a name as for --model, of a pipeline object of diffusers, or of a factory. Raises `UserError`."""
    from solversearch import models

    return models.load(model, loading_options(options))


def read_plan(path: str | Path) -> "Plan":
    """A plan file, or that of a run folder. Raises `UserError` with one line: which file, where in it, what is wrong."""
    from solversearch.plan import Plan

    return Plan.read(path)


def optimize(
    model: "Source | None" = None,
    *,
    progress: bool = True,
    runs: str | Path | None = None,
    command: str | None = None,
    **options: Unpack[SearchOptions],
) -> Result:
    """Searches a plan for a model and nfe network evaluations a sample, and compares it with every published solver.

    options are those of `SearchOptions`. The run folder is out, or one in runs that is named by model, nfe and guidance, or else a
    temporary one. command is what the plan tells that it was made by. Raises `UserError` for what cannot be, and `Interrupted` on
    Ctrl-C, after which the folder is still there.
    """
    asked = _Search.of(model, _given(options, _SEARCH))
    from solversearch.report.draw import draw_run
    from solversearch.search.evaluating.warm_start import read_records
    from solversearch.search.optimize import optimize as search_plan
    from solversearch.search.settings import check
    from solversearch.search.strategies import predicts

    given, settings = asked.given, asked.settings
    folder, temporary = asked.folder(runs), None
    check(asked.model, settings)
    earlier = [Path(each) for each in given.get("warm_start") or ()]
    if earlier and not predicts(settings.strategy):
        raise UserError(f"--warm-start: strategy {settings.strategy!r} has no predictor that could learn from it; choose --strategy s3")
    records = tuple(record for each in earlier for record in read_records(each, settings.started(asked.model)))
    if folder is None:
        folder = temporary = Path(tempfile.mkdtemp(prefix="solversearch-"))
    command = _spelled(asked.name, asked.given) if command is None else command
    try:
        with _display(progress) as display:
            plan, comparison = search_plan(
                asked.model, settings, folder, command, display, records, name=asked.name, options=asked.options,
                storage=given.get("storage"), resume=given.get("resume") is not None, fleet=asked.fleet,
            )  # fmt: skip
        draw_run(asked.model, plan, comparison, folder, settings.batch_size)
    except Interrupted:
        raise
    except BaseException:
        if temporary:
            shutil.rmtree(temporary, ignore_errors=True)
        raise
    result = Result(plan, comparison, folder, asked.name)
    if temporary:
        weakref.finalize(result, shutil.rmtree, temporary, ignore_errors=True)
    return result


def estimate(model: "Source | None" = None, **options: Unpack[SearchOptions]) -> dict[str, str | int | float]:
    """What `optimize` would cost: evaluations and memory of each stage, seconds. Raises `UserError` as it does."""
    asked = _Search.of(model, _given(options, _SEARCH), dry=True)
    from solversearch.search.estimate import estimate as facts

    return facts(asked.model, asked.settings)


def compare(
    plan: "Plan | str | Path",
    model: "Source",
    *,
    guidance: float | None = None,
    samples: int | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    objective: str = "endpoint",
    progress: bool = True,
    **options: Unpack[LoadingOptions],
) -> "Comparison":
    """A plan, or a plan file, against every published solver on every grid at the same cost, on held-out noise. Raises `UserError`."""
    import time

    from solversearch.judging.compare import Timing
    from solversearch.judging.compare import compare as run
    from solversearch.judging.compatibility import check_model, reguided
    from solversearch.judging.objectives import parse_many
    from solversearch.models.base import Clock
    from solversearch.models.denoising import check_samples
    from solversearch.models.variants import of_plan
    from solversearch.spaces import SearchSpace
    from solversearch.teacher import STEPS, teach
    from solversearch.threads import few_threads

    chosen = read_plan(plan) if isinstance(plan, str | Path) else plan
    chosen = chosen if guidance is None else reguided(chosen, guidance)
    decider = parse_many(objective)[0]
    settings = _settings(SearchSpace(), {"nfe": chosen.nfe, "samples": samples, "seed": seed, "batch_size": batch_size})
    loaded = load_model(model, **options)
    decider.check(loaded)
    check_model(chosen, loaded)
    loaded = of_plan(loaded, chosen).started(chosen.start)
    sized = settings.sized(loaded)
    clock, start, rounds = Clock(), time.perf_counter(), iter(range(1, 10**6))
    with _display(progress) as display, few_threads(loaded):
        teacher = teach(
            loaded, "held_out", sized.samples, chosen.guidance, seed, "trajectory" in decider.needs,
            batch_size=sized.batch_size, clock=clock,
            progress=lambda done: display("teacher", done, STEPS * 3 // 2, f"{sized.samples} samples"),
        )  # fmt: skip
        check_samples(loaded, teacher, chosen.guidance)
        return run(
            loaded, chosen, teacher, clock, sized.batch_size, integer=chosen.decisions.get("timesteps") == "whole",
            timing=lambda: Timing(wall_s=round(time.perf_counter() - start, 3), network_s=round(clock.seconds, 3)),
            progress=lambda note: display("comparison", next(rounds), 0, note), objective=objective,
        )  # fmt: skip


def import_scheduler(
    source: str | None = None,
    nfe: int | None = None,
    *,
    sigmas: str | Sequence[float] | None = None,
    timesteps: str | Sequence[float] | None = None,
    ays: str | None = None,
    table: str | None = None,
    solver: str | None = None,
    integer: bool = False,
    model: "Source | None" = None,
    guidance: float | None = None,
    settings: Mapping[str, Any] | None = None,
    command: str = "",
    **options: Unpack[LoadingOptions],
) -> "Plan":
    """A scheduler of diffusers as a plan of nfe evaluations: the name of its class, a pipeline's folder, scheduler_config.json or hf:ID.

    In its place, sigmas or timesteps (numbers, their text, or a file of it) or a published table (ays: sd15, sdxl or svd; table: a name of
    'solversearch list tables') with a solver: one of `SOLVERS`, or what ComfyUI or diffusers call it. settings are the scheduler's own,
    or say how a network without a model reads its input. Without a model the plan is for any of its noise levels and prediction type.
    Raises `UserError`; what is made of a list that does not end in 0, or of clipping, is a warning.
    """
    sources = {"--sigmas": sigmas, "--timesteps": timesteps, "--ays": ays, "--table": table}
    given = [value for value in (source, *sources.values()) if value is not None]
    if len(given) != 1:
        raise UserError(f"name one source, not {len(given)}: a scheduler, {', '.join(sources)}")
    if source is None and solver is None:
        raise UserError("--solver is missing; sigmas alone say when to evaluate the network, not how to step")
    if source is not None and (solver is not None or integer):
        raise UserError(f"{'--solver' if solver else '--integer'} goes with {', '.join(sources)}; a scheduler has its own, see --set")
    from solversearch.importing import as_plan, plan_of_numbers, plan_of_table

    loaded = None if model is None else load_model(model, **options)
    if guidance is None:
        guidance = 1.0 if loaded is None else loaded.guidance
    config = dict(settings or {})
    if source is not None:
        return as_plan(source, nfe, loaded, guidance, command, **config)
    assert solver is not None
    chosen = {"integer": integer, "nfe": nfe, **config}
    if (name := f"ays_{ays}" if ays is not None else table) is not None:
        return plan_of_table(name, solver, loaded, guidance, command, **chosen)
    what, numbers = ("sigmas", sigmas) if sigmas is not None else ("timesteps", timesteps)
    assert numbers is not None
    return plan_of_numbers(numbers, what, solver, loaded, guidance, command, **chosen)


# What was asked for ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Search:
    """A search as it was asked. name is what its run is filed under, options how the model was loaded."""

    given: dict[str, Any]
    name: str
    model: "Model"
    options: "Options"
    settings: "Settings"
    fleet: "Fleet"

    @classmethod
    def of(cls, source: "Source | None", given: dict[str, Any], dry: bool = False) -> "_Search":
        """What is wrong is told before the model is loaded, where that can be. Raises `UserError`."""
        if given.get("budget") is not None and given.get("nfe") is not None:
            raise UserError("--budget stands in place of --nfe: leave one of them out")
        cost = given.get("nfe") if given.get("budget") is None else given["budget"]
        missing = [f"--{name}" for name, value in (("model", source), ("nfe", cost)) if value is None]
        if missing and given.get("resume") is None:
            raise UserError(
                f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing: type for example 'solversearch optimize --model "
                "digits --nfe 5' ('solversearch list models' has the models), or go on with a run by --resume FOLDER"
            )
        from solversearch import models
        from solversearch.models.variants import with_skips
        from solversearch.search.evaluating.fleet import Fleet
        from solversearch.search.evaluating.resuming import OBJECT, begun
        from solversearch.search.evaluating.storage import check_reachable
        from solversearch.search.pricing import affordable

        fleet = Fleet(*[given.get(name, default) for name, default in _FLEET.items()])
        if given.get("resume") is not None:
            run = begun(given["resume"], source, given)
            source, settings, options = run.model if source is None else source, run.settings, run.options
        else:
            run, settings, options = None, _search_settings(given), _loading(given)
            if not dry and given.get("out") is not None:
                check_free(given["out"], given.get("overwrite", False))
        named = isinstance(source, str | Path)
        if fleet.remote and not named:
            raise UserError("--workers and --ray-address: workers load the model by a name, such as python:FILE:FACTORY; it has none")
        if not dry:
            check_reachable(fleet, given.get("storage") or (None if run is None else run.storage))
        model = models.load(source, options)
        if fleet.remote:
            models.check_repeats(model, str(source))
        if settings.budget is not None:
            model = with_skips(model)
        if run is not None:
            return cls(given, run.model, model, options, settings, fleet)
        if given.get("guidance") is None:
            settings = settings.model_copy(update={"guidance": model.guidance})
        if settings.budget is not None:
            settings = settings.model_copy(update={"nfe": affordable(settings.budget, settings.guidance)})
        return cls(given, str(source) if named else OBJECT + model.name, model, options, settings.sized(model), fleet)

    def folder(self, runs: str | Path | None) -> Path | None:
        """Where the run is written, None for a temporary folder. Raises `UserError` where something else lies there."""
        if self.given.get("resume") is not None:
            return cast(Path, self.given["resume"])
        folder: Path | None = self.given.get("out")
        if folder is None and runs is not None:
            start = "" if self.settings.start == 1 else f"-start{self.settings.start:g}"
            folder = Path(runs) / f"{slug(self.name)}-nfe{self.settings.nfe}-g{self.settings.guidance:g}{start}"
        if folder is not None:
            check_free(folder, self.given.get("overwrite", False))
        return folder


def _given(options: Mapping[str, Any], known: frozenset[str]) -> dict[str, Any]:
    """The options with their paths as such. Raises `UserError` for one that there is not."""
    for name in options:
        if name not in known:
            raise UserError(nearest(name, sorted(known), "option"))
    return {name: _plain(name, value) for name, value in options.items()}


def _plain(name: str, value: Any) -> Any:
    """As `Options` and `Settings` have it, however it was given."""
    if value is None:
        return None
    if name in ("lora", "variant"):
        return (value,) if isinstance(value, str) else tuple(map(str, value)) or None
    if name == "resolution" and str(value).isdecimal():
        return int(value)
    return Path(value) if name in _PATHS else value


def loading_options(given: Mapping[str, Any]) -> "Options":
    """What of the options says how a model is loaded. Raises `UserError`."""
    return _loading(_given(given, _LOADING))


def _loading(given: Mapping[str, Any]) -> "Options":
    from solversearch.models.options import Options

    return Options(**{name: value for name, value in given.items() if name in _LOADING})


def _search_settings(given: Mapping[str, Any]) -> "Settings":
    from solversearch.search.settings import Settings
    from solversearch.spaces import SearchSpace

    space = given.get("space", "default")
    space = space if isinstance(space, SearchSpace) else SearchSpace.named(space)
    asked = {name: value for name, value in given.items() if name in Settings.model_fields and name != "space"}
    if asked.get("budget") is not None:
        asked["nfe"] = 1  # as many as it has room for, when the model's guidance is known
    return _settings(space, asked)


def _settings(space: "SearchSpace", asked: dict[str, Any]) -> "Settings":
    from pydantic import ValidationError

    from solversearch.plan import first_error
    from solversearch.search.settings import Settings

    try:
        return Settings.asked(space, asked)
    except ValidationError as error:
        option = str(error.errors()[0]["loc"][0])
        raise UserError(f"--{first_error(error).replace(option, option.replace('_', '-'), 1)}, got {asked.get(option)}") from None


def _spelled(model: str, given: Mapping[str, Any]) -> str:
    """The call, as the plan tells it."""
    plain = {name: str(value) if isinstance(value, Path) else getattr(value, "name", value) for name, value in given.items()}
    plain = {name: value for name, value in plain.items() if name not in ELSEWHERE}
    return f"solversearch.optimize({model!r}{''.join(f', {name}={value!r}' for name, value in plain.items())})"


def _display(progress: bool) -> "Display":
    from rich.console import Console

    from solversearch.report.progress import Display

    return Display(Console(stderr=True, highlight=False, quiet=not progress))
