"""Made plan_v5.json: `python -m tests.assets.make_plan_v5 PATH`. The file stays as it is for as long as version 5 is read."""

import sys

from solversearch.plan import Plan, Provenance
from solversearch.runtime import Node, Row


def make() -> Plan:
    """A plan of two nodes of a mean-reverting model."""
    return Plan(
        version=5,
        prediction_type="sample",
        guidance=1.0,
        nfe=2,
        network_calls=2,
        nodes=(Node(1.0, 0.005, 0.4, beta=0.995), Node(0.25, 0.25, 0.375, beta=0.75)),
        rows=(Row(0.4), Row(0.375, (0.245,)), Row(0.0, (-0.125, 1.125))),
        provenance=Provenance(model="restorer", model_digest="0" * 64, seed=7),
    )


if __name__ == "__main__":
    make().write(sys.argv[1])
