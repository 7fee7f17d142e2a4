"""FID: Frechet distance to real images, in the model's feature space (Heusel et al. 2017, arXiv:1706.08500).

Real are the images of a reference, else the model's own data; a model that has neither is compared with its teacher, as `frechet` does.
The number grows as samples get fewer: it ranks candidates on the same noise, but only tens of thousands of samples give one that compares
with published FIDs.
"""

from solversearch.judging.objectives.base import Objective, Outcome, features_of, teacher_features


def _value(outcome: Outcome) -> float:
    from solversearch.judging.distances import frechet_distance

    real = outcome.model.real
    return float(frechet_distance(features_of(outcome), teacher_features(outcome) if real is None else real.gaussian))


OBJECTIVE = Objective(
    "fid",
    _value,
    cost="the feature network, once a sample, and eigenvalues of a matrix of the smaller of samples and features",
    source="Heusel et al. 2017, arXiv:1706.08500; Parmar et al. 2022, arXiv:2104.11222",
    needs=frozenset({"features"}),
)
