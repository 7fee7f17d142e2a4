"""DPM-Solver-v3 (Zheng et al. 2023, arXiv:2310.13268, section 3 and algorithm 1), multistep, with its pseudo-order corrector.

    x_t = alpha_t e^{-L_t} (x_s / alpha_s - int_{lambda_s}^{lambda_t} E(lambda) g(lambda) dlambda),    E = e^{L + S}

    f      (sigma eps - l x) / alpha, the parametrised output
    L, S   int l and int s from lambda_s on: the statistics of the model, `solversearch.parametrization`
    g      e^{-S} f, which changes as little as it can: interpolated by a polynomial in lambda through the last outputs, newest first

The corrector takes the evaluation at t as the second output; f stays what it was when it has moved x. It is "pseudo", unless the name ends
in `exact`: of one output more than the predictor, the k-th derivative of g being taken from the first k + 1 of them only. With it the order
is 2, whatever that of the predictor; exact correctors keep the predictor's, 2 or 3. `_pseudo` has such a predictor, too.

Those named `by_channel` have the statistics of each channel of a picture, as coefficients of its channels; where there is one, they are
the others. Left out is the bias b of df/dlambda = s f + b: it adds a constant to every state, which no table has, so s is the regression
through the origin. On digits and mixture that costs about a tenth of the mean error, under guidance more on some grids. Where there
are no statistics, l = 1 and s = 0: the published "degenerated" form, DPM-Solver++ with exact weights. A step from alpha = 0 is of
first order, and one to sigma = 0 takes D itself.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import exp, isfinite

import numpy as np

from solversearch.parametrization import Parametrization
from solversearch.runtime import Node
from solversearch.schedules import Floats
from solversearch.solvers.base import Corrector, Past, Solver, Stage, Step, first_order, lam, run_stages
from solversearch.solvers.integrals import integral, lagrange
from solversearch.tableau import Problem, Rule, Vector


def newton(nodes: Sequence[float], points: Floats) -> Floats:
    """Weights of the outputs at the points, (len(nodes), len(points)), where sum_k [g_0, ..., g_k] (lambda - lambda_0)^k stands for g."""
    table = np.eye(len(nodes))
    values, power = np.outer(table[0], np.ones_like(points)), points - nodes[0]
    for k in range(1, len(nodes)):
        table = np.array([(new - old) / (nodes[j] - nodes[j + k]) for j, (new, old) in enumerate(pairwise(table))])
        values += np.outer(table[0], power**k)
    return values


def advance(s: Past, t: Node, others: Sequence[Past], parametrization: Parametrization, pseudo: bool) -> Vector:
    """The step from s to t with g through the outputs at s and the others."""
    start, end = lam(s.node), lam(t)
    if not isfinite(end - start):
        return first_order(s, t)
    used = [s, *(each for each in others if each.node.alpha)]
    nodes = [lam(each.node) for each in used]
    to_end, _ = parametrization.exponents(np.array([end]), start)

    def integrand(points: Floats) -> Floats:
        l, s = parametrization.exponents(points, start)  # noqa: E741
        return np.exp(l + s - to_end) * (newton if pseudo else lagrange)(nodes, points)

    _, own = parametrization.exponents(np.array(nodes), start)
    weights = integral(integrand, start, end) * np.exp(-own)
    x = s.x * (t.alpha / s.node.alpha * exp(-float(to_end[0])))
    for each, at, weight in zip(used, nodes, weights, strict=True):
        f = each.input * ((1 - parametrization.l_at(at)) / each.node.alpha) - each.d
        x = x - f * (t.alpha * float(weight))
    return x


def predictor(parametrization: Parametrization, pseudo: bool = False) -> Step:
    return lambda past, t: advance(past[0], t, past[1:], parametrization, pseudo)


def corrector(parametrization: Parametrization, pseudo: bool = True) -> Corrector:
    """Of an output more than the predictor where it is pseudo; else of as many, so that a predictor of order 1 is not corrected."""

    def correct(new: Past, past: Sequence[Past]) -> Vector:
        older = past[1:] if pseudo else past[1:-1]
        return new.x if len(past) == 1 and not pseudo else advance(past[0], new.node, [new, *older], parametrization, pseudo)

    return correct


def dpm_v3(order: int, pseudo: bool = False, corrects: bool = True, pseudo_corrector: bool = True) -> Rule:
    """The rule of that order, lowered in the last steps, with the statistics of the problem."""

    def rule(problem: Problem, x: Vector, nodes: Sequence[Node]) -> Vector:
        step = predictor(problem.parametrization, pseudo)
        correct = corrector(problem.parametrization, pseudo_corrector) if corrects else None
        n = len(nodes) - 1
        return run_stages(problem, x, nodes, [Stage(step, min(order, n - i), correct) for i in range(n)])

    return rule


SOLVERS = tuple(
    Solver(name, rule, order, "Zheng et al. 2023, arXiv:2310.13268", empirical=True, by_channel=name.endswith("by_channel"))
    for name, rule, order in (
        ("dpm_v3_2", dpm_v3(2), 2),
        ("dpm_v3_3", dpm_v3(3), 2),
        ("dpm_v3_3_pseudo", dpm_v3(3, pseudo=True), 2),
        ("dpm_v3_2_exact", dpm_v3(2, pseudo_corrector=False), 2),
        ("dpm_v3_3_exact", dpm_v3(3, pseudo_corrector=False), 3),
        ("dpm_v3_2_by_channel", dpm_v3(2), 2),
        ("dpm_v3_3_by_channel", dpm_v3(3), 2),
    )
)
