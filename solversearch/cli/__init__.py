"""The command line: commands, no logic."""

import io
import sys
import warnings
from typing import Annotated, Any, NoReturn

import typer

from solversearch.cli import cache, cpr, dashboard, export, importing, listing, optimize, plans, report, space, statistics, study, sweep
from solversearch.cli.shared import repeatable, show_warning, tell
from solversearch.errors import Interrupted, UserError
from solversearch.outputs import check_name
from solversearch.version import __version__

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]},
    help="Searches the few-step sampling procedure that suits a pretrained diffusion or flow model best, and ships it as a JSON plan.",
)  # fmt: skip


def _version(wanted: bool) -> None:
    if wanted:
        print(f"solversearch {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")] = False,
) -> None:
    """What goes before a command; the help of `app` is shown."""


for command in (
    optimize.optimize, plans.compare, plans.sample, export.export, study.study, sweep.sweep, report.report, dashboard.dashboard,
    statistics.statistics, cache.cache,
):  # fmt: skip
    app.command()(command)
app.command("import")(importing.import_)
app.command("list")(listing.list_)
app.add_typer(plans.plan_app, name="plan")
app.add_typer(space.space_app, name="space")
app.add_typer(cpr.cpr_app, name="cpr")


def main(arguments: list[str] | None = None) -> NoReturn:
    """The entry point: whatever the person can mend is one line on stderr and exit code 2; Ctrl-C is one line and 130."""
    given = sys.argv[1:] if arguments is None else arguments
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal or a pipe that takes ASCII only
        sys.stdout.reconfigure(errors="backslashreplace")
    # ClickException, of click or of the copy that newer releases of typer carry.
    usage_error: Any = typer.BadParameter.__mro__[2]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("default", module="solversearch")
        warnings.showwarning = show_warning
        try:
            for word in given:
                check_name(word)
            code = app(given or ["--help"], standalone_mode=False, obj=repeatable(given))
            sys.stdout.flush()
        except UserError as error:
            tell(str(error))
            code = 130 if isinstance(error, Interrupted) else 2
        except (KeyboardInterrupt, typer.Abort):
            tell("interrupted")
            code = 130
        except BrokenPipeError:  # the reader of a pipe has gone
            sys.stdout = None
            code = 1
        except OSError as error:  # a name that is too long, a full disk
            tell(f"{str(error.filename or 'a file')[:200]}: {error.strerror or error}")
            code = 2
        except usage_error as error:
            if message := error.format_message():  # a group of commands without one has shown its help, and has nothing to add
                tell(message)
            code = 2
    sys.exit(code if isinstance(code, int) else 0)
