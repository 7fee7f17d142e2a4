"""What every stage of a search is given: the task itself, and what may be spent on it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from math import inf

from solversearch.empirical import parametrization
from solversearch.judging.baselines import Baseline
from solversearch.judging.compare import Timing
from solversearch.judging.objectives import Objective, parse_many
from solversearch.judging.objectives.endpoint import endpoint_mse
from solversearch.memo import memoized
from solversearch.models.base import Clock, Denoiser, Model
from solversearch.parametrization import DATA, Parametrization
from solversearch.search.evaluating.evaluations import Log, Parts
from solversearch.search.evaluating.evaluator import Evaluated
from solversearch.search.settings import Settings
from solversearch.solvers.mixed import EMPIRICAL
from solversearch.spaces import Domain
from solversearch.teacher import ROUGH, STEPS, Teacher, cost, solve, teach

SOLVES, PROBED = (12, 16, 24, 32, 48), 64
"""Steps of the teacher that are tried where it has to be as exact as a plan needs, and the samples on which."""
OF_PLAN = 0.003
"""Of the plan's error, what the teacher may be wrong by: in the comparison, where with .01 some ratios of very exact plans moved by 10 %,
and at the start of the polish, by whose end it is some .01: halved or doubled there, digits' plan stays the same."""
Progress = Callable[[str, int, int, str], None]
"""progress(stage, done, total, note); total 0 where it is not known."""


@dataclass(frozen=True)
class Task:
    """One search of a model. log has what earlier processes of it evaluated; settings are `sized`. Where cached teachers are not free, they
    cost what it takes to make them: in a study what one method has made would be free for the next."""

    model: Model
    settings: Settings
    progress: Progress
    log: Log = field(default_factory=Log)
    clock: Clock = field(default_factory=Clock)
    free: bool = True

    @cached_property
    def objectives(self) -> tuple[Objective, ...]:
        return parse_many(self.settings.objective)

    @property
    def unit(self) -> str:
        """What the best is chosen by."""
        return self.objectives[0].unit

    @property
    def calls(self) -> int:
        """Network evaluations of one sample."""
        return self.settings.nfe * (2 if self.settings.guidance != 1 else 1)

    def once(self, key: str, compute: Callable[[], Evaluated]) -> Evaluated:
        """The result that an earlier process of the search logged under the key; else what compute returns, logged."""
        return self.log.once(key, self.clock, compute)

    def parts(self, key: str) -> Parts:
        """Keeps the parts of a computation, which depend on how many samples are evaluated together."""
        return Parts(self.log, f"{key}, {self.settings.batch_size} together", self.clock)

    def teacher(self, split: str, count: int, trajectory: bool = True, guidance: float | None = None, steps: int = STEPS) -> Teacher:
        """The teacher's samples of a split, at the guidance of the search unless one is given."""
        settings, total, spent = self.settings, steps * 3 // 2, Clock()
        guidance = settings.guidance if guidance is None else guidance
        teacher = teach(
            self.model, split, count, guidance, settings.seed, trajectory, steps, batch_size=settings.batch_size, clock=spent,
            progress=lambda done: self.progress("teacher", done, total, f"{split}, {count} samples"),
        )  # fmt: skip
        if not self.free:
            spent.evaluations = cost(count, steps) * (1 if guidance == 1 else 2)
        key = f"teacher {split} {count} {'whole' if trajectory else 'ends'} {guidance!r} {steps}"
        self.log.numbers(key, self.clock, partial(self._charged, spent))
        return teacher

    def _charged(self, spent: Clock) -> tuple[()]:
        """Another process of the search finds in the cache what this one computed, and what it took in the log."""
        self.clock.evaluations += spent.evaluations
        self.clock.seconds += spent.seconds
        return ()

    @cached_property
    def learning(self) -> tuple[Teacher, Teacher]:
        """Samples for fitting and validation. Where nothing is fitted to the first, surrogates alone look at their ends."""
        settings = self.settings
        fitting = self.teacher("fit", settings.fit_samples, settings.fits, steps=STEPS if settings.fits else ROUGH)
        return fitting, self.teacher("validate", settings.validation_samples)

    def held_out(self, result: Evaluated) -> Teacher:
        """What the comparison alone looks at, exact enough for this result; with its trajectory where the deciding objective needs it."""
        trajectory = "trajectory" in self.objectives[0].needs
        return self.ends("held_out", self.settings.samples, result, OF_PLAN, trajectory)

    def ends(self, split: str, count: int, result: Evaluated, share: float, trajectory: bool = False) -> Teacher:
        """The teacher's samples of a split by the fewest of `SOLVES` steps with which mean and median of its squared distance from the
        validation teacher, on `PROBED` samples, are at most this share of the result's errors; all `STEPS`, where none are enough.

        The error of those few samples is then the teacher's.
        """
        model, settings, known = self.model, self.settings, self.learning[1].first(PROBED)
        most = share * float(result.error.mean()), share * float(result.error.median())
        memo = self.parts(f"ends {split}")
        for steps in () if trajectory else SOLVES:
            denoise = memoized(Denoiser(model, known.conditions, settings.batch_size, clock=self.clock), memo)
            error = endpoint_mse(solve(model, denoise, known.noise, settings.guidance, steps), known.endpoint)
            if error.mean() <= most[0] and error.median() <= most[1]:
                return replace(self.teacher(split, count, False, steps=steps), error=float(error.mean()))
        return self.teacher(split, count, trajectory)

    @cached_property
    def parametrization(self) -> Parametrization:
        """The model's own."""
        settings, spent = self.settings, Clock()
        own = parametrization(self.model, settings.guidance, settings.batch_size, spent)
        self.log.numbers("parametrization", self.clock, partial(self._charged, spent))
        return own

    def domain(self, starts: Sequence[Baseline]) -> Domain:
        """What the search decides, about the grids of the starts."""
        settings, nodes = self.settings, [start.table.nodes for start in starts]
        space = settings.space.fitting(settings.fit)
        own = self.parametrization if any(name in EMPIRICAL for name in space.solver.choose) else DATA
        return Domain.of(space, self.model.schedule, settings.nfe, settings.guidance, nodes, settings.integer, own)

    def timing(self) -> Timing:
        return Timing(wall_s=round(self.log.elapsed(), 3), network_s=round(self.clock.seconds, 3))


@dataclass(frozen=True)
class Budget:
    """Network evaluations that the stages after the best baseline may spend together, None for as many as they like.

    begun is the clock's count before the first of them.
    """

    granted: int | None
    clock: Clock
    begun: int

    def left(self, share: float = 1.0) -> float:
        """What is left of a share of what is granted; negative where the last evaluations went beyond it."""
        return inf if self.granted is None else share * self.granted - (self.clock.evaluations - self.begun)

    def spent(self) -> bool:
        return self.left() <= 0
