"""Run folders as files: a plan, its comparison, a journal, a picture."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState, create_trial
from PIL import Image

from solversearch.judging.compare import Comparison, ParetoPoint, Prediction, Tau, Trial
from solversearch.plan import Interval, Plan, write_text
from solversearch.schedules import DiscreteVP
from tests.test_report import comparison, plan_of, split, tabled

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>"
"""As a name, it must be read and never run."""


def whole(plan: Plan, **changes: object) -> Comparison:
    """A comparison of the plan with everything that a page draws."""
    schedule = DiscreteVP.named()
    filled = {
        "nfe": plan.nfe,
        "guidance": plan.guidance,
        "nodes": plan.nodes,
        "schedule": tuple(map(schedule.node, np.linspace(schedule.t_start, schedule.t_end, 9).tolist())),
        "progress": (None, 0.01, 0.004, 0.004),
        "trials": tuple(Trial(value=v, samples=n) for v, n in ((None, 0), (0.01, 256), (0.004, 256), (0.02, 64))),
        "predictions": tuple(Prediction(predicted=p, measured=m) for p, m in ((0.02, 0.01), (0.004, 0.004), (0.01, 0.02))),
        "teacher_frechet_data": Interval(mean=0.321, low=0.2, high=0.4),
        "predictor": tuple(Tau(evaluated=n, surrogate=0.5, learned=0.1, both=0.6) for n in (8, 16)),
    }
    return comparison().model_copy(update=filled | changes)


def pareto() -> tuple[ParetoPoint, ...]:
    values = (({"endpoint": 0.01 * 2**-k, "network_calls": 5.0 + k}) for k in range(3))
    return tuple(ParetoPoint(file=f"pareto/plan-{k}.json", network_calls=5 + k, values=each) for k, each in enumerate(values))


def write_run(folder: Path, plan: Plan, compared: Comparison, trials: int = 30) -> Path:
    plan.write(folder / "plan.json")
    write_text(folder / "comparison.json", compared.model_dump_json())
    write_journal(folder / "journal.log", trials)
    Image.new("RGB", (320, 120), "gray").save(folder / "samples.png")
    return folder


def write_journal(path: Path, trials: int) -> None:
    """Trials in which order.1 decides nearly all, and time.0 the rest."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(storage=JournalStorage(JournalFileBackend(str(path))), study_name="search")
    kinds = {"order.1": CategoricalDistribution((1, 2, 3)), "time.0": FloatDistribution(0, 1)}
    rng = np.random.default_rng(0)
    for k in range(trials):
        order, time = int(rng.integers(1, 4)), float(rng.random())
        failed = k % 5 == 4
        study.add_trial(
            create_trial(
                state=TrialState.FAIL if failed else TrialState.COMPLETE, params={"order.1": order, "time.0": time}, distributions=kinds,
                value=None if failed else float(np.exp(-order + 0.1 * time)),
            )
        )  # fmt: skip


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with split guidance, a Pareto set, a predictor, and names that would like to run."""
    folder = tmp_path_factory.mktemp("report") / "run"
    plan = plan_of(split(tabled()), 4.0)
    plan = Plan.model_validate({**plan.model_dump(exclude={"digest"}), "decisions": {EVIL: EVIL}} | {
        "provenance": plan.provenance.model_copy(update={"command": EVIL, "model": EVIL, "versions": {EVIL: EVIL}}),
        "nodes": plan.nodes, "rows": plan.rows, "scores": plan.scores, "threshold": None,
    })  # fmt: skip
    base = whole(plan)
    rows = (*base.rows[:1], *(row.model_copy(update={"name": f"{row.name} {EVIL}"}) for row in base.rows[1:]))
    ladder = tuple(rung.model_copy(update={"name": EVIL}) for rung in base.ladder)
    stages = tuple(stage.model_copy(update={"name": f"{stage.name} {EVIL}"}) for stage in base.stages)
    update = {"model": EVIL, "best_baseline": EVIL, "note": EVIL, "rows": rows, "ladder": ladder, "stages": stages, "pareto": pareto()}
    return write_run(folder, plan, base.model_copy(update=update))


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[..., Path]:
    """Makes a run folder of a plan to be damaged."""

    def make(plan: Plan | None = None, **changes: object) -> Path:
        plan = plan or plan_of(tabled())
        return write_run(tmp_path / "run", plan, whole(plan, **changes))

    return make
