"""Tables at every width: no name and no number is ever cut, and no line is longer than the screen."""

import re
from collections.abc import Iterator

import pytest
from rich.console import Console, RenderableType
from typer.testing import CliRunner

from solversearch.cli import app
from solversearch.report import plan_view, tables
from solversearch.report.cpr_view import cpr_table
from solversearch.report.screen import Fitted, facts
from solversearch.report.study_view import study_tables
from solversearch.report.sweep_view import sweep_tables
from tests.report.conftest import pareto
from tests.report.test_page import study, sweep
from tests.test_report import PLANS, comparison, fitted, ratio, row

LONG = "dpmpp_3m_full on quadratic_tmin"
WIDTHS = [60, 80, 100, 132, 250]


def printed(what: RenderableType, width: int) -> list[str]:
    console = Console(width=width, no_color=True)
    with console.capture() as capture:
        console.print(what)
    return [line.rstrip() for line in capture.get().splitlines()]


def cells(lines: list[str]) -> set[str]:
    """All cells of all tables, where none goes over several lines."""
    return {cell.strip() for line in lines if line.startswith("│") for cell in line.split("│")[1:-1]}


def wide() -> Iterator[tuple[str, RenderableType, list[str]]]:
    """Every table that a command prints, with long names, and what must stand in it whole."""
    rows = (comparison().rows[0], *(row(f"{LONG}{i}", 0.0123456 * (i + 1), tail=0.6) for i in range(9)))
    ratios = tuple(each.model_copy(update={"baseline": LONG}) for each in (*comparison().ratios, ratio("Frechet distance", 0.123)))
    compared = comparison().model_copy(update={"rows": rows, "ratios": ratios})
    yield "comparison", tables.comparison_table(compared), [f"{LONG}{i}" for i in range(8)]
    yield "ratios", tables.ratio_table(compared), [LONG, "geometric mean", "Frechet distance"]
    yield "stages", tables.stage_table(compared.stages), ["best baseline", "12,345", "0.00167"]
    yield "pareto", tables.pareto_table(pareto()), ["pareto/plan-2.json"]
    for name, plan in PLANS.items():
        numbers = [] if name == "many" else [f"{r.x:.4f}" for r in plan.rows]
        yield f"plan, {name}", plan_view.plan_view(plan), ["rival", "result" if numbers else "rival", *numbers]
    for table in study_tables(study()):
        yield "study", table, ["best baseline", "s3"]
    for table in sweep_tables(sweep()):
        yield "sweep", table, ["cell-8-4" if "guidance 4" in table.title else "cell-6-1"]
    yield "regression", cpr_table(fitted()), ["0.04", "1.07"]


TABLES = list(wide())


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("case", TABLES, ids=[name for name, *_ in TABLES])
def test_every_name_is_whole_and_no_line_is_too_long(case: tuple[str, RenderableType, list[str]], width: int) -> None:
    _, what, wanted = case
    lines = printed(what, width)
    assert max(map(len, lines)) <= width and "…" not in "".join(lines)
    assert not set(wanted) - cells(lines)


@pytest.mark.parametrize("width", [80, 100])
@pytest.mark.parametrize(
    "what", ["models", "solvers", "grids", "tables", "spaces", "strategies", "objectives", "exports", "space", "cache", "plan"]
)
def test_what_commands_print_fits(what: str, width: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    plan = tmp_path_factory.mktemp("plan") / "plan.json"
    PLANS["split"].write(plan)
    asked = {"space": ["space", "show", "full", "--nfe", "6"], "cache": ["cache"], "plan": ["plan", "show", str(plan)]}
    command = asked.get(what, ["list", what])
    done = CliRunner().invoke(app, command, env={"FORCE_COLOR": "1", "COLUMNS": str(width)})
    lines = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout).splitlines()
    assert done.exit_code == 0 and len(lines) > 5 and "…" not in done.stdout
    assert max(len(line.rstrip()) for line in lines if not line.startswith("in /")) <= width
    if what not in asked:
        plain = CliRunner().invoke(app, [*command, "--json"])
        names = re.findall(r'\{"name": "([^"]+)"', plain.stdout)
        assert len(names) > 3 and not set(names) - cells(lines)


def test_intervals_go_first_and_then_the_last_columns_go_below() -> None:
    table = Fitted(("name", "error", "median", "calls"), caption="brackets are intervals")
    table.add_row("a long name", "0.123 [0.1, 0.2]*", "0.5", "10")
    whole, without, below = (printed(table, width) for width in (60, 42, 32))
    assert cells(whole) == {"a long name", "0.123 [0.1, 0.2]*", "0.5", "10"} and whole[-1] == "brackets are intervals"
    assert cells(without) == cells(below) == {"a long name", "0.123*", "0.5", "10"}
    assert " ".join(without[-2:]) == "brackets are intervals; the screen is too narrow for the intervals"
    heads = [[cell.strip() for cell in line.split("┃")[1:-1]] for line in below if line.startswith("┃")]
    assert heads == [["name", "error"], ["name", "median", "calls"]]


def test_a_name_longer_than_the_screen_goes_on_in_the_next_line() -> None:
    table = Fitted(("name", "value"))
    table.add_row("x" * 70, "[red]1[/red]")
    lines = printed(table, 40)
    assert max(map(len, lines)) <= 40 and "".join(lines).count("x") == 70 and "[red]1[/red]" in cells(lines), "cells are no markup"


def test_prose_is_broken_between_words_beside_whole_names() -> None:
    lines = printed(facts({"digest": "sha256:" + "0" * 64, "decisions": "solver ipndm, " * 9}), 80)
    assert max(map(len, lines)) <= 80 and "".join(lines).count("0") == 64
    assert sum(line.count("solver ipndm,") for line in lines) == 9 - sum(line.endswith("solver") for line in lines)
