"""Made plan_v4.json: `python -m tests.assets.make_plan_v4 PATH`. The file stays as it is for as long as version 4 is read."""

import sys

from solversearch.plan import Plan, Provenance
from solversearch.runtime import Node, Row, Start


def make() -> Plan:
    """A plan of two nodes that starts from pictures at a noise level above the first."""
    return Plan(
        version=4,
        prediction_type="v_prediction",
        guidance=1.0,
        nfe=2,
        network_calls=2,
        nodes=(Node(500.0, 0.6, 0.8), Node(125.0, 0.96, 0.28)),
        rows=(Row(1.0), Row(0.375, (2 / 3,)), Row(0.0, (-0.125, 1.125))),
        start=Start(599.0, 0.48, 0.88),
        decisions={"start": 0.6},
        provenance=Provenance(model="sd", model_digest="0" * 64, seed=7),
    )


if __name__ == "__main__":
    make().write(sys.argv[1])
