"""Kernel distance (KID): the squared maximum mean discrepancy of features under a cubic kernel (Binkowski et al. 2018, arXiv:1801.01401).

To the images of a reference where it kept features of them; else to the teacher's samples from the same noise, in pairs.
All samples, no subsets.
"""

from solversearch.judging.objectives.base import Objective, Outcome, features_of, teacher_features


def _value(outcome: Outcome) -> float:
    from solversearch.judging.distances import kernel_distance

    real = outcome.model.real if outcome.model.reference else None
    if real is None or real.features is None:
        return float(kernel_distance(features_of(outcome), teacher_features(outcome), paired=True))
    return float(kernel_distance(features_of(outcome), real.features.double(), paired=False))


OBJECTIVE = Objective(
    "kid",
    _value,
    cost="the feature network, once a sample, and products of all pairs of samples",
    source="Binkowski et al. 2018, arXiv:1801.01401",
    needs=frozenset({"features"}),
)
