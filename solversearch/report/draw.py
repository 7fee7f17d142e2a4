"""The pictures of a run: what is sampled for them, and where they go."""

from pathlib import Path

from solversearch.judging.compare import Comparison
from solversearch.judging.compatibility import rival
from solversearch.judging.objectives.endpoint import endpoint_mse
from solversearch.models.base import Model
from solversearch.plan import Plan
from solversearch.report import pictures
from solversearch.report.search_picture import search_picture
from solversearch.sampling import sample as run
from solversearch.teacher import STEPS, teach


def draw_run(model: Model, plan: Plan, comparison: Comparison, folder: Path, batch_size: int) -> list[str]:
    """The pictures of a run; names of those that could be drawn."""

    pictures.save(pictures.comparison_picture(comparison), folder / "comparison.png")
    pictures.save(pictures.plan_picture(plan, model.schedule), folder / "plan.png")
    drawn = ["comparison.png", "plan.png"]
    if comparison.progress or comparison.stages:
        pictures.save(search_picture(comparison), folder / "search.png")
        drawn.append("search.png")
    if pictures.are_pictures(model):
        draw_samples(model, plan, folder / "samples.png", 16, comparison.seed, batch_size)
        drawn.append("samples.png")
    return drawn


def draw_samples(model: Model, plan: Plan, path: Path, count: int, seed: int, batch_size: int) -> None:
    model = model.started(plan.start)
    teacher = teach(model, "held_out", count, plan.guidance, seed, trajectory=False, batch_size=batch_size)
    best = rival(plan, model, teacher, batch_size)
    outputs = {
        "best baseline": (best.name, best.table.nfe, run(model, best.table, teacher, batch_size)),
        "plan": (plan.digest[7:15], plan.nfe, run(model, plan.tableau, teacher, batch_size, threshold=plan.threshold)),
    }
    drawn = {label: pictures.pictures_of(model, samples) for label, (*_, samples) in outputs.items()}
    target = pictures.pictures_of(model, teacher.endpoint)
    rows = {f"teacher, {STEPS} evaluations": target}
    for label, (name, nfe, samples) in outputs.items():
        error = float(endpoint_mse(samples, teacher.endpoint).mean())
        rows[f"{label}: {name}, {nfe} evaluations, mean squared error to the teacher {error:.2g}"] = drawn[label]
    rows |= pictures.distances(drawn, target)
    guidance = "" if plan.guidance == 1 else f", guidance {plan.guidance:g}"
    what = "noise" if plan.start is None else "noised pictures"
    pictures.save(pictures.samples_picture(rows, f"{model.name}{guidance}: the same {what} in every row"), path)
