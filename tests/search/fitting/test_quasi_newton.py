"""The minimisation that keeps the best iterate on other noise."""

import numpy as np
import pytest

from solversearch.schedules import Floats
from solversearch.search.fitting.quasi_newton import best_iterate

LEAST = np.array([3.0, -2.0])
START = np.zeros(2)


def bowl(x: Floats) -> tuple[float, Floats]:
    apart = np.array([1.0, 10.0]) * (x - LEAST)
    return float(apart @ (x - LEAST)), 2 * apart


@pytest.mark.parametrize("method", ["BFGS", "L-BFGS-B"])
def test_ends_at_the_least_where_the_other_noise_agrees(method: str) -> None:
    told: list[tuple[int, float]] = []
    found = best_iterate(bowl, lambda x: bowl(x)[0], START, method, 50, progress=lambda i, loss: told.append((i, loss)))
    np.testing.assert_allclose(found, LEAST, atol=1e-4)
    assert [i for i, _ in told] == list(range(1, len(told) + 1)) and told[-1][1] == bowl(found)[0]


def test_keeps_the_iterate_that_the_other_noise_prefers() -> None:
    seen: list[Floats] = []

    def distance(x: Floats) -> float:  # to a place on the way
        seen.append(x)
        return float(np.abs(x - LEAST / 3).sum())

    found = best_iterate(bowl, distance, START, "BFGS", 50)
    assert found.tolist() == min(seen, key=lambda x: float(np.abs(x - LEAST / 3).sum())).tolist() != seen[-1].tolist()
    assert best_iterate(bowl, lambda x: float(np.abs(x).sum()), START, "BFGS", 50) is START


def test_patience_budget_and_bounds_end_it() -> None:
    def iterations(**options: object) -> list[int]:
        told: list[int] = []
        best_iterate(bowl, lambda x: float(np.abs(x).sum()), START, "BFGS", 50, progress=lambda i, _: told.append(i), **options)  # type: ignore[arg-type]
        return told

    whole = iterations()
    assert len(whole) > 3 and iterations(every=2) == [i for i in whole if i % 2 == 0]
    assert iterations(enough=lambda: True) == []
    within = best_iterate(bowl, lambda x: bowl(x)[0], START, "L-BFGS-B", 50, bounds=[(0.0, 1.0), (-1.0, 0.0)])
    np.testing.assert_allclose(within, [1.0, -1.0], atol=1e-6)
