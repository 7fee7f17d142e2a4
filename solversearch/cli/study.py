"""`solversearch study`: methods against each other."""

from math import isfinite
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from solversearch.cli.loading import Load, loads_model
from solversearch.cli.shared import BatchSize, Json, ModelName, Samples, Seed, stderr, stdout, tell
from solversearch.errors import UserError
from solversearch.outputs import slug

Numeric = TypeVar("Numeric", int, float)


BY_BUDGET = ("adaptive_guidance", "deepcache", "t_stitch")
"""Presets that are the default space where nobody gives a budget."""


@loads_model
def study(
    context: typer.Context,
    model: ModelName,
    nfe: Annotated[str, typer.Option(help="Network evaluations of the cells, with commas.")] = "4,5,6,8",
    guidance: Annotated[str | None, typer.Option(help="Guidance scales of the cells, with commas.", show_default="the model's")] = None,
    methods: Annotated[
        str | None, typer.Option(help="Presets or YAML files, with commas.", show_default="every preset that is judged by errors")
    ] = None,
    ablate: Annotated[
        str | None, typer.Option(help="Instead: one space, and the same with one decision or stage switched off at a time.")
    ] = None,
    evaluations: Annotated[int, typer.Option(min=1000, help="Network evaluations that each search may spend.")] = 400_000,
    samples: Samples = None,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Folder; a study that it holds is continued.", show_default="runs/study-<model>")] = None,
    batch_size: BatchSize = None,
    as_json: Json = False,
    *,
    load: Load,
) -> None:
    """Run presets with the same budget, and compare what they find on held-out noise."""
    if methods is not None and ablate is not None:
        raise UserError("--methods and --ablate: choose one of them")
    counts, scales = _numbers("--nfe", nfe, int), _numbers("--guidance", guidance, float) if guidance else ()

    from solversearch.judging.objectives import parse_many
    from solversearch.report.pictures import save
    from solversearch.report.progress import Display
    from solversearch.report.study_view import study_picture, study_tables
    from solversearch.search.settings import Settings
    from solversearch.spaces import SearchSpace, presets
    from solversearch.studies.study import StudySpec, ablations
    from solversearch.studies.study import study as run

    if ablate is not None:
        chosen = ablations(SearchSpace.named(ablate))
    else:
        chosen = {}
        for given in methods.split(",") if methods else presets():
            space = SearchSpace.named(given.strip())
            if methods is None and (space.name in BY_BUDGET or "features" in parse_many(space.search.objective)[0].needs):
                continue  # those leave the teacher's path on purpose
            if space.name in chosen:
                raise UserError(f"--methods {methods}: two methods are named {space.name!r}; name each once")
            chosen[space.name] = Settings.of(space, nfe=1)
    loaded = load(model)
    sized = Settings.of(SearchSpace(), nfe=1, samples=samples, batch_size=batch_size).sized(loaded)
    asked = StudySpec(
        model=loaded.name, model_digest=loaded.fingerprint, features=loaded.looks, methods=tuple(chosen), nfe=counts,
        guidance=scales or (loaded.guidance,), evaluations=evaluations, samples=sized.samples, seed=seed,
    )  # fmt: skip
    folder = out or Path("runs") / f"study-{slug(model)}{'-' + slug(ablate) if ablate else ''}"
    try:
        with Display(stderr()) as display:
            found = run(loaded, asked, chosen, folder, context.obj or "", display, sized.batch_size)
    except KeyboardInterrupt:
        tell(f"interrupted; {folder} keeps what is done, and the same command goes on from there")
        raise typer.Exit(130) from None
    save(study_picture(found), folder / "study.png")
    if as_json:
        print(found.model_dump_json())
        return
    for table in study_tables(found):
        stdout().print(table)
    print(f"Wrote {folder}: study.json, study.png and a plan of every method in every cell")


def _numbers(option: str, text: str, kind: type[Numeric]) -> tuple[Numeric, ...]:
    try:
        values = tuple(kind(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"{option} {text}: write numbers with commas between, such as 4,5,6") from None
    if len(set(values)) != len(values):
        raise UserError(f"{option} {text}: a number stands twice")
    if any(not isfinite(value) or (kind is int and not 1 <= value <= 1000) for value in values):
        raise UserError(f"{option} {text}: {'write whole numbers from 1 to 1000' if kind is int else 'write finite numbers'}")
    return values
