"""The Pareto set of a search with several objectives: the candidates that no other beats in all of them."""

from collections.abc import Sequence

from solversearch.search.evaluating.evaluator import Result


def front(results: Sequence[Result]) -> list[Result]:
    """Those that no other result equals or beats in every objective and beats in one; by the first objective, best first."""

    def beaten(one: Result, by: Result) -> bool:
        pairs = list(zip(by.values, one.values, strict=True))
        return all(other <= own for other, own in pairs) and any(other < own for other, own in pairs)

    kept = [one for one in results if not any(beaten(one, other) for other in results)]
    different = {result.values: result for result in kept}
    return sorted(different.values(), key=lambda result: result.values)
