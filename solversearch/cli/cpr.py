"""`solversearch cpr`: plans for configurations that were never searched."""

from pathlib import Path
from typing import Annotated

import typer

from solversearch.cli.loading import Load, loads_model
from solversearch.cli.shared import Json, Overwrite, stderr, stdout, wrote
from solversearch.errors import UserError
from solversearch.outputs import check_place

cpr_app = typer.Typer(no_args_is_help=True, help="Regresses plans over NFE and guidance, and predicts others.")


@cpr_app.command("fit")
@loads_model
def fit(
    runs: Annotated[
        list[Path], typer.Argument(help="Folders of runs or a sweep, or plan files: one a configuration, of one model and space.")
    ],
    out: Annotated[Path, typer.Option(help="The regression, a JSON file.")] = Path("cpr.json"),
    model: Annotated[str | None, typer.Option(help="The model.", show_default="the plans'")] = None,
    tune: Annotated[
        bool, typer.Option("--tune/--no-tune", help="Adjust regressed coefficients end to end on the model; plans of decisions need none.")
    ] = True,
    overwrite: Overwrite = False,
    as_json: Json = False,
    *,
    load: Load,
) -> None:
    """Fit the plans' times and parameters as polynomials in step, guidance and NFE."""
    check_place(out, "regression", overwrite)

    from solversearch.cpr import ITERATIONS, fit_runs, read_plans
    from solversearch.report.cpr_view import cpr_table
    from solversearch.report.progress import Display

    plans = read_plans(runs)
    loaded = load(model) if model else load.from_file(plans[0].provenance.model)
    with Display(stderr()) as display:
        fitted = fit_runs(plans, loaded, ITERATIONS * tune, lambda done, total, note: display("tuning", done, total, note))
    fitted.write(out)
    if as_json:
        print(fitted.model_dump_json())
        return
    stdout().print(cpr_table(fitted))
    print(f"{fitted.left_out[0].upper()}{fitted.left_out[1:]}")
    wrote(False, out)


@cpr_app.command("predict")
@loads_model
def predict(
    context: typer.Context,
    regression: Annotated[Path, typer.Argument(help="A file of 'solversearch cpr fit', or the folder of a sweep.")],
    nfe: Annotated[int, typer.Option(min=1, max=1000, help="Network evaluations a sample may cost.")],
    guidance: Annotated[float | None, typer.Option(help="Guidance scale; 1 is none.", show_default="the model's")] = None,
    out: Annotated[Path, typer.Option(help="The plan file to write.")] = Path("plan.json"),
    model: Annotated[str | None, typer.Option(help="The model.", show_default="the one of the fit")] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    *,
    load: Load,
) -> None:
    """Write a plan for a configuration inside the fitted range, without any search."""
    if out.resolve() == regression.resolve():
        raise UserError(f"{out}: that is the regression itself; choose another file with --out")
    check_place(out, "predicted plan", overwrite)

    from solversearch.cpr import Cpr

    fitted = Cpr.read(regression)
    loaded = load(model) if model else load.from_file(fitted.model)
    plan = fitted.predict(nfe, loaded.guidance if guidance is None else guidance, loaded, context.obj or "")
    plan.write(out)
    wrote(as_json, out, nfe=plan.nfe, digest=plan.digest)
