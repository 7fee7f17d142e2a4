"""Made plan_v3.json: `python -m tests.assets.make_plan_v3 PATH`. The file stays as it is for as long as version 3 is read."""

import sys

from solversearch.plan import Plan, PlanVariant, Provenance
from solversearch.runtime import Node, Row


def make() -> Plan:
    """A plan of three nodes, of which the second and the third use guidance differences of the first, the last in a smaller network."""
    return Plan(
        version=3,
        prediction_type="v_prediction",
        guidance=7.5,
        nfe=3,
        network_calls=4,
        nodes=(
            Node(999.0, 0.0, 1.0, 7.5),
            Node(601.5, 0.4, 0.9, guidance_difference="reuse"),
            Node(250.0, 0.8, 0.6, guidance_difference="reuse", variant="small"),
        ),
        rows=(
            Row(1.0),
            Row(0.9, (0.375,)),
            Row(0.6, (-0.25, 0.7), (2 / 3,)),
            Row(0.0, (0.0, -0.125, 1.125), (2.5, 0.0)),
        ),
        variants={"small": PlanVariant(cost=0.25, digest="1" * 64)},
        decisions={"guidance": [7.5, 1.0, 1.0]},
        provenance=Provenance(model="sd", model_digest="0" * 64, seed=7),
    )


if __name__ == "__main__":
    make().write(sys.argv[1])
