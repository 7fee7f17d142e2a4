"""How many candidates `s3` evaluates until it has what random search finds in 500, on digits at 5 evaluations; by hand:

python -m tests.benchmarks.s3_against_random
"""

import statistics

import optuna

from solversearch import models
from solversearch.models.base import Model
from solversearch.search.pipeline import run_stages
from solversearch.search.settings import Settings
from solversearch.search.stages.task import Task
from solversearch.spaces import SearchSpace

TARGET = 30


def course(model: Model, strategy: str, trials: int, seed: int, guidance: float) -> list[float]:
    """The best value after each candidate, every one evaluated on all validation samples; both strategies try the same starts first."""
    settings = Settings.of(SearchSpace.named("s3"), nfe=5, guidance=guidance, strategy=strategy, trials=trials, seed=seed)
    settings = settings.model_copy(update={"validation_samples": 255}).sized(model)  # too few to halve
    return run_stages(Task(model, settings, lambda *_: None)).course


def main() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    model = models.load("digits")
    for guidance in (1.0, 4.0):
        counts = []
        for seed in range(5):
            wanted = course(model, "random", 500, seed, guidance)[-1]
            reached = course(model, "s3", 60, seed, guidance)
            counts.append(next((i + 1 for i, best in enumerate(reached) if best <= wanted), len(reached) + 1))
            print(f"guidance {guidance:g}, seed {seed}: random reaches {wanted:.3g}, s3 after {counts[-1]} (61: not in 60)", flush=True)
        print(f"guidance {guidance:g}: median {statistics.median(counts)}, target {TARGET}")


if __name__ == "__main__":
    main()
