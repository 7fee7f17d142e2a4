"""DEIS: Adams-Bashforth in rho or in t (Zhang and Chen 2022, arXiv:2204.13902). tAB-k and rhoAB-k: order k + 1.

    x_t / alpha_t = x_s / alpha_s + sum_j eps_j int_{rho_s}^{rho_t} L_j d rho

    rho      sigma / alpha
    eps_j    the last k + 1 noise predictions
    L_j      Lagrange basis of their nodes, in rho (rhoAB) or in the time t (tAB)

rhoAB-k is the linear multistep (LMS) method of k-diffusion; the basis in ln rho is UniP with noise prediction. The integral over
tAB's basis is taken by parts, [rho L_j] - int rho(t) L_j'(t) dt, which needs no inverse of the schedule and is right for a jump to
rho = 0 at the end.
"""

from collections.abc import Sequence
from math import isfinite

import numpy as np

from solversearch.runtime import Node
from solversearch.schedules import Floats, NoiseSchedule
from solversearch.solvers.base import Past, Solver, Step, advance, multistep, rho
from solversearch.solvers.integrals import integral, lagrange, lagrange_slopes, polynomial_weights
from solversearch.solvers.unipc import unip
from solversearch.tableau import Problem, Rule, Vector


def deis_rhoab(past: Sequence[Past], t: Node) -> Vector:
    s = past[0]
    known = [each for each in past if isfinite(rho(each.node))]  # in the limit a node at infinity weighs nothing
    nodes = [rho(each.node) for each in known]
    if s.node.alpha == 0:
        return advance(s, t, (), "noise")
    return advance(s, t, zip(known[1:], polynomial_weights(nodes, rho(t))[1:], strict=True), "noise")


def deis_tab(schedule: NoiseSchedule) -> Step:
    def ratio(t: Floats) -> Floats:
        return schedule.sigma(t) / schedule.alpha(t)

    def step(past: Sequence[Past], t: Node) -> Vector:
        s, *older = past
        if not older:
            return advance(s, t, (), "noise")
        nodes = [each.node.t for each in past]
        ends = lagrange(nodes, np.array([s.node.t, t.t])) @ np.array([-rho(s.node), rho(t)])
        inside = integral(lambda points: ratio(points) * lagrange_slopes(nodes, points), s.node.t, t.t)
        return advance(s, t, zip(older, map(float, (ends - inside)[1:]), strict=True), "noise")

    return step


def _tab(order: int) -> Rule:
    def rule(problem: Problem, x: Vector, nodes: Sequence[Node]) -> Vector:
        return multistep(deis_tab(problem.schedule), order)(problem, x, nodes)

    return rule


SOLVERS = tuple(
    Solver(name, rule, order, "Zhang and Chen 2022, arXiv:2204.13902")
    for name, rule, order in (
        *((f"deis_logrho{k}", multistep(unip("noise"), k, lower_final=True), k) for k in (2, 3)),
        *((f"deis_tab{k}", _tab(k + 1), k + 1) for k in (1, 2, 3)),
        *((f"deis_rhoab{k}", multistep(deis_rhoab, k + 1), k + 1) for k in (1, 2, 3)),
    )
)
