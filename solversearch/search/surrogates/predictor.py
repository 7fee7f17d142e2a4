"""The predictor: ln(loss) of tables before they are paid for, from what the surrogates say and what has been evaluated.

    ln(loss) = level + b (s - mean s) + residual(features)        s = ln(loss) on the surrogate

b is regressed with a prior of 1, worth `PRIOR` evaluations: where the surrogate ranks badly, b falls and the residual, learnt by trees
and a ridge regression, takes over. Evaluations of other NFE and guidance (`Record`) teach b and the residual, each group about
its own level.
"""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field

from solversearch.errors import UserError
from solversearch.judging.compare import Prediction, Tau
from solversearch.plan import Many
from solversearch.runtime import Tableau
from solversearch.schedules import Floats
from solversearch.search.fitting.fit import RIDGE
from solversearch.search.surrogates.gaussian import BANDS, PLACES, SUMMARY, summary
from solversearch.search.surrogates.surrogates import Surrogates

if TYPE_CHECKING:
    from sklearn.ensemble import ExtraTreesRegressor

PRIOR = 8
"""Evaluations that the trust in the surrogate is worth before any. As `DEVIATION`, `EVERY` and `TREES`, halved or doubled: within noise on
digits."""
DEVIATION = 0.2
"""Of ln(loss) from the surrogate's, before any evaluation."""
OTHERS = 0.3
"""Weight of a record of another NFE or guidance."""
EVERY = 8
"""New evaluations after which the model is fitted again, at the least; later a tenth of all."""
TREES = 40
WIDTH = 3 + 2 * PLACES + 1 + BANDS + SUMMARY
"""Numbers of a row of features: `Anchored.features`, `Gaussian.features` and `summary`."""
WINDOW = 32
"""Evaluations over which Kendall's tau is told."""
BAD = 0.2
"""Kendall tau below which a surrogate ranks badly."""


class Record(BaseModel):
    """One evaluation: features of the table and ln(loss)."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    nfe: int
    guidance: float
    features: Many[Annotated[float, Field(ge=-1e6, le=1e6)]]
    loss: Annotated[float, Field(ge=-1e6, le=1e6)]


class Predictor:
    """Predicts losses; told each evaluation. fitted: candidates are fitted before they are evaluated (`fit`), so here too."""

    def __init__(self, surrogates: Surrogates, fitted: bool = False, records: Sequence[Record] = (), seed: int = 0) -> None:
        self.surrogates, self.ridge, self.seed = surrogates, RIDGE if fitted else None, seed
        self.split = fitted and surrogates.guidance != 1
        self.earlier = tuple(records)
        if any(len(each.features) != WIDTH for each in self.earlier):
            raise UserError(f"the evaluations of an earlier run do not have {WIDTH} features each; they are of another version")
        self.tables: list[Tableau] = []
        self.rows: list[Floats] = []
        self.losses: list[float] = []
        self.told: list[tuple[Tableau, float]] = []
        self.foretold: list[tuple[float, float, float]] = []
        self.version = surrogates.version
        self._refit()

    def predict(self, tables: Sequence[Tableau]) -> tuple[Floats, Floats]:
        """Mean and standard deviation of ln(loss), (C,) each."""
        self.refresh()
        return self.model.predict(self.features(tables))

    def tell(self, tables: Sequence[Tableau], losses: ArrayLike) -> None:
        """Evaluated losses; those that are not positive and finite teach nothing."""
        pairs = zip(tables, np.asarray(losses).tolist(), strict=True)
        self.told += [(table, float(loss)) for table, loss in pairs if 0 < loss < np.inf]
        if len(self.told) >= EVERY:
            self.refresh()

    def _learn(self) -> None:
        """Foretells what was told since the last time, all at once, before it is learnt from."""
        if not self.told:
            return
        features = self.features([table for table, _ in self.told])
        both, learned = self.model.predict(features)[0], self.model.without(features)
        for k, (table, loss) in enumerate(self.told):
            self.tables.append(table)
            self.rows.append(features[k])
            self.losses.append(float(np.log(loss)))
            self.foretold.append((float(features[k, 0]), float(learned[k]), float(both[k])))
        self.told.clear()

    def records(self) -> tuple[Record, ...]:
        """All evaluations told, to start another search with."""
        self._learn()
        return tuple(
            Record(nfe=table.nfe, guidance=self.surrogates.guidance, features=tuple(row.tolist()), loss=loss)
            for table, row, loss in zip(self.tables, self.rows, self.losses, strict=True)
        )

    def tau_history(self) -> list[Tau]:
        """Of the last `WINDOW` evaluations, after every `EVERY` and after the last."""
        self._learn()
        counts = sorted({*range(EVERY, len(self.losses) + 1, EVERY), len(self.losses)})
        foretold = np.array(self.foretold).reshape(-1, 3)
        lasts = [(n, slice(max(n - WINDOW, 0), n)) for n in counts if n >= 2]
        return [
            Tau(
                evaluated=n, **{name: _tau(foretold[last, k], self.losses[last]) for k, name in enumerate(("surrogate", "learned", "both"))}
            )
            for n, last in lasts
        ]

    def predictions(self) -> list[Prediction]:
        """Of all that was told, in its order."""
        self._learn()
        foretold = np.exp(np.clip([both for *_, both in self.foretold], -300, 300)).tolist()
        measured = np.exp(self.losses).tolist()
        return [Prediction(predicted=p, measured=m) for p, m in zip(foretold, measured, strict=True)]

    @property
    def note(self) -> str | None:
        """One line where the surrogate ranks badly."""
        self._learn()
        n = len(self.losses)
        if n < 2 * PRIOR or (tau := _tau([each[0] for each in self.foretold], self.losses)) >= BAD:
            return None
        return (
            f"the surrogate ranks this model's candidates badly (Kendall tau {tau:.2f} over {n}): the search leans on evaluations instead"
        )

    def features(self, tables: Sequence[Tableau]) -> Floats:
        """What the surrogates say, ln(loss) first, and at the end what the tables look like (`SUMMARY` numbers); (C, F)."""
        return np.concatenate([self.surrogates.features(tables, self.ridge, self.split), summary(tables)], axis=1)

    def refresh(self) -> None:
        """Fits again where enough has been told, or where the surrogates have learnt something."""
        self._learn()
        changed = self.version != self.surrogates.version
        if changed and self.tables:
            self.rows = list(self.features(self.tables))
        if changed or len(self.losses) - self.known >= max(EVERY, self.known // 10):
            self._refit()

    def _refit(self) -> None:
        self.version, self.known = self.surrogates.version, len(self.losses)
        groups = [(each.nfe, each.guidance) for each in self.earlier]
        names = {name: k + 1 for k, name in enumerate(dict.fromkeys(groups))}
        rows = [*self.rows, *(np.array(each.features) for each in self.earlier)]
        group = np.array([0] * self.known + [names[name] for name in groups], dtype=int)
        self.model = _Model(rows, np.array([*self.losses, *(each.loss for each in self.earlier)]), group, self.seed)


class _Model:
    """Fitted to rows of features, the surrogate's ln(loss) first, and ln(loss) y; group 0 is this search, the others are earlier ones."""

    def __init__(self, rows: Sequence[Floats], y: Floats, group: NDArray[np.int_], seed: int) -> None:
        self.trees: ExtraTreesRegressor | None = None
        self.centre: float | None = None
        self.offset, self.b, self.variance = 0.0, 1.0, DEVIATION**2
        if not len(y):
            return
        x, own, weight = np.stack(rows), group == 0, np.where(group == 0, 1.0, OTHERS)
        if own.any():
            self.centre = float(x[own, 0].mean())
            self.offset = float((y - x[:, 0])[own].mean()) * own.sum() / (own.sum() + 1.0)

        def about(values: Floats) -> Floats:
            """Every group about its own mean: levels differ between searches."""
            return values - np.array([values[group == g].mean() for g in group])

        s, target = about(x[:, 0]), about(y)
        moment, square = (weight * s * target).sum(), (weight * s**2).sum()
        spread = square / weight.sum() + 1e-12
        self.b = float((PRIOR * spread + moment) / (PRIOR * spread + square))
        residual = target - self.b * s
        if len(y) < PRIOR:
            return
        from sklearn.linear_model import Ridge
        from sklearn.preprocessing import StandardScaler

        self.scaler = StandardScaler().fit(x[:, :-SUMMARY])
        self.ridge = Ridge(10.0).fit(self.scaler.transform(x[:, :-SUMMARY]), residual, weight)
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # a sample that no tree left out has no score of its own
            self.trees = _trees(TREES, seed).fit(x, residual, weight)
            self.alone = _trees(TREES // 2, seed).fit(x[:, -SUMMARY:], target, weight)
        self.known = weight.sum() / (weight.sum() + 2 * PRIOR)
        leftover = residual - self.trees.oob_prediction_
        self.variance = float((PRIOR * DEVIATION**2 + (weight * leftover**2).sum()) / (PRIOR + weight.sum()))

    def predict(self, features: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation, (C,) each."""
        s = features[:, 0]
        centre = s.mean() if self.centre is None else self.centre
        mean = centre + self.offset + self.b * (s - centre)
        variance = np.full(len(mean), self.variance)
        if self.trees is not None:
            each = np.stack([tree.predict(features) for tree in self.trees.estimators_])
            linear = self.ridge.predict(self.scaler.transform(features[:, :-SUMMARY]))
            mean += self.known * (each.mean(0) + np.clip(linear, -1, 1)) / 2
            variance += each.var(0)
        return mean, np.sqrt(variance)

    def without(self, features: Floats) -> Floats:
        """ln(loss) about its level, of a model that knows no surrogate."""
        return np.zeros(len(features)) if self.trees is None else self.alone.predict(features[:, -SUMMARY:])


def _trees(count: int, seed: int) -> "ExtraTreesRegressor":
    from sklearn.ensemble import ExtraTreesRegressor

    return ExtraTreesRegressor(count, min_samples_leaf=2, bootstrap=True, oob_score=True, random_state=seed)


def _tau(predicted: ArrayLike, losses: ArrayLike) -> float:
    from scipy.stats import kendalltau

    tau = float(kendalltau(predicted, losses).statistic)
    return tau if np.isfinite(tau) else 0.0
