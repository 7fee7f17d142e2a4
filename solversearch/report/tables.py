"""What the command line prints: a comparison and the stages of a search as tables, and the verdict in words."""

from collections.abc import Iterator, Sequence

from solversearch.judging.compare import ENDPOINT, Comparison, ParetoPoint, StageResult
from solversearch.judging.intervals import CARRIED
from solversearch.judging.measures import ComparisonRow
from solversearch.judging.race import MEAN
from solversearch.judging.verdict import Ratio, contradicts
from solversearch.report.plan_view import interval_text, number, start_text
from solversearch.report.screen import Fitted

LESS = "less is better"
FARTHEST = 30
"""Baselines and candidates whose error is more times the best baseline's are off the scale of pictures."""
BASELINES = 8
"""Baselines in the table of a comparison; the file has them all."""
USELESS = 0.5
"""Of the variance of the samples: errors from there on are as large as the data."""


def percent(share: float) -> str:
    """With as many digits as tell it from none and all."""
    return f"{100 * share:.1f} %" if 0.001 < share < 0.999 else f"{100 * share:.3g} %"


def verdict(comparison: Comparison) -> str:
    """The result in a few sentences: what most samples say first, then the other measures, each with its own best baseline."""
    found, cost = comparison, f"{comparison.nfe} evaluation{'s' if comparison.nfe > 1 else ''}{start_text(comparison.start)}"
    if found.is_baseline:
        return " ".join(
            (f"The plan is the best baseline itself, {found.best_baseline}: nothing better was found at {cost}.", *_useless(found))
        )
    geometric, *others = (each for each in found.ratios if each != found.confirming)
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
    yield from _useless(found)
    if found.ran_away:
        yield f"On {found.ran_away} samples, left out of these numbers, the plan ran away: NaN or inf. That decides."
    elif found.objective != ENDPOINT:
        yield f"The objective, {found.objective}, decides{_confirmed(found)}."
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


def _confirmed(found: Comparison) -> str:
    """Whether the measure on which nothing was searched says the same as the objective."""
    deciding, other = found.deciding, found.confirming
    if other is None or not deciding.sign:
        return ""
    said = "contradicts it" if contradicts(deciding, other) else "confirms it" if other.sign == deciding.sign else "leaves it open"
    return f", and another measure, on which nothing was searched, {said}: {other.measure} {ratio_text(other)} over the same baseline"


def _useless(found: Comparison) -> Iterator[str]:
    """Errors of samples that have nothing to do with each other are twice their variance; those of their mean are the variance."""
    mean, variance = found.ratio(MEAN), found.variance
    assert mean is not None
    values = {"plan": mean.plan_value, "best baseline": mean.baseline_value}
    useless = [name for name, value in values.items() if variance is not None and value >= USELESS * variance]
    if variance is not None and useless:
        who = "the mean errors of plan and best baseline are" if len(useless) == 2 else f"the {useless[0]}'s mean error is"
        told = " and ".join(f"{number(values[name] / variance)} times" for name in useless)
        yield (
            f"But {who} {told} the variance of the samples: as large as the data, so that little of the teacher's samples is left; take "
            "more evaluations, and check that the model is trained and read rightly."
        )


def ratio_text(ratio: Ratio) -> str:
    """With its interval; a difference as by how much the plan's value is lower."""
    if ratio.difference:
        return f"lower by {number(-ratio.value)} [{number(-ratio.high)}, {number(-ratio.low)}]"
    return f"{number(ratio.value)} [{number(ratio.low)}, {number(ratio.high)}]"


def comparison_table(comparison: Comparison) -> Fitted:
    """The plan and the baselines that were measured in full, least mean error first."""
    found, (own, *rivals) = comparison, comparison.rows
    cost = f"{found.nfe} evaluations{start_text(found.start)}"
    title = f"{found.model}, {cost}, guidance {found.guidance:g}: {found.samples} held-out samples"
    left_out = len(rivals) - BASELINES
    caption = "Errors are endpoint MSE to the teacher; less is better, in every column but the calls"
    caption += f"; the best of {found.pairs} pairs of solver and grid; brackets are 95 % intervals"
    caption += ", of means marked * only lower bounds" * any(row.lower_bound for row in found.rows[: 1 + BASELINES])
    caption += f"; Frechet distances are of {found.features} features" * bool(found.features)
    table = Fitted(COLUMNS, title, f"{caption}; {left_out} more baselines are in the JSON" if left_out > 0 else caption)
    table.add_row(*_cells(comparison, own), strong=True)
    for row in rivals[:BASELINES]:
        table.add_row(*_cells(comparison, row))
    if own.frechet_teacher:
        table.add_row(*teacher_cells(comparison))
    return table


def teacher_cells(comparison: Comparison) -> tuple[str, ...]:
    """The teacher as a row of the same columns: how far its own samples are from the data, and from themselves."""
    distance = comparison.teacher_frechet_data
    calls = comparison.teacher_steps * (1 if comparison.guidance == 1 else 2)
    error = f"about {number(comparison.teacher_error)}"
    return ("teacher", error, *[""] * 5, "0", "-" if distance is None else number(distance.mean), f"{calls:,}")


COLUMNS = ("sampler", "mean error", "geometric", "median", "90 %", "99 %", "worst 1 % has", "Frechet, teacher", "Frechet, data", "calls")


def _cells(comparison: Comparison, row: ComparisonRow) -> tuple[str, ...]:
    assert row.endpoint_mse.median is not None
    return (
        row.name, interval_text(row.endpoint_mse) + "*" * row.lower_bound,
        *map(number, (row.geometric_mean, row.endpoint_mse.median, row.quantile_90, row.quantile_99)), percent(row.worst_hundredth),
        *("-" if each is None else number(each.mean) for each in (row.frechet_teacher, row.frechet_data)), f"{comparison.calls(row):.4g}",
    )  # fmt: skip


def ratio_table(comparison: Comparison) -> Fitted:
    """The plan against the baseline that is best in each measure."""
    names = ("measure", "plan", "least of all baselines", "ratio", "of")
    caption = "Less is better: below 1 the plan is; brackets are 95 % intervals"
    if confirming := comparison.confirming:
        caption += f"; {confirming.measure}, on which nothing was searched, over the best baseline of {comparison.objective}"
    table = Fitted(names, "The plan against the best baseline of each measure", caption, left=("of",))
    for each in comparison.ratios:
        table.add_row(each.measure, number(each.plan_value), number(each.baseline_value), ratio_text(each), each.baseline)
    return table


STAGES = "Less is better. Each stage keeps the best by the first number; the mean, which a few samples carry, may rise meanwhile"


def stage_table(stages: Sequence[StageResult]) -> Fitted:
    """What each stage of a search brought, on validation noise."""
    names = ("stage", stages[0].unit, "of the stage before", "of the first", "mean error", "median", "network evaluations", "seconds")
    table = Fitted(names, "What each stage brought, on validation noise", STAGES)
    for i, stage in enumerate(stages):
        before, first = (number(stage.reached / each.reached) if i and each.reached else "" for each in (stages[i - 1], stages[0]))
        table.add_row(
            stage.name, number(stage.reached), before, first, number(stage.endpoint_mse), number(stage.median), f"{stage.evaluations:,}",
            f"{stage.seconds:.1f}",
        )  # fmt: skip
    return table


def pareto_table(points: Sequence[ParetoPoint]) -> Fitted:
    """The Pareto set of a search."""
    title = "Plans that no other candidate beats in every objective, on validation noise"
    table = Fitted(("file", *points[0].values), title, "Less is better")
    for point in points:
        table.add_row(point.file, *map(number, point.values.values()))
    return table
