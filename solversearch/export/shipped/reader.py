"""Reads a plan of solversearch with the standard library. A plan that was changed after it was written is refused."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .runtime import Array, Node, Row, Tableau, clamp, dynamic_threshold


@dataclass(frozen=True)
class ShippedPlan(Tableau):
    """A table with what its consumers need besides. shifted: some node's time is not that of its alpha and sigma, on purpose."""

    prediction_type: str
    guidance: float
    threshold: Callable[[Array], Array] | None
    shifted: bool
    digest: str


def parse(text: str) -> ShippedPlan:
    """The plan of a JSON text. Raises ValueError where it is not one, is of another version, or was changed."""
    content: dict[str, Any] = json.loads(text)
    if content.get("format") != "solversearch-plan" or content.get("version") != 1:
        raise ValueError("this is not a plan of version 1; a newer solversearch may have written it: export it again")
    digest = content.pop("digest", "")
    written = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    if digest != "sha256:" + hashlib.sha256(written.encode()).hexdigest():
        raise ValueError("the digest does not match the content: the plan was changed after it was written")
    return ShippedPlan(
        tuple(Node(**node) for node in content["nodes"]),
        tuple(Row(row["x"], tuple(row["d"]), tuple(row["delta"]), tuple(row["z"])) for row in content["rows"]),
        content["prediction_type"],
        content["guidance"],
        _threshold(content["threshold"]),
        bool(content["decisions"].get("input_shift")),
        digest,
    )


def _threshold(content: dict[str, Any] | None) -> Callable[[Array], Array] | None:
    if content is None:
        return None
    if content["kind"] == "clamp":
        return clamp(content["limit"])
    return dynamic_threshold(content["percentile"], content["limit"])


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
