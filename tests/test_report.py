"""Tables and pictures: what they say is what was measured, and they can be drawn for every kind of plan."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from pydantic import ValidationError
from rich.console import Console, RenderableType

from solversearch import models
from solversearch.cpr import Cpr
from solversearch.cpr.polynomial import Cascade
from solversearch.cpr.regression import FittedPlan
from solversearch.errors import UserError
from solversearch.grids import grid
from solversearch.judging.baselines import Baseline
from solversearch.judging.compare import Comparison, Prediction, Rung, StageResult, Tau, Timing, Trial
from solversearch.judging.intervals import CARRIED
from solversearch.judging.measures import ComparisonRow
from solversearch.judging.race import GEOMETRIC, MEAN, MEDIAN
from solversearch.judging.verdict import Ratio, decide
from solversearch.models.base import Model
from solversearch.plan import Interval, Plan, Provenance, Score, version_of
from solversearch.report import draw, pictures, plan_view, tables
from solversearch.report.colours import WHITE, contrast, readable_on
from solversearch.report.cpr_view import cpr_table
from solversearch.report.progress import Display, Times
from solversearch.report.search_picture import search_picture
from solversearch.runtime import Tableau
from solversearch.schedules import CosineVP, DiscreteVP, Flow, NoiseSchedule
from solversearch.solvers import get
from tests.cli.calling import COINS


def score(name: str, mean: float, kind: str = "baseline", median: float | None = None) -> Score:
    value = Interval(mean=mean, low=0.8 * mean, high=1.3 * mean, median=mean / 2 if median is None else median)
    distance = Interval(mean=0.1, low=0.05, high=0.2)
    return Score(
        name=name, kind=kind, solver=name, grid="karras", nfe=5, network_calls=10, samples=1024, endpoint_mse=value,
        frechet_teacher=distance, frechet_data=None,
    )  # fmt: skip


def row(name: str, mean: float, kind: str = "baseline", tail: float = 0.05) -> ComparisonRow:
    """tail is what the worst hundredth of the samples has."""
    more = {"geometric_mean": mean / 3, "quantile_90": 2 * mean, "quantile_99": 9 * mean, "worst_hundredth": tail}
    return ComparisonRow.model_validate({**score(name, mean, kind).model_dump(), **more, "lower_bound": tail > CARRIED})


def ratio(measure: str, value: float, baseline: str = "solver_0", within: float = 1.25, difference: bool = False) -> Ratio:
    """Half of the interval is a factor, or a difference."""
    low, high = (value - within, value + within) if difference else (value / within, value * within)
    return Ratio(measure=measure, value=value, low=low, high=high, baseline=baseline, plan_value=0.1 * value, baseline_value=0.1,
                 difference=difference)  # fmt: skip


def comparison(error: float = 0.002, best: float = 0.01, needed: int | None = 8, stages: bool = True) -> Comparison:
    """solver_0 has the least mean error of the baselines, solver_1 the least geometric mean, solver_2 the least median."""
    rows = [row("plan", error, "plan"), *(row(f"solver_{i}", best * 1.2**i) for i in range(12))]
    ratios = ratio(GEOMETRIC, 0.9 * error / best, "solver_1"), ratio(MEAN, error / best), ratio(MEDIAN, 1.1 * error / best, "solver_2")
    end = needed or 40
    ladder = [Rung(nfe=n, name="unipc_2", endpoint_mse=best * (error / best) ** ((n - 5) / (end - 5) * (1.05 if needed else 0.9)))
              for n in range(5, end + 1)] if end > 5 else [Rung(nfe=5, name="unipc_2", endpoint_mse=best)]  # fmt: skip
    return Comparison(
        model="digits", nfe=5, guidance=4.0, samples=1024, seed=0, verdict=decide(*ratios[:2]),
        share=Interval(mean=0.93, low=0.91, high=0.945), ratios=ratios, best_baseline="solver_1", baseline_nfe_for_plan_error=needed,
        teacher_error=1e-7, pairs=500, evaluations=123_456, timing=Timing(wall_s=60, network_s=50),
        stages=tuple(StageResult(name=n, value=v, unit="tempered validation error", endpoint_mse=e, median=e / 3, seconds=3.2,
                                 evaluations=12345)
                     for n, v, e in (("best baseline", 0.005, 0.01), ("fit", 0.003, 0.005), ("search", 0.002, 0.004),
                                     ("polish", 0.001, 0.002))) if stages else (),
        ladder=tuple(ladder), rows=tuple(rows),
    )  # fmt: skip


def plan_of(table: Tableau, guidance: float = 1.0, digest: str = "0123456789abcdef") -> Plan:
    return Plan(
        version=version_of(table.nodes, table.components), prediction_type="sample", guidance=guidance, nfe=table.nfe,
        network_calls=table.network_calls, nodes=table.nodes, rows=table.rows,
        scores=(score("plan", 0.1, "plan"), score("rival", 0.2)), decisions={"solver": "unipc_2"},
        provenance=Provenance(model="digits", model_digest=digest, seed=3, versions={"torch": "2"}, command="solversearch optimize"),
    )  # fmt: skip


def tabled(solver: str = "unipc_2", nfe: int = 5, schedule: NoiseSchedule | None = None) -> Tableau:
    schedule = schedule or DiscreteVP.named()
    return get(solver).tableau(schedule, grid("karras", schedule, get(solver).steps(nfe)))


def split(table: Tableau) -> Tableau:
    rows = [replace(row, delta=tuple(0.1 * (j + 1) for j in range(i))) for i, row in enumerate(table.rows)]
    return replace(table, rows=tuple(rows)).guided(4.0)


def reusing(table: Tableau) -> Tableau:
    """The last node uses the guidance differences of the others."""
    whole = split(table)
    node, row = replace(whole.nodes[-1], guidance=1.0, guidance_difference="reuse"), whole.rows[-1]
    return replace(whole, nodes=(*whole.nodes[:-1], node), rows=(*whole.rows[:-1], replace(row, delta=row.delta[:-1])))


def anchored(table: Tableau) -> Tableau:
    return replace(table, nodes=tuple(replace(node, beta=1 - node.alpha) for node in table.nodes))


PLANS = {
    "unipc": plan_of(tabled()),
    "one evaluation": plan_of(tabled("ddim", 1)),
    "split": plan_of(split(tabled()), 4.0),
    "reused": plan_of(reusing(tabled()), 4.0),
    "stochastic": plan_of(tabled("ddim_eta1", 4)),
    "many": plan_of(tabled("dpmpp_2m", 40)),
    "pure noise": plan_of(tabled("dpmpp_2m", 4, Flow()), digest=""),
    "anchored": plan_of(anchored(tabled())),
}
SCHEDULES: dict[str, NoiseSchedule] = {"pure noise": Flow()}


def printed(what: RenderableType, width: int = 250) -> str:
    console = Console(width=width, no_color=True)
    with console.capture() as capture:
        console.print(what)
    return capture.get()


# The verdict ---------------------------------------------------------------------------------------------------


def told(error: float = 0.002, needed: int | None = 8, **changes: Any) -> str:
    return tables.verdict(comparison(error, needed=needed).model_copy(update=changes))


def judged(geometric: float, mean: float, within: float = 1.25, **changes: Any) -> str:
    """The verdict on these ratios."""
    ratios = ratio(GEOMETRIC, geometric, "solver_1", within), ratio(MEAN, mean, within=within), ratio(MEDIAN, geometric, "solver_2")
    return told(ratios=ratios, verdict=decide(*ratios[:2]), **changes)


def test_the_verdict_says_by_how_much_and_what_it_saves() -> None:
    assert told() == (
        "Better at 5 evaluations: on 93.0 % of 1,024 held-out samples [91.0 % to 94.5 %] the plan's error is less than that of the best "
        "baseline, solver_1; in the geometric mean it is 0.18 [0.144, 0.225] of it. "
        "Over the least of all baselines: mean 0.2 [0.16, 0.25] (solver_0), median 0.22 [0.176, 0.275] (solver_2). "
        "For the plan's mean error a baseline needs 8 evaluations."
    )
    assert told(needed=None).endswith("For the plan's mean error no baseline is enough up to 40 evaluations.")
    assert told(nfe=1).startswith("Better at 1 evaluation: ")


def test_the_verdict_admits_defeat() -> None:
    text = told(0.02, needed=5, exported="baseline")
    assert text.startswith("Worse at 5 evaluations: ") and "in the geometric mean it is 1.8 [1.44, 2.25] of it. " in text
    assert text.endswith("(solver_2). plan.json holds the baseline, solver_1.")
    same = Ratio(measure=GEOMETRIC, value=1, low=1, high=1, baseline="solver_1", plan_value=0.1, baseline_value=0.1)
    case = comparison(0.01, needed=5)
    assert told(0.01, 5, ratios=(same, *case.ratios[1:])) == (
        "The plan is the best baseline itself, solver_1: nothing better was found at 5 evaluations."
    )


def test_an_open_verdict_says_what_would_decide() -> None:
    open_one = judged(0.95, 1.02, samples_to_decide=4711, exported="baseline")
    assert open_one.startswith("Undecided at 5 evaluations: ") and "About 4,711 samples would decide (--samples)." in open_one
    assert open_one.endswith("plan.json holds the baseline, solver_1.") and "Most samples say" not in open_one
    assert "No number of samples that one would take decides that." in judged(1.0, 1.0)
    assert "would decide" not in judged(0.5, 0.5) and "No number" not in judged(2.0, 2.0)


@pytest.mark.parametrize(("geometric", "mean", "begins"), [(0.5, 2.0, "Undecided"), (2.0, 0.5, "Undecided"), (0.5, 1.12, "Undecided"),
                                                           (0.5, 1.09, "Better"), (2.0, 0.92, "Worse")])  # fmt: skip
def test_a_mean_that_says_another_thing_than_most_samples_is_told(geometric: float, mean: float, begins: str) -> None:
    text = judged(geometric, mean)
    assert text.startswith(f"{begins} at 5 evaluations: ")
    assert ("Most samples say one thing, and the mean, which the worst samples decide, another." in text) == (begins == "Undecided")


def test_the_verdict_says_that_intervals_are_lower_bounds() -> None:
    def rows(tail: float, bound: bool) -> tuple[ComparisonRow, ...]:
        own, *rest = comparison().rows
        return own.model_copy(update={"worst_hundredth": tail, "lower_bound": bound}), *rest

    assert (
        "Intervals of mean errors are lower bounds here, for the worst hundredth of the samples has 43.0 % of the plan's sum of errors; "
        "the truth may lie above."
    ) in told(rows=rows(0.43, True))
    few = told(rows=rows(0.06, True), samples=64)
    assert "lower bounds here, for 64 samples are few; the truth may lie above." in few and "hundredth" not in few
    assert "lower bounds" not in told(rows=rows(0.06, False))


@pytest.mark.parametrize(
    ("error", "best", "said"),
    [
        (0.002, 0.01, None),
        (0.19, 0.24, None),
        (0.002, 0.3, "But the best baseline's mean error is 0.6 times the variance of the samples: as large as the data"),
        (0.6, 0.1, "But the plan's mean error is 1.2 times the variance of the samples"),
        (0.5, 0.75, "But the mean errors of plan and best baseline are 1 times and 1.5 times the variance of the samples"),
    ],
)
def test_errors_as_large_as_the_data_are_said(error: float, best: float, said: str | None) -> None:
    """The samples' variance is 0.5."""
    measured = comparison(error, best, needed=None)
    mean = measured.ratios[1].model_copy(update={"plan_value": error, "baseline_value": best})
    found = measured.model_copy(update={"ratios": (measured.ratios[0], mean, *measured.ratios[2:])})
    assert "variance" not in tables.verdict(found)  # of a file that does not have it
    told = tables.verdict(found.model_copy(update={"variance": 0.5}))
    assert said in told if said else "variance" not in told
    same = found.ratios[0].model_copy(update={"low": 1.0, "high": 1.0})
    itself = found.model_copy(update={"variance": 0.5, "ratios": (same, *found.ratios[1:])})
    assert itself.is_baseline and ("variance" in tables.verdict(itself)) == (said is not None)


def test_the_verdict_says_what_is_left_out() -> None:
    assert told(left_out=3).endswith("3 of 1,027 samples are left out: the network returned NaN or inf there.")
    assert "left out" not in told()


def test_the_verdict_names_an_objective_that_decides() -> None:
    ratios = comparison().ratios
    text = told(objective="frechet", ratios=(*ratios, ratio("frechet", 0.7, "solver_5")), verdict="better")
    assert "median 0.22 [0.176, 0.275] (solver_2), frechet 0.7 [0.56, 0.875] (solver_5). The objective, frechet, decides." in text
    lower = ratio("klub", -3.0, "solver_4", 1.0, difference=True)
    text = told(objective="klub", ratios=(*ratios, lower), verdict="better")
    assert "klub lower by 3 [2, 4] (solver_4). The objective, klub, decides." in text


@pytest.mark.parametrize(("exported", "objective", "name"), [("plan", "endpoint", "plan"), ("baseline", "endpoint", "solver_1"),
                                                             ("baseline", "frechet", "solver_5")])  # fmt: skip
def test_what_is_exported_has_ratios_of_its_own(exported: str, objective: str, name: str) -> None:
    found = comparison()
    ratios = (*found.ratios, ratio("frechet", 0.7, "solver_5"))
    found = found.model_copy(update={"exported": exported, "objective": objective, "ratios": ratios})
    assert found.exported_row.name == name
    assert found.exported_ratio(MEAN) == pytest.approx(found.exported_row.endpoint_mse.mean / 0.1)
    assert found.exported_ratio(GEOMETRIC) == pytest.approx(found.exported_row.endpoint_mse.mean / 3 / 0.1)


@pytest.mark.parametrize(("changes", "message"), [
    ({"ratios": ()}, "ratios: the first must be of the geometric mean, the second of the mean"),
    ({"ratios": comparison().ratios[1:]}, "ratios: the first must be of the geometric mean"),
    ({"ladder": ()}, "ladder"),
    ({"rows": comparison().rows[:1]}, "rows: a plan and at least one baseline are needed"),
    ({"rows": comparison().rows[:2], "exported": "baseline"}, "exported: rows do not have the baseline"),
    ({"verdict": "good"}, "verdict"),
    ({"version": 1}, "version"),
])  # fmt: skip
def test_a_comparison_has_what_its_verdict_rests_on(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Comparison.model_validate_json(comparison().model_copy(update=changes).model_dump_json())
    assert Comparison.model_validate_json(comparison().model_dump_json()) == comparison()


# Tables --------------------------------------------------------------------------------------------------------


def test_the_comparison_has_the_plan_first_and_says_what_it_leaves_out() -> None:
    text = printed(tables.comparison_table(comparison()))
    names = [line.split("│")[1].strip() for line in text.splitlines() if line.startswith("│")]
    assert names == ["plan", *(f"solver_{i}" for i in range(8)), "teacher"]
    assert "1024 held-out samples" in text and "4 more baselines" in text and "the best of 500 pairs of solver and grid" in text
    own = next(line for line in text.splitlines() if "│ plan" in line)
    assert [cell.strip() for cell in own.split("│")[1:-1]] == [
        "plan", "0.002 [0.0016, 0.0026]", "0.000667", "0.001", "0.004", "0.018", "5.0 %", "0.1", "-", "10"
    ]  # fmt: skip


def test_means_that_a_few_samples_carry_are_marked() -> None:
    own, _, *rest = comparison().rows
    carried = comparison().model_copy(update={"rows": (own, row("solver_0", 0.01, tail=0.5), *rest)})
    text = printed(tables.comparison_table(carried))
    marked = [line.split("│")[2].strip().endswith("]*") for line in text.splitlines() if line.startswith("│")]
    assert marked == [False, True, *[False] * 8]
    assert "of means marked * only lower bounds" in " ".join(text.split())
    assert "lower bounds" not in printed(tables.comparison_table(comparison()))


def test_the_teacher_stands_beside_frechet_distances() -> None:
    """64 steps, twice for guidance: the distance of its own samples to the data, and none to themselves."""
    found = comparison().model_copy(update={"teacher_frechet_data": Interval(mean=0.321, low=0.2, high=0.4), "teacher_steps": 24})
    teacher = next(line for line in printed(tables.comparison_table(found)).splitlines() if "│ teacher" in line)
    assert [cell.strip() for cell in teacher.split("│")[1:-1]] == ["teacher", "about 1e-07", "", "", "", "", "", "0", "0.321", "48"]
    bare = tuple(row.model_copy(update={"frechet_teacher": None}) for row in found.rows)
    assert "│ teacher" not in printed(tables.comparison_table(found.model_copy(update={"rows": bare})))


def test_every_ratio_stands_with_the_baseline_that_is_best_in_its_measure() -> None:
    lower = ratio("klub", -3.0, "solver_4", 1.0, difference=True)
    text = printed(tables.ratio_table(comparison().model_copy(update={"ratios": (*comparison().ratios, lower)})))
    assert [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")] == [
        ["geometric mean", "0.018", "0.1", "0.18 [0.144, 0.225]", "solver_1"],
        ["mean", "0.02", "0.1", "0.2 [0.16, 0.25]", "solver_0"],
        ["median", "0.022", "0.1", "0.22 [0.176, 0.275]", "solver_2"],
        ["klub", "-0.3", "0.1", "lower by 3 [2, 4]", "solver_4"],
    ]


def test_the_stages_say_what_each_brought() -> None:
    lines = printed(tables.stage_table(comparison().stages)).splitlines()
    fit = next(line for line in lines if "fit" in line)
    assert [cell.strip() for cell in fit.split("│")[1:-1]] == ["fit", "0.003", "0.6", "0.6", "0.005", "0.00167", "12,345", "3.2"]
    assert "tempered validation error" in " ".join(lines)


def test_the_stages_of_earlier_versions_are_shown_by_their_mean() -> None:
    old = tuple(stage.model_copy(update={"value": None, "unit": "endpoint MSE, validation noise"}) for stage in comparison().stages)
    fit = next(line for line in printed(tables.stage_table(old)).splitlines() if "fit" in line)
    assert fit.split("│")[2].strip() == fit.split("│")[5].strip() == "0.005"


def test_the_picture_of_a_search_names_the_unit_in_which_stages_are_chosen() -> None:
    candidates, stages = search_picture(comparison().model_copy(update={"progress": (0.004, 0.003)})).axes
    assert stages.get_xlabel() == "tempered validation error (less is better)"
    assert [bar.get_width() for bar in stages.patches if isinstance(bar, Rectangle)] == [0.005, 0.003, 0.002, 0.001]
    assert candidates.get_ylabel() == "tempered validation error\n(less is better)"


def test_the_picture_of_a_comparison_has_one_unit() -> None:
    """All is over a best baseline's: the star on the left is the bar of the mean on the right, and both are the verdict's number."""
    found = comparison()
    cost, measures = pictures.comparison_picture(found).axes
    bars = [patch for patch in measures.patches if isinstance(patch, Rectangle)]
    widths = {name.split(",")[0]: bar.get_width() for name, bar in zip(labels(measures), bars, strict=True)}
    assert widths == {each.measure: each.value for each in found.ratios}
    drawn = lines_of(cost)
    ((cost_of_plan, *_), (error, *_)) = drawn["plan: 0.2 of the best baseline's"]
    assert cost_of_plan == 5 and error == pytest.approx(widths["mean"]) == pytest.approx(0.2)
    assert drawn["best baseline"][1] == pytest.approx([rung.endpoint_mse / 0.01 for rung in found.ladder])
    assert cost.get_ylabel() == "mean error over the best baseline's of 5 evaluations\n(less is better)"
    assert measures.get_xlabel().endswith("(1: the best baseline; less is better)")


def labels(ax: Axes) -> list[str]:
    return [each.get_text() for each in ax.get_yticklabels()]


@pytest.mark.parametrize("name", PLANS)
def test_every_plan_can_be_shown(name: str) -> None:
    plan = PLANS[name]
    text = printed(plan_view.plan_view(plan))
    assert plan.digest in text and f"{plan.nfe} evaluations" in text
    assert ("Δ0" in text) == (name in ("split", "reused")) and ("z0" in text) == (name == "stochastic")
    assert ("reuses differences" in text) == (name == "reused")
    assert ("any with these noise levels" in text) == (name == "pure noise")
    assert ("the file has them" in text) == (name == "many")


@pytest.mark.parametrize("name", PLANS)
def test_coefficients_are_the_rows_of_the_plan(name: str) -> None:
    plan = PLANS[name]
    names, values = plan_view.column_names(plan), plan_view.coefficients(plan)
    assert len(values) == plan.nfe + 1 and {len(row) for row in values} == {len(names)}
    for i, (row, shown) in enumerate(zip(plan.rows, values, strict=True)):
        assert shown[0] == row.x and tuple(shown[1 : 1 + len(row.d)]) == row.d
        assert all(value is None for value in shown[1 + i : 1 + plan.nfe])


# Pictures ------------------------------------------------------------------------------------------------------


def texts(figure: Figure) -> list[str]:
    return [found.get_text() for found in figure.findobj(Text) if isinstance(found, Text)]


def is_picture(path: Path) -> bool:
    return path.read_bytes().startswith(b"\x89PNG\r\n")


@pytest.mark.parametrize("name", PLANS)
def test_every_plan_can_be_drawn(name: str, tmp_path: Path) -> None:
    plan = PLANS[name]
    figure = pictures.plan_picture(plan, SCHEDULES.get(name, DiscreteVP.named()))
    numbers = [f"{value:.2f}".replace("-0.00", "0.00") for row in plan_view.coefficients(plan) for value in row if value]
    if name != "many":
        assert set(numbers) <= set(texts(figure))
    pictures.save(figure, tmp_path / "new" / "plan.png")
    assert is_picture(tmp_path / "new" / "plan.png")


@pytest.mark.parametrize("case", [
    comparison(), comparison(needed=None), comparison(0.02, needed=5), comparison(0.01, needed=5), comparison(stages=False),
    comparison(1e-12, 1e-3),
])  # fmt: skip
def test_every_comparison_can_be_drawn(case: Comparison, tmp_path: Path) -> None:
    figure = pictures.comparison_picture(case)
    mean = case.ratio(MEAN)
    assert mean is not None and f"plan: {plan_view.number(mean.value)} of the best baseline's" in texts(figure)
    if mean.value < 1:
        wanted = f"needs {case.baseline_nfe_for_plan_error}" if case.baseline_nfe_for_plan_error else "not reached by any baseline up to 40"
        assert any(wanted in text for text in texts(figure))
    pictures.save(figure, tmp_path / "comparison.png")
    assert is_picture(tmp_path / "comparison.png")


@pytest.mark.parametrize(("count", "shape"), [(1, (8, 8)), (16, (8, 8)), (20, (4, 6, 3))])
def test_samples_are_drawn_in_labelled_rows(count: int, shape: tuple[int, ...], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = {name: rng.random((count, *shape)) for name in ("teacher", "baseline", "plan")}
    figure = pictures.samples_picture(rows, "the same noise")
    assert {*rows, "the same noise"} <= set(texts(figure))
    pictures.save(figure, tmp_path / "samples.png")
    assert is_picture(tmp_path / "samples.png")


def test_distances_share_one_factor() -> None:
    reference = np.zeros((2, 4, 4))
    rows = pictures.distances({"far": reference + 0.04, "near": reference - 0.01}, reference)
    assert list(rows) == ["far: 20 x distance to the teacher", "near: 20 x distance to the teacher"]
    assert [float(row.mean()) for row in rows.values()] == pytest.approx([0.8, 0.2])


def test_samples_of_any_model_with_one_or_three_channels_are_pictures() -> None:
    import torch

    coins = models.load(f"{COINS}:factory")
    drawn = pictures.pictures_of(coins, torch.tensor([-1.0, 0.0, 1.0, 3.0]).view(1, 1, 2, 2))
    np.testing.assert_allclose(drawn, [[[0.0, 0.5], [1.0, 1.0]]])
    colour = Model("colour", coins.network, CosineVP(), "sample", (3, 2, 2))
    assert pictures.pictures_of(colour, torch.zeros(5, 3, 2, 2)).shape == (5, 2, 2, 3)
    flat = Model("flat", coins.network, CosineVP(), "sample", (4,))
    assert not pictures.are_pictures(flat)
    with pytest.raises(UserError, match=r"model 'flat' has samples of shape \(4,\), which are no pictures; give it `images`"):
        pictures.pictures_of(flat, torch.zeros(1, 4))


def test_a_picture_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot write: .*; choose another place with --out"):
        pictures.save(pictures.comparison_picture(comparison()), tmp_path / "file" / "comparison.png")


def searched() -> Comparison:
    """A search of 15 candidates: one failed, one is far off, two were seen on all samples."""
    values = [0.1, None, 0.04, 90.0, *[0.03] * 10, 0.002]
    trials = [Trial(value=v, samples=0 if v is None else 256 if i in (2, 14) else 64) for i, v in enumerate(values)]
    return comparison().model_copy(
        update={
            "progress": (None, None, *[0.04] * 12, 0.002),
            "trials": tuple(trials),
            "predictions": tuple(Prediction(predicted=1.5 * v, measured=v) for v in values if v is not None),
            "predictor": tuple(Tau(evaluated=n, surrogate=0.5, learned=-0.1 + n / 40, both=0.6) for n in (8, 15)),
        }
    )


def lines_of(ax: Axes) -> dict[str, tuple[list[float], list[float]]]:
    return {str(line.get_label()): (np.array(line.get_xdata()).tolist(), np.array(line.get_ydata()).tolist()) for line in ax.get_lines()}


def test_the_picture_of_a_search_has_every_candidate_the_baseline_and_the_stages(tmp_path: Path) -> None:
    found = searched()
    figure = search_picture(found)
    candidates, stages, predicted, taus = figure.axes
    drawn = lines_of(candidates)
    assert drawn["2 candidates on all samples"] == ([3, 15], [0.04, 0.002])
    assert drawn["12 candidates on few samples"] == ([1, *range(5, 15)], [0.1, *[0.03] * 10])
    assert drawn["off the scale"] == ([4], [30 * 0.005])
    assert drawn["1 failed"][0] == [2]
    np.testing.assert_array_equal(drawn["the best so far"][1], [np.nan, np.nan, *found.progress[2:]])
    for stage, reached in (("best baseline", 0.005), ("fit", 0.003), ("search", 0.002), ("polish", 0.001)):
        assert drawn[f"{stage}: {reached:g}"][1] == [reached, reached]
    assert labels(stages)[0].startswith("best baseline") and len(stages.patches) == 4
    points = lines_of(predicted)["14 candidates"]
    assert points[0][-1] == 0.002 and points[1][-1] == pytest.approx(0.003), "what the network said, and what was predicted"
    assert list(lines_of(taus))[:3] == ["surrogate alone", "learned alone", "both"]
    pictures.save(figure, tmp_path / "search.png")
    assert is_picture(tmp_path / "search.png") and (tmp_path / "search.png").stat().st_size > 20_000
    assert len(search_picture(found.model_copy(update={"predictor": (), "predictions": ()})).axes) == 2
    with pytest.raises(ValueError, match="no search to draw"):
        search_picture(comparison(stages=False))


@pytest.mark.parametrize("case", [comparison(), comparison(needed=None), comparison(0.02, needed=5), searched()])
def test_nothing_in_a_picture_covers_anything(case: Comparison) -> None:
    """No legend lies on an axes, no text on another or outside of the picture, and every bar has its name and its number."""
    for figure in (pictures.comparison_picture(case), search_picture(case)):
        renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
        figure.draw(renderer)
        beyond = {
            tick.label1 for ax in figure.axes for axis in (ax.xaxis, ax.yaxis) for tick in axis.get_major_ticks()
            if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
        }  # fmt: skip
        shown = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip() and text not in beyond]
        boxes = [text.get_window_extent(renderer) for text in shown]
        whole = figure.bbox.padded(1)
        assert all(whole.contains(box.x0, box.y0) and whole.contains(box.x1, box.y1) for box in boxes)
        for i, box in enumerate(boxes):
            assert not any(box.padded(-1).overlaps(other.padded(-1)) for other in boxes[i + 1 :])
        for ax in figure.axes:
            legend, bars = ax.get_legend(), [patch for patch in ax.patches if isinstance(patch, Rectangle)]
            assert legend is None or not legend.get_window_extent(renderer).overlaps(ax.get_window_extent(renderer))
            if bars:
                numbers = [each for each in ax.texts if re.match(r"[0-9]", each.get_text())]
                assert len(labels(ax)) == len(numbers) == len(bars) and all(labels(ax))


def test_text_in_pictures_can_be_read() -> None:
    """A contrast of 4.5 with white, or with the colour of the cell that a coefficient stands in."""
    for case in (comparison(), searched()):
        for figure in (pictures.comparison_picture(case), search_picture(case)):
            for text in figure.findobj(Text):
                assert contrast(to_hex(text.get_color()), WHITE) >= 4.5, text
    for name, plan in PLANS.items():
        *_, heat, _ = pictures.plan_picture(plan, SCHEDULES.get(name, DiscreteVP.named())).axes
        mesh = heat.get_images()[0]
        values = mesh.get_array()
        assert values is not None
        for text in heat.texts:
            j, i = map(int, text.get_position())
            cell = to_hex(tuple(mesh.to_rgba(values[i, j])))
            assert contrast(to_hex(text.get_color()), cell) >= 4.5, (name, i, j)


def test_contrast_is_that_of_the_guidelines() -> None:
    """Values of WebAIM's contrast checker."""
    pairs = {("#000000", "#ffffff"): 21.0, ("#777777", "#ffffff"): 4.48, ("#767676", "#ffffff"): 4.54, ("#ff0000", "#ffffff"): 4.0}
    for (one, other), value in pairs.items():
        assert contrast(one, other) == contrast(other, one) == pytest.approx(value, abs=0.006)
    assert min(contrast(colour, readable_on(colour)) for colour in ("#757575", "#767676", "#ff0000", "#0000ff", "#e98a3a")) >= 4.58


def test_a_search_without_a_single_success_is_drawn(tmp_path: Path) -> None:
    failed = {"progress": (None, None), "trials": (Trial(value=None, samples=0),) * 2}
    for case in (comparison(), comparison(stages=False)):
        pictures.save(search_picture(case.model_copy(update=failed)), tmp_path / "search.png")
        assert is_picture(tmp_path / "search.png")


# Regressions ---------------------------------------------------------------------------------------------------


def fitted() -> Cpr:
    def cell(nfe: int, ratio: float | None) -> FittedPlan:
        return FittedPlan(nfe=nfe, guidance=1.5, plan="", residual_times=0.01, residual_parameters=0.02, left_out_times=0.3,
                    left_out_parameters=0.04, ratio=ratio)  # fmt: skip

    flat = Cascade(coefficients=(((0.0,),),))
    return Cpr(
        model="coins", model_digest="0", prediction_type="sample", kind="coefficients", nfe=(4, 6), guidance=(1.5, 1.5),
        cascades={"position": flat}, cells=(cell(4, None), cell(6, 1.07)),
    )  # fmt: skip


def test_a_regression_is_shown_a_configuration_a_line() -> None:
    text = printed(cpr_table(fitted()))
    assert "coins: NFE 4 .. 6, guidance 1.5 .. 1.5, coefficients as polynomials" in text
    rows = [[each.strip() for each in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]
    assert rows == [["4", "1.5", "-", "0.01", "0.3", "0.02", "0.04"], ["6", "1.5", "1.07", "0.01", "0.3", "0.02", "0.04"]]


# Progress ------------------------------------------------------------------------------------------------------


def test_progress_is_a_line_a_stage_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Display(Console(stderr=True, highlight=False)) as display:
        for done in range(1, 4):
            display("teacher", done, 3, "fit")
        for done in range(1, 4):
            display("teacher", done, 3, "validate")
        display("search", 1, 60, "")
        display("search", 2, 60, "best 0.1")
    output = capsys.readouterr()
    assert output.out == "" and output.err.splitlines() == ["teacher: fit", "teacher: validate", "search"]


def test_progress_is_bars_on_a_terminal() -> None:
    console = Console(force_terminal=True, width=150, record=True, legacy_windows=False)
    with console.capture() as capture, Display(console) as display:
        display("search", 30, 60, "best tempered validation error 0.1")
        display("comparison", 1, 0, "screening")
    text = capture.get()
    assert "30/30" in text and "screening" in text and "best tempered validation error 0.1" in text


def test_time_left_is_time_left_and_elapsed_is_elapsed() -> None:
    display = Display(Console(force_terminal=True, width=80, legacy_windows=False))
    seconds = 0.0
    display.bars.get_time = lambda: seconds
    for done in range(11):
        seconds = float(done)
        display("search", done, 60, "")
    assert display.bars.tasks[0].time_remaining == 50
    times = next(column for column in display.bars.columns if isinstance(column, Times))
    assert str(times(display.bars.tasks[0])) == "0:00:10 elapsed, 0:00:50 left"
    display("comparison", 1, 0, "")
    seconds = 44.0
    assert str(times(display.bars.tasks[1])) == "0:00:34 elapsed", "how long it will take is not known"


def test_progress_is_whole_at_80_columns() -> None:
    console = Console(force_terminal=True, width=80, legacy_windows=False, no_color=True)
    with console.capture() as capture, Display(console) as display:
        display("full without the polish stage, NFE 10, guidance 7.5: search", 30, 60, "best tempered validation error 0.00123")
    shown = re.sub(r"(\x1b\[[0-9;?]*[A-Za-z]|\r)+", "\n", capture.get()).splitlines()
    assert max(map(len, shown)) <= 80 and "…" not in "".join(shown)
    words = {word for line in shown for word in line.split()}
    assert {"stage,", "guidance", "7.5:", "search", "30/60", "elapsed", "tempered", "validation", "0.00123"} <= words


def test_samples_of_a_plan_that_starts_from_pictures_start_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a model that was loaded without its start."""
    whole, drawn = models.load("digits"), dict[str, Any]()
    model = whole.started(whole.schedule.start_of(0.6))
    table = get("unipc_2").tableau(model.schedule, grid("karras", model.schedule, 4))
    plan = Plan(
        version=4, start=model.start, prediction_type="v_prediction", guidance=1.0, nfe=4, network_calls=4, nodes=table.nodes,
        rows=table.rows, provenance=Provenance(model="digits", model_digest=whole.digest),
    )  # fmt: skip
    monkeypatch.setattr(draw, "rival", lambda *_: Baseline("unipc_2", "karras", table))
    monkeypatch.setattr(pictures, "samples_picture", lambda rows, title: drawn.update(rows=rows, title=title))
    monkeypatch.setattr(pictures, "save", lambda *_: None)
    draw.draw_samples(whole, plan, tmp_path / "samples.png", 8, 0, 64)
    assert drawn["title"] == "digits: the same noised pictures in every row"
    errors = [float(label.rpartition(" ")[2]) for label in drawn["rows"] if "mean squared error" in label]
    assert len(errors) == 2 and 0 < errors[0] == errors[1] < 0.002  # from noise it is 0.009
