"""A search space on the screen: its size, its parameters, and one candidate step by step."""

from math import log10
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from solversearch.report.screen import Fitted
from solversearch.search.strategies import recipe
from solversearch.spaces import Candidate, Domain
from solversearch.spaces.grammar import Choice


def space_view(domain: Domain, candidate: Candidate) -> RenderableType:
    space = domain.space
    continuous = sum(not choice.choose for choice in domain.parameters.values())
    size = space.size(domain.nfe)
    heading = (
        f"{space.name or 'space'}: {space.description or 'no description'}\n"
        f"{domain.nfe} evaluations: {f'{size:,}' if size < 10**12 else f'about 10^{log10(size):.0f}'} combinations of listed values, "
        f"{continuous} continuous parameters.\n"
        f"Strategy {space.search.strategy}, objective {space.search.objective}, stages: {_stages(domain)}."
    )
    return Group(Text(heading), _parameters(domain), _steps(domain, candidate), Text(_plan(candidate)))


def space_facts(domain: Domain, candidate: Candidate) -> dict[str, Any]:
    """The same, as data. Choices are lists; numbers have low, high, and whether their logarithm is spread evenly."""
    space, search = domain.space, domain.space.search
    return {
        "name": space.name, "description": space.description, "nfe": domain.nfe, "combinations": space.size(domain.nfe),
        "strategy": search.strategy, "objective": search.objective, "stages": search.stages.model_dump(),
        "parameters": {
            name: list(choice.choose) or {key: getattr(choice, key) for key in ("low", "high", "log")}
            for name, choice in domain.parameters.items()
        },
        "candidate": {"times": list(candidate.times), **candidate.describe()},
    }  # fmt: skip


def _stages(domain: Domain) -> str:
    stages = domain.space.search.stages
    if recipe(domain.space.search.strategy):
        return "a recipe of its own"
    polish = f"polish of {'coefficients and times' if stages.polish == 'all' else stages.polish}"
    on = ["instant"] * stages.instant + ["fit"] * stages.fit + ["search"] + [polish] * bool(stages.polish)
    return ", ".join(on)


def _parameters(domain: Domain) -> Fitted:
    """One row a decision: its values, and whether it is chosen per step."""
    table = Fitted(("parameter", "of", "values"), "Parameters", left=("of",), prose=("values",))
    found: dict[str, tuple[int, Choice]] = {}
    for name, choice in domain.parameters.items():
        key = name.partition(".")[0]
        found[key] = (found.get(key, (0, choice))[0] + ("." in name), choice)
    for key, (steps, choice) in found.items():
        table.add_row(key, f"{steps} steps" if steps else "the plan", "about those of the good grids" if key == "time" else _values(choice))
    return table


def _values(choice: Choice) -> str:
    if choice.choose:
        return ", ".join(map(str, choice.choose))
    return f"{choice.low:g} to {choice.high:g}{', logarithmic' if choice.log else ''}"


def _steps(domain: Domain, candidate: Candidate) -> Fitted:
    """One row an evaluation; decisions that are the same at all steps stand in the line below."""
    varying = {key: values for key, values in candidate.describe().items() if isinstance(values, list)}
    table = Fitted(("i", "t", "lambda", *varying), "A random candidate", left=tuple(varying))
    lams = domain.schedule.lam(candidate.times)
    for i, (t, lam) in enumerate(zip(candidate.times, lams, strict=True)):
        table.add_row(str(i), f"{t:.4g}", f"{lam:.3g}", *(_cell(values[i]) for values in varying.values()))
    return table


def _plan(candidate: Candidate) -> str:
    same = {key: value for key, value in candidate.describe().items() if not isinstance(value, list)}
    told = ", ".join(f"{key} {_cell(value)}" for key, value in same.items())
    return f"At every step: {told or 'defaults'}."


def _cell(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
