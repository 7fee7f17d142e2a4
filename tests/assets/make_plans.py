"""Made plan_v2.json to plan_v5.json: `python -m tests.assets.make_plans VERSION PATH`. Each stays for as long as its version is read."""

import sys

from solversearch.components import Components
from solversearch.plan import Plan, PlanVariant, Provenance
from solversearch.runtime import Node, Row, Start


def version_2() -> Plan:
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


def version_3() -> Plan:
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


def version_4() -> Plan:
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


def version_5() -> Plan:
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
    {"2": version_2, "3": version_3, "4": version_4, "5": version_5}[sys.argv[1]]().write(sys.argv[2])
