"""A comparison of methods: every search space on the same model with the same budget of network evaluations, on the same held-out noise."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, JsonValue

from solversearch.errors import UserError
from solversearch.judging.intervals import share
from solversearch.judging.measures import Measured, Rivals, finite, measured, rivals
from solversearch.judging.race import GEOMETRIC, MEAN, MEDIAN
from solversearch.judging.verdict import ratios
from solversearch.models.base import Model, NotFinite
from solversearch.models.denoising import check_samples
from solversearch.models.digest import same
from solversearch.outputs import check_free, slug
from solversearch.plan import Count, Interval, Many, read_json, write_text
from solversearch.search.optimize import plan_of
from solversearch.search.pipeline import run_stages
from solversearch.search.settings import Settings, check
from solversearch.search.stages.task import Progress, Task
from solversearch.spaces import SearchSpace
from solversearch.teacher import teach
from solversearch.threads import few_threads

BASELINE = "best baseline"
ELSEWHERE: dict[str, Any] = {
    **dict.fromkeys(("nfe", "guidance", "seed", "samples", "evaluations", "trials", "batch_size"), True), "space": {"description"},
}  # fmt: skip
"""Settings that a study holds for all methods, or that change nothing."""
_STRICT = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class StudyRow(BaseModel):
    """What one method reached in one cell. evaluations and seconds are the search's own, after the teacher's samples exist."""

    model_config = _STRICT
    method: str
    nfe: Count
    guidance: float
    endpoint_mse: Interval
    frechet_teacher: Interval | None
    ratio: float
    """Mean error over the least of all baselines; of the baselines' own row, which is of the least geometric mean, too."""
    ratio_median: float
    """Median error over the least of all baselines."""
    ratio_geometric: Interval
    """Geometric mean error over the least of all baselines."""
    share: Interval
    """Of the samples on which the error is less than that of the baseline of the least geometric mean."""
    network_calls: Count
    evaluations: Count
    seconds: float


class StudySpec(BaseModel):
    """What a study is of."""

    model_config = _STRICT
    model: str
    model_digest: str
    features: str = ""
    """What Frechet distances look at, where that is not the model's own features."""
    methods: Many[str]
    settings: dict[str, dict[str, JsonValue]] = {}
    """Of each method, with its space: by content, so that an edited file is another study. `study` fills them in."""
    nfe: Many[Count]
    guidance: Many[float]
    evaluations: Count
    samples: Count
    seed: Count


class Study(BaseModel):
    """Results by method and cell (NFE, guidance), in the order in which they were made."""

    model_config = _STRICT
    asked: StudySpec
    rows: Many[StudyRow] = ()

    def row(self, method: str, nfe: int, guidance: float) -> StudyRow | None:
        return next((row for row in self.rows if (row.method, row.nfe, row.guidance) == (method, nfe, guidance)), None)


def ablations(space: SearchSpace) -> dict[str, Settings]:
    """The space as it is, then with one decision or stage switched off at a time, as settings of one evaluation to copy from."""
    whole = Settings.of(space, nfe=1)
    variants = {space.name: whole}
    for name in space.decided():
        variants[f"{space.name} without {name}"] = whole.model_copy(update={"space": space.without(name)})
    for stage in ("instant", "fit", "search", "polish"):
        if whole.searches if stage == "search" else getattr(whole, stage):
            variants[f"{space.name} without the {stage} stage"] = whole.model_copy(update={stage: False})
    return variants


def study(
    model: Model, asked: StudySpec, methods: dict[str, Settings], folder: Path, command: str, progress: Progress, batch_size: int = 512
) -> Study:
    """Runs every method in every cell that the folder does not hold yet; after each, writes study.json and the method's plan.

    Raises `UserError` where the folder holds another study, or a method cannot run on the model.
    """
    wanted = {
        (name, nfe, guidance): settings.model_copy(
            update={"nfe": nfe, "guidance": guidance, "seed": asked.seed, "samples": asked.samples, "batch_size": batch_size,
                    "evaluations": asked.evaluations, "trials": asked.evaluations * (settings.trials > 0)}
        ).sized(model)
        for nfe in asked.nfe for guidance in asked.guidance for name, settings in methods.items()
    }  # fmt: skip
    for settings in wanted.values():
        check(model, settings)
    file = folder / "study.json"
    shared = {name: settings.model_dump(mode="json", exclude=ELSEWHERE) for (name, *_), settings in wanted.items()}
    done = _read(file, asked.model_copy(update={"settings": shared}))
    if not file.exists():
        check_free(folder, None)
    found: dict[tuple[int, float], Rivals] = {}
    with few_threads(model):
        for (name, nfe, guidance), settings in wanted.items():
            if done.row(name, nfe, guidance):
                continue
            if (nfe, guidance) not in found:
                found = {(nfe, guidance): _rivals(model, settings, progress)}
            rows = []
            if not done.row(BASELINE, nfe, guidance):
                rows.append(_row(BASELINE, found[nfe, guidance].best(GEOMETRIC), found[nfe, guidance], guidance))
            rows.append(_measured(model, name, settings, found[nfe, guidance], folder, command, progress))
            done = done.model_copy(update={"rows": (*done.rows, *rows)})
            write_text(file, done.model_dump_json(indent=1) + "\n")
    return done


def _read(file: Path, asked: StudySpec) -> Study:
    """The study in a folder, to be continued."""
    if not file.exists():
        return Study(asked=asked)
    try:
        found = read_json(Study, file, "study")
    except UserError as error:
        reason = str(error).removeprefix(f"{file}: ")
        raise UserError(f"{file}: cannot continue this study: {reason}; choose another folder with --out") from None
    if different := _different(found.asked, asked):
        raise UserError(f"{file}: holds another study, with other {', '.join(different)}; choose another folder with --out")
    return found


def _different(one: StudySpec, other: StudySpec) -> list[str]:
    """In what the questions of two studies differ, in words for the person."""
    names = [name for name in StudySpec.model_fields if name != "settings" and getattr(one, name) != getattr(other, name)]
    if same(one.model_digest, other.model_digest):
        names = [name for name in names if name != "model_digest"]
    for method, settings in other.settings.items() if one.methods == other.methods else ():
        before, now = _flat(one.settings.get(method, {})), _flat(settings)
        changed = [name for name in now if before.get(name) != now[name]]
        if before != now:
            names.append(f"settings of {method}" + (f" ({', '.join(changed)})" if before and changed else ""))
    return names


def _flat(settings: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """With the decisions of the space beside the settings."""
    space = settings.get("space")
    inner = {f"space.{name}": value for name, value in space.items()} if isinstance(space, dict) else {}
    return {**{name: value for name, value in settings.items() if name != "space"}, **inner}


def _rivals(model: Model, settings: Settings, progress: Progress) -> Rivals:
    """The best baselines of a cell, which are the same for all methods."""
    teacher = teach(model, "held_out", settings.samples, settings.guidance, settings.seed, trajectory=False, batch_size=settings.batch_size)
    check_samples(model, teacher, settings.guidance)
    if len(places := finite(model, teacher)) < len(teacher):
        teacher = teacher.at(places.tolist())
    cell = f"NFE {settings.nfe}, guidance {settings.guidance:g}"
    return rivals(
        model, settings.nfe, settings.guidance, teacher, batch_size=settings.batch_size,
        progress=lambda note: progress(f"{BASELINE}, {cell}", 0, 0, note),
    )  # fmt: skip


def _row(method: str, own: Measured, found: Rivals, guidance: float, evaluations: int = 0, seconds: float = 0.0) -> StudyRow:
    seed = found.teacher.seed
    score, compared = own.row(found.target, None, seed), {each.measure: each for each in ratios(own, found, seed)}
    geometric = compared[GEOMETRIC]
    return StudyRow(
        method=method, nfe=own.table.nfe, guidance=guidance, endpoint_mse=score.endpoint_mse, frechet_teacher=score.frechet_teacher,
        ratio=compared[MEAN].value, ratio_median=compared[MEDIAN].value,
        ratio_geometric=Interval(mean=geometric.value, low=geometric.low, high=geometric.high),
        share=share(own.errors, found.best(GEOMETRIC).errors), network_calls=score.network_calls, evaluations=evaluations, seconds=seconds,
    )  # fmt: skip


def _measured(model: Model, name: str, settings: Settings, found: Rivals, folder: Path, command: str, progress: Progress) -> StudyRow:
    """The row of one method, whose plan is written."""
    cell = settings.nfe, settings.guidance

    def told(stage: str, number: int, total: int, note: str) -> None:
        progress(f"{name}, NFE {cell[0]}, guidance {cell[1]:g}: {stage}", number, total, note)

    for guidance in {1.0, settings.guidance}:  # so that no method pays for what all share
        for split, count in (("fit", settings.fit_samples), ("validate", settings.validation_samples)):
            teach(model, split, count, guidance, settings.seed, guidance == settings.guidance, batch_size=settings.batch_size)
    task = Task(model, settings.sized(model), told, free=False)
    learnt = run_stages(task)
    assert learnt.best is not None
    timing = task.timing()
    own = measured(model, learnt.best.table, found.teacher, settings.batch_size, name=name, solver=name)
    if not np.isfinite(own.errors).all():
        raise NotFinite(f"the plan of {name} at NFE {cell[0]}, guidance {cell[1]:g} runs away on held-out noise; leave the method out")
    row = _row(name, own, found, cell[1], learnt.evaluations, timing.wall_s)
    scores = (own.row(found.target, None, settings.seed).score(),)
    plan_of(task, learnt.stages, learnt.best.table, learnt.best.origin, command).with_scores(scores).write(
        folder / f"{slug(name)}-nfe{cell[0]}-g{cell[1]:g}.json"
    )
    return row
