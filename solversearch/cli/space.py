"""`solversearch space`: looks at search spaces."""

import json
from typing import Annotated

import typer

from solversearch.cli.shared import Json, Seed, stdout

space_app = typer.Typer(no_args_is_help=True, help="Looks at search spaces.")


@space_app.command("show")
def show(
    space: Annotated[str, typer.Argument(help="A preset of search_spaces, or a YAML file.")],
    nfe: Annotated[int, typer.Option(min=1, max=1000, help="Network evaluations a sample may cost.")] = 5,
    model: Annotated[str, typer.Option(help="The model whose noise schedule the candidate is drawn for.")] = "digits",
    guidance: Annotated[float | None, typer.Option(help="Guidance scale; 1 is none.", show_default="the model's")] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Show a space: its size, its parameters, and one random candidate."""
    from solversearch.spaces import Domain, SearchSpace

    read = SearchSpace.named(space)

    import numpy as np

    from solversearch import models
    from solversearch.grids import grid
    from solversearch.report.space_view import space_facts, space_view

    schedule, own = models.frame(model)
    starts = [grid(name, schedule, nfe)[:-1] for name in ("linspace", "quadratic", "logsnr")]
    domain = Domain.of(read, schedule, nfe, own if guidance is None else guidance, starts)
    candidate = domain.candidate(domain.random(np.random.default_rng(seed)))
    if as_json:
        print(json.dumps(space_facts(domain, candidate)))
    else:
        stdout().print(space_view(domain, candidate))
