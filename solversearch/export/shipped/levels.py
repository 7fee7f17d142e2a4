"""Plans in the convention of k-diffusion and ComfyUI, where model(x, sigma) returns the data prediction of x = data + sigma * noise.

What such a model does inside depends on the kind of its network:

    vp     the network is given x / sqrt(1 + sigma^2) and told the time whose noise level sigma is
    ve     the network (EDM's) is given x and told sigma
    flow   sigma lies in [0, 1], x = (1 - sigma) * data + sigma * noise; the network is given x and told a multiple of sigma

A plan that starts from noised pictures gets them as its caller noises them, at the first of its noise levels.

A plan says what the network itself is given, which time it is told, and at which alpha and sigma its output is read, which need not be
those of that time. So the model is called at the sigma of the *told* time s, with x scaled so that its network sees what the plan
gives; its answer A x + B output then becomes the plan's D = a x + b output. Where plan and model agree, D is the answer itself.
"""

from collections.abc import Callable
from math import hypot, isclose
from typing import NamedTuple, Protocol

from .reader import ShippedPlan, coefficients
from .runtime import Node, Start

ZERO_SNR = 4.8973451890853435e-08**-0.5
"""Stands for the infinite sigma of alpha = 0, as in ComfyUI's models of zero terminal SNR."""


class LevelCall(NamedTuple):
    """One evaluation: denoised = model(scale * x, sigma), then D = a * x + b * denoised."""

    sigma: float
    scale: float
    a: float
    b: float


class _Nodes(Protocol):
    @property
    def nodes(self) -> tuple[Node, ...]: ...
    @property
    def prediction_type(self) -> str: ...
    @property
    def start(self) -> Start | None: ...


def kind(plan: _Nodes) -> str:
    """vp, ve or flow. Networks that predict the data itself come with any: their alphas and sigmas tell."""

    def every(number: Callable[[Node], float]) -> bool:
        return all(isclose(number(node), 1, abs_tol=1e-6) for node in plan.nodes)

    if plan.prediction_type == "flow":
        return "flow"
    if every(lambda node: hypot(node.alpha, node.sigma)):
        return "vp"
    if every(lambda node: node.alpha):
        return "ve"
    return "flow" if every(lambda node: node.alpha + node.sigma) else "vp"


def sigmas(plan: _Nodes) -> list[float]:
    """The N + 1 noise levels of a plan: those of its nodes, then 0; the first is that of the pictures from which it starts, if it does."""
    flow, (first, *others) = kind(plan) == "flow", plan.nodes
    return [_level(node, flow) for node in (plan.start or first, *others)] + [0.0]


def pictures_scale(plan: _Nodes, start: Start) -> float:
    """By which the caller's noised pictures are the plan's."""
    return 1 / (start.alpha + start.sigma if kind(plan) == "flow" else start.alpha)


def _level(node: Node | Start, flow: bool) -> float:
    if flow:
        return node.sigma / (node.alpha + node.sigma)
    return node.sigma / node.alpha if node.alpha else ZERO_SNR


def matches(plan: _Nodes, given: list[float]) -> bool:
    """Whether these noise levels are the plan's own, up to the rounding of float32."""
    own = sigmas(plan)
    return len(given) == len(own) and all(isclose(s, level, rel_tol=1e-3) for s, level in zip(given, own, strict=True))


def calls(plan: ShippedPlan, sigma_at: Callable[[float], float] | None) -> list[LevelCall]:
    """How a model is called for each node. sigma_at(t) is the model's sigma of time t, for kind vp.

    Without it, a node's sigma / alpha is taken for that of its time, and plans that tell other times on purpose raise ValueError.
    """
    frame = kind(plan)
    if frame == "vp" and sigma_at is None and plan.shifted:
        raise ValueError("the plan tells the network other times than its inputs'; pass a model that has t_to_sigma")
    return [_call(node, plan.prediction_type, frame, _told(plan, node, frame, sigma_at)) for node in plan.nodes]


def _told(plan: ShippedPlan, node: Node, frame: str, sigma_at: Callable[[float], float] | None) -> float:
    """The sigma whose time is node.t."""
    if frame == "ve":
        return node.t
    if frame == "flow":
        return node.t / _unit(plan)
    return sigma_at(node.t) if sigma_at else _level(node, False)


def _unit(plan: ShippedPlan) -> float:
    """What a flow's time is at sigma = 1: what all nodes agree on, otherwise 1000 or 1, as networks have it."""
    first, *others = [node.t / _level(node, True) for node in plan.nodes]
    if all(isclose(unit, first, rel_tol=1e-6) for unit in others):
        return first
    return 1000.0 if max(node.t for node in plan.nodes) > 1 else 1.0


def _call(node: Node, prediction_type: str, frame: str, s: float) -> LevelCall:
    scale = hypot(1, s) if frame == "vp" else 1.0
    alpha = {"vp": 1 / scale, "ve": 1.0, "flow": 1 - s}[frame]
    a, b = coefficients(prediction_type, node.alpha, node.sigma)
    own_a, own_b = coefficients(prediction_type, alpha, s / scale)
    return LevelCall(s, scale, a - own_a * (b / own_b), b / own_b)
