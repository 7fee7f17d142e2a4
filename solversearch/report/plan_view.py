"""A plan for the eye. Light: it needs nothing of the search."""

from collections.abc import Sequence
from math import inf, log
from statistics import fmean

from rich.console import Group, RenderableType
from rich.text import Text

from solversearch.components import Components
from solversearch.pipeline_facts import shown
from solversearch.plan import Interval, Plan, PlanVariant, Score
from solversearch.report.screen import Fitted, facts
from solversearch.runtime import Coefficient, Node, Start, scalars

MAX_COLUMNS = 26
"""Columns up to which a plan's coefficients are shown."""


def number(value: float) -> str:
    """Three significant digits."""
    return f"{value:.3g}"


def interval_text(value: Interval | None) -> str:
    return "-" if value is None else f"{number(value.mean)} [{number(value.low)}, {number(value.high)}]"


def start_text(start: Start | None) -> str:
    """Behind a number of evaluations."""
    return "" if start is None else f" from pictures noised to t = {start.t:.4g}"


def plan_view(plan: Plan) -> RenderableType:
    """A plan for the eye: what it is, its nodes, its coefficients, its scores, where it comes from."""
    parts: list[RenderableType] = [facts(summary(plan)), _nodes(plan), _rows(plan)]
    if plan.scores:
        parts.append(_scores(plan.scores))
    return Group(*parts)


def summary(plan: Plan) -> dict[str, str]:
    """What it is and where it comes from."""
    origin = plan.provenance
    rest = (f" at the price of {plan.price:.4g}" if plan.variants else "") + start_text(plan.start)
    table = plan.tableau
    each = (("split guidance", table.split), ("stochastic", table.stochastic), ("towards an anchor", table.anchored))
    kinds = [name for name, on in each if on]
    return {
        "plan": f"version {plan.version}, {plan.nfe} evaluations, {plan.network_calls} network calls a sample{rest}",
        "guidance": f"{plan.guidance:g}",
        "prediction type": plan.prediction_type,
        "kind": ", ".join(["deterministic" if not table.stochastic else "", *kinds]).strip(", "),
        "components": components_text(plan.components),
        **{f"variant {name}": variant_text(each) for name, each in plan.variants.items()},
        "threshold": "none" if plan.threshold is None else f"{plan.threshold.kind}, limit {plan.threshold.limit:g}",
        "decisions": ", ".join(f"{key} {value}" for key, value in shown(plan.decisions).items()) or "none",
        "model": f"{origin.model} ({origin.model_digest[:16]})" if origin.model_digest else "any with these noise levels",
        "seed": "none" if origin.seed is None else str(origin.seed),
        "versions": ", ".join(f"{name} {version}" for name, version in origin.versions.items()) or "unknown",
        "command": origin.command or "unknown",
        "digest": plan.digest,
        "table's digest": plan.table_digest(),
    }


def variant_text(variant: PlanVariant) -> str:
    how = "reuses the features of" if variant.reuses_features else "leaves out"
    what = f"{how} {', '.join(variant.skips)}" if variant.skips else f"another network ({variant.digest[:16] or 'any'})"
    return f"{what}; a call costs {variant.cost:.3g}"


def components_text(components: Components | None) -> str:
    if components is None:
        return "none: every coefficient is one number"
    parts = {"frequency bands": components.bands, "channel directions": components.channels}
    return " x ".join(f"{len(each)} {name}" for name, each in parts.items() if each)


def _nodes(plan: Plan) -> Fitted:
    beta, several = plan.tableau.anchored, bool(plan.variants)
    names = ("i", "t", "alpha", "sigma", *["beta"] * beta, "lambda = ln(alpha/sigma)", "guidance", *["network"] * several)
    table = Fitted(names, "Nodes: where the network is evaluated")
    for i, node in enumerate(plan.nodes):
        lam = log(node.alpha / node.sigma) if node.alpha else -inf
        numbers = [f"{node.t:.6g}", *(f"{x:.5f}" for x in (node.alpha, node.sigma, *[node.beta or 0.0] * beta)), f"{lam:.4f}"]
        table.add_row(str(i), *numbers, guidance_text(node), *[node.variant or "its own"] * several)
    return table


def guidance_text(node: Node) -> str:
    return "reuses differences" if node.reuses else f"{node.guidance:g}"


def column_names(plan: Plan) -> list[str]:
    """Names of the columns of `coefficients`."""
    delta, z = _widths(plan)
    return ["noise", *(f"D{j}" for j in range(plan.nfe)), *(f"Δ{j}" for j in range(delta)), *(f"z{k}" for k in range(z))]


def coefficients(plan: Plan) -> list[list[float | None]]:
    """The whole table, a row a state, of several components their mean; None where a row cannot reach: outputs that do not exist yet."""
    delta, z = _widths(plan)

    def filled(weights: Sequence[Coefficient], size: int, known: int) -> list[float | None]:
        return [fmean(scalars(weights[j])) if j < len(weights) else 0.0 if j < known else None for j in range(size)]

    return [
        [fmean(scalars(r.x)), *filled(r.d, plan.nfe, i), *filled(r.delta, delta, i), *filled(r.z, z, z)] for i, r in enumerate(plan.rows)
    ]


def _widths(plan: Plan) -> tuple[int, int]:
    delta = plan.nfe if plan.tableau.split else 0
    return delta, max(len(row.z) for row in plan.rows)


def _rows(plan: Plan) -> RenderableType:
    names = column_names(plan)
    if len(names) > MAX_COLUMNS:
        return Text(f"Rows: {len(plan.rows)} of {len(names)} coefficients; the file has them")
    means = f"; means over {len(plan.components)} components" if plan.components else ""
    table = Fitted(("state", *names), f"Rows: each state as a sum of the noise and the outputs so far{means}")
    for i, row in enumerate(coefficients(plan)):
        cells = ["" if value is None else f"{value:.4f}".replace("-0.0000", "0.0000") for value in row]
        table.add_row("result" if i == plan.nfe else f"x{i}", *cells, strong=i == plan.nfe)
    return table


def _scores(scores: Sequence[Score]) -> Fitted:
    names = ("sampler", "mean error", "median", "Frechet, teacher", "Frechet, data", "NFE", "calls")
    table = Fitted(names, f"Scores on {scores[0].samples} held-out samples", "Errors are endpoint MSE to the teacher; less is better")
    for row in scores:
        error = row.endpoint_mse
        table.add_row(
            row.name, interval_text(error), "" if error.median is None else number(error.median), interval_text(row.frechet_teacher),
            interval_text(row.frechet_data), str(row.nfe), str(row.network_calls),
        )  # fmt: skip
    return table
