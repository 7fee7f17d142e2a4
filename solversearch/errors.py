"""The exceptions that the command line turns into a single line and exit code 2, or 130."""

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Something the person can mend: the message says what was wrong, where, and what to do."""


class Interrupted(UserError):
    """The person stopped the search; the message says what was kept."""


class Halted(UserError):
    """What a search needs has failed, a network or a cluster: fatal for all candidates. A search can go on once that is mended."""


@contextmanager
def blaming(what: str, file: str = "", kind: type[UserError] = UserError) -> Iterator[None]:
    """Turns whatever foreign code raises into one line: the exception, and the last place in the person's own file, or else in any that is
    of no package."""
    try:
        yield
    except UserError as error:
        raise type(error)(f"{what}: {error}") from None
    except (Exception, SystemExit) as error:
        places = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
        packages = ("<", *(os.path.join(os.path.dirname(file), "") for file in (__file__, os.__file__)))
        own = [each for each in places if "site-packages" not in each[0] and not each[0].startswith(packages)]
        message, place = str(error), ([each for each in places if each[0] == file] or own or places)[-1]
        if isinstance(error, SyntaxError):
            message, place = error.msg, (error.filename or file, error.lineno)
        raise kind(f"{what} raised {type(error).__name__}: {short(message)} at {place[0]}:{place[1]}") from error


def short(text: object, limit: int = 300) -> str:
    """In one line of so many characters at most."""
    return " ".join(str(text).split())[:limit]


def one_line(text: str, limit: int = 200) -> str:
    """Foreign text made fit for a message: printable, in one line, not too long."""
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[: limit + 1])
    return shown if len(shown) <= limit else shown[:limit] + "..."


def nearest(name: str, known: list[str], what: str) -> str:
    """The message for an unknown name, with the nearest known one."""
    from difflib import get_close_matches

    close = get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    shown = name if len(name) <= 80 else name[:80] + "..."
    return f"unknown {what} {shown!r}{hint} Known: {', '.join(known)}"
