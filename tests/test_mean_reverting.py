"""Models whose states are drawn towards a known y: against their own ODE, and wherever their plans go."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from solversearch import models
from solversearch.errors import UserError
from solversearch.export import EXPORTERS
from solversearch.grids import grid
from solversearch.judging.compatibility import check_model
from solversearch.models.base import Denoiser, Model
from solversearch.models.custom import made_by
from solversearch.noise import PICTURES, draw, fresh_noise
from solversearch.plan import Plan, Provenance, version_of
from solversearch.runtime import Node, Tableau, run
from solversearch.sampling import sample, sample_together
from solversearch.schedules import Flow, MeanReverting
from solversearch.solvers import get
from solversearch.teacher import teach
from tests.assets import restoration
from tests.cli.calling import ASSETS, bad, good
from tests.export.consumers import imported

KINDS = ("build", "numbered")


@cache
def model(kind: str) -> Model:
    return models.load(f"python:{ASSETS / 'restoration.py'}:{kind}")


def y_of(of: Model, conditions: Tensor | None) -> Tensor:
    assert of.anchor is not None and conditions is not None
    return of.anchor(conditions)


def table_of(of: Model, solver: str = "unipc_2", nfe: int = 5, on: str = "logsnr") -> Tableau:
    return get(solver).tableau(of.schedule, grid(on, of.schedule, nfe))


def plan_of(of: Model, table: Tableau | None = None, **fields: Any) -> Plan:
    table = table or table_of(of)
    nodes = of.schedule.anchored(table.nodes)
    return Plan(
        version=version_of(nodes, table.components, fields.get("start")), prediction_type=of.prediction_type, guidance=1.0, nfe=table.nfe,
        network_calls=table.network_calls, nodes=nodes, rows=table.rows,
        provenance=Provenance(model=of.name, model_digest=of.digest), **fields,
    )  # fmt: skip


def denoising(of: Model, conditions: Tensor, y: Tensor) -> Any:
    """What a person writes: the network sees x, and the noise that it predicts is that of x - beta y."""

    def denoise(x: Any, node: Node) -> Any:
        state = torch.from_numpy(np.array(x)) if not isinstance(x, Tensor) else x
        output = of.network(state, torch.full((len(state),), node.t), conditions)
        assert node.beta is not None
        clean = output if of.prediction_type == "sample" else (state - node.beta * y - node.sigma * output) / node.alpha
        if isinstance(x, Tensor):
            return clean
        return clean.numpy() if isinstance(x, np.ndarray) else pytest.importorskip("jax.numpy").asarray(clean.numpy())

    return denoise


# Against mathematics -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_teacher_solves_the_ode_of_x_itself(kind: str) -> None:
    """IR-SDE's drift and score as its paper has them, and ResShift's dx/dt = alpha' E[x0] + beta' y + sigma' E[noise]; in float64."""
    of, n = model(kind), 6
    teacher, schedule = teach(of, "held_out", n), of.schedule
    y = y_of(of, teacher.conditions).double()
    network = restoration.Restorer(schedule, noise=False).double()

    def clean(t: float, x: Tensor) -> Tensor:
        return network(x, torch.full((n,), t, dtype=torch.float64), y)

    def slope(t: float, flat: Any) -> Any:
        x = torch.from_numpy(flat).view_as(y)
        alpha, beta, sigma = (float(f(t)) for f in (schedule.alpha, schedule.beta, schedule.sigma))
        noise = (x - alpha * clean(t, x) - beta * y) / sigma
        if isinstance(schedule, MeanReverting):
            theta = np.log(1 / 0.005)
            return (theta * (y - x) + theta * restoration.SCALE**2 * noise / sigma).numpy().ravel()
        h = 1e-6 * t
        rates = [(float(f(t + h)) - float(f(t - h))) / (2 * h) for f in (schedule.alpha, schedule.beta, schedule.sigma)]
        return (rates[0] * clean(t, x) + rates[1] * y + rates[2] * noise).numpy().ravel()

    start, end = schedule.node(schedule.t_start), max(schedule.t_end, 1e-7)
    first = float(schedule.beta(start.t)) * y + start.sigma * teacher.noise.double()
    found = solve_ivp(slope, (start.t * (1 - 1e-9), end), first.numpy().ravel(), method="LSODA", rtol=1e-8, atol=1e-9)
    expected = clean(end, torch.from_numpy(found.y[:, -1]).view_as(y))
    assert (teacher.endpoint - expected).abs().max() < (1e-4 if kind == "build" else 2e-3)  # ResShift's beta has no slope at t = 0


@pytest.mark.parametrize(("solver", "order"), [("ddim", 1), ("dpmpp_2m", 2)])
def test_baselines_keep_their_order(solver: str, order: int) -> None:
    """Of the root of the median error, against a finer solve that ends at the same time."""
    of = model("build")
    teacher = teach(of, "fit", 16)
    exact = sample(of, table_of(of, "unipc_3", 240, "logsnr_tmin"), teacher)
    ends = [sample(of, table_of(of, solver, nfe, "logsnr_tmin"), teacher) for nfe in (30, 60)]
    coarse, fine = (float((end - exact).square().flatten(1).mean(1).median().sqrt()) for end in ends)
    assert np.log2(coarse / fine) == pytest.approx(order, abs=0.3)


def test_a_schedule_says_what_is_known_at_its_end() -> None:
    schedule = MeanReverting(0.4)
    assert schedule.initial_scale(1.0) == schedule.sigma(1.0) == pytest.approx(0.4, rel=1e-4)
    assert schedule.alpha(1.0) == pytest.approx(0.005) and schedule.alpha(0.3) + schedule.beta(0.3) == pytest.approx(1, abs=1e-15)
    (node,) = schedule.anchored([Node(0.25, 0.7, 0.1)])  # of the time that the network is told, whatever the frame
    assert node == Node(0.25, 0.7, 0.1, beta=float(schedule.beta(0.25)))
    assert not Flow().reverts and Flow().anchored([Node(0.5, 0.5, 0.5)])[0].beta is None and Flow().initial_scale(1.0) == 1


# The denoiser ------------------------------------------------------------------------------------------------------


def test_the_null_condition_leaves_the_anchor_in_place_and_times_have_a_gradient() -> None:
    seen = list[Tensor]()

    def network(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        seen.append(x)
        return x.sin()

    y = torch.tensor([[1.0, 2.0], [3.0, -1.0]])
    schedule = MeanReverting(0.4)
    of = Model(
        "own", network, schedule, "sample", (2,), torch.arange(2), torch.tensor(7), anchor=lambda number: y[number], dtype=torch.float64
    )
    x, node = torch.tensor([[0.1, 0.2], [0.3, 0.4]]), replace(schedule.node(0.25), guidance=2.0)
    denoise = Denoiser(of, torch.tensor([1, 0]))
    state = x + float(schedule.beta(0.25)) * y.flip(0)
    torch.testing.assert_close(denoise(x, node), state.sin())
    torch.testing.assert_close(torch.stack(seen), torch.stack([state, state]).double())
    other = replace(node, beta=0.5)  # of a plan, whose runtime has added it
    torch.testing.assert_close(denoise(state, other), state.sin())
    with pytest.raises(UserError, match="the plan's nodes have a beta, but model 'own' has no anchor"):
        Denoiser(replace(of, anchor=None), torch.tensor([1, 0]))(x, other)

    def told(t: Tensor) -> Tensor:
        output = denoise(x.double(), Node(t, 0.5, 0.5))  # type: ignore[arg-type]
        assert isinstance(output, Tensor)
        return output

    assert torch.autograd.gradcheck(told, torch.tensor([0.2, 0.7], dtype=torch.float64, requires_grad=True), eps=1e-5, atol=1e-4)


def test_a_model_is_known_by_its_beta_and_its_anchors() -> None:
    of = model("numbered")
    assert of.anchor is not None
    for other in (replace(of, anchor=lambda number: 0.9 * restoration.degraded()[number]), replace(of, schedule=_Weaker())):
        assert other.fingerprint != of.fingerprint
    known = replace(of, weights="of files")  # whose digest asks the network nothing
    assert replace(known, schedule=_Weaker()).digest != known.digest == replace(known, schedule=restoration.ResShift()).digest


class _Weaker(restoration.ResShift):
    def beta(self, t: Any) -> Any:
        return 0.9 * self.eta(t)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"anchor": None}, "anchor is missing; the schedule has a beta"),
        ({"conditions": None, "disjoint": False}, "the schedule has a beta, so conditions are missing"),
        ({"schedule": Flow()}, "anchor needs a schedule with a beta, such as MeanReverting"),
        ({"anchor": 3}, "anchor must be a function of conditions, got int 3"),
        ({"anchor": lambda number: number}, r"anchor, tried on two conditions, returned the shape \(2,\) for an input of"),
        ({"anchor": lambda number: torch.full((2, 1, 8, 8), torch.nan)}, "anchor, tried on two conditions, returned NaN"),
    ],
)
def test_what_a_factory_lacks_is_told(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=f"^f: {told}"):
        made_by(lambda: {**restoration.numbered(), **changes}, "f", "f", "")


# Plans -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("library", ["torch", "numpy", "jax"])
def test_a_plan_samples_everywhere_what_the_search_sampled(kind: str, library: str) -> None:
    """The search runs tables without betas; the plan's own run by the network of a person, who knows of y alone."""
    of = model(kind)
    teacher, plan = teach(of, "held_out", 20), plan_of(of)
    searched, y = sample(of, table_of(of), teacher), y_of(of, teacher.conditions)
    to: Any = {"torch": lambda x: x, "numpy": Tensor.numpy}.get(library) or pytest.importorskip("jax.numpy").asarray
    assert teacher.conditions is not None
    result = plan.sample(denoising(of, teacher.conditions, y), to(teacher.noise), anchor=to(y))
    assert type(result) is type(to(y)) and np.abs(np.asarray(result) - searched.numpy()).max() < (1e-6 if kind == "build" else 1e-5)
    for own in (sample(of, plan.tableau, teacher), *sample_together(of, [plan.tableau, table_of(of)], teacher)):
        assert isinstance(own, Tensor)
        torch.testing.assert_close(own, searched, rtol=0, atol=1e-6 if kind == "build" else 1e-5)
    denoise = Denoiser(of, teacher.conditions)  # as the README does
    torch.testing.assert_close(run(plan.nodes, plan.rows, denoise, teacher.noise, anchor=y), searched, rtol=0, atol=1e-5)
    small = sample(of, table_of(of), teacher, batch_size=7)
    assert torch.equal(small, searched)


def test_a_start_is_from_the_noised_anchor(tmp_path: Path) -> None:
    """x = y + sigma noise, as its paper has it, at the start: alpha + beta = 1."""
    of = model("build")
    start = of.schedule.start_of(0.5)
    assert start is not None
    later = of.started(start)
    teacher = teach(later, "held_out", 20)
    y, noise = y_of(of, teacher.conditions), fresh_noise(of, "held_out", range(20), PICTURES)
    torch.testing.assert_close(teacher.noise + float(of.schedule.beta(start.t)) * y, y + start.sigma * noise)
    plan = plan_of(later, table_of(later), start=start)
    assert plan.version == 5 and teacher.conditions is not None
    result = plan.sample(denoising(of, teacher.conditions, y), noise, anchor=y)
    torch.testing.assert_close(result, sample(later, table_of(later), teacher), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="starts from the noised anchor: leave the picture out"):
        plan.sample(denoising(of, teacher.conditions, y), noise, y, anchor=y)
    EXPORTERS["numpy"].write(plan, tmp_path / "a_plan.py")
    assert imported(tmp_path / "a_plan.py").check() == 0


def test_the_file_for_numpy_takes_the_anchor(tmp_path: Path) -> None:
    of = model("numbered")
    plan, (noise, conditions) = plan_of(of), draw(of, "held_out", 4)
    y = y_of(of, conditions)
    EXPORTERS["numpy"].write(plan, tmp_path / "a_plan.py")
    assert EXPORTERS["numpy"].notes(plan) == ["The plan needs an anchor for each sample: sample and data_prediction take anchor=."]
    module = imported(tmp_path / "a_plan.py")

    def denoise(x: Any, node: Any) -> Any:
        output = of.network(torch.from_numpy(x), torch.full((4,), node.t), conditions).numpy()
        return module.data_prediction(output=output, x=x, node=node, anchor=y.numpy())

    assert conditions is not None
    expected = plan.sample(denoising(of, conditions, y), noise, anchor=y)
    assert np.abs(module.sample(denoise, noise.numpy(), anchor=y.numpy()) - expected.numpy()).max() < 1e-5
    assert module.check() == 0
    with pytest.raises(ValueError, match="give anchor="):
        module.sample(denoise, noise.numpy())
    with pytest.raises(ValueError, match="the plan's nodes have a beta: give anchor="):
        module.data_prediction(output=y.numpy(), x=y.numpy(), node=module.PLAN.nodes[0])


@pytest.mark.parametrize("name", sorted(set(EXPORTERS) - {"numpy"}))
def test_places_without_an_anchor_refuse_in_one_line(name: str, tmp_path: Path) -> None:
    plan_of(model("build")).write(tmp_path / "plan.json")
    told = bad("export", tmp_path / "plan.json", "--to", name, "--out", tmp_path / "out")
    assert "the plan needs an anchor for each sample" in told and "Python, or export to numpy" in told
    assert not (tmp_path / "out").exists()


def test_a_pipeline_and_shipped_loops_refuse(tmp_path: Path) -> None:
    diffusers = pytest.importorskip("solversearch.export.diffusers")
    from solversearch.export.shipped import loop, reader
    from solversearch.export.stock import as_stock

    plan = plan_of(model("build"))
    with pytest.raises(ValueError, match=r"the plan needs an anchor for each sample, .* which a pipeline of diffusers does not have"):
        diffusers.PlanScheduler.from_plan(plan)
    with pytest.raises(UserError, match="the plan needs an anchor for each sample"):
        as_stock(plan)
    with pytest.raises(ValueError, match="the plan needs an anchor for each sample"):
        loop.sample(reader.parse(plan.text()), [], lambda x, sigma, node: x, torch.zeros(1, 1, 8, 8))


def test_a_plan_and_a_model_agree_about_the_anchor(tmp_path: Path) -> None:
    of = model("build")
    check_model(plan_of(of), of)
    nodes = tuple(replace(node, beta=None) for node in plan_of(of).nodes)
    fields = {name: getattr(plan_of(of), name) for name in Plan.model_fields if name not in ("digest", "version", "nodes")}
    with pytest.raises(UserError, match="the plan's nodes have no beta, but model 'restoration' has an anchor"):
        check_model(Plan(**fields, nodes=nodes), of)
    with pytest.raises(UserError, match="the plan's nodes have a beta, but model 'restoration' has no anchor"):
        check_model(plan_of(of), replace(of, anchor=None))
    nodes = tuple(replace(node, beta=0.9) for node in nodes)
    other = Plan(**fields | {"provenance": Provenance(model="", model_digest="")}, nodes=nodes, version=5)
    with pytest.raises(UserError, match=r"the plan is for another noise schedule: its evaluation 0, t=1, has the beta 0.900, .* has 0.995"):
        check_model(other, of)


def test_imported_and_predicted_plans_have_betas(tmp_path: Path) -> None:
    of, spec = model("build"), f"python:{ASSETS / 'restoration.py'}:build"
    for nfe in (4, 5, 6):
        sigmas = ",".join(f"{sigma:.6g}" for sigma in (*np.geomspace(40, 0.1, nfe), 0))
        good("import", "--sigmas", sigmas, "--solver", "dpmpp_2m", "--model", spec, "--out", tmp_path / f"{nfe}.json")
    good("cpr", "fit", *(tmp_path / f"{nfe}.json" for nfe in (4, 5, 6)), "--model", spec, "--out", tmp_path / "of.cpr.json")
    good("cpr", "predict", tmp_path / "of.cpr.json", "--nfe", 5, "--model", spec, "--out", tmp_path / "predicted.json")
    for name in ("5.json", "predicted.json"):
        plan = Plan.read(tmp_path / name)
        assert plan.version == 5 and plan.nodes == of.schedule.anchored([replace(node, beta=None) for node in plan.nodes])
    shown = good("plan", "show", tmp_path / "5.json")
    assert "beta" in shown and "towards an anchor" in shown
