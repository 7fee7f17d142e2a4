"""How near a plan that was regressed comes to one that was searched for the same configuration, on held-out noise.

    python -m tests.benchmarks.cpr [--model digits] [--kind ratios|coefficients] [--samples 512]

Run by hand; minutes. Two kinds of plans: `ratios`, DC-Solver's, fitted jointly on the quadratic grid; and `coefficients`, the best of
four solvers on four grids with every coefficient fitted and then, with the times, polished to the end. Both are searched on a few
configurations, regressed (coefficients also tuned), and predicted for others, where plans are searched for comparison only.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from pydantic import JsonValue
from rich.console import Console
from rich.table import Table

from solversearch import cpr, models
from solversearch.grids import grid
from solversearch.judging.objectives.endpoint import endpoint_mse, tempered
from solversearch.models.base import Denoiser, Model
from solversearch.plan import Plan, Provenance
from solversearch.runtime import Tableau
from solversearch.sampling import sample
from solversearch.schedules import Floats
from solversearch.search.fitting import compensation
from solversearch.search.fitting.descent import descend
from solversearch.search.fitting.fit import fit
from solversearch.search.fitting.polish import polish
from solversearch.solvers import get
from solversearch.teacher import Teacher, teach

TARGET = 1.25
SAMPLES = 128
SOLVERS, GRIDS = ("unip_2", "unipc_2", "dpmpp_3m", "ipndm_3"), ("quadratic", "logsnr", "karras", "ays_sd15")
Configuration = tuple[int, float]
Searcher = Callable[[Model, int, float], Plan]

CONFIGURATIONS: dict[str, tuple[list[Configuration], list[Configuration]]] = {
    "ratios": ([(n, g) for n in (5, 6, 8, 10) for g in (1.0, 2.5, 4.0)], [(6, 3.0), (7, 2.0), (7, 3.0), (9, 1.5)]),
    "coefficients": ([(n, g) for n in (5, 6, 8) for g in (1.0, 2.5, 4.0)], [(5, 2.0), (6, 3.0), (7, 1.5), (7, 3.0)]),
}


def teachers(model: Model, guidance: float) -> tuple[Teacher, Teacher]:
    return teach(model, "fit", SAMPLES, guidance), teach(model, "validate", SAMPLES, guidance)


def plan(model: Model, table: Tableau, guidance: float, **decisions: JsonValue) -> Plan:
    return Plan(
        prediction_type=model.prediction_type,
        guidance=guidance,
        nfe=table.nfe,
        network_calls=table.network_calls,
        nodes=table.nodes,
        rows=table.rows,
        decisions=decisions,
        provenance=Provenance(model=model.name, model_digest=model.digest, seed=0),
    )


def ratios(model: Model, nfe: int, guidance: float) -> Plan:
    fitting, validation = teachers(model, guidance)
    nodes = [replace(node, guidance=guidance) for node in grid("quadratic", model.schedule, nfe)]
    greedy = compensation.greedy_ratios(model, nodes, fitting.first(compensation.SAMPLES))
    fixed, free = greedy[: compensation.FREE_FROM], np.array(greedy[compensation.FREE_FROM :])

    def corrected(ratios: Floats) -> Tableau:
        return compensation.table(model.schedule, nodes, (*fixed, *ratios.tolist()))

    scale = float(errors(model, corrected(free), fitting).median())
    found = (*fixed, *descend(model, corrected, free, fitting, validation, scale, ridge=0.01, iterations=20).tolist())
    orders: list[JsonValue] = [min(3, nfe - i) for i in range(nfe)]
    table = compensation.table(model.schedule, nodes, found)
    return plan(model, table, guidance, solver="unip_bh2", order=orders, corrector=True, compensation=list(found))


def coefficients(model: Model, nfe: int, guidance: float) -> Plan:
    fitting, validation = teachers(model, guidance)
    split = guidance != 1

    def fitted(solver: str, name: str) -> tuple[float, Tableau]:
        prior = get(solver).tableau(model.schedule, grid(name, model.schedule, nfe)).guided(guidance)
        with torch.no_grad():
            table, _ = fit(prior, fitting, Denoiser(model, fitting.conditions, split=split), fitting.noise, robust=True)
        error = errors(model, table, validation)
        return float(tempered(error, float(error.median())).mean()), table

    _, best = min((fitted(solver, name) for solver in SOLVERS for name in GRIDS), key=lambda pair: pair[0])
    *_, polished = polish(model, best, fitting, 40 * nfe, split=split)
    return plan(model, polished, guidance)


SEARCHERS: dict[str, Searcher] = {"ratios": ratios, "coefficients": coefficients}


def errors(model: Model, table: Tableau, teacher: Teacher) -> torch.Tensor:
    return endpoint_mse(sample(model, table, teacher), teacher.endpoint)


def main() -> None:
    parser = argparse.ArgumentParser(description="Regressed plans against searched ones.")
    parser.add_argument("--model", default="digits")
    parser.add_argument("--kind", choices=[*SEARCHERS], default="ratios")
    parser.add_argument("--samples", type=int, default=512)
    given = parser.parse_args()
    console, model = Console(), models.load(given.model)
    seen, unseen = CONFIGURATIONS[given.kind]
    plans = {c: SEARCHERS[given.kind](model, *c) for c in (*seen, *unseen)}
    start = time.perf_counter()
    fitted = cpr.fit_runs([plans[c] for c in seen], model)
    seconds = time.perf_counter() - start
    title = f"{given.model}, {given.kind}: regressed in {seconds:.0f} s; mean and median of {given.samples} held-out samples"
    shown = Table("NFE", "guidance", "", "searched", "regressed", "ratio of means", "ratio of medians", title=title)
    worst = 0.0
    for nfe, guidance in sorted(plans):
        held_out = teach(model, "held_out", given.samples, guidance, trajectory=False)
        one, two = (errors(model, p.tableau, held_out) for p in (plans[nfe, guidance], fitted.predict(nfe, guidance, model)))
        means, medians = float(two.mean() / one.mean()), float(two.median() / one.median())
        new = (nfe, guidance) in unseen
        worst = max(worst, means) if new else worst
        texts = [f"{e.mean():.5f} / {e.median():.5f}" for e in (one, two)]
        shown.add_row(str(nfe), f"{guidance:g}", "unseen" if new else "", *texts, f"{means:.2f}", f"{medians:.2f}")
    console.print(shown)
    if worst > TARGET:
        raise SystemExit(f"the worst unseen ratio of means is {worst:.2f}, above {TARGET}")


if __name__ == "__main__":
    main()
