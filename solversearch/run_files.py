"""Folders where a file of them is meant: the plan of a run, the plans of a sweep or a study, a regression."""

from pathlib import Path

from solversearch.errors import UserError

PLAN = "plan.json"
LISTED = 3
"""Names in a message."""


def plan_file(path: str | Path) -> Path:
    """The plan of a run folder, or the file itself. Raises `UserError` where the folder has none, or many."""
    folder = Path(path)
    if not _is_folder(folder) or (folder / PLAN).exists():
        return folder / PLAN if _is_folder(folder) else folder
    inside = _plans(folder)
    if len(inside) == 1:
        return inside[0]
    raise UserError(f"{_shown(folder)}: there is no {PLAN} in this folder{_choice(inside)}")


def plan_files(path: str | Path) -> list[Path]:
    """All plans of a sweep's or a study's folder; else the one of `plan_file`."""
    folder = Path(path)
    if _is_folder(folder) and not (folder / PLAN).exists() and (inside := _plans(folder)):
        return inside
    return [plan_file(folder)]


def regression_file(path: str | Path) -> Path:
    """The regression of a sweep's folder, or the file itself. Raises `UserError` where the folder has none, or many."""
    folder = Path(path)
    if not _is_folder(folder):
        return folder
    inside = sorted(folder.glob("*cpr*.json"))
    if len(inside) == 1:
        return inside[0]
    raise UserError(f"{_shown(folder)}: there is {'more than one' if inside else 'no'} regression in this folder{_choice(inside)}")


def _shown(path: Path) -> str:
    """In one line, whatever its name."""
    return str(path) if str(path).isprintable() else ascii(str(path))


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name that no file can have: whoever opens it says so
        return False


def _plans(folder: Path) -> list[Path]:
    """Of the cells of a sweep, or of the methods of a study."""
    return sorted(folder.glob(f"*/{PLAN}")) or sorted(folder.glob("*-nfe*-g*.json"))


def _choice(inside: list[Path]) -> str:
    if not inside:
        return ""
    more = f" and {len(inside) - LISTED} more" if len(inside) > LISTED else ""
    return "; name one of " + ", ".join(_shown(each.parent if each.name == PLAN else each) for each in inside[:LISTED]) + more
