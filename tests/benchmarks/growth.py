"""What grows with a search: seconds of a proposal by strategy, of reading a run of so many trials, of its page, and the page's size.

    python -m tests.benchmarks.growth [--trials 10000] [--strategies tpe cmaes] [--space s3]

Seconds are those of one core (CPU time), so that what else the machine does counts little; those of the browser are the clock's. Run by
hand; without Chromium and its driver the page is not opened.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from math import inf
from pathlib import Path

import numpy as np
import optuna
from rich.console import Console
from rich.table import Table

from solversearch.grids import grid
from solversearch.plan import write_text
from solversearch.report.dashboard import open_run
from solversearch.report.page import write_page
from solversearch.schedules import DiscreteVP
from solversearch.search.evaluating.evaluations import Log
from solversearch.search.evaluating.storage import Trials
from solversearch.search.strategies import STRATEGIES, Context, strategy
from solversearch.search.strategies.proposals import ask
from solversearch.spaces import Domain, SearchSpace
from tests.benchmarks.driver_throughput import NFE, searched
from tests.benchmarks.strategies import filled
from tests.report.chromium import CHROMIUM, DRIVER, opened, started
from tests.report.conftest import whole
from tests.test_report import plan_of, tabled

ASKED = 8
PROPOSAL, PAGE, OPENING, BYTES = 0.1, 10.0, 3.0, 2 * 10**6
"""At most: seconds of a proposal, of making the page, of each kind of opening, and bytes of the page."""
SLOW = ("gp",)
"""Strategies whose proposals take longer however few the trials: the optimisation of their acquisition function does."""


def spent(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def proposal(domain: Domain, name: str, trials: int) -> float:
    """The median of `ASKED` proposals; the one before them, which reads the study, is left out."""
    study = filled(domain, trials)
    study.sampler = strategy(name, Context(domain, 0))
    seconds = []
    for _ in range(1 + ASKED):
        start = time.process_time()
        trial = ask(study, domain, name)
        seconds.append(time.process_time() - start)
        study.tell(trial, 1.0)
    return float(np.median(seconds[1:]))


def write_run(folder: Path, trials: int) -> None:
    """A search by random candidates whose evaluations cost nothing, with a comparison."""
    searched("random", trials, folder)
    study = Trials(folder, None, "search", 1, True).study
    values = [trial.values[0] if trial.values else inf for trial in study.get_trials(deepcopy=False)]
    best = [None if value == inf else value for value in np.minimum.accumulate(values).tolist()]
    plan = plan_of(tabled())
    plan.write(folder / "plan.json")
    write_text(folder / "comparison.json", whole(plan, progress=tuple(best)).model_dump_json())


def browsed(page: Path, scratch: Path) -> float:
    """Seconds until the last chart is drawn, in a browser that has just been started."""
    browser = started(scratch / "profile")
    try:
        return opened(browser, page, 1400, "light") / 1000
    finally:
        browser.quit()


def main() -> None:
    parser = argparse.ArgumentParser(description="What grows with a search.")
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--strategies", nargs="*", default=[name for name, entry in STRATEGIES.items() if not entry.learns])
    parser.add_argument("--space", default="s3")
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    console, missed = Console(), list[str]()
    schedule = DiscreteVP.named()
    domain = Domain.of(SearchSpace.named(given.space), schedule, NFE, 1.0, [grid(name, schedule, NFE) for name in ("quadratic", "logsnr")])

    sizes = [given.trials // 100, given.trials // 10, given.trials]
    table = Table("strategy", *(f"{size:,} trials" for size in sizes), "last / middle", title="seconds of a proposal")
    for name in given.strategies:
        seconds = [proposal(domain, name, size) for size in sizes]
        table.add_row(name, *(f"{each:.4f}" for each in seconds), f"{seconds[-1] / seconds[-2]:.1f}")
        missed += [name] * (seconds[-1] > PROPOSAL and name not in SLOW)
    console.print(table)

    table = Table("what is read or made", f"{given.trials:,} trials", "at most", "share")
    with tempfile.TemporaryDirectory() as name:
        folder, scratch, page = Path(name, "run"), Path(name, "scratch"), Path(name, "report.html")
        folder.mkdir()
        write_run(folder, given.trials)
        rows = {
            "page, seconds": (spent(lambda: write_page(folder, page)), PAGE),
            "page, bytes": (page.stat().st_size, BYTES),
            "journal, seconds": (spent(lambda: Trials(folder, None, "search", 1, True)), OPENING),
            "evaluations.log, seconds": (spent(lambda: Log(folder / "evaluations.log")), OPENING),
            "dashboard, seconds": (spent(lambda: open_run(folder, scratch)), OPENING),
        }
        if CHROMIUM and DRIVER:
            rows["page in the browser, seconds"] = min(browsed(page, scratch / str(k)) for k in range(3)), OPENING
    for what, (value, most) in rows.items():
        table.add_row(what, f"{value:,.4g}" if value < 1000 else f"{value:,}", f"{most:,}", f"{value / most:.2f}")
        missed += [what] * (value > most)
    console.print(table)
    if missed:
        raise SystemExit(f"more than allowed: {'; '.join(missed)}")


if __name__ == "__main__":
    main()
