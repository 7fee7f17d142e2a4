"""What an objective is: one number for a candidate, lower is better, made from what its samples and its table are.

Light, as all objectives are until they are asked for a value: they are listed without torch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite
from typing import TYPE_CHECKING, Literal

from solversearch.errors import UserError
from solversearch.runtime import Tableau

if TYPE_CHECKING:
    from torch import Tensor

    from solversearch.models.base import Clock, Model
    from solversearch.teacher import Teacher

TEMPERED = "tempered validation error"
"""What the mean of `endpoint.tempered` on validation noise is called; the plain mean is the mean error."""
Need = Literal["features", "states", "trajectory"]
"""A model's feature network; the inputs of every evaluation in `Outcome.states`; a teacher that kept its trajectory."""


@dataclass(frozen=True)
class Outcome:
    """A candidate that has been run from the teacher's noise.

    samples (n, *shape) are the table's results from the teacher's n noises; scale is `tempered`'s; states are the inputs of every
    evaluation, (n, *shape) each, kept where an objective needs them. batch_size and clock are for objectives that call the network.
    """

    model: "Model"
    teacher: "Teacher"
    table: Tableau
    samples: "Tensor"
    scale: float | None = None
    states: "tuple[Tensor, ...] | None" = None
    batch_size: int = 512
    clock: "Clock | None" = None


@dataclass(frozen=True)
class Objective:
    """A number to minimise. cost says what it costs beside the sampling, source where it comes from.

    bound is that of the polish (`search.fitting.polish`): how many median errors a sample may have before it counts less.
    """

    name: str
    function: Callable[[Outcome], float]
    cost: str
    source: str
    needs: frozenset[Need] = frozenset()
    direction: Literal["minimize"] = "minimize"
    bound: float = 3.0

    def check(self, model: "Model") -> None:
        """Raises `UserError` where the model cannot serve this objective."""
        if "features" in self.needs and model.features is None:
            raise UserError(
                f"objective {self.name!r} needs a feature network; model {model.name!r} has none: add `features` to its factory, "
                "or choose another objective"
            )

    @property
    def unit(self) -> str:
        """What its value in a search is called."""
        return TEMPERED if self.name == "endpoint" else f"{self.name.replace('endpoint', 'tempered endpoint error')}, validation noise"

    def value(self, outcome: Outcome) -> float:
        """Raises `NotFinite`, which fails the candidate and not the search, where the number is not finite."""
        import torch

        from solversearch.models.base import NotFinite

        self.check(outcome.model)
        if "states" in self.needs and outcome.states is None:
            raise ValueError(f"objective {self.name!r} needs the states of every evaluation")
        if "trajectory" in self.needs and not len(outcome.teacher.angles):
            raise ValueError(f"objective {self.name!r} needs a teacher that kept its trajectory")
        with torch.no_grad():
            value = float(self.function(outcome))
        if not isfinite(value):
            raise NotFinite(f"objective {self.name!r} is {value} for this candidate")
        return value


def features_of(outcome: Outcome) -> "Tensor":
    """Features of the samples, (n, F) float64 on the CPU. Raises `NotFinite`."""
    from solversearch.models.base import NotFinite

    assert outcome.model.features is not None
    features = _last(outcome.model.features, outcome.samples)
    if not features.isfinite().all():  # which decompositions of matrices refuse, each in its own words
        raise NotFinite("the features of this candidate's samples are not finite")
    return features


def teacher_features(outcome: Outcome) -> "Tensor":
    """Features of the teacher's endpoints, likewise."""
    assert outcome.model.features is not None
    return _kept(outcome.model.features, outcome.teacher.endpoint)


def _features(features: "Callable[[Tensor], Tensor]", samples: "Tensor") -> "Tensor":
    return features(samples).double().cpu()


_kept = lru_cache(maxsize=4)(_features)
"""A search asks for the same teacher's features with every candidate."""
_last = lru_cache(maxsize=1)(_features)
"""Several objectives ask for the features of one candidate."""
