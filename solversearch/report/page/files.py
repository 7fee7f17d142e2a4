"""What a page reads from a folder: bounded, checked, and never run. Names of files are the page's own, not those that a file says."""

import base64
import io
from math import inf, log
from pathlib import Path

from solversearch.errors import UserError, one_line
from solversearch.plan import read_file

PAGE = "report.html"
"""In the folder of a run, a study or a sweep."""
WIDEST = 1800
"""Pixels of a picture; wider ones are made smaller."""
PIXELS = 40_000_000
"""Of a picture, at most: a small file can stand for a large one."""
HEAVY = 1_500_000
"""Bytes of a PNG from which on it is kept as JPEG."""
LARGEST_JOURNAL = 512 * 2**20
FEWEST, MOST = 10, 500
"""Finished candidates that parameter importances are told of; of more, the last."""
TREES = 16
"""Of fANOVA, whose time grows with their number, and with the square of that of the candidates."""
SEED = 0


def picture(path: Path) -> str | None:
    """A picture as a data URI, small enough for a page; None where there is none. Raises `UserError` where it is damaged."""
    from PIL import Image, UnidentifiedImageError

    if not path.exists():
        return None
    content = read_file(path, "picture")
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            if image.width * image.height > PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels are too many")
            image.load()
            if len(content) <= HEAVY:
                return uri_of("image/png", content)
            image.thumbnail((WIDEST, 4 * WIDEST))
            packed = io.BytesIO()
            image.convert("RGB").save(packed, "JPEG", quality=85)
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: not a picture that can be read: {one_line(str(error))}") from None
    return uri_of("image/jpeg", packed.getvalue())


def uri_of(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def importances(path: Path) -> dict[str, float] | str:
    """Shares of the variance of ln(first objective) by fANOVA (Hutter et al. 2014), from Optuna's journal; or why there are none.

    A journal without candidates, as of a run without a search, has none to tell of. Raises `UserError` where the journal
    is damaged. It is only read: a search that is running may go on writing.
    """
    import optuna
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import TrialState

    if not path.is_file():
        return "the run has no journal"
    if path.stat().st_size > LARGEST_JOURNAL:
        return f"the journal has more than {LARGEST_JOURNAL // 2**20} MiB"
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        storage = JournalStorage(JournalFileBackend(str(path)))
        trials = [
            trial
            for study in storage.get_all_studies()
            for trial in storage.get_all_trials(study._study_id, deepcopy=False, states=(TrialState.COMPLETE,))
            if trial.values and 0 < trial.values[0] < inf
        ]
        if not trials:
            return {}
        if len(trials) < FEWEST:
            return f"{len(trials)} candidates were seen on all samples; importances need {FEWEST}"
        study = optuna.create_study(directions=["minimize"] * len(trials[0].values))
        study.add_trials(trials[-MOST:])
        found = get_param_importances(
            study, evaluator=FanovaImportanceEvaluator(n_trees=TREES, seed=SEED), target=lambda trial: log(trial.values[0])
        )
    except Exception as error:  # Optuna trusts its journal, and fails in any way where it is damaged
        raise UserError(f"{path}: a damaged journal: {type(error).__name__}: {one_line(str(error))}") from None
    return {name: float(share) for name, share in found.items()} or "no parameter was free in every candidate"
