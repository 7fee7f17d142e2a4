"""The predictor, and the plan found on the surrogate alone."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from solversearch.judging.baselines import baselines
from solversearch.judging.objectives.endpoint import endpoint_mse
from solversearch.models.base import Model
from solversearch.runtime import Row, Tableau
from solversearch.sampling import sample
from solversearch.schedules import Floats
from solversearch.search.surrogates.instant import instant
from solversearch.search.surrogates.predictor import Predictor, Record
from solversearch.search.surrogates.surrogates import Surrogates
from solversearch.teacher import Teacher


@pytest.fixture(scope="module")
def surrogates(digits: Model, fitting: Teacher, validation: Teacher) -> Surrogates:
    return Surrogates.of(digits, fitting, validation)


@pytest.fixture(scope="module")
def tables(digits: Model) -> list[Tableau]:
    return [each.table for each in baselines(digits, 4, 1.0) if not each.table.stochastic][::8]


@pytest.fixture(scope="module")
def losses(digits: Model, tables: list[Tableau], validation: Teacher) -> Floats:
    return np.array([float(endpoint_mse(sample(digits, table, validation), validation.endpoint).mean()) for table in tables])


def test_before_any_evaluation_it_is_the_surrogate(surrogates: Surrogates, tables: list[Tableau]) -> None:
    mean, deviation = Predictor(surrogates).predict(tables)
    np.testing.assert_allclose(mean, np.log(surrogates.anchored.losses(tables)), atol=1e-6)
    assert (deviation > 0).all()


def test_learns_what_the_surrogate_gets_wrong(surrogates: Surrogates, tables: list[Tableau], losses: Floats) -> None:
    """Losses that are the surrogate's to a power, and wrong by a factor: level and slope are found."""
    wrong = 3 * surrogates.anchored.losses(tables) ** 0.5
    predictor = Predictor(surrogates)
    predictor.tell(tables[::2], wrong[::2])
    mean, deviation = predictor.predict(tables[1::2])
    truth = np.log(wrong[1::2])
    before = Predictor(surrogates).predict(tables[1::2])[0]
    assert np.abs(mean - truth).mean() < 0.2 * np.abs(before - truth).mean()
    assert (deviation > 0).all() and predictor.note is None


def test_same_evaluations_same_predictions(surrogates: Surrogates, tables: list[Tableau], losses: Floats) -> None:
    results = []
    for _ in range(2):
        predictor = Predictor(surrogates, seed=3)
        predictor.tell(tables, losses)
        results.append(predictor.predict(tables[:5]))
    np.testing.assert_array_equal(results[0], results[1])


def test_leans_less_on_a_surrogate_that_ranks_badly(surrogates: Surrogates, tables: list[Tableau]) -> None:
    said = np.log(surrogates.anchored.losses(tables))
    backwards = np.exp(said.mean() - said)
    predictor = Predictor(surrogates)
    for first in range(0, len(tables), 8):
        predictor.tell(tables[first : first + 8], backwards[first : first + 8])
    assert predictor.note is not None and "ranks" in predictor.note and "\n" not in predictor.note
    mean = predictor.predict(tables)[0]
    assert np.corrcoef(mean, np.log(backwards))[0, 1] > 0.8
    last = predictor.tau_history()[-1]
    assert last.evaluated == len(tables) and last.surrogate < -0.5 < last.both


def test_taus_are_of_predictions_made_before(surrogates: Surrogates, tables: list[Tableau], losses: Floats) -> None:
    predictor = Predictor(surrogates)
    for table, loss in zip(tables[:20], losses[:20], strict=True):
        predictor.tell([table], [loss])
    history = predictor.tau_history()
    assert [tau.evaluated for tau in history] == [8, 16, 20]
    assert history[-1].surrogate > 0.5 and history[0].learned == 0  # nothing was learnt yet
    pairs = predictor.predictions()
    np.testing.assert_allclose([pair.measured for pair in pairs], losses[:20])
    first = Predictor(surrogates).predict(tables[:8])[0]
    np.testing.assert_allclose([pair.predicted for pair in pairs[:8]], np.exp(first), rtol=1e-5)


def test_starts_from_earlier_records(surrogates: Surrogates, tables: list[Tableau], losses: Floats) -> None:
    other = Predictor(surrogates)
    other.tell(tables, 1 / losses)  # a search in which the surrogate was always wrong
    stored = json.loads(json.dumps([record.model_dump() for record in other.records()]))
    records = [Record.model_validate({**each, "nfe": 7}) for each in stored]
    mean = Predictor(surrogates, records=records).predict(tables)[0]
    cold = Predictor(surrogates).predict(tables)[0]
    assert np.corrcoef(mean, np.log(1 / losses))[0, 1] > np.corrcoef(cold, np.log(1 / losses))[0, 1] + 0.5


def test_failures_and_tables_that_run_away(surrogates: Surrogates, tables: list[Tableau], losses: Floats) -> None:
    away = replace(tables[0], rows=(*tables[0].rows[:-1], Row(1e30, tables[0].rows[-1].d)))
    predictor = Predictor(surrogates)
    predictor.tell([away, *tables[:12]], [float("nan"), *losses[:12]])
    predictor.tell([away], [float("inf")])
    assert len(predictor.records()) == 12
    mean, deviation = predictor.predict([tables[20], away])
    assert np.isfinite(mean).all() and np.isfinite(deviation).all() and mean[1] > mean[0]


def test_follows_surrogates_that_have_observed(digits: Model, fitting: Teacher, validation: Teacher, tables: list[Tableau]) -> None:
    surrogates = Surrogates.of(digits, fitting, validation)
    predictor = Predictor(surrogates)
    predictor.tell(tables[:10], surrogates.anchored.losses(tables[:10]) * 2)
    before = predictor.predict(tables[10:12])[0]
    surrogates.observe(tables[:4])
    after = predictor.predict(tables[10:12])[0]
    assert not np.allclose(before, after)


def test_fitted_candidates_are_fitted_first(surrogates: Surrogates, tables: list[Tableau]) -> None:
    plain, fitted = (Predictor(surrogates, fitted=fitted).predict(tables[:6])[0] for fitted in (False, True))
    assert (fitted < plain).all()


def test_instant_plan_beats_the_best_baseline_without_the_network(
    digits: Model, surrogates: Surrogates, held_out: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def error(table: Tableau) -> float:
        return float(endpoint_mse(sample(digits, table, held_out), held_out.endpoint).mean())

    best = min(error(each.table) for each in baselines(digits, 3, 1.0) if each.grid in ("quadratic", "ays_sdxl", "linspace"))

    def never(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("the network was evaluated")

    with monkeypatch.context() as patch:
        patch.setattr(type(digits.network), "forward", never)
        table = instant(surrogates, 3)
        assert instant(surrogates, 3) == table
    assert table.nfe == 3 and error(table) < 0.7 * best


def test_instant_plan_at_whole_times(surrogates: Surrogates) -> None:
    table = instant(surrogates, 4, integer=True)
    assert all(node.t == round(node.t) for node in table.nodes)
