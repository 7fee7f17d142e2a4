"""The multi-stage search S3 (Liu et al. 2023, arXiv:2312.07243): evolution whose children a predictor ranks before any is paid for.

First come the starts and a few random candidates. Then every generation has the loss predicted of children of the best evaluated
candidates and of as many random ones, goes on to breed those that look best, and after a few such rounds proposes a batch, whose true
losses teach the predictor for the next generation. Candidates rank by the lower confidence bound mean - KAPPA * standard deviation of
ln(loss).

As published: parents uniform in the best 15, crossover with probability 0.3, mutation of up to 0.3 of the decisions. How many decisions
a child changes and how far its numbers move are drawn log-uniformly, so that some children explore while others refine.
"""

import numpy as np
from optuna import Study

from solversearch.schedules import Floats
from solversearch.search.strategies.proposer import Proposer
from solversearch.spaces import Params

RANDOM = 4
"""Random candidates after the starts."""
PARENTS, CROSSOVER, RATE = 15, 0.3, 0.3
STEPS = (0.003, 0.3)
"""Standard deviations of the steps of numbers, as a fraction of their range."""
ROUNDS = 6
"""Of breeding and prediction within a generation, where there is a predictor."""
LATER = 16
"""Generations after the first predict 1/LATER as many candidates: they start from what the first has found."""
KAPPA = 1.0
BATCH, EXPLORING = 8, 1
"""Proposals of a generation, and how many of them are taken from its first round without regard to their rank."""
APART = 0.02
"""Least distance of two proposals of a batch (`Genome.distance`): close ones teach nothing new."""

_KEY = "s3 batch"
_UNRANKED = 16


class S3(Proposer):
    """The last batches are kept in the study, by the trial that they begin with: a search that is resumed within one goes on with it."""

    _batch: list[Params] | None = None

    def propose(self, study: Study, number: int, rng: np.random.Generator) -> Params:
        if number < len(self.context.starts) + RANDOM or not self.history.results:
            return self.random(rng)
        if self.context.predict is None:
            return self.new(self.genome.decode(self._bred(self._parents(), rng, _UNRANKED))) or self.random(rng)
        batches: dict[str, list[Params]] = study.user_attrs.get(_KEY, {})
        if self._batch is None:
            begun = [int(first) for first in batches if int(first) <= number]
            self._batch = batches[str(max(begun))] if begun else None
        proposal = self.new(self._batch or [])
        if proposal is None:
            children = self.context.children // (1 if self._batch is None else LATER)
            self._batch = self._generation(rng, max(children // (ROUNDS + 1), 1))
            kept = {first: batch for first, batch in batches.items() if int(first) >= number - 2 * BATCH}
            study.set_user_attr(_KEY, {**kept, str(number): self._batch})
            proposal = self.new(self._batch)
        return proposal or self.random(rng)

    def group(self, number: int) -> int:
        """The starts and the random candidates, then a batch: none is proposed before the losses of the batch before are known."""
        return max(len(self.context.starts) + RANDOM - number, 0) or BATCH

    def _parents(self) -> Floats:
        return self.genome.encode([result.params for result in self.history.results[:PARENTS]])

    def _bred(self, parents: Floats, rng: np.random.Generator, count: int) -> Floats:
        one, other = parents[rng.integers(len(parents), size=(2, count))]
        children = np.where(rng.random((count, 1)) < CROSSOVER, self.genome.crossed(one, other, rng), one)
        rate = np.exp(rng.uniform(np.log(min(1 / children.shape[1], RATE)), np.log(RATE), count))
        step = np.exp(rng.uniform(np.log(STEPS[0]), np.log(STEPS[1]), count))
        return self.genome.mutated(children, rng, rate, step)

    def _bound(self, rows: Floats) -> Floats:
        assert self.context.predict is not None
        mean, deviation = self.context.predict(self.genome.decode(rows))
        bound = np.asarray(mean, float) - KAPPA * np.asarray(deviation, float)
        return np.where(np.isnan(bound), np.inf, bound)

    def _generation(self, rng: np.random.Generator, count: int) -> list[Params]:
        """The batch: of all rounds the best that are not too close to each other, and unranked ones of the first round."""
        evaluated = self._parents()
        first = rows = np.unique(np.vstack([self._bred(evaluated, rng, count), self.genome.random(rng, count)]), axis=0)
        bound = self._bound(rows)
        for _ in range(ROUNDS - 1):
            best = rows[np.argsort(bound, kind="stable")[:PARENTS]]
            children = np.unique(self._bred(np.vstack([evaluated, best]), rng, count), axis=0)
            rows, bound = np.vstack([rows, children]), np.concatenate([bound, self._bound(children)])
        batch: dict[str, Params] = {}
        self._fill(batch, rows[np.argsort(bound, kind="stable")], BATCH - EXPLORING)
        self._fill(batch, rng.permutation(first), BATCH)
        return list(batch.values())

    def _fill(self, batch: dict[str, Params], rows: Floats, size: int) -> None:
        """Adds the first rows that are new and not too close to what the batch, by signature, has."""
        far = np.ones(len(rows), bool)
        for row in self.genome.encode(list(batch.values())):
            far &= self.genome.distance(rows, row) >= APART
        for i, row in enumerate(rows):
            if len(batch) == size:
                break
            if far[i]:
                params = self.genome.decode(row[None])[0]
                signature = self.history.signature(params)
                if signature not in batch and signature not in self.history.known:
                    batch[signature] = params
                    far &= self.genome.distance(rows, row) >= APART
