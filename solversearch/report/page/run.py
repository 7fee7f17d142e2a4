"""The page of a run: plan.json and comparison.json, with what else its folder holds."""

import base64
import json
from math import inf
from pathlib import Path

from solversearch.errors import UserError
from solversearch.judging.compare import Comparison, StageResult
from solversearch.judging.measures import ComparisonRow
from solversearch.pipeline_facts import shown
from solversearch.plan import Plan, read_file, read_json
from solversearch.report import plan_view, tables
from solversearch.report.page import charts, files
from solversearch.report.page.blocks import (
    Chart,
    Code,
    Download,
    Element,
    Facts,
    Matrix,
    Note,
    Page,
    PageSection,
    Picture,
    Table,
    TableCell,
    count,
    figure,
    interval,
)  # fmt: skip
from solversearch.report.page.recipes import recipes
from solversearch.report.plan_view import number
from solversearch.version import __version__

COLUMNS = 64
"""Of a table of coefficients that is written out."""
DOWNLOAD = 512 * 1024
"""Bytes up to which the plan comes with the page."""


def run_page(folder: Path) -> Page:
    """Raises `UserError` where a file is missing or damaged, or where the two are of different runs."""
    if not (folder / "plan.json").exists():
        raise UserError(f"{folder}: no plan.json there: name the folder of a finished 'solversearch optimize', 'study' or 'sweep'")
    plan = Plan.read(folder / "plan.json")
    if not (folder / "comparison.json").exists():
        raise UserError(f"{folder}: no comparison.json there: the search has not finished, or was interrupted")
    comparison = read_json(Comparison, folder / "comparison.json", "comparison")
    # Earlier comparisons were with as many evaluations, whatever those cost.
    if comparison.nfe not in (plan.rival_nfe, plan.nfe) or (plan.guidance, plan.start) != (comparison.guidance, comparison.start):
        raise UserError(f"{folder}: plan.json and comparison.json are of different runs")
    if any(point.values.keys() != comparison.pareto[0].values.keys() for point in comparison.pareto):
        raise UserError(f"{folder / 'comparison.json'}: pareto: the plans have values of different objectives")
    evaluations = f"{plan.nfe} evaluation{'s' if plan.nfe > 1 else ''}"
    guidance = "" if plan.guidance == 1 else f", guidance {plan.guidance:g}"
    return Page(
        title=f"{comparison.model}: {evaluations}{plan_view.start_text(plan.start)}{guidance}",
        subtitle=f"{comparison.samples:,} held-out samples; every published solver on every grid at the same cost",
        verdict=tables.verdict(comparison),
        tiles=_tiles(comparison),
        sections=[
            *_samples(folder),
            PageSection(
                "Compared with published solvers",
                [Chart("Error by evaluations", charts.error_by_nfe(comparison), wide=True), *comparison_blocks(comparison)],
            ),
            PageSection("The search", _search(folder, comparison)),
            PageSection("The plan", [Chart("Times on the noise schedule", charts.times(plan, comparison)), *plan_blocks(plan)]),
            PageSection("How to use it", _use(folder, plan)),
            PageSection("Where it comes from", [Facts(_provenance(plan, comparison))]),
        ],
    )


def _tiles(comparison: Comparison) -> list[tuple[str, str]]:
    needed, last = comparison.baseline_nfe_for_plan_error, comparison.ladder[-1].nfe
    ratios = [
        (f"{number(each.value)} ×", f"{each.measure}, of the least of all baselines ({tables.LESS})")
        for each in comparison.ratios
        if not each.difference
    ]
    share = (tables.percent(comparison.share.mean), "of the samples: less error than the best baseline")
    return [share, *ratios, (f"{comparison.nfe} → {needed or f'> {last}'}", "evaluations a baseline needs for the same mean error")]


def _samples(folder: Path) -> list[PageSection]:
    uri = files.picture(folder / "samples.png")
    return [PageSection("Samples", [Picture("Teacher, best baseline and plan, from the same noise in every row", uri)])] if uri else []


def comparison_blocks(comparison: Comparison) -> list[Element]:
    """The plan against the best baseline of each measure, and against all that were measured in full."""
    rows = comparison.rows
    optional = [name for name in ("frechet_teacher", "frechet_data") if any(getattr(row, name) for row in rows)]
    titles = {"frechet_teacher": "Frechet, teacher", "frechet_data": "Frechet, data"}
    tail = {"geometric_mean": "geometric mean", "quantile_90": "90 %", "quantile_99": "99 %"}
    columns = ["sampler", "mean error", "median", *tail.values(), "worst 1 % has", *(titles[name] for name in optional), "calls"]

    def cells(row: ComparisonRow) -> list[TableCell]:
        error, distances = row.endpoint_mse, [getattr(row, name) for name in optional]
        mean = TableCell(interval(error).text + "*" * row.lower_bound, error.mean)
        return [
            TableCell(row.name), mean, figure(error.median), *(figure(getattr(row, name)) for name in tail),
            TableCell(tables.percent(row.worst_hundredth), row.worst_hundredth), *(figure(each and each.mean) for each in distances),
            TableCell(f"{comparison.calls(row):.4g}", comparison.calls(row)),
        ]  # fmt: skip

    caption = f"Of {comparison.pairs} pairs of solver and grid, those that could be the best were measured in full. "
    caption += "Errors are to the teacher, less is better; "
    caption += "brackets are 95 % intervals, of means marked * only lower bounds: a few samples carry them"
    if comparison.features:
        caption += f"; Frechet distances are of {comparison.features} features"
    shown = [cells(row) for row in rows]
    if "frechet_teacher" in optional:
        name, error, *_, calls = tables.teacher_cells(comparison)
        data = comparison.teacher_frechet_data
        own = {"frechet_teacher": TableCell("0", 0.0), "frechet_data": figure(data.mean if data else None)}
        shown.append([TableCell(name), TableCell(error, comparison.teacher_error), *[figure(None)] * (2 + len(tail)),
                      *(own[each] for each in optional), TableCell(calls, float(calls.replace(",", "")))])  # fmt: skip
    return [_ratios(comparison), Table(columns, shown, caption + ".", first=1)]


def _ratios(comparison: Comparison) -> Table:
    rows = [
        [TableCell(each.measure), figure(each.plan_value), figure(each.baseline_value),
         TableCell(tables.ratio_text(each), each.value), TableCell(each.baseline)]
        for each in comparison.ratios
    ]  # fmt: skip
    columns = ["measure", "plan", "least of all baselines", "ratio", "baseline"]
    return Table(columns, rows, "The plan against the baseline that is best in each measure, on the same noise: less is better.", first=1)


def _search(folder: Path, comparison: Comparison) -> list[Element]:
    blocks: list[Element] = []
    if comparison.note:
        blocks.append(Note(comparison.note))
    if comparison.stages:
        blocks += [Chart("What each stage brought", charts.stages(comparison.stages)), _stages(comparison.stages)]
    if any(value is not None for value in comparison.progress):
        blocks.append(Chart("Every candidate, and the best so far", charts.progress(comparison)))
    if comparison.predictions:
        blocks.append(Chart("Predicted, and true", charts.predictions(comparison)))
    if comparison.predictor:
        blocks.append(Chart("How well the predictor ranked", charts.taus(comparison.predictor)))
    shares = files.importances(folder / "journal.log")
    if isinstance(shares, str):
        blocks.append(Note(f"Parameter importances are left out: {shares}."))
    elif shares:
        blocks.append(Chart("Parameter importances (fANOVA)", charts.importances(shares)))
    if comparison.pareto:
        names = list(comparison.pareto[0].values)
        if len(names) > 1 and len(comparison.pareto) > 1:
            blocks.append(Chart("Plans that no other beats", charts.pareto(comparison.pareto)))
        rows = [
            [TableCell(point.file), count(point.network_calls), *(figure(point.values[name]) for name in names)]
            for point in comparison.pareto
        ]
        blocks.append(Table(["plan", "network calls", *names], rows, "The Pareto set of the search, on validation noise: less is better."))
    return blocks


def _stages(stages: tuple[StageResult, ...]) -> Table:
    rows = [
        [
            TableCell(s.name),
            figure(s.reached),
            figure(s.endpoint_mse),
            figure(s.median),
            count(s.evaluations),
            TableCell(f"{s.seconds:.1f}", s.seconds),
        ]
        for s in stages
    ]
    names = ["stage", stages[0].unit, "mean error", "median", "evaluations", "seconds"]
    return Table(names, rows, f"{tables.STAGES}.", wide=False)


def plan_blocks(plan: Plan) -> list[Element]:
    """Nodes, coefficients and decisions."""
    beta = plan.tableau.anchored
    nodes = [
        [
            count(i), *(TableCell(f"{x:.6g}", x) for x in (node.t, node.alpha, node.sigma, *[node.beta or 0.0] * beta)),
            _lam(charts.lam(node)), TableCell(plan_view.guidance_text(node), node.guidance),
        ]
        for i, node in enumerate(plan.nodes)
    ]  # fmt: skip
    columns = ["evaluation", "t", "α", "σ", *["β"] * beta, "λ = ln(α/σ)", "guidance"]
    blocks: list[Element] = [Table(columns, nodes, "Where the network is evaluated.", wide=False)]
    names = plan_view.column_names(plan)
    if len(names) > COLUMNS:
        blocks.append(Note(f"The table has {len(plan.rows)} rows of {len(names)} coefficients; the plan file has them."))
    else:
        states = [*(f"input {i}" for i in range(plan.nfe)), "result"]
        blocks.append(Matrix(_legend(names), names, list(zip(states, plan_view.coefficients(plan), strict=True))))
    if plan.decisions:
        blocks.append(Facts({name: _plain(value) for name, value in shown(plan.decisions).items()}))
    return blocks


def _lam(value: float) -> TableCell:
    return TableCell("−∞" if value == -inf else f"{value:.4g}", value)


def _legend(names: list[str]) -> str:
    parts = [("Δ", "; Δ: conditional minus unconditional"), ("z", "; z: fresh noise")]
    more = "".join(text for letter, text in parts if any(name.startswith(letter) for name in names))
    return f"Every state as a sum of the noise and the data predictions D so far{more}"


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _use(folder: Path, plan: Plan) -> list[Element]:
    blocks: list[Element] = [Code(title, text) for title, text in recipes(folder, plan).items()]
    content = read_file(folder / "plan.json", "plan")
    if len(content) <= DOWNLOAD:
        uri = f"data:application/json;base64,{base64.b64encode(content).decode()}"
        blocks.insert(0, Download("The plan, ", "plan.json", uri))
    return blocks


def _provenance(plan: Plan, comparison: Comparison) -> dict[str, str]:
    origin, timing = plan.provenance, comparison.timing
    return {
        "command": origin.command or "unknown",
        "model": origin.model or "any",
        "weights": origin.model_digest[:64] or "any",
        "plan": plan.digest,
        "seed": "none" if origin.seed is None else str(origin.seed),
        "versions": ", ".join(f"{name} {version}" for name, version in origin.versions.items()) or "unknown",
        **({"price": comparison.price.told} if comparison.price else {}),
        "time": timing.told,
        "teacher": f"its own error is {number(comparison.teacher_error)}",
        "page": f"solversearch {__version__}",
    }
