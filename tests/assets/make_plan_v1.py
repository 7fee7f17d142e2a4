"""Made plan_v1.json: `python -m tests.assets.make_plan_v1 PATH`. The file stays as it is for as long as version 1 is read."""

import sys

from solversearch.plan import Interval, Plan, Provenance, Score, Threshold
from solversearch.runtime import Node, Row


def make() -> Plan:
    """A plan that uses every key: split guidance, fresh noise, a threshold, scores, text beyond ASCII, numbers hard to print."""
    return Plan(
        prediction_type="v_prediction",
        guidance=7.5,
        nfe=3,
        network_calls=6,
        nodes=(Node(999.0, 0.0, 1.0, 7.5), Node(500.25, 0.1 + 0.2, 0.9539392014169457, 7.5), Node(1e-5, 1.0, 5e-324, 1.0)),
        rows=(
            Row(1.0),
            Row(0.5, (1 / 3,), (-0.0,)),
            Row(-1.7976931348623157e308, (0.0, 2.0), (0.1,), (0.25,)),
            Row(0.0, (1e22, -1e-7, 1.0), (0.0, 0.0, -3.5), (0.0, 1e16)),
        ),
        threshold=Threshold(kind="dynamic", limit=1.0, percentile=0.995),
        decisions={"solver": "unipc", "steps": [{"order": 1}, {"order": 2, "ratio": 1.05}], "müde": "\u2028", "none": None},
        scores=(
            Score(
                name="this plan", kind="plan", solver="fitted", grid="searched", nfe=3, network_calls=6, samples=512,
                endpoint_mse=Interval(mean=0.0125, low=0.011, high=0.014, median=0.009),
                frechet_teacher=Interval(mean=0.5, low=0.25, high=0.75),
            ),
            Score(
                name="DPM++2M", kind="baseline", solver="dpmpp_2m", grid="logsnr", nfe=3, network_calls=6, samples=512,
                endpoint_mse=Interval(mean=0.025, low=0.02, high=0.03),
            ),
        ),
        provenance=Provenance(model="digits", model_digest="0" * 64, seed=7, versions={"solversearch": "0.1.0"}, command="optimize"),
    )  # fmt: skip


if __name__ == "__main__":
    make().write(sys.argv[1])
