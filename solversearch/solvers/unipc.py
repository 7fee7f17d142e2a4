"""UniPC: the predictor UniP and the corrector UniC (Zhao et al. 2023, arXiv:2302.04867, algorithms 1 and 2).

    UniP-p    x_t = DDIM(x_s -> t) + c sum_j w_j (m_j - m_0)             over the last p evaluations; order p
    UniC-p    the same with the evaluation at t itself as one node more;  order p + 1, no evaluation of its own

    m_j    outputs (data or noise predictions), newest first; m_0 at s
    c      alpha_t for data, -alpha_t rho_s for noise predictions
    w_j    int_0^h e^{-u} L_j(u) du of the Lagrange basis in lambda

The paper's linear system for the weights has this closed solution whatever its B(h). B(h) matters only where the published
code replaces the system of one unknown, in UniP-2 and UniC-1, by the weight 1/2: c w = B(h) / (2 r), r = (lambda_1 - lambda_s) / h,
with B(h) = h (bh1) or 1 - e^{-h} (bh2) for data prediction, and h e^{-h} or 1 - e^{-h} in units of c for noise prediction.
UniP-2 with bh2 is DPM-Solver++(2M). A step of infinite h has no half weight: it takes the exact one, whose limit is regular.
"""

from collections.abc import Sequence
from math import exp, expm1, inf, isfinite
from typing import Literal

from solversearch.runtime import Node
from solversearch.solvers.base import Corrector, Past, Solver, Step, advance, lam, multistep, scale
from solversearch.solvers.integrals import Prediction, lagrange_weights
from solversearch.tableau import Rule, Vector

Variant = Literal["exact", "bh1", "bh2"]


def _weights(s: Node, t: Node, others: Sequence[Node], prediction: Prediction, variant: Variant) -> list[float]:
    """Weights of the outputs at the other nodes, in units of alpha_t."""
    start, end = lam(s), lam(t)
    h, factor = end - start, scale(s, prediction)
    if variant != "exact" and len(others) == 1:
        if isfinite(h):
            b = -expm1(-h) if variant == "bh2" else h * exp(-h) if prediction == "noise" else h
            return [factor * b * h / (2 * (lam(others[0]) - start))]
        if end == inf:
            return [0.0]
    if prediction == "noise":
        offsets = [lam(node) - start for node in (s, *others)]
    elif end == inf:
        return [0.0] * len(others)
    else:
        offsets = [end - lam(node) for node in (s, *others)]
    return [factor * weight for weight in lagrange_weights(offsets, h)[1:]]


def unip(prediction: Prediction = "data", variant: Variant = "exact") -> Step:
    def step(past: Sequence[Past], t: Node) -> Vector:
        s, *older = past
        weights = _weights(s.node, t, [each.node for each in older], prediction, variant)
        return advance(s, t, zip(older, weights, strict=True), prediction)

    return step


def unic(prediction: Prediction = "data", variant: Variant = "exact") -> Corrector:
    def corrector(new: Past, past: Sequence[Past]) -> Vector:
        s, others = past[0], [new, *past[1:]]
        weights = [] if s.node.alpha == 0 and prediction == "noise" else _weights(
            s.node, new.node, [each.node for each in others], prediction, variant
        )  # fmt: skip
        return advance(s, new.node, zip(others, weights, strict=False), prediction)

    return corrector


def _unip(order: int, variant: Variant = "exact", lower_final: bool = True) -> Rule:
    return multistep(unip("data", variant), order, None, lower_final)


def unipc(order: int, variant: Variant = "bh2", prediction: Prediction = "data", lower_final: bool = True) -> Rule:
    return multistep(unip(prediction, variant), order, unic(prediction, variant), lower_final)


SOLVERS = tuple(
    Solver(name, rule, order, "Zhao et al. 2023, arXiv:2302.04867")
    for name, rule, order in (
        ("unip_2", _unip(2), 2),
        ("unip_2_bh1", _unip(2, "bh1"), 2),
        ("unip_3", _unip(3), 3),
        ("unip_3_full", _unip(3, lower_final=False), 3),
        ("unip_4", _unip(4), 4),
        ("unipc_1", unipc(1), 2),
        ("unipc_2", unipc(2), 3),
        ("unipc_2_bh1", unipc(2, "bh1"), 3),
        ("unipc_3", unipc(3), 4),
        ("unipc_3_bh1", unipc(3, "bh1"), 4),
        ("unipc_3_full", unipc(3, lower_final=False), 4),
        ("unipc_4", unipc(4), 5),
        ("unipc_2_noise", unipc(2, prediction="noise"), 3),
        ("unipc_3_noise", unipc(3, prediction="noise"), 4),
    )
)
