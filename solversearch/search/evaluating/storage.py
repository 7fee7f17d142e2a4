"""Where Optuna keeps the study for people and other tools: a journal file in the run folder, or a database for many runs."""

import random
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend
from optuna.trial import FrozenTrial

from solversearch.errors import UserError
from solversearch.search.evaluating.evaluations import drop_torn_line
from solversearch.search.evaluating.fleet import Fleet
from solversearch.search.evaluating.run_folder import without_password

JOURNAL = "journal.log"
ATTEMPTS = 8
"""At opening a database that answers."""


class Trials:
    """The finished trials of a study, in order: those of an earlier process are `earlier`, and are not written again.

    notes are the study's user attributes, in which a strategy may keep its state.
    """

    def __init__(self, folder: Path, address: str | None, name: str, objectives: int, resume: bool) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.journal: GroupedJournal | None = None

        def opened() -> optuna.Study:
            self.journal = _journal(folder / JOURNAL) if address is None else None
            storage = database(str(address)) if self.journal is None else JournalStorage(self.journal)
            return optuna.create_study(storage=storage, study_name=name, directions=["minimize"] * objectives, load_if_exists=resume)

        try:
            self.study = opened()
        except UserError:
            raise
        except Exception as error:  # whatever Optuna makes of a damaged line
            if address is not None:
                raise UserError(f"--storage {without_password(address)}: {' '.join(str(error.__cause__ or error).split())}") from None
            _set_aside(folder / JOURNAL)
            self.study = opened()
        self.earlier, self.notes = self.study.get_trials(deepcopy=False), self.study.user_attrs
        self.seen = 0
        self._flush()

    def add(self, trials: Sequence[FrozenTrial], notes: Mapping[str, Any]) -> None:
        """A group, and what the strategy has noted in the study, is one write."""
        new = trials[max(len(self.earlier) - self.seen, 0) :]
        self.seen += len(trials)
        try:
            for name in [name for name in notes if self.notes.get(name) != notes[name]]:
                self.study.set_user_attr(name, notes[name])
            self.notes = dict(notes)
            self.study.add_trials(new)
        except StorageInternalError as error:
            raise UserError(f"--storage: {' '.join(str(error.__cause__ or error).split())}; go on with --resume when it is back") from None
        self._flush()

    def _flush(self) -> None:
        if self.journal is not None:
            self.journal.flush()


class GroupedJournal(BaseJournalBackend):
    """A journal file that is appended to when it is told to: Optuna locks, syncs and reads back for every line.

    Optuna itself reads what is still to be written from memory. What others append meanwhile, such as notes, it does not see.
    """

    def __init__(self, path: Path) -> None:
        self.file = JournalFileBackend(str(path))
        self.logs = list(self.file.read_logs(0))
        self.first, self.written = 0, len(self.logs)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self.logs += logs

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        yield from self.logs[log_number_from - self.first :]

    def flush(self) -> None:
        """Writes what is new, and forgets it: it has been read."""
        if new := self.logs[self.written - self.first :]:
            self.file.append_logs(new)
        self.written = self.first = self.first + len(self.logs)
        self.logs = []


def _journal(path: Path) -> GroupedJournal:
    """The run folder is held, so a lock of the journal is one that a dead driver left."""
    path.with_name(path.name + ".lock").unlink(missing_ok=True)
    if path.exists():
        drop_torn_line(path)
    return GroupedJournal(path)


def _set_aside(path: Path) -> None:
    """A damaged journal: what was evaluated stands in the log beside it, from which the search makes the same trials again."""
    aside = path.with_name(f"{path.name}.damaged")
    path.replace(aside)
    warnings.warn(f"{path}: a line is damaged; the trials are made again from what was evaluated, and {aside.name} keeps it", stacklevel=2)


def database(address: str) -> BaseStorage:
    """Opens a database, and makes its tables where there are none. Raises `UserError` with one line for one that cannot be used.

    Of drivers that make the tables of a new database at the same time all but one fail: they look again.
    """
    for attempt in range(ATTEMPTS):
        try:
            return RDBStorage(address)
        except Exception as error:  # of Optuna, of SQLAlchemy, and of the database's own driver
            if attempt == ATTEMPTS - 1 or not _answers(address):
                reason = " ".join(str(error.__cause__ or error).split())
                if isinstance(error, ImportError):
                    reason += "; install the driver that the address names, for PostgreSQL by pip install 'solversearch[postgres]'"
                raise UserError(f"--storage {without_password(address)}: {reason}") from None
        time.sleep(random.uniform(0.05, 0.2) * (attempt + 1))
    raise AssertionError


def check_reachable(fleet: Fleet, address: str | None) -> None:
    """Before any work: whether the workers and the database of a search, where it has them, can be there. Raises `UserError`."""
    fleet.check()
    if address is not None:
        database(address)


def _answers(address: str) -> bool:
    import sqlalchemy

    try:
        with sqlalchemy.create_engine(address).connect():
            return True
    except Exception:
        return False
