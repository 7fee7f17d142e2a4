"""A run in optuna-dashboard, with its plans and pictures as artifacts and its result as a note. The run itself is only read."""

import html
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
from optuna.artifacts import FileSystemArtifactStore, upload_artifact
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend
from optuna_dashboard import save_note

from solversearch.errors import UserError, one_line
from solversearch.judging.compare import Comparison
from solversearch.plan import read_json
from solversearch.report import tables
from solversearch.report.plan_view import start_text

PATTERNS = ("plan.json", "comparison.json", "*.png", "pareto/plan-*.json")
"""What of a run folder becomes an artifact."""


class Overlay(BaseJournalBackend):
    """A journal that is read, also while a search goes on writing it, and whose additions are kept in memory.

    Optuna numbers the records: they stay in the order in which they were first seen, those of the file and those of this process.
    """

    def __init__(self, path: Path) -> None:
        self.file = JournalFileBackend(str(path))
        self.records: list[dict[str, Any]] = []
        self.taken = 0

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        new = list(self.file.read_logs(self.taken))
        self.taken += len(new)
        self.records += new
        yield from self.records[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self.records += logs


def open_run(folder: Path, artifacts: Path) -> tuple[JournalStorage, FileSystemArtifactStore]:
    """What the dashboard shows of a run; artifacts is a folder for copies of its files. Raises `UserError`."""
    journal = folder / "journal.log"
    if not journal.is_file():
        raise UserError(f"{one_line(str(journal))}: not there; name the folder of a run of 'solversearch optimize'")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    artifacts.mkdir(exist_ok=True)
    store = FileSystemArtifactStore(str(artifacts))
    try:
        storage = JournalStorage(Overlay(journal))
        names = [each.study_name for each in storage.get_all_studies()]
    except Exception as error:  # Optuna trusts its journal, and fails in any way where it is damaged
        raise UserError(f"{journal}: a damaged journal: {type(error).__name__}: {one_line(str(error))}") from None
    if not names:
        raise UserError(f"{journal}: it holds no study yet")
    study = optuna.load_study(study_name=names[0], storage=storage)
    for path in files(folder):
        upload_artifact(artifact_store=store, file_path=str(path), study_or_trial=study)
    save_note(study, note(folder))
    return storage, store


def files(folder: Path) -> list[Path]:
    """Of the run itself: a link that leads out of its folder is left."""
    found = [path for pattern in PATTERNS for path in sorted(folder.glob(pattern))]
    return [path for path in found if path.is_file() and path.resolve().is_relative_to(folder.resolve())]


def note(folder: Path) -> str:
    """The result in Markdown, in which text from files is no markup."""
    if not (folder / "comparison.json").exists():
        return "The search has not been compared with the baselines yet."
    found = read_json(Comparison, folder / "comparison.json", "comparison")
    head = [f"| stage | {_plain(found.stages[0].unit)} | mean error | median | seconds |", "|---|---|---|---|---|"] if found.stages else []
    stages = [
        f"| {_plain(each.name)} | {each.reached:.3g} | {each.endpoint_mse:.3g} | {each.median:.3g} | {each.seconds:.0f} |"
        for each in found.stages
    ]
    title = f"# {_plain(found.model)}: NFE {found.nfe}{start_text(found.start)}, guidance {found.guidance:g}"
    use = "Artifacts: the plan, its comparison, the pictures. Use it: `solversearch sample --plan plan.json --model MODEL`."
    return "\n\n".join([title, _plain(tables.verdict(found)), "\n".join([*head, *stages]), _plain(found.note), use])


def _plain(text: str) -> str:
    return html.escape("".join("\\" + c if c in "\\`*_{}[]()#+!|~" else c for c in one_line(text, 1000)))
