"""Reads a plan of solversearch with the standard library. A plan that was changed after it was written is refused."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .components import Components
from .plan_text import WHOLE, belongs, decoded, loaded, numbers
from .runtime import Array, Node, Row, Start, Tableau, clamp, dynamic_threshold


@dataclass(frozen=True)
class ShippedPlan(Tableau):
    """A table with what its consumers need besides. shifted: some node's time is not that of its alpha and sigma, on purpose."""

    prediction_type: str
    guidance: float
    threshold: Callable[[Array], Array] | None
    shifted: bool
    digest: str
    start: Start | None


class _Coefficient:
    """A number, or a list of numbers."""


_INTERVAL: dict[Any, Any] = {"mean": float, "low": float, "high": float, "median": (float, None)}
_SCORE: dict[Any, Any] = {
    "name": str, "kind": {"plan", "baseline"}, "solver": str, "grid": str, "nfe": int, "network_calls": int, "samples": int,
    "endpoint_mse": _INTERVAL, "frechet_teacher": (_INTERVAL, None), "frechet_data": (_INTERVAL, None),
}  # fmt: skip
_PLAN: dict[Any, Any] = {
    "format": {"solversearch-plan"}, "version": int, "prediction_type": {"epsilon", "v_prediction", "sample", "flow", "edm"},
    "guidance": float, "nfe": int, "network_calls": int,
    "nodes": [
        {
            "t": float, "alpha": float, "sigma": float, "guidance": (float, 1.0),
            "guidance_difference": ({"compute", "reuse"}, "compute"), "variant": (str, ""), "beta": (float, None),
        }
    ],
    "rows": [{"x": _Coefficient, "d": ([_Coefficient], ()), "delta": ([_Coefficient], ()), "z": ([_Coefficient], ())}],
    "variants": ({...: {"cost": float, "digest": (str, ""), "skips": ([str], ()), "reuses_features": (bool, False)}}, {}),
    "components": ({"bands": ([float], ()), "channels": ([[float]], ()), "patch": (int, 0)}, None),
    "start": ({"t": float, "alpha": float, "sigma": float}, None),
    "threshold": ({"kind": {"clamp", "dynamic"}, "limit": (float, 1.0), "percentile": (float, 0.995)}, None),
    "decisions": (dict, {}), "scores": ([_SCORE], ()),
    "provenance": {"model": str, "model_digest": str, "seed": (int, None), "versions": ({...: str}, {}), "command": (str, "")},
    "digest": str,
}  # fmt: skip
"""What a plan holds: a type, a list of one kind, an object by its keys, a set of words, or (kind, default) of what may be missing."""
_NEW = {"guidance_difference": 3, "variant": 3, "beta": 5}
"""Keys of nodes that are newer than the format, by their first version."""
_SINCE = {"components": 2, "variants": 3, "start": 4}
"""Keys of plans, by their first version."""
_MOST, _DEEPEST = 1000, 32
"""Evaluations, or fresh noises, of a plan; objects within each other in its decisions."""


def parse(text: str | bytes) -> ShippedPlan:
    """The plan of a JSON text. Raises ValueError where it is not one, is of another version, or was changed."""
    given = loaded(decoded(text))
    if not isinstance(given, dict) or given.get("format") != "solversearch-plan" or given.get("version") not in range(1, 6):
        raise ValueError("this is not a plan of version 1 to 5; a newer solversearch may have written it: export it again")
    content = _checked(given, _PLAN, "plan")
    _check_version(given, content)
    version = content["version"]
    nodes = tuple(Node(**node) for node in content["nodes"])
    components = Components(**content["components"]) if content["components"] else None
    start = Start(**content["start"]) if content["start"] else None
    for name, first in _SINCE.items():
        if version < first:
            del content[name]
    for name, first in _NEW.items():
        for node in content["nodes"] if version < first else ():
            del node[name]
    _leave_out_what_says_nothing(content.get("variants", {}))
    digest = content.pop("digest")
    if not _fits(content["decisions"], _DEEPEST):
        raise ValueError(f"decisions: nested deeper than {_DEEPEST}")
    if not belongs(digest, content):
        raise ValueError("the digest does not match the content: the plan was changed after it was written")
    plan = ShippedPlan(
        nodes,
        tuple(Row(**row) for row in content["rows"]),
        content["prediction_type"],
        content["guidance"],
        _threshold(content["threshold"]),
        bool(content["decisions"].get("input_shift")),
        digest,
        start,
        components=components,
    )
    if (content["nfe"], content["network_calls"]) != (plan.nfe, plan.network_calls):
        raise ValueError(f"nfe and network_calls are not what the table spends, {plan.nfe} and {plan.network_calls}")
    if any(node.reuses for node in nodes) and not plan.split:
        raise ValueError("some nodes reuse guidance differences, but no row has a coefficient for one")
    if max(plan.nfe, *(len(row.z) for row in plan.rows)) > _MOST:
        raise ValueError(f"more than {_MOST} evaluations or fresh noises")
    _check_features(plan, content.get("variants", {}))
    if plan.prediction_type == "epsilon" and any(node.alpha == 0 for node in plan.nodes):
        raise ValueError("an epsilon-predicting network has no data prediction at alpha = 0")
    return plan


def _check_version(given: dict[str, Any], content: dict[str, Any]) -> None:
    """Whether the plan is of the first version that can say what it has, and says nothing newer."""
    version, nodes = content["version"], content["nodes"]
    called = {node["variant"] for node in nodes} - {""}
    newest = (
        5
        if any(node["beta"] is not None for node in nodes)
        else 4
        if content["start"]
        else 3
        if called or any(node["guidance_difference"] == "reuse" for node in nodes)
        else 2
        if content["components"]
        else 1
    )
    if version != newest:
        raise ValueError(
            "version 2 is that of plans with components, 3 of plans with nodes that reuse or call variants, 4 of plans with a start, "
            "5 of plans with nodes that have a beta, 1 of others"
        )
    newer = [name for name, first in _SINCE.items() if version < first and name in given]
    newer += [name for name, first in _NEW.items() if version < first and any(name in node for node in given["nodes"])]
    if newer:
        raise ValueError(f"nodes and plans of version {version} have no {newer[0]}")
    if called != set(content["variants"]) or not all(each["cost"] > 0 for each in content["variants"].values()):
        raise ValueError("variants: they have to be those that nodes call, each with a cost above 0")


def _leave_out_what_says_nothing(variants: dict[str, Any]) -> None:
    for variant in variants.values():
        if not variant["reuses_features"]:
            del variant["reuses_features"]


def _check_features(plan: ShippedPlan, variants: dict[str, Any]) -> None:
    """Whether nodes that reuse features come after one that computed them."""
    computed = 0
    for i, (node, calls) in enumerate(zip(plan.nodes, plan.calls, strict=True)):
        variant = variants.get(node.variant, {})
        if variant.get("reuses_features") and (computed < calls or not variant["skips"]):
            raise ValueError(f"node {i} reuses features, but none before it computed them, in as many calls of the model's own network")
        computed = computed if node.variant else max(computed, calls)


def _checked(value: Any, kind: Any, where: str) -> Any:
    """The value, filled with defaults and its numbers as they are meant. Raises ValueError where it is of another kind."""
    if isinstance(kind, tuple):
        kind, default = kind
        if value is None and default is None:
            return None
    if kind is _Coefficient:
        kind = [float] if isinstance(value, list) else float
    if isinstance(kind, list) and isinstance(value, list):
        return tuple(_checked(each, kind[0], f"{where}.{number}") for number, each in enumerate(value))
    if isinstance(kind, dict) and isinstance(value, dict):
        keys: dict[Any, Any] = kind
        if ... in kind:
            keys = dict.fromkeys(value, kind[...])
        if unknown := [name for name in value if name not in keys]:
            raise ValueError(f"{where}: unknown key {unknown[0][:80]!r}")
        if missing := [name for name, inner in keys.items() if name not in value and not isinstance(inner, tuple)]:
            raise ValueError(f"{where}: {missing[0]} is missing")
        return {name: _checked(value[name], inner, f"{where}.{name}") if name in value else inner[1] for name, inner in keys.items()}
    if kind in (int, float) and isinstance(value, int | float) and not isinstance(value, bool):
        number = float(numbers(value)) or float(value)  # a zero keeps its sign
        if kind is float or (number.is_integer() and 0 <= number <= WHOLE):
            return kind(number)
    elif (isinstance(kind, type) and type(value) is kind) or (isinstance(kind, set) and isinstance(value, str) and value in kind):
        return value
    raise ValueError(f"{where}: it is not what the format has there")


def _fits(value: Any, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels > 0 and all(_fits(each, levels - 1) for each in inner)


def _threshold(content: dict[str, Any] | None) -> Callable[[Array], Array] | None:
    if content is None:
        return None
    if not (content["limit"] > 0 and 0 < content["percentile"] <= 1):
        raise ValueError("threshold: limit must be above 0, and percentile above 0 and at most 1")
    return clamp(content["limit"]) if content["kind"] == "clamp" else dynamic_threshold(content["percentile"], content["limit"])


def coefficients(prediction_type: str, alpha: float, sigma: float) -> tuple[float, float]:
    """(a, b) of D = a * x + b * output: the data prediction of a network that is given x = alpha * data + sigma * noise."""
    if prediction_type == "epsilon":
        return 1 / alpha, -sigma / alpha
    if prediction_type == "v_prediction":
        square = alpha**2 + sigma**2
        return alpha / square, -sigma / square
    if prediction_type == "flow":
        return 1 / (alpha + sigma), -sigma / (alpha + sigma)
    return 0.0, 1.0  # sample, and edm, whose preconditioned denoiser returns the data prediction itself
