"""AutoDiffusion's evolutionary search (Li et al. 2023, arXiv:2309.10438), over any space.

An epoch is a population of 50: 25 mutations of the best ten so far, in which every decision is drawn anew with probability 0.25,
15 crossovers of two of them, and 10 random candidates. The first population are the starts and random candidates.
"""

import numpy as np
from optuna import Study

from solversearch.search.strategies.proposer import Proposer
from solversearch.spaces import Params

POPULATION, MUTATIONS, CROSSOVERS = 50, 25, 15
PARENTS = 10
RATE = 0.25

_CHILDREN = 16
"""Made for every proposal, of which the first new one is taken."""


class Evolution(Proposer):
    """Parents are those of the epochs before, so that the proposals of an epoch do not depend on each other."""

    def group(self, number: int) -> int:
        """What is left of the epoch."""
        return POPULATION - number % POPULATION

    def propose(self, study: Study, number: int, rng: np.random.Generator) -> Params:
        epoch, place = divmod(number, POPULATION)
        results = (result.params for result in self.history.results if result.number < epoch * POPULATION)
        parents = [params for params, _ in zip(results, range(PARENTS), strict=False)]
        if not parents or place >= MUTATIONS + CROSSOVERS:
            return self.random(rng)
        rows = self.genome.encode(parents)
        one, other = rows[rng.integers(len(rows), size=(2, _CHILDREN))]
        children = self.genome.redrawn(one, rng, RATE) if place < MUTATIONS else self.genome.crossed(one, other, rng)
        return self.new(self.genome.decode(children)) or self.random(rng)
