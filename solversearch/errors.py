"""The exceptions that the command line turns into a single line and exit code 2, or 130."""


class UserError(Exception):
    """Something the person can mend: the message says what was wrong, where, and what to do."""


class Interrupted(UserError):
    """The person stopped the search; the message says what was kept."""


def nearest(name: str, known: list[str], what: str) -> str:
    """The message for an unknown name, with the nearest known one."""
    from difflib import get_close_matches

    close = get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    shown = name if len(name) <= 80 else name[:80] + "..."
    return f"unknown {what} {shown!r}{hint} Known: {', '.join(known)}"
