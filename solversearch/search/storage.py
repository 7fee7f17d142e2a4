"""Where Optuna keeps the study for people and other tools: a journal file in the run folder, or a database for many runs."""

from pathlib import Path

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial

from solversearch.errors import UserError
from solversearch.search.evaluations import drop_torn_line
from solversearch.search.run_folder import without_password

JOURNAL = "journal.log"


class Trials:
    """The finished trials of a study, in order: those of an earlier process are `earlier`, and are not written again."""

    def __init__(self, folder: Path, address: str | None, name: str, objectives: int, resume: bool) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.study = optuna.create_study(
            storage=_journal(folder) if address is None else _database(address), study_name=name,
            directions=["minimize"] * objectives, load_if_exists=resume,
        )  # fmt: skip
        self.earlier = self.study.get_trials(deepcopy=False)
        self.seen = 0

    def add(self, trial: FrozenTrial) -> None:
        """One trial is one write."""
        self.seen += 1
        if self.seen > len(self.earlier):
            self.study.add_trial(trial)


def _journal(folder: Path) -> BaseStorage:
    """The run folder is held, so a lock of the journal is one that a dead driver left."""
    path = folder / JOURNAL
    path.with_name(path.name + ".lock").unlink(missing_ok=True)
    if path.exists():
        drop_torn_line(path)
    return JournalStorage(JournalFileBackend(str(path)))


def _database(address: str) -> BaseStorage:
    try:
        return RDBStorage(address)
    except (ImportError, StorageInternalError, Exception) as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise UserError(f"--storage {without_password(address)}: {reason}") from None
