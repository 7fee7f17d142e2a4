"""`solversearch dashboard`: a run in optuna-dashboard."""

from pathlib import Path
from typing import Annotated

import typer

from solversearch.errors import UserError


def dashboard(
    run: Annotated[Path, typer.Argument(help="A run folder of 'solversearch optimize'; its search may still be going on.")],
    host: Annotated[str, typer.Option(help="The address to listen at; 0.0.0.0 lets other machines look.")] = "localhost",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to listen at.")] = 8080,
) -> None:
    """Show a run's trials, plans and pictures in a browser, until Ctrl-C. Notes that are written there are not kept."""
    from tempfile import TemporaryDirectory

    from optuna_dashboard import run_server

    from solversearch.report.dashboard import open_run

    with TemporaryDirectory(prefix="solversearch-") as artifacts:
        storage, store = open_run(run, Path(artifacts))
        print(f"{run} at http://{host}:{port}/dashboard until Ctrl-C", flush=True)
        try:
            run_server(storage, host=host, port=port, artifact_store=store)
        except OSError as error:
            raise UserError(f"--host {host} --port {port}: cannot listen there: {error.strerror}; choose another port") from None
