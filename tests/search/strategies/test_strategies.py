"""The strategies: a conformance test over the registry, and what is particular to each."""

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna import Study
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import spearmanr

from solversearch.errors import UserError
from solversearch.grids import grid
from solversearch.schedules import DiscreteVP, Floats
from solversearch.search.strategies import STRATEGIES, Context, Strategy, known, predicts, strategy
from solversearch.search.strategies.evolution import CROSSOVERS, MUTATIONS, POPULATION
from solversearch.search.strategies.genome import Genome
from solversearch.search.strategies.proposals import ask, enqueue_starts, follow
from solversearch.search.strategies.s3 import BATCH, RANDOM
from solversearch.solvers.mixed import FAMILIES
from solversearch.spaces import Candidate, Domain, Params, SearchSpace
from tests.contracts import docstring_lacks, lacks, one_line

SCHEDULE = DiscreteVP.named()
SPACES = {
    "default": SearchSpace(),
    "s3": SearchSpace.named("s3"),
    "times": SearchSpace.model_validate({"solver": ["unip"]}),
    "whole times": SearchSpace.model_validate({"timesteps": "integer"}),
}
OURS = ["evolution", "s3"]
SAMPLERS = {name: entry for name, entry in STRATEGIES.items() if not entry.learns}


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def domain_of(space: str, nfe: int = 4) -> Domain:
    grids = [grid(name, SCHEDULE, nfe) for name in ("quadratic", "logsnr", "karras")]
    return Domain.of(SPACES[space], SCHEDULE, nfe, 1.0, grids, SPACES[space].integer)


def starts_of(domain: Domain) -> tuple[Params, ...]:
    return tuple(domain.seed(grid(name, SCHEDULE, domain.nfe)) for name in ("quadratic", "logsnr"))


def features(candidate: Candidate) -> Floats:
    """Numbers of a candidate, (times + 5 a step)."""
    solvers = list(FAMILIES)
    steps = [(d.order / 2, d.noise_share, 0.7 * d.corrector, d.derivative_scale, solvers.index(d.solver) / 3) for d in candidate.decisions]
    return np.array([*np.sqrt(np.array(candidate.times) / 100), *np.ravel(steps)])


class Problem:
    """ln of a loss: a crooked bowl about a hidden point, and a prediction of it with a smooth systematic error."""

    def __init__(self, domain: Domain, seed: int, wrong: float = 0.0) -> None:
        rng = np.random.default_rng([seed, 7])
        self.domain, self.wrong, count = domain, wrong, domain.nfe * 6
        self.optimum = features(domain.candidate(domain.random(rng)))
        self.weights = rng.uniform(0.2, 2.0, count)
        self.waves = rng.standard_normal((64, count))
        self.phases = rng.uniform(0, 2 * np.pi, 64)
        self.heights = rng.standard_normal(64) / np.sqrt(32)

    def true(self, params: Sequence[Params]) -> Floats:
        return np.log(0.01 + (self._rows(params) - self.optimum) ** 2 @ self.weights)

    def predict(self, params: Sequence[Params]) -> tuple[Floats, Floats]:
        error = np.cos(self._rows(params) @ self.waves.T + self.phases) @ self.heights
        return self.true(params) + self.wrong * error, np.full(len(params), 0.1)

    def loss(self, params: Params) -> float:
        return float(np.exp(self.true([params])[0]))

    def _rows(self, params: Sequence[Params]) -> Floats:
        return np.array([features(self.domain.candidate(each)) for each in params])


class Search:
    """A study with a strategy on a problem; told failures and pruned trials now and then, if wanted."""

    def __init__(
        self, name: str, problem: Problem, seed: int = 0, starts: Sequence[Params] = (), predict: bool = True, faults: bool = False,
        children: int = 140, storage: Any = None,
    ) -> None:  # fmt: skip
        self.name, self.problem, self.faults = name, problem, faults
        predictor = problem.predict if predict else None
        self.context = Context(problem.domain, seed, tuple(starts), predictor, children=children)
        self.study = optuna.create_study(storage=storage, study_name="search", load_if_exists=True)
        self.resume()
        enqueue_starts(self.study, self.study.sampler, self.context)

    def resume(self) -> None:
        self.study.sampler = strategy(self.name, self.context)

    def run(self, trials: int) -> "Search":
        for _ in range(trials):
            trial = ask(self.study, self.problem.domain, self.name)
            self.problem.domain.candidate(trial.params)  # legal
            loss = self.problem.loss(trial.params)
            if self.faults and trial.number % 5 == 3:
                self.study.tell(trial, state=TrialState.FAIL)
            elif self.faults and trial.number % 5 == 4:
                trial.report(loss, 1)
                self.study.tell(trial, state=TrialState.PRUNED)
            else:
                self.study.tell(trial, loss)
        return self

    @property
    def params(self) -> list[Params]:
        return [trial.params for trial in self.study.trials]

    @property
    def signatures(self) -> list[str]:
        return [self.problem.domain.candidate(params).signature for params in self.params]

    @property
    def losses(self) -> list[float]:
        """Of searches without faults."""
        return [trial.values[0] for trial in self.study.trials]

    @property
    def best(self) -> list[float]:
        """The least loss after each trial."""
        return np.minimum.accumulate(self.losses).tolist()


# Conformance -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", SAMPLERS.values(), ids=SAMPLERS)
def test_a_strategy_says_what_it_is(entry: Strategy) -> None:
    """A search that is resumed does not ask `studied` strategies again, and must go on as if it had."""
    whole = Search(entry.name, Problem(domain_of("times", nfe=3), 0)).run(12)
    resumed = Search(entry.name, whole.problem)
    for params, loss in zip(whole.params[:9], whole.losses, strict=False):
        resumed.study.tell(follow(resumed.study, whole.problem.domain, entry.name, params), loss)
    for name, note in whole.study.user_attrs.items():
        resumed.study.set_user_attr(name, note)
    module = import_module(f"solversearch.search.strategies.{entry.maker.partition(':')[0]}")
    lacks(entry.name, [
        *docstring_lacks(module),
        ("arXiv:" not in (module.__doc__ or ""), f"a source in the docstring of {module.__name__}"),
        (not one_line(entry.about) or entry.about.endswith("."), "what it is (`about`), in one line that is no sentence"),
        (resumed.run(3).params != whole.params, "the same proposals after `follow`: is it `studied`, and seeded by the trial's number?"),
    ])  # fmt: skip


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("name", SAMPLERS)
def test_proposals_are_legal_with_the_starts_first(name: str, space: str) -> None:
    """Failed and pruned trials among them; a Gaussian process takes half a second a trial."""
    domain = domain_of(space)
    starts, trials = starts_of(domain), 10 if name == "gp" else 40
    search = Search(name, Problem(domain, 0), starts=starts, faults=True).run(trials)
    assert search.params[:2] == list(starts)
    assert {trial.state for trial in search.study.trials} == {TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED}
    assert len(set(search.signatures)) == trials if name in OURS else len(set(search.signatures)) > trials / 2


@pytest.mark.parametrize("name", SAMPLERS)
def test_seed_decides_and_a_resumed_search_goes_on_the_same(name: str) -> None:
    """Also within a generation of s3 and an epoch of evolution."""
    domain = domain_of("times" if name == "gp" else "default", nfe=3)
    first, second = (10, 3) if name == "gp" else (55, 6)
    whole = Search(name, Problem(domain, 0), faults=True).run(first + second)
    halves = Search(name, Problem(domain, 0), faults=True).run(first)
    halves.resume()
    halves.run(second)
    assert halves.params == whole.params
    assert Search(name, Problem(domain, 0), seed=1).run(3).params != whole.params[:3]


@pytest.mark.parametrize("name", OURS)
def test_resumed_from_a_file(name: str, tmp_path: Path) -> None:
    problem = Problem(domain_of("times", nfe=3), 0)
    whole = Search(name, problem).run(20)

    def parts(trials: int) -> Search:
        return Search(name, problem, storage=JournalStorage(JournalFileBackend(str(tmp_path / "journal.log")))).run(trials)

    parts(9)
    assert parts(11).params == whole.params


@pytest.mark.parametrize("name", OURS)
def test_exhausted_space_repeats_itself(name: str) -> None:
    """Two solvers and two orders on a fixed grid; some of the plans are the same."""
    space = SearchSpace.model_validate({
        "timesteps": "quadratic",
        "solver": ["unip", "ipndm"], "order": {"choose": [1, 2], "per": "plan"},
    })  # fmt: skip
    domain = Domain.of(space, SCHEDULE, 3, 1.0, [])
    rng = np.random.default_rng(0)
    size = len({domain.candidate(domain.random(rng)).signature for _ in range(100)})
    search = Search(name, Problem(domain, 0)).run(8)
    assert size < 8
    assert len(set(search.signatures[:size])) == size


def test_several_objectives() -> None:
    domain = domain_of("default")
    for name, entry in SAMPLERS.items():
        context = Context(domain, 0, objectives=2)
        if not entry.several:
            with pytest.raises(UserError, match=r"minimises one objective, got 2; for several there are: random, tpe, gp, nsga2"):
                strategy(name, context)
            continue
        study = optuna.create_study(directions=["minimize"] * 2, sampler=strategy(name, context))
        for _ in range(10):
            study.tell(trial := ask(study, domain, name), [trial.params["ridge"], trial.params["time.0"]])


# Evolution and S3 --------------------------------------------------------------------------------------------------


def test_evolution_recombines_the_best() -> None:
    """After the first epoch mutations keep three quarters of a parent, and crossovers have nothing that neither parent has."""
    search = Search("evolution", Problem(domain_of("default"), 0)).run(POPULATION + MUTATIONS + CROSSOVERS)
    first = sorted(search.study.trials[:POPULATION], key=lambda trial: trial.value or 0)[:10]
    names = [name for name, each in search.context.domain.distributions.items() if isinstance(each, CategoricalDistribution)]

    def kept(params: Params) -> float:
        return max(float(np.mean([params[name] == parent.params[name] for name in names])) for parent in first)

    later = search.params[POPULATION:]
    assert np.mean([kept(params) for params in later[:MUTATIONS]]) > 0.7
    for params in later[MUTATIONS:]:
        assert all(any(params[name] == parent.params[name] for parent in first) for name in names)
    assert np.median(search.losses[POPULATION:]) < np.median(search.losses[:POPULATION])


def test_pruned_trials_are_worse_parents() -> None:
    """Whatever the value that they had reached."""
    domain = domain_of("times")
    context = Context(domain, 0)
    study = optuna.create_study(sampler=strategy("s3", context))
    for value, state in [(3.0, TrialState.COMPLETE), (0.1, TrialState.PRUNED), (2.0, TrialState.COMPLETE), (None, TrialState.PRUNED)]:
        trial = ask(study, domain, "s3")
        if value is not None:
            trial.report(value, 1)
        study.tell(trial, value if state == TrialState.COMPLETE else None, state=state)
    ask(study, domain, "s3")
    sampler: Any = study.sampler
    assert [result.number for result in sampler.history.results] == [2, 0, 1, 3]


def test_s3_proposes_what_the_predictor_prefers_and_learns_once_a_batch() -> None:
    problem = Problem(domain_of("s3"), 0)
    calls: list[int] = []

    def predict(params: Sequence[Params]) -> tuple[Floats, Floats]:
        calls.append(len(search.study.trials))
        return problem.predict(params)

    search = Search("s3", problem, children=1500)
    search.context = Context(problem.domain, 0, (), predict, children=1500)
    search.resume()
    search.run(RANDOM + 2 * BATCH + 1)
    assert sorted(set(calls)) == [RANDOM + 1, RANDOM + BATCH + 1, RANDOM + 2 * BATCH + 1]
    assert np.median(search.losses[RANDOM : RANDOM + BATCH]) < 0.5 * min(search.losses[:RANDOM])
    assert search.best[-1] < 0.9 * search.best[RANDOM + BATCH - 1]


def test_s3_survives_a_predictor_of_nans() -> None:
    search = Search("s3", Problem(domain_of("default"), 0))
    search.context = Context(
        search.problem.domain, 0, (), lambda params: (np.full(len(params), np.nan), np.zeros(len(params))), children=70
    )
    search.resume()
    assert len(set(search.run(20).signatures)) == 20


def test_s3_needs_few_evaluations_with_a_predictor_that_ranks_roughly() -> None:
    """Thirty against the best of five hundred random candidates; rank correlation of the predictor about 0.75."""
    domain = domain_of("s3", nfe=5)
    ratios, correlations = [], []
    for seed in range(5):
        problem, rng = Problem(domain, seed, wrong=0.35), np.random.default_rng(seed)
        random = [domain.random(rng) for _ in range(500)]
        correlations.append(spearmanr(problem.true(random), problem.predict(random)[0])[0])
        ratios.append(Search("s3", problem, seed, children=700).run(30).best[-1] / np.exp(problem.true(random).min()))
    assert 0.7 < np.median(correlations) < 0.8
    assert np.median(ratios) < 0.8


# Genome ------------------------------------------------------------------------------------------------------------

MIXED: dict[str, BaseDistribution] = {
    "time.1": FloatDistribution(0.0, 0.5), "time.0": FloatDistribution(0.4, 1.0),
    "log": FloatDistribution(1e-6, 1e-2, log=True),
    "step": FloatDistribution(-0.5, 0.5, step=0.25), "whole": IntDistribution(3, 9, step=3),
    "choice": CategoricalDistribution(["a", True, 2]), "single": CategoricalDistribution(["x"]), "fixed": FloatDistribution(1.5, 1.5),
}  # fmt: skip


def test_genome_encodes_and_decodes() -> None:
    genome, rng = Genome(MIXED), np.random.default_rng(0)
    rows = genome.random(rng, 200)
    params = genome.decode(rows)
    np.testing.assert_allclose(genome.encode(params), rows, atol=1e-12)
    for each in params:
        assert all(MIXED[name]._contains(MIXED[name].to_internal_repr(value)) for name, value in each.items())
    assert {each["choice"] for each in params} == {"a", True, 2}
    assert {each["whole"] for each in params} == {3, 6, 9} and isinstance(params[0]["whole"], int)
    assert 0.4 < np.mean([each["log"] < 1e-4 for each in params]) < 0.6


@pytest.mark.parametrize("change", ["mutated", "redrawn", "crossed"])
def test_genome_changes_stay_legal_and_times_ordered(change: str) -> None:
    genome, rng = Genome(MIXED), np.random.default_rng(0)
    rows = genome.random(rng, 500)
    made: dict[str, Callable[[], Floats]] = {
        "mutated": lambda: genome.mutated(rows, rng, np.full(500, 0.3), np.full(500, 0.3)),
        "redrawn": lambda: genome.redrawn(rows, rng, 0.25),
        "crossed": lambda: genome.crossed(rows, rows[::-1], rng),
    }
    children = made[change]()
    for each in genome.decode(children):
        assert each["time.0"] >= each["time.1"]
        assert all(MIXED[name]._contains(MIXED[name].to_internal_repr(value)) for name, value in each.items())
    if change == "mutated":
        assert (children != rows).any(1).mean() > 0.99
        small = genome.mutated(rows, rng, np.zeros(500), np.full(500, 1e-3))
        assert ((small != rows).sum(1) <= 2).all()
        numbers = [0, 1, 2]
        assert np.abs(small - rows)[:, numbers].max() < 0.02


# Names, and strategies of one's own --------------------------------------------------------------------------------

OWN = """
from optuna.samplers import RandomSampler
number = 3
def good(context): return RandomSampler(seed=context.seed)
def broken(context): raise KeyError("what")
def other(context): return context
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_strategy.py").write_text(OWN)
    (tmp_path / "own_broken.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.mark.usefixtures("own")
def test_strategy_of_ones_own() -> None:
    domain = domain_of("default")
    for name in ("own_strategy:good", "own_strategy.good"):
        assert isinstance(strategy(name, Context(domain, 5)), RandomSampler)
        known(name, 2)
        assert predicts(name)
    assert predicts("s3") and not predicts("tpe")


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("s4", "unknown strategy 's4'; did you mean 's4s'?"),
        ("no_such_module:Class", "there is no module 'no_such_module'"),
        ("own_strategy.inner:Class", "there is no module 'own_strategy.inner'"),
        ("own_broken:Class", "importing own_broken raised ZeroDivisionError: division by zero"),
        ("own_strategy:god", "unknown attribute of own_strategy 'god'; did you mean 'good'?"),
        ("own_strategy:number", "number is a int, not a class"),
        ("own_strategy:broken", "raised KeyError: 'what' when called with the context"),
        ("own_strategy:other", "returned a Context; it must return an optuna.samplers.BaseSampler"),
        ("own_strategy:", "a class of your own is named module:Class"),
    ],
)
def test_bad_names(name: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        strategy(name, Context(domain_of("default"), 0))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


class Proposing(BaseSampler):
    """Proposes what it is given, as a relative or as an independent sampler."""

    def __init__(self, params: Params, relative: bool) -> None:
        self.params, self.relative = params, relative

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        own: dict[str, BaseDistribution] = {name: FloatDistribution(0, 1) for name in self.params}
        return own | domain_of("default").distributions if self.relative else {}

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> Params:
        return self.params if self.relative else {}

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution) -> Any:
        if not self.relative and param_name in self.params:
            return self.params[param_name]
        return RandomSampler(seed=0).sample_independent(study, trial, param_name, param_distribution)


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"ridge": 0.5}, "strategy 'mine' proposed ridge = 0.5; allowed: 1e-06 to 0.01"),
        ({"order.1": 7}, "'mine' proposed an illegal value"),
        ({"ridge": float("nan")}, "'mine' proposed an illegal value"),
        ({"order.17": 0.5}, "strategy 'mine': unknown parameter 'order.17'; did you mean 'order.1'?"),
        ({"ridge": 1e-3}, None),
    ],
)
def test_illegal_proposals(params: Params, message: str | None, relative: bool) -> None:
    domain = domain_of("default")
    study = optuna.create_study(sampler=Proposing(params, relative))
    if message is None or ("order.17" in params and not relative):  # which Optuna then does not ask for
        assert set(ask(study, domain, "mine").params) == set(domain.distributions)
        return
    with pytest.raises(UserError) as caught:
        ask(study, domain, "mine")
    assert message in str(caught.value)
