"""What the command line prints: a comparison, the stages of a search and a plan as tables, and the result in one sentence."""

from collections.abc import Sequence
from math import inf, log

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from solversearch.compare import Comparison, ParetoPoint, Stage
from solversearch.plan import Interval, Plan, Score

BASELINES = 8
"""Baselines in the table of a comparison; the file has them all."""
MAX_COLUMNS = 26
"""Columns up to which a plan's coefficients are shown."""


def number(value: float) -> str:
    """Three significant digits."""
    return f"{value:.3g}"


def verdict(comparison: Comparison) -> str:
    """The result in one or two sentences."""
    ratio, best = comparison.ratio_endpoint_mse, comparison.best_baseline
    cost = f"{comparison.nfe} evaluation{'s' if comparison.nfe > 1 else ''}"
    if is_baseline(comparison):
        return f"The plan is the best baseline itself, {best}: nothing better was found at {cost}."
    if ratio >= 1 and comparison.won:
        return (
            f"At {cost} a few outliers decide the mean error: the plan's is {number(ratio)} of that of {best}, and the intervals overlap. "
            f"The plan's median over samples is {number(comparison.ratio_endpoint_median)} of the best."
        )
    if ratio >= 1:
        return f"The plan does not beat the best baseline: at {cost} its error is {number(ratio)} of that of {best}."
    needed, last = comparison.baseline_nfe_for_plan_error, comparison.ladder[-1].nfe if comparison.ladder else comparison.nfe
    rival = f"the best baseline needs {needed} evaluations for it" if needed else f"no baseline reaches it up to {last} evaluations"
    median = f"median over samples: {number(comparison.ratio_endpoint_median)} of the best"
    return f"The plan's error at {cost} is {number(ratio)} of the best baseline's ({best}; {median}); {rival}."


def is_baseline(comparison: Comparison) -> bool:
    """Whether the plan samples exactly as the best baseline does."""
    own, best = comparison.rows[0].endpoint_mse, comparison.rows[1].endpoint_mse
    return abs(own.mean - best.mean) <= 1e-9 * best.mean and own.median == best.median


def comparison_table(comparison: Comparison) -> Table:
    """The plan and the best baselines, best first."""
    title = f"{comparison.model}, {comparison.nfe} evaluations, guidance {comparison.guidance:g}: {comparison.samples} held-out samples"
    own, *rivals = comparison.rows
    shown = _different(rivals)[:BASELINES]
    left_out = len(rivals) - len(shown)
    caption = "Endpoint MSE is to the teacher; brackets are 95 % bootstrap intervals"
    if comparison.features:
        caption += f"; Frechet distances are of {comparison.features} features"
    table = Table(title=title, caption=f"{caption}; {left_out} more baselines are in the JSON" if left_out > 0 else caption)
    for name in ("sampler", "endpoint MSE", "median", "Frechet, teacher", "Frechet, data", "NFE", "calls"):
        table.add_column(name, justify="left" if name == "sampler" else "right", no_wrap=name != "sampler")
    table.add_row(*_cells(own), style="bold", end_section=True)
    for row in shown:
        table.add_row(*_cells(row))
    return table


def _different(rows: Sequence[Score]) -> list[Score]:
    """Without those that equal one before: at few evaluations several solvers are the same."""
    kept: dict[tuple[float, float | None], Score] = {}
    for row in rows:
        kept.setdefault((row.endpoint_mse.mean, row.endpoint_mse.median), row)
    return list(kept.values())


def _cells(row: Score) -> tuple[str, ...]:
    median = row.endpoint_mse.median
    return (
        row.name, _interval(row.endpoint_mse), "" if median is None else number(median),
        _interval(row.frechet_teacher), _interval(row.frechet_data), str(row.nfe), str(row.network_calls),
    )  # fmt: skip


def _interval(value: Interval | None) -> str:
    return "-" if value is None else f"{number(value.mean)} [{number(value.low)}, {number(value.high)}]"


def stage_table(stages: Sequence[Stage]) -> Table:
    """What each stage of a search brought, on validation noise."""
    table = Table(title="What each stage brought, on validation noise")
    for name in ("stage", stages[0].unit, "of the stage before", "of the first", "mean error", "median", "network evaluations", "seconds"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    for i, stage in enumerate(stages):
        before, first = (number(stage.reached / each.reached) if i and each.reached else "" for each in (stages[i - 1], stages[0]))
        table.add_row(
            stage.name, number(stage.reached), before, first, number(stage.endpoint_mse), number(stage.median), f"{stage.evaluations:,}",
            f"{stage.seconds:.1f}",
        )  # fmt: skip
    return table


def pareto_table(points: Sequence[ParetoPoint]) -> Table:
    """The Pareto set of a search."""
    table = Table(title="Plans that no other candidate beats in every objective, on validation noise")
    table.add_column("file")
    for name in points[0].values:
        table.add_column(name, justify="right")
    for point in points:
        table.add_row(point.file, *map(number, point.values.values()))
    return table


def plan_view(plan: Plan) -> RenderableType:
    """A plan for the eye: what it is, its nodes, its coefficients, its scores, where it comes from."""
    parts: list[RenderableType] = [_summary(plan), _nodes(plan), _rows(plan)]
    if plan.scores:
        parts.append(_scores(plan.scores))
    return Group(*parts)


def _summary(plan: Plan) -> Table:
    origin = plan.provenance
    kinds = [name for name, on in (("split guidance", plan.tableau.split), ("stochastic", plan.tableau.stochastic)) if on]
    facts = {
        "plan": f"version {plan.version}, {plan.nfe} evaluations, {plan.network_calls} network calls a sample",
        "guidance": f"{plan.guidance:g}",
        "prediction type": plan.prediction_type,
        "kind": ", ".join(["deterministic" if not plan.tableau.stochastic else "", *kinds]).strip(", "),
        "threshold": "none" if plan.threshold is None else f"{plan.threshold.kind}, limit {plan.threshold.limit:g}",
        "decisions": ", ".join(f"{key} {value}" for key, value in plan.decisions.items()) or "none",
        "model": f"{origin.model} ({origin.model_digest[:16]})" if origin.model_digest else "any with these noise levels",
        "seed": "none" if origin.seed is None else str(origin.seed),
        "versions": ", ".join(f"{name} {version}" for name, version in origin.versions.items()) or "unknown",
        "command": origin.command or "unknown",
        "digest": plan.digest,
    }
    table = Table(show_header=False, box=None)
    for name, fact in facts.items():
        table.add_row(Text(name, style="bold"), Text(fact))
    return table


def _nodes(plan: Plan) -> Table:
    table = Table(title="Nodes: where the network is evaluated")
    for name in ("i", "t", "alpha", "sigma", "lambda = ln(alpha/sigma)", "guidance"):
        table.add_column(name, justify="right")
    for i, node in enumerate(plan.nodes):
        lam = log(node.alpha / node.sigma) if node.alpha else -inf
        table.add_row(str(i), f"{node.t:.6g}", f"{node.alpha:.5f}", f"{node.sigma:.5f}", f"{lam:.4f}", f"{node.guidance:g}")
    return table


def column_names(plan: Plan) -> list[str]:
    """Names of the columns of `coefficients`."""
    delta, z = _widths(plan)
    return ["noise", *(f"D{j}" for j in range(plan.nfe)), *(f"Δ{j}" for j in range(delta)), *(f"z{k}" for k in range(z))]


def coefficients(plan: Plan) -> list[list[float | None]]:
    """The whole table, a row a state; None where a row cannot reach: outputs that do not exist yet."""
    delta, z = _widths(plan)

    def filled(weights: Sequence[float], size: int, known: int) -> list[float | None]:
        return [weights[j] if j < len(weights) else 0.0 if j < known else None for j in range(size)]

    return [[r.x, *filled(r.d, plan.nfe, i), *filled(r.delta, delta, i), *filled(r.z, z, z)] for i, r in enumerate(plan.rows)]


def _widths(plan: Plan) -> tuple[int, int]:
    delta = plan.nfe if plan.tableau.split else 0
    return delta, max(len(row.z) for row in plan.rows)


def _rows(plan: Plan) -> RenderableType:
    names = column_names(plan)
    if len(names) > MAX_COLUMNS:
        return Text(f"Rows: {len(plan.rows)} of {len(names)} coefficients; the file has them")
    table = Table(title="Rows: each state as a sum of the noise and the outputs so far")
    for name in ("state", *names):
        table.add_column(name, justify="right")
    for i, row in enumerate(coefficients(plan)):
        cells = ["" if value is None else f"{value:.4f}".replace("-0.0000", "0.0000") for value in row]
        table.add_row("result" if i == plan.nfe else f"x{i}", *cells, end_section=i == plan.nfe - 1)
    return table


def _scores(scores: Sequence[Score]) -> Table:
    table = Table(title=f"Scores on {scores[0].samples} held-out samples")
    for name in ("sampler", "endpoint MSE", "median", "Frechet, teacher", "Frechet, data", "NFE", "calls"):
        table.add_column(name, justify="left" if name == "sampler" else "right")
    for row in scores:
        table.add_row(*_cells(row))
    return table
