"""Pareto sets."""

from hypothesis import given
from hypothesis import strategies as st

from solversearch.search.evaluating.evaluator import Evaluated
from solversearch.search.evaluating.pareto import front


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_nothing_in_the_front_is_beaten_and_everything_else_is(pairs: list[tuple[int, int]]) -> None:
    results = [Evaluated(None, None, (float(a), float(b)), {}) for a, b in pairs]  # type: ignore[arg-type]
    kept = [result.values for result in front(results)]
    assert len(set(kept)) == len(kept) and kept == sorted(kept)
    for a, b in pairs:
        beaten = any(c <= a and d <= b and (c, d) != (a, b) for c, d in pairs)
        assert ((a, b) in kept) != beaten
