"""Plans in the pipelines that people use now, against the runtime on the pipeline's own denoiser."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from solversearch.components import Components
from solversearch.pipeline_facts import facts
from solversearch.plan import Plan, Provenance, version_of
from solversearch.runtime import Row, Tableau
from solversearch.schedules import CLEAN, NoiseSchedule
from solversearch.solvers import get
from solversearch.tableau import trace

pytest.importorskip("diffusers")

from solversearch.models.pipelines.schedule import schedule_of
from tests import zoo
from tests.export.families import error

pytestmark = pytest.mark.filterwarnings("ignore")
NFE = 3


@cache
def schedule(name: str) -> tuple[NoiseSchedule, str]:
    kind, settings = zoo.ZOO[name].scheduler
    return schedule_of({**settings, "_class_name": kind})[:2]


def parts_for(latents: tuple[int, ...]) -> Components:
    if len(latents) == 3 and latents[1] == 4:
        return Components((0.2, 1.0), (), 2)
    if latents[-1] == 1 or latents[1] == 2:
        return Components((), tuple(tuple(float(i == j) for j in range(latents[1])) for i in range(latents[1])))
    return Components((0.2, 1.0))


def plan_for(name: str, kind: str, scale: float) -> Plan:
    """A plan of no published solver; scale is that of its noise, kind how it guides."""
    levels, prediction_type = schedule(name)
    rng, high, low = np.random.default_rng(0), levels.t_start, levels.t_end
    nodes = [levels.node(high + (low - high) * u) for u in np.linspace(0.02, 0.9, NFE)]
    table = trace(get("dpmpp_2m").rule, levels, [*nodes, CLEAN])
    guidance = {"per node": [4.0, 1.0, 2.5], "split": [4.0, 1.0, 3.0], "reuse": [4.0, 1.0, 3.0], "its own": [1.0] * NFE}.get(
        kind, [3.0 + zoo.ZOO[name].offset] * NFE
    )

    def moved(i: int, row: Row) -> Row:
        d = np.array([*row.d, *[0.0] * (i - len(row.d))]) + 0.03 * rng.standard_normal(i)
        delta = tuple(map(float, 0.1 * rng.standard_normal(i))) if kind in ("split", "reuse") else ()
        delta = tuple(0.0 if kind == "reuse" and j == 1 else weight for j, weight in enumerate(delta))
        return Row(
            row.x if i else scale, tuple(tuple(w * (1 + 0.1 * k) for k in range(len(parts))) if parts else w for w in d.tolist()), delta
        )

    parts = parts_for(zoo.ZOO[name].latents) if kind == "components" else None
    table = Tableau(
        tuple(
            replace(node, guidance=g, guidance_difference="reuse" if kind == "reuse" and g == 1 else "compute")
            for node, g in zip(table.nodes, guidance, strict=True)
        ),
        tuple(moved(i, row) for i, row in enumerate(table.rows)),
        components=parts,
    )
    return Plan(
        version=version_of(table.nodes, parts), components=parts,
        prediction_type=prediction_type, guidance=guidance[0], nfe=NFE, network_calls=table.network_calls, nodes=table.nodes,
        rows=table.rows, decisions=facts("", {}, {zoo.ZOO[name].guides: 3.0}) if kind == "its own" else {},
        provenance=Provenance(model="", model_digest=""),
    )  # fmt: skip


@torch.no_grad()
def expected(pipe: Any, name: str, plan: Plan, noise: torch.Tensor) -> torch.Tensor:
    own = zoo.Own(pipe, name, plan.prediction_type, plan.tableau.split)
    if plan.guidance == 1:  # the pipeline's guidance is a part of the model
        return plan.sample(lambda x, node: own.data(x, node, 3.0), noise)
    return plan.sample(own, noise)


@pytest.fixture(scope="module", params=zoo.ZOO)
def family(request: pytest.FixtureRequest) -> tuple[str, Any, torch.Tensor]:
    name = request.param
    noise = zoo.ZOO[name].unit * torch.randn(zoo.ZOO[name].latents, generator=torch.Generator().manual_seed(1))
    return name, zoo.build(name), noise


def test_evaluations_that_reuse_cost_half(family: tuple[str, Any, torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    name, pipe, noise = family
    known, spent = zoo.ZOO[name], {"split": list[int](), "reuse": list[int]()}
    if not known.plain:
        pytest.skip("no plan with a guidance difference runs in it")
    networks = [part for part in pipe.components.values() if "Transformer" in type(part).__name__ or "UNet" in type(part).__name__]
    for kind, rows in spent.items():
        scheduler = zoo.Leaving.from_plan(plan_for(name, kind, 1.1))
        arguments = scheduler.attach(pipe)
        with monkeypatch.context() as patched:
            for network in {type(each): each for each in networks}.values():
                patched.setattr(type(network), "forward", counting(type(network).forward, rows))
            with pytest.raises(zoo.Answer):
                zoo.call(pipe, known, noise, **arguments)
        scheduler.detach()
        assert not any("forward" in vars(each) for each in networks)
    assert sum(spent["split"]) > 0 and sum(spent["reuse"]) == sum(spent["split"]) * 5 / 6


def counting(forward: Any, rows: list[int]) -> Any:
    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        rows.append(len(args[0] if args else next(kwargs[key] for key in ("hidden_states", "x", "sample") if key in kwargs)))
        return forward(self, *args, **kwargs)

    return counted


def test_bare(family: tuple[str, Any, torch.Tensor]) -> None:
    name, pipe, noise = family
    plan, known = plan_for(name, "constant", 1.0), zoo.ZOO[name]
    right, stock = expected(pipe, name, plan, noise), pipe.scheduler
    pipe.scheduler = zoo.Leaving.from_plan(plan, stock)
    try:
        with pytest.raises(zoo.Answer):
            zoo.call(pipe, known, noise, num_inference_steps=NFE, **{known.guides: 3.0})
        assert error(pipe.scheduler.last, right) <= 1e-5
    finally:
        pipe.scheduler = stock


@pytest.mark.parametrize("kind", ["constant", "per node", "split", "reuse", "its own", "components"])
def test_attached(family: tuple[str, Any, torch.Tensor], kind: str) -> None:
    name, pipe, noise = family
    plan, known = plan_for(name, kind, 1.1), zoo.ZOO[name]
    scheduler = zoo.Leaving.from_plan(plan)
    arguments = scheduler.attach(pipe)
    try:
        if kind in ("per node", "split", "reuse") and not known.plain:
            with pytest.raises(ValueError, match="other ways than by plain guidance"):
                zoo.call(pipe, known, noise, **arguments)
            return
        if kind == "components" and name == "ltx":  # tokens of a video, whose rows and columns nobody says
            with pytest.raises(ValueError, match="components act on pictures"):
                zoo.call(pipe, known, noise, **arguments)
            return
        with pytest.raises(zoo.Answer):
            zoo.call(pipe, known, noise, **arguments)
    finally:
        scheduler.detach()
    assert error(scheduler.last, expected(pipe, name, plan, noise)) <= 1e-5
