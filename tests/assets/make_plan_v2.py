"""Made plan_v2.json: `python -m tests.assets.make_plan_v2 PATH`. The file stays as it is for as long as version 2 is read."""

import sys

from solversearch.components import Components
from solversearch.plan import Plan, Provenance
from solversearch.runtime import Node, Row


def make() -> Plan:
    """A plan with components: three bands of two channel directions, packed samples, split guidance and fresh noise."""
    return Plan(
        version=2,
        prediction_type="flow",
        guidance=3.5,
        nfe=2,
        network_calls=4,
        nodes=(Node(1.0, 0.0, 1.0, 3.5), Node(0.4, 0.6, 0.4, 3.5)),
        rows=(
            Row((1.0, 1.0, 1.0, 0.875, 0.875, 1.0)),
            Row((0.5, 0.25, 1 / 3, 0.5, 0.25, -0.0), ((0.75, 0.5, 1e-7, 0.75, 0.5, 2 / 3),), (0.125,)),
            Row(0.0, ((-0.25, 0.0, 0.0, 0.0, 0.0, 1e22), 1.0), ((0.0, 0.1, 0.0, 0.0, 0.0, 0.0), 0.0), ((0.0, 0.0, 0.01, 0.0, 0.0, 0.02),)),
        ),
        components=Components(bands=(0.05, 0.2, 1.0), channels=((0.6, 0.8), (-0.8, 0.6)), patch=2),
        decisions={"components": {"bands": 3, "channels": True}},
        provenance=Provenance(model="flow", model_digest="0" * 64, seed=7),
    )


if __name__ == "__main__":
    make().write(sys.argv[1])
