"""What the command line prints: a comparison, the stages of a search and a plan as tables, and the verdict in words."""

from collections.abc import Iterator, Sequence
from math import inf, log

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from solversearch.judging.compare import ENDPOINT, Comparison, ParetoPoint, StageResult
from solversearch.judging.intervals import CARRIED
from solversearch.judging.measures import ComparisonRow
from solversearch.judging.race import MEAN
from solversearch.judging.verdict import Ratio
from solversearch.plan import Interval, Plan, Score

BASELINES = 8
"""Baselines in the table of a comparison; the file has them all."""
MAX_COLUMNS = 26
"""Columns up to which a plan's coefficients are shown."""


def number(value: float) -> str:
    """Three significant digits."""
    return f"{value:.3g}"


def percent(share: float) -> str:
    """With as many digits as tell it from none and all."""
    return f"{100 * share:.1f} %" if 0.001 < share < 0.999 else f"{100 * share:.3g} %"


def verdict(comparison: Comparison) -> str:
    """The result in a few sentences: what most samples say first, then the other measures, each with its own best baseline."""
    found, cost = comparison, f"{comparison.nfe} evaluation{'s' if comparison.nfe > 1 else ''}"
    if found.is_baseline:
        return f"The plan is the best baseline itself, {found.best_baseline}: nothing better was found at {cost}."
    geometric, *others = found.ratios
    share, low, high = (percent(each) for each in (found.share.mean, found.share.low, found.share.high))
    parts = [
        f"{found.verdict.capitalize()} at {cost}: on {share} of {found.samples:,} held-out samples [{low} to {high}] the plan's error is "
        f"less than that of the best baseline, {found.best_baseline}; in the geometric mean it is {ratio_text(geometric)} of it.",
        "Over the least of all baselines: " + ", ".join(f"{each.measure} {ratio_text(each)} ({each.baseline})" for each in others) + ".",
        *_caveats(found),
    ]
    return " ".join(parts)


def _caveats(found: Comparison) -> Iterator[str]:
    """What the person must know beside the numbers."""
    geometric, mean = found.ratios[0], found.ratio(MEAN)
    assert mean is not None
    own = found.rows[0]
    if found.ran_away:
        yield f"On {found.ran_away} samples, left out of these numbers, the plan ran away: NaN or inf. That decides."
    elif found.objective != ENDPOINT:
        yield f"The objective, {found.objective}, decides."
    elif found.verdict == "undecided":
        if geometric.sign:
            yield "Most samples say one thing, and the mean, which the worst samples decide, another."
        more = found.samples_to_decide
        yield f"About {more:,} samples would decide (--samples)." if more else "No number of samples that one would take decides that."
    if own.lower_bound:
        why = f"the worst hundredth of the samples has {percent(own.worst_hundredth)} of the plan's sum of errors"
        why = why if own.worst_hundredth > CARRIED else f"{found.samples:,} samples are few"
        yield f"Intervals of mean errors are lower bounds here, for {why}; the truth may lie above."
    if found.exported == "baseline":
        yield f"plan.json holds the baseline, {found.deciding.baseline}."
    needed, last = found.baseline_nfe_for_plan_error, found.ladder[-1].nfe
    if mean.value < 1:
        rest = f"a baseline needs {needed} evaluations" if needed else f"no baseline is enough up to {last} evaluations"
        yield f"For the plan's mean error {rest}."
    if others := found.left_out - found.ran_away:
        yield f"{others} of {found.samples + found.left_out:,} samples are left out: the network returned NaN or inf there."


def ratio_text(ratio: Ratio) -> str:
    """With its interval; a difference as by how much the plan's value is lower."""
    if ratio.difference:
        return f"lower by {number(-ratio.value)} [{number(-ratio.high)}, {number(-ratio.low)}]"
    return f"{number(ratio.value)} [{number(ratio.low)}, {number(ratio.high)}]"


def comparison_table(comparison: Comparison) -> Table:
    """The plan and the baselines that were measured in full, least mean error first."""
    found, (own, *rivals) = comparison, comparison.rows
    title = f"{found.model}, {found.nfe} evaluations, guidance {found.guidance:g}: {found.samples} held-out samples"
    left_out = len(rivals) - BASELINES
    caption = f"Endpoint MSE is to the teacher; the best of {found.pairs} pairs of solver and grid; brackets are 95 % intervals"
    caption += ", of means marked * only lower bounds" * any(row.lower_bound for row in found.rows[: 1 + BASELINES])
    caption += f"; Frechet distances are of {found.features} features" * bool(found.features)
    table = Table(title=title, caption=f"{caption}; {left_out} more baselines are in the JSON" if left_out > 0 else caption)
    for name in COLUMNS:
        table.add_column(name, justify="left" if name == "sampler" else "right", no_wrap=name != "sampler")
    table.add_row(*_cells(own), style="bold", end_section=True)
    for row in rivals[:BASELINES]:
        table.add_row(*_cells(row))
    return table


COLUMNS = ("sampler", "mean error", "geometric", "median", "90 %", "99 %", "worst 1 % has", "Frechet, teacher", "Frechet, data", "calls")


def _cells(row: ComparisonRow) -> tuple[str, ...]:
    assert row.endpoint_mse.median is not None
    return (
        row.name, _interval(row.endpoint_mse) + "*" * row.lower_bound,
        *map(number, (row.geometric_mean, row.endpoint_mse.median, row.quantile_90, row.quantile_99)), percent(row.worst_hundredth),
        *("-" if each is None else number(each.mean) for each in (row.frechet_teacher, row.frechet_data)), str(row.network_calls),
    )  # fmt: skip


def ratio_table(comparison: Comparison) -> Table:
    """The plan against the baseline that is best in each measure."""
    table = Table(title="The plan against the best baseline of each measure")
    for name in ("measure", "plan", "least of all baselines", "ratio [95 %]", "of"):
        table.add_column(name, justify="left" if name in ("measure", "of") else "right")
    for each in comparison.ratios:
        table.add_row(each.measure, number(each.plan_value), number(each.baseline_value), ratio_text(each), each.baseline)
    return table


def _interval(value: Interval | None) -> str:
    return "-" if value is None else f"{number(value.mean)} [{number(value.low)}, {number(value.high)}]"


def stage_table(stages: Sequence[StageResult]) -> Table:
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
        "table's digest": plan.table_digest(),
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
    for name in ("sampler", "mean error", "median", "Frechet, teacher", "Frechet, data", "NFE", "calls"):
        table.add_column(name, justify="left" if name == "sampler" else "right")
    for row in scores:
        error = row.endpoint_mse
        table.add_row(
            row.name, _interval(error), "" if error.median is None else number(error.median), _interval(row.frechet_teacher),
            _interval(row.frechet_data), str(row.nfe), str(row.network_calls),
        )  # fmt: skip
    return table
