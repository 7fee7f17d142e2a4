"""Feature error: the endpoint error as a feature network sees it.

    mean_k |f(x_k) - f(y_k)|^2 / sum_j Var f_j(y)

for samples x_k and the teacher's endpoints y_k from the same noise. The variance over the teacher's endpoints is the unit: two
that have nothing to do with each other are 2 apart, whatever the scale of the features. Perceptual distances to a teacher are what
learned solvers are trained on (Tong et al. 2024, LD3, arXiv:2405.15506).
"""

from solversearch.judging.objectives.base import Objective, Outcome, features_of, teacher_features


def _value(outcome: Outcome) -> float:
    reached, wanted = features_of(outcome), teacher_features(outcome)
    return float((reached - wanted).square().sum(1).mean() / wanted.var(0).sum())


OBJECTIVE = Objective(
    "feature",
    _value,
    cost="the feature network, once a sample",
    source="Tong et al. 2024, arXiv:2405.15506, with the model's own features",
    needs=frozenset({"features"}),
)
