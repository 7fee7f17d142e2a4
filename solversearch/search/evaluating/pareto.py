"""Pareto sets: what nothing else beats in all that counts."""

from collections.abc import Sequence

from solversearch.search.evaluating.evaluator import Evaluated


def undominated(points: Sequence[Sequence[float]]) -> list[int]:
    """The places of those that no other point equals or beats in every number and beats in one, less being better."""

    def beaten(one: Sequence[float], by: Sequence[float]) -> bool:
        pairs = list(zip(by, one, strict=True))
        return all(other <= own for other, own in pairs) and any(other < own for other, own in pairs)

    return [place for place, one in enumerate(points) if not any(beaten(one, other) for other in points)]


def front(results: Sequence[Evaluated]) -> list[Evaluated]:
    """The Pareto set of a search with several objectives, by the first of them, best first; of equals one."""
    kept = [results[place] for place in undominated([result.values for result in results])]
    return sorted({result.values: result for result in kept}.values(), key=lambda result: result.values)
