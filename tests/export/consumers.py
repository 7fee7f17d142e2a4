"""What the tests of exporters share: a network, plans of every kind, the runtime's answer, and modules imported from where they lie."""

import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solversearch.components import Components
from solversearch.grids import grid
from solversearch.plan import Plan, Provenance, Threshold, version_of
from solversearch.runtime import Node, Row, Tableau
from solversearch.schedules import VE, DiscreteVP, Flow, NoiseSchedule, data_prediction
from solversearch.solvers import SOLVERS

CONDITION, NULL = 0.7, -0.2
NOISE = torch.randn(2, 4, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

PICTURE = torch.randn(2, 4, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).tanh()

SCHEDULES: dict[str, tuple[NoiseSchedule, Any]] = {
    "epsilon": (DiscreteVP.named(), "epsilon"),
    "v": (DiscreteVP.named(), "v_prediction"),
    "zero_snr": (DiscreteVP.named(zero_terminal_snr=True), "v_prediction"),
    "flow": (Flow(3.0, 1000.0), "flow"),
    "edm": (VE(), "edm"),
}


def network(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
    """A smooth nonlinear function of everything; t and the condition have one number a sample."""
    t, condition = (each.view(-1, *[1] * (x.ndim - 1)).to(x.dtype) for each in (t, condition))
    return torch.tanh(1.3 * x + condition) + 0.2 * torch.cos(2 * x + t / 1000)


def plan_of(table: Tableau, kind: str, guidance: float = 1.0, **fields: Any) -> Plan:
    return Plan(
        prediction_type=SCHEDULES[kind][1], guidance=guidance, nfe=table.nfe, network_calls=table.network_calls, nodes=table.nodes,
        rows=table.rows, version=version_of(table.nodes, table.components, fields.get("start")), components=table.components,
        provenance=Provenance(model="tiny", model_digest=""), **fields,
    )  # fmt: skip


def table_of(solver: str, kind: str, nfe: int = 5, integer: bool = True, on: str = "linspace") -> Tableau:
    schedule = SCHEDULES[kind][0]
    return SOLVERS[solver].tableau(schedule, grid(on, schedule, SOLVERS[solver].steps(nfe), integer))


def _from_pictures(kind: str) -> Plan:
    """At six tenths of the times; the first evaluation is below that."""
    schedule = SCHEDULES[kind][0]
    start = schedule.start_of(0.6)
    assert start is not None
    own = schedule.started(start)
    table = _fitted(SOLVERS["unipc_2"].tableau(own, grid("linspace", own, 5, True)))
    lower = schedule.node(float(round(0.9 * start.t)) if schedule.discrete else 0.9 * start.t)
    return plan_of(_with_nodes(table, lambda i, node: node if i else lower), kind, start=start)


def _fitted(table: Tableau, split: bool = False) -> Tableau:
    """Other coefficients than any solver's."""
    rng = np.random.default_rng(0)

    def row(given: Row) -> Row:
        delta = tuple(0.1 * rng.standard_normal(len(given.d))) if split else ()
        return replace(given, d=tuple(weight * (1 + 0.05 * rng.standard_normal()) for weight in given.d), delta=tuple(map(float, delta)))

    return Tableau(table.nodes, tuple(map(row, table.rows)))


def _in_components(table: Tableau) -> Tableau:
    """Other coefficients in three bands of four channel directions, but for the first row."""
    rng = np.random.default_rng(1)
    directions = np.linalg.qr(rng.standard_normal((4, 4)))[0].tolist()

    def each(weights: Sequence[float]) -> tuple[tuple[float, ...], ...]:
        return tuple(tuple((weight * (1 + 0.1 * rng.standard_normal(12))).tolist()) for weight in weights)

    rows = [replace(row, d=each(row.d), delta=each(row.delta)) for row in table.rows]
    return replace(table, rows=tuple(rows), components=Components((0.2, 0.5, 1.0), tuple(map(tuple, directions))))


def _with_nodes(table: Tableau, change: Callable[[int, Node], Node]) -> Tableau:
    return Tableau(tuple(change(i, node) for i, node in enumerate(table.nodes)), table.rows)


def _shifted(i: int, node: Node) -> Node:
    """Told another time than its input's, at every second evaluation."""
    earlier = node.t * (0.94 if i % 2 else 1.0)
    return replace(node, t=float(round(earlier)) if node.t > 100 else earlier)


def _reused(kind: str) -> Plan:
    """Of five evaluations the third and the last use the guidance differences of others."""
    table = _fitted(table_of("unipc_2", kind).guided(4.0), split=True)
    nodes = [replace(node, guidance=1.0, guidance_difference="reuse") if i in (2, 4) else node for i, node in enumerate(table.nodes)]
    rows = [replace(row, delta=tuple(0.0 if j in (2, 4) else weight for j, weight in enumerate(row.delta))) for row in table.rows]
    return plan_of(Tableau(tuple(nodes), tuple(rows)), kind, 4.0)


PLANS: dict[str, Callable[[str], Plan]] = {
    "a solver": lambda kind: plan_of(table_of("unipc_2", kind), kind),
    "guidance": lambda kind: plan_of(table_of("unipc_2", kind).guided(4.0), kind, 4.0),
    "guidance for each node": lambda kind: plan_of(
        _with_nodes(table_of("unipc_2", kind), lambda i, node: replace(node, guidance=1.0 + i)), kind, 4.0
    ),
    "split guidance": lambda kind: plan_of(_fitted(table_of("unipc_2", kind).guided(4.0), split=True), kind, 4.0),
    "split at guidance 1": lambda kind: plan_of(_fitted(table_of("unipc_2", kind), split=True), kind),
    "other times": lambda kind: plan_of(_with_nodes(_fitted(table_of("ddim", kind)), _shifted), kind, decisions={"input_shift": 0.1}),
    "fresh noise": lambda kind: plan_of(table_of("dpmpp_2m_sde", kind), kind),
    "clamped": lambda kind: plan_of(table_of("ddim", kind), kind, threshold=Threshold(kind="clamp", limit=0.5)),
    "dynamic": lambda kind: plan_of(table_of("ddim", kind), kind, threshold=Threshold(kind="dynamic", percentile=0.9, limit=0.3)),
    "reused differences": _reused,
    "components": lambda kind: plan_of(_in_components(table_of("unipc_2", kind)), kind),
    "components of split guidance": lambda kind: plan_of(
        _in_components(_fitted(table_of("unipc_2", kind).guided(4.0), split=True)), kind, 4.0
    ),
    "pictures": _from_pictures,
    "two evaluations at one level": lambda kind: plan_of(table_of("heun", kind), kind),
}


def by_runtime(plan: Plan, noise: Tensor = NOISE, seed: int = 0, whole: bool = False) -> Tensor:
    """What solversearch samples; whole rounds the told times."""
    generator = torch.Generator().manual_seed(seed)

    def denoise(x: Tensor, node: Node) -> Tensor | tuple[Tensor, Tensor]:
        a, b = data_prediction(plan.prediction_type, node.alpha, node.sigma)
        t = torch.full((len(x),), round(node.t) if whole else node.t, dtype=torch.float64)
        cond, uncond = (a * x + b * network(x, t, torch.full((len(x),), c)) for c in (CONDITION, NULL))
        guided = uncond + node.guidance * (cond - uncond)
        if node.reuses:
            return cond
        return (guided, cond - uncond) if plan.tableau.split else guided

    picture = PICTURE.to(noise.dtype) if plan.start else None
    return plan.sample(denoise, noise, picture, draw=lambda _: torch.randn(noise.shape, dtype=torch.float64, generator=generator))


def difference(result: Tensor, expected: Tensor) -> float:
    """The largest, relative to the largest number."""
    return float((result - expected).abs().max() / expected.abs().max())


def imported(path: Path) -> ModuleType:
    """The module or package of that path, as if its folder were on the path."""
    where = path / "__init__.py" if path.is_dir() else path
    spec = importlib.util.spec_from_file_location(path.stem, where, submodule_search_locations=[str(path)] if path.is_dir() else None)
    assert spec and spec.loader
    for name in [name for name in sys.modules if name.partition(".")[0] == path.stem]:
        del sys.modules[name]
    sys.modules[path.stem] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
