"""Plans that are only a schedule, replayed by stock schedulers in their own pipelines."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from solversearch.components import Components
from solversearch.errors import UserError
from solversearch.importing import from_diffusers, scheduler_by_name
from solversearch.models import Model
from solversearch.pipeline_facts import facts
from solversearch.plan import Plan
from solversearch.runtime import Tableau
from solversearch.schedules import CLEAN, CosineVP, DiscreteVP
from solversearch.solvers import get
from solversearch.tableau import trace

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from solversearch.export.stock import Argument, as_stock, write
from tests.export.families import Families, call, error, noise_of, plan_of, reference

pytestmark = pytest.mark.filterwarnings("ignore")

TIMES = (999.0, 780.0, 520.0, 260.0, 90.0)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Families:
    return Families(tmp_path_factory.mktemp("families"))


def published(model: Model, solver: str, times: tuple[float, ...] = TIMES, guidance: float = 3.0) -> Plan:
    table = trace(get(solver).rule, model.schedule, [*map(model.schedule.node, times), CLEAN])
    return plan_of(model, table.guided(guidance))


@pytest.mark.parametrize(
    ("family", "solver", "times", "argument", "expected"),
    [
        ("sd", "dpmpp_2m", TIMES, "timesteps", "DPMSolverMultistepScheduler"),
        ("sd", "ddim", TIMES, "sigmas", "EulerDiscreteScheduler"),
        ("sd", "ddim", TIMES, "timesteps", "EulerDiscreteScheduler"),
        ("sd", "dpmpp_3m", TIMES, "timesteps", "DPMSolverMultistepScheduler"),
        ("sd_v", "ddim", (990.5, 700.25, 333.3), "sigmas", "EulerDiscreteScheduler"),
        ("sd_v", "unip_2", TIMES, "timesteps", "DPMSolverMultistepScheduler"),
        ("sdxl", "heun", TIMES, "timesteps", "HeunDiscreteScheduler"),
        ("pixart", "dpmpp_2s", TIMES, "timesteps", "DPMSolverSinglestepScheduler"),
        ("sd3", "ddim", (1000.0, 871.3, 640.0, 300.9), "sigmas", "FlowMatchEulerDiscreteScheduler"),
        ("flux", "ddim", (1000.0, 871.3, 640.0, 300.9), "sigmas", "FlowMatchEulerDiscreteScheduler"),
    ],
)
def test_the_stock_scheduler_samples_as_the_runtime_does(
    loaded: Families, tmp_path: Path, family: str, solver: str, times: tuple[float, ...], argument: Argument, expected: str
) -> None:
    pipe, model = loaded(family)
    plan, noise = published(model, solver, times), noise_of(model)
    written = write(argument, plan, tmp_path / "stock.json")
    assert written == [tmp_path / "stock.json"]
    content = json.loads((tmp_path / "stock.json").read_text())
    assert content["scheduler"] == expected
    exec("\n".join(content["python"][:-1]), {"pipe": pipe})
    scale = {"true_cfg_scale" if family == "flux" else "guidance_scale": content["guidance_scale"]}
    sample = call(pipe, family, noise, **{argument: content[argument]}, **scale)
    assert error(sample, reference(model, plan, noise)) <= 1e-5


# Without a pipeline ----------------------------------------------------------------------------------------------

SD = Model("identity", lambda x, t: x, DiscreteVP.named(), "epsilon", (1, 2, 2))


@pytest.mark.parametrize(
    ("name", "config", "argument"),
    [
        ("DPMSolverMultistep", {"solver_order": 3}, "timesteps"),
        ("DPMSolverMultistep", {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}, "timesteps"),
        ("DPMSolverSinglestep", {"lower_order_final": True}, "timesteps"),
        ("EulerDiscrete", {"timestep_spacing": "linspace", "prediction_type": "v_prediction"}, "sigmas"),
        ("EulerDiscrete", {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02, "timestep_spacing": "leading"}, "sigmas"),
    ],
)
def test_an_imported_scheduler_is_found_again(name: str, config: dict[str, Any], argument: Any) -> None:
    kind = config.get("prediction_type", "epsilon")
    scheduler = scheduler_by_name(name, **config)
    plan = plan_of(replace(SD, prediction_type=kind), from_diffusers(scheduler, 5))
    stock = as_stock(plan, argument)
    assert stock.scheduler == f"{name}Scheduler"
    assert list(stock.arguments) == [argument]
    assert stock.config == {key: value for key, value in config.items() if key in stock.config} | stock.config
    assert not {key for key, value in config.items() if scheduler.config[key] != value}


def test_own_coefficients_are_refused_with_the_nearest_scheduler() -> None:
    plan = published(SD, "dpmpp_2m", guidance=1.0)
    rows = (*plan.rows[:-1], replace(plan.rows[-1], d=(0.0, 0.0, 0.0, -0.02, 1.02)))
    with pytest.raises(UserError, match=r"nearest stock scheduler, DPMSolverMultistepScheduler\(.*\), is 0.02 away.*PlanScheduler"):
        as_stock(plan_of(SD, Tableau(plan.nodes, rows)))


def test_schedulers_that_run_backwards_are_not_told_the_noise() -> None:
    plan = published(SD, "ddim", guidance=1.0)
    settings = {"_class_name": "FlowMatchEulerDiscreteScheduler", "invert_sigmas": True}
    with pytest.raises(UserError, match="the plan is for a model whose scheduler inverts its sigmas"):
        as_stock(plan.model_copy(update={"decisions": facts("MochiPipeline", settings)}))


def test_components_are_no_schedule() -> None:
    plan = published(SD, "dpmpp_2m", guidance=1.0)
    rows = (*plan.rows[:-1], replace(plan.rows[-1], d=(0.0, 0.0, 0.0, 0.0, (1.0, 1.0))))
    with pytest.raises(UserError, match="the plan has coefficients for each frequency band or channel: it is more than a schedule"):
        as_stock(plan_of(SD, Tableau(plan.nodes, rows, components=Components((0.5, 1.0)))))


def test_times_between_the_whole_ones_are_no_timesteps() -> None:
    plan = published(SD, "dpmpp_2m", (990.5, 500.5), guidance=1.0)
    with pytest.raises(UserError, match=r"whole numbers.*PlanScheduler"):
        as_stock(plan, "timesteps")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"nodes": 2.0}, "guidance scale for each node"),
        ({"nodes": 0.5}, "guides by less than 1"),
        ({"delta": (0.1,)}, "guidance difference"),
        ({"z": (0.1,)}, "fresh noise"),
    ],
)
def test_more_than_a_schedule(change: dict[str, Any], complaint: str) -> None:
    table = published(SD, "ddim", guidance=1.0).tableau
    nodes, rows = table.nodes, table.rows
    if "nodes" in change:
        low = change["nodes"] < 1
        nodes = tuple(replace(node, guidance=change["nodes"] if low or i else 1.0) for i, node in enumerate(nodes))
    else:
        rows = (rows[0], replace(rows[1], **change), *rows[2:])
    with pytest.raises(UserError, match=complaint):
        as_stock(plan_of(SD, Tableau(nodes, rows)))


def test_a_threshold_is_more_than_a_schedule() -> None:
    with pytest.raises(UserError, match="thresholds"):
        as_stock(published(replace(SD, clip=1.0), "ddim", guidance=1.0))


def test_unknown_noise_levels() -> None:
    with pytest.raises(UserError, match="noise levels"):
        as_stock(published(replace(SD, schedule=CosineVP()), "ddim", (0.9, 0.5), guidance=1.0))
