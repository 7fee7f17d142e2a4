"""Frechet distance to the teacher's samples from the same noise, in the model's feature space (Heusel et al. 2017, arXiv:1706.08500)."""

from solversearch.judging.objectives.base import Objective, Outcome, features_of, teacher_features


def _value(outcome: Outcome) -> float:
    from solversearch.judging.distances import frechet_distance

    return float(frechet_distance(features_of(outcome), teacher_features(outcome)))


OBJECTIVE = Objective(
    "frechet",
    _value,
    cost="the feature network, once a sample, and a singular value decomposition of the smaller of samples and features",
    source="Heusel et al. 2017, arXiv:1706.08500",
    needs=frozenset({"features"}),
)
