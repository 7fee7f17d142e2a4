"""What commands share: options, consoles, the report. Heavy imports stand inside functions, so that --help answers at once."""

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from solversearch.api import ELSEWHERE

if TYPE_CHECKING:
    from solversearch.judging.compare import Comparison

HOW_LONG, WHERE, ADVANCED, STAGES = "How long", "Where", "Advanced", "Stages"
"""Panels of a command's help."""
ModelOption = typer.Option(
    "--model",
    metavar="NAME",
    help="A name of 'solversearch list models', a pipeline of diffusers as hf:REPOSITORY, its folder or a checkpoint (FILE.safetensors), "
    "or python:FILE:FACTORY.",
)
ModelName = Annotated[str, ModelOption]
PlanFile = Annotated[Path, typer.Option("--plan", metavar="PLAN", help="A plan file, or the run folder that has it.")]
Seed = Annotated[int, typer.Option(min=0, metavar="N", help="Seed of all noise.")]
BatchSize = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Samples in one network call; changes memory and speed, never a result.",
        show_default="what fits the memory",
        rich_help_panel=ADVANCED,
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a file that this command did not write.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, to stdout.")]
Samples = Annotated[
    int | None,
    typer.Option(
        min=16,
        metavar="N",
        help="Held-out samples that the comparison is made on.",
        show_default="1024, fewer for large models",
        rich_help_panel=HOW_LONG,
    ),
]


def repeatable(arguments: Sequence[str]) -> str:
    """The command that a plan tells that it was made by: the same wherever it runs, so that equal plans have equal digests."""
    kept, rest = ["solversearch"], iter(arguments)
    for word in rest:
        option, joined, _ = word.partition("=")
        if option.removeprefix("--").replace("-", "_") not in (*ELSEWHERE, "json"):
            kept.append(word)
        elif not joined and option not in ("--json", "--overwrite"):
            next(rest, None)
    return shlex.join(kept)


def stdout() -> Console:
    """Tables keep their columns where the output is piped into a file."""
    console = Console()
    return console if console.is_terminal else Console(width=200)


def say(text: str) -> None:
    """A line of prose, which a terminal breaks between words."""
    console = stdout()
    console.print(Text(text), soft_wrap=not console.is_terminal)


def stderr() -> Console:
    return Console(stderr=True, highlight=False)


def wrote(as_json: bool, *places: Path, note: str = "", **facts: Any) -> None:
    """What a command that writes says at its end."""
    if as_json:
        print(json.dumps({"written": list(map(str, places)), **facts}))
    else:
        Console().print(f"wrote {', '.join(map(str, places))}{note}", soft_wrap=True, highlight=False)


def report(comparison: "Comparison") -> None:
    from solversearch.report import tables
    from solversearch.report.plan_view import number

    console = stdout()
    if comparison.stages:
        console.print(tables.stage_table(comparison.stages))
    console.print(tables.comparison_table(comparison))
    console.print(tables.ratio_table(comparison))
    if comparison.pareto:
        console.print(tables.pareto_table(comparison.pareto))
    say(tables.verdict(comparison))
    if comparison.note:
        say(comparison.note)
    if comparison.price:
        say(comparison.price.told)
    say(f"The teacher's own error is {number(comparison.teacher_error)}; {comparison.timing.told}.")


def tell(message: str) -> None:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)


def show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)
