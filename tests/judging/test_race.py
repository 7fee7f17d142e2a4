"""The race: its best is the best of all, by every measure, at a fraction of the cost; and what it looks at is right."""

from dataclasses import replace
from math import isfinite
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from solversearch import models
from solversearch.grids import grid
from solversearch.judging import race
from solversearch.judging.baselines import Baseline, baselines
from solversearch.judging.distances import FrechetToTwins, frechet_distance
from solversearch.judging.measures import rivals
from solversearch.judging.objectives.endpoint import endpoint_mse
from solversearch.judging.race import FRECHET, GEOMETRIC, MEAN, MEDIAN, Runs
from solversearch.models.base import Clock, Model, NotFinite
from solversearch.sampling import sample
from solversearch.schedules import DiscreteVP
from solversearch.solvers import get
from solversearch.teacher import Teacher, teach
from tests.cli.calling import COINS

MEASURES = (MEAN, MEDIAN, GEOMETRIC, FRECHET)


@pytest.fixture(scope="module")
def digits() -> Model:
    return models.load("digits")


@pytest.fixture(scope="module")
def teacher(digits: Model) -> Teacher:
    return teach(digits, "held_out", 512, trajectory=False)


@pytest.fixture(scope="module")
def everything(digits: Model, teacher: Teacher) -> dict[Baseline, dict[str, float]]:
    """Every measure of every baseline on all samples, computed one by one."""
    values = {}
    assert digits.features is not None
    target = digits.features(teacher.endpoint).double()
    for baseline in {b.table: b for b in baselines(digits, 3, 1.0)}.values():
        x = sample(digits, baseline.table, teacher)
        error = endpoint_mse(x, teacher.endpoint)
        values[baseline] = {
            MEAN: float(error.mean()), MEDIAN: float(error.median()), GEOMETRIC: float(error.log().mean().exp()),
            FRECHET: float(frechet_distance(digits.features(x).double(), target)),
        }  # fmt: skip
    return values


def test_the_best_is_the_best_of_all(digits: Model, teacher: Teacher, everything: dict[Baseline, dict[str, float]]) -> None:
    clock = Clock()
    found = rivals(digits, 3, 1.0, teacher, clock=clock)
    for measure in MEASURES:
        values = {each.table: value[measure] for each, value in everything.items()}
        best = found.best(measure)
        assert best.value(measure, found.target) == pytest.approx(values[best.table], rel=1e-4)
        assert values[best.table] <= 1.02 * min(values.values()), measure
    assert clock.evaluations < 0.25 * 3 * len(everything) * len(teacher)


def test_batches_change_nothing(digits: Model, teacher: Teacher) -> None:
    few = teacher.first(128)
    one, other = (rivals(digits, 3, 1.0, few, batch_size=size) for size in (64, 512))
    assert one.race.finalists == other.race.finalists and one.race.hard.tolist() == other.race.hard.tolist()
    np.testing.assert_array_equal(one.race.runs.errors, other.race.runs.errors)


def test_a_target_ends_the_race(digits: Model, teacher: Teacher, everything: dict[Baseline, dict[str, float]]) -> None:
    base = rivals(digits, 3, 1.0, teacher)
    best = min(value[MEAN] for value in everything.values())
    spent = {}
    for target in (2 * best, 0.0):
        clock = Clock()
        found = rivals(digits, 3, 1.0, teacher, clock=clock, measures=(MEAN,), hard=base.race.hard, target=target)
        reached = found.best(MEAN).value(MEAN, None)
        assert reached <= (target or best / race.ROUGHLY)
        spent[target] = clock.evaluations
    assert spent[2 * best] < spent[0.0]


def test_what_is_worth_trying_at_the_next_nfe_is_what_is_not_far_behind(digits: Model, teacher: Teacher, everything: Any) -> None:
    carried = rivals(digits, 3, 1.0, teacher).race.carried()
    for measure in MEASURES:
        least = min(value[measure] for value in everything.values())
        assert all((b.solver, b.grid) in carried for b, value in everything.items() if value[measure] < 1.1 * least), measure
    assert len(carried) < 0.5 * len(baselines(digits, 3, 1.0))


def test_keeping_parts_repeats_nothing(digits: Model, teacher: Teacher) -> None:
    class Kept:
        def __init__(self) -> None:
            self.parts: list[dict[str, Tensor]] = []
            self.next = 0

        def tensors(self, compute: Any) -> dict[str, Tensor]:
            if self.next == len(self.parts):
                self.parts.append(compute())
            self.next += 1
            return self.parts[self.next - 1]

        def numbers(self, compute: Any) -> Any:
            return compute()

    few, memo, clock = teacher.first(64), Kept(), Clock()
    first = rivals(digits, 3, 1.0, few, clock=clock, memo=memo)
    assert clock.evaluations > 0
    memo.next, again = 0, Clock()
    second = rivals(digits, 3, 1.0, few, clock=again, memo=memo)
    assert again.evaluations == 0 and second.race.finalists == first.race.finalists


# What a race looks at ----------------------------------------------------------------------------------------------------


class Given(Runs):
    """Runs whose errors are given: (tables, samples)."""

    def __init__(self, errors: np.ndarray[Any, Any]) -> None:
        self.errors, self.teacher, self.target = errors, range(errors.shape[1]), None  # type: ignore[assignment]
        self.tables = range(len(errors))  # type: ignore[assignment]

    def see(self, tables: Any, samples: Any) -> None:
        pass


def test_measures_of_weighted_samples_are_those_of_repeated_ones() -> None:
    rng = np.random.default_rng(0)
    errors = rng.exponential(size=(5, 12))
    counts = np.vstack([rng.integers(0, 4, size=(3, 12)), np.ones(12)])
    places = np.arange(12)
    for measure, of in (
        (MEAN, np.mean),
        (GEOMETRIC, lambda e: np.exp(np.log(e).mean())),
        (MEDIAN, lambda e: np.sort(e)[(len(e) - 1) // 2]),
    ):
        found = race._values(Given(errors), measure, range(5), places, counts)
        for k in range(5):
            for w, row in enumerate(counts):
                assert found[k, w] == pytest.approx(np.log(of(np.repeat(errors[k], row.astype(int)))))


@pytest.mark.parametrize(("n", "width"), [(10, 16), (10, 4), (60, 4)])
def test_weighted_frechet_distances_are_those_of_repeated_rows(n: int, width: int) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, n, width, generator=generator, dtype=torch.float64) * 20 ** torch.linspace(0, 1, width, dtype=torch.float64)
    counts = torch.randint(0, 4, (3, n), generator=generator)
    expected = [float(frechet_distance(a.repeat_interleave(row, 0), b.repeat_interleave(row, 0))) for row in counts]
    assert FrechetToTwins(b, counts.double())(a).tolist() == pytest.approx(expected, rel=1e-6)


def test_hard_samples_are_where_leaders_are_bad() -> None:
    errors = np.ones((2, 100))
    errors[0, 17], errors[1, 40] = 50, 300
    assert race._hardest(errors, 2).tolist() == [17, 40]
    errors[0] = np.inf  # what runs away says nothing
    assert race._hardest(errors, 1).tolist() == [40]


def raced(errors: np.ndarray[Any, Any], monkeypatch: pytest.MonkeyPatch, target: float | None = None) -> race.Race:
    """Of given errors; candidates stand for themselves."""
    runs = Given(errors)
    monkeypatch.setattr(race, "Runs", lambda *_: runs)
    candidates = [Baseline(str(k), "x", k) for k in range(len(errors))]  # type: ignore[arg-type]
    return race.race(None, candidates, range(errors.shape[1]), (MEAN,), target=target)  # type: ignore[arg-type]


def test_a_sample_that_nobody_has_seen_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that leads is bad on a sample beyond those seen at first: it is measured in full before the other is dropped."""
    rng = np.random.default_rng(1)
    base = rng.uniform(0.9, 1.1, 1024)
    errors = np.stack([base * 1.05, base, *(base * 3 for _ in range(20))])
    errors[1, 700] = 200.0  # its mean is 1.2
    found = raced(errors, monkeypatch)
    assert 0 in found.finalists and 700 in found.hard and len(found.finalists) <= 4


def test_each_round_drops_what_is_surely_worse(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    times = np.concatenate([np.linspace(1, 1.5, 40), np.linspace(2, 50, 60)])
    errors = times[:, None] * np.exp(rng.standard_normal(1024) + 0.3 * rng.standard_normal((100, 1024)))
    seen: dict[int, int] = {}

    def see(self: Given, tables: Any, samples: Any) -> None:
        for table in tables:
            seen[table] = max(seen.get(table, 0), len(samples))

    monkeypatch.setattr(Given, "see", see)
    found = raced(errors, monkeypatch)
    assert int(np.argmin(errors.mean(1))) in found.finalists and len(found.finalists) < 15
    assert all(seen[k] == 8 for k in range(90, 100)) and sum(seen.values()) < 0.25 * errors.size
    assert {k for k in range(100) if times[k] < 1.2} <= set(found.close) and not set(found.close) & set(range(90, 100))


def test_without_a_group_the_others_stand_for_its_samples() -> None:
    found = race._weights(20, 2, 6, 3)
    assert found[:, :2].tolist() == [[1, 1]] * 4 and found[0, 2:].tolist() == [3] * 6
    assert found[1:, 2:].tolist() == [[0, 4.5, 4.5] * 2, [4.5, 0, 4.5] * 2, [4.5, 4.5, 0] * 2]


def test_what_is_dropped_is_surely_worse_by_the_jackknife() -> None:
    """Of 400 tables with errors near that of the best: exactly those beyond 3.25 standard errors, computed one by one."""
    rng = np.random.default_rng(4)
    n, size, hard = 60, 32, np.array([3, 20, 41, 55])
    base = rng.exponential(size=n)
    errors = base * rng.uniform(1, 2.5, (400, 1)) * np.exp(0.5 * rng.standard_normal((400, n)))
    going, best = race._still(Given(errors), range(400), (MEAN,), hard, size, None)
    others = [k for k in range(size) if k not in hard]

    def value(table: int, some: list[int]) -> float:
        """ln of the mean of all samples, of which those that are not hard are like some of them."""
        return float(np.log((errors[table, hard].sum() + (n - 4) * errors[table, some].mean()) / n))

    leader = min(range(400), key=lambda table: value(table, others))
    parts = [others, *([k for i, k in enumerate(others) if i % 8 != group] for group in range(8))]
    kept = []
    for table in range(400):
        apart = np.array([value(table, some) - value(leader, some) for some in parts])
        variance = 7 / 8 * ((apart[1:] - apart[1:].mean()) ** 2).sum() * (1 - len(others) / (n - 4))
        if table == leader or apart[0] - 3.25 * variance**0.5 <= np.log(0.981):
            kept.append(table)
    assert best == {leader} and going == kept and 20 < len(kept) < 380


def test_what_runs_away_is_dropped_and_the_others_race_on(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = np.random.default_rng(5).exponential(size=(30, 1024)) * np.linspace(1, 1.4, 30)[:, None]
    errors[0, 11] = np.inf  # seen in the second round
    found = raced(errors, monkeypatch)
    assert 0 not in found.finalists and int(np.argmin(errors[1:].mean(1))) + 1 in found.finalists and len(found.finalists) < 29


def test_one_leader_that_reaches_the_target_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = np.random.default_rng(6).exponential(size=(40, 1024)) * np.linspace(1, 2, 40)[:, None]
    reached = raced(errors, monkeypatch, target=float(errors[:3].mean()))
    assert errors[reached.finalists].mean(1).min() <= errors[:3].mean() and len(reached.finalists) <= 5
    beyond = raced(errors, monkeypatch, target=0.0)
    assert int(np.argmin(errors.mean(1))) in beyond.finalists


def test_how_many_times_worse_something_is_at_least() -> None:
    errors = np.random.default_rng(3).exponential(size=(3, 20)) * [[5.0], [1.0], [2.0]]
    errors[2, 3] = np.inf  # it runs away
    ratios = np.log(errors[0, :8] / errors[1, :8])
    found = race._times_worse(Given(errors), range(3), np.arange(8))
    assert found[0] == pytest.approx(np.exp(ratios.mean() - 3.25 * ratios.std(ddof=1) / 8**0.5)) and found[1] == 1
    assert not found[2] <= race.COARSE


def test_runs_fill_in_what_is_missing_once(digits: Model, teacher: Teacher) -> None:
    tables = list({b.table for b in baselines(digits, 3, 1.0)})[:3]
    clock = Clock()
    runs = Runs(digits, tables, teacher, clock=clock)
    runs.see([0, 1], np.arange(4))
    runs.see([0, 1, 2], np.array([2, 3, 9]))
    assert clock.evaluations == 3 * (2 * 4 + 2 * 1 + 3)
    assert np.isfinite(runs.errors[2, [2, 3, 9]]).all() and np.isnan(runs.errors[2, [0, 1]]).all()
    for k in (0, 1):
        x = sample(digits, tables[k], teacher.first(10))
        np.testing.assert_allclose(runs.errors[k, [0, 1, 2, 3, 9]], endpoint_mse(x, teacher.endpoint[:10])[[0, 1, 2, 3, 9]], rtol=1e-5)
        assert digits.features is not None
        torch.testing.assert_close(runs.features(k, np.array([9, 0])), digits.features(x).double()[[9, 0]], rtol=1e-4, atol=1e-4)


def test_fresh_noise_is_that_of_the_samples_own_numbers() -> None:
    coins = models.load(f"{COINS}:factory")
    teacher = teach(coins, "held_out", 20, trajectory=False)
    table = get("ddim_eta1").tableau(coins.schedule, grid("linspace", coins.schedule, 3))
    whole = sample(coins, table, teacher)
    some = [13, 2, 7]
    torch.testing.assert_close(sample(coins, table, teacher.at(some)), whole[some])
    assert list(teacher.at(some).at([2, 0]).numbers) == [7, 13]


# Failures ----------------------------------------------------------------------------------------------------------------


def test_what_runs_away_costs_the_others_nothing() -> None:
    """A network that fails for large inputs fails for one table; one that always fails is told."""
    schedule = DiscreteVP.named()
    table = get("ddim").tableau(schedule, grid("logsnr", schedule, 3))
    wild = replace(table, rows=(replace(table.rows[0], x=1e6), *table.rows[1:]))
    model = Model("fragile", lambda x, t: torch.where(x.abs() > 1e3, torch.nan, 0.5 * x), schedule, "sample", (4,))
    teacher = teach(model, "held_out", 64, trajectory=False)
    tame = [Baseline("ddim", name, get("ddim").tableau(schedule, grid(name, schedule, 3))) for name in ("logsnr", "quadratic", "linspace")]
    found = race.race(model, [Baseline("wild", "logsnr", wild), *tame], teacher, (MEAN, MEDIAN, GEOMETRIC))
    assert {found.baseline(k).solver for k in found.finalists} == {"ddim"}
    alone = race.race(model, tame, teacher, (MEAN, MEDIAN, GEOMETRIC))
    assert [found.baseline(k) for k in found.finalists] == [alone.baseline(k) for k in alone.finalists]
    with pytest.raises(NotFinite, match="every baseline"):
        race.race(model, [Baseline("wild", "logsnr", wild)], teacher, (MEAN,))


@pytest.mark.parametrize("n", [1, 4])
def test_a_picture_of_few_samples_has_a_rival(n: int) -> None:
    coins = models.load(f"{COINS}:factory")
    teacher = teach(coins, "held_out", n, trajectory=False)
    found, everything = rivals(coins, 3, 1.0, teacher, measures=(GEOMETRIC,)), baselines(coins, 3, 1.0)
    assert len(found.race.finalists) == len({each.table for each in everything})
    errors = [endpoint_mse(sample(coins, each.table, teacher), teacher.endpoint).log().mean().exp() for each in everything]
    assert found.best(GEOMETRIC).value(GEOMETRIC, None) == pytest.approx(float(min(errors)), rel=1e-4)


@pytest.mark.parametrize("n", [16, 24, 64])
def test_few_samples_are_enough_for_a_race(n: int) -> None:
    coins = models.load(f"{COINS}:factory")
    found = rivals(coins, 3, 2.0, teach(coins, "held_out", n, 2.0, trajectory=False))
    assert all(isfinite(found.best(measure).value(measure, found.target)) for measure in MEASURES)
    assert all(np.isfinite(found.race.runs.errors[k]).all() for k in found.race.finalists)


def test_hard_samples_are_few() -> None:
    assert [race.hard_samples(n) for n in (16, 64, 80, 1024)] == [2, 8, 10, 10]
