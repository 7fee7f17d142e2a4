"""Candidates evaluated on the workers of a Ray cluster: actors that may die, hang or run out of memory while the search goes on.

An actor does one task at a time, a task being some candidates. What an actor takes with it when it dies, or is killed for taking too
long, is asked for again candidate by candidate, so that the one at fault is found; the actor is replaced. Results are the same as in
the driver's own process; they are handed on as they arrive.
"""

import re
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, Self

from solversearch.errors import Halted, UserError, short
from solversearch.models import Options
from solversearch.models.digest import exact
from solversearch.search.evaluating.evaluations import Arrival, Entry
from solversearch.search.evaluating.evaluator import Evaluator, Failure
from solversearch.search.evaluating.fleet import Fleet, cluster
from solversearch.search.evaluating.worker import CANDIDATES, Job, Worker, shared
from solversearch.spaces import Candidate
from solversearch.version import __version__

DEATHS, HANGS = 5, 2
"""Workers that a candidate may cost, by their death or by its slowness, before it has failed; or the start of one, by their death."""
STARTS = 300.0
"""Seconds in which some worker must have started."""


@dataclass
class _Task:
    places: list[int]
    deaths: int = 0
    hangs: int = 0


@dataclass
class _Actor:
    """ref is what it is at: a task, or loading the model, where it has none. node is where it is, once it has loaded that; before it,
    so many have died in its place."""

    handle: Any
    ref: Any
    before: int = 0
    task: _Task | None = None
    node: str = ""
    deadline: float = inf

    @property
    def ready(self) -> bool:
        return bool(self.node)


class Workers:
    """A `Source` of evaluations, between `__enter__`, which starts Ray, and `__exit__`."""

    def __init__(self, fleet: Fleet, model: str, options: Options, objective: str, evaluator: Evaluator) -> None:
        self.fleet, self.evaluator = fleet, evaluator
        self.job = Job(
            __version__, model, options, evaluator.model.start, exact(evaluator.model), Path.cwd(), objective, evaluator.scale,
            evaluator.split, evaluator.batch_size,
        )  # fmt: skip
        self.actors: list[_Actor] = []
        self.incidents: Counter[str] = Counter()
        self.last = ""

    def __enter__(self) -> Self:
        import ray

        self.leave = ExitStack()
        self.head = self.leave.enter_context(cluster(self.fleet.count, self.fleet.address))
        self.leave.callback(self._dismiss)
        self.teachers = [ray.put(shared(teacher)) for teacher in (self.evaluator.fitting, self.evaluator.validation)]
        self.actors = [self._started() for _ in range(self.fleet.count)]
        return self

    def __exit__(self, *_: object) -> None:
        self.leave.close()

    @property
    def befell(self) -> str:
        """What the workers suffered, in a few words; empty where nothing did."""
        told = {what: f"{what} {count} time{'s' * (count > 1)}" for what, count in self.incidents.items()}
        if self.last:
            told["died"] += f" (the last {self.last})"
        return ", ".join(told.values())

    @property
    def at_work(self) -> str:
        """How many workers are ready, on how many nodes, and what befell them."""
        nodes = {actor.node for actor in self.actors if actor.ready}
        ready = sum(actor.ready for actor in self.actors)
        count = f"{ready} of {self.fleet.count}" if ready < self.fleet.count else str(ready)
        told = f"{count} worker{'s' * (self.fleet.count > 1)} on {len(nodes)} node{'s' * (len(nodes) != 1)}"
        return ", ".join([told, *(f"{what} {number}" for what, number in self.incidents.items())])

    def stream(self, candidates: Sequence[Candidate], n: int | None) -> Iterator[list[Arrival]]:
        """A task fills a network batch; whoever has finished one is given the next before its results are handed on."""
        import ray

        count = len(candidates)
        size = min(self.evaluator.together(n), -(-count // len(self.actors)))
        tasks = deque(_Task(list(range(first, min(first + size, count)))) for first in range(0, count, size))
        since = time.monotonic()
        while tasks or any(actor.task for actor in self.actors):
            self.head.wait()
            self._give(tasks, candidates, n)
            at_work = [actor for actor in self.actors if actor.ref is not None]
            now = time.monotonic()
            wait = min([1.0, *(max(actor.deadline - now, 0) for actor in at_work)])
            done, _ = ray.wait([actor.ref for actor in at_work], timeout=wait)
            arrived: list[Arrival] = []
            for actor in at_work:
                if actor.ref in done:
                    arrived += self._collected(actor, tasks)
                elif time.monotonic() >= actor.deadline:
                    arrived += self._lost(actor, tasks, "took too long")
            self._give(tasks, candidates, n)
            if arrived:
                yield arrived
            if any(actor.ready for actor in self.actors):
                since = time.monotonic()
            elif time.monotonic() - since > STARTS:
                raise Halted(f"no worker has started in {STARTS:.0f} s: the cluster has {_resources()}; ask for fewer --workers")

    def _started(self, before: int = 0) -> _Actor:
        import ray

        environment = {"env_vars": {"OMP_NUM_THREADS": "1"}}
        handle = ray.remote(num_cpus=1, num_gpus=self.fleet.gpus, runtime_env=environment)(Worker).remote()
        return _Actor(handle, handle.load.remote(self.job, *self.teachers), before)

    def _give(self, tasks: deque[_Task], candidates: Sequence[Candidate], n: int | None) -> None:
        """A task to everyone who has none."""
        for actor in self.actors:
            if tasks and actor.ready and actor.task is None:
                task = tasks.popleft()
                text = CANDIDATES.dump_json([candidates[place] for place in task.places]).decode()
                actor.task, actor.ref = task, actor.handle.evaluate.remote(text, n)
                actor.deadline = time.monotonic() + self.fleet.limit * len(task.places)

    def _collected(self, actor: _Actor, tasks: deque[_Task]) -> list[Arrival]:
        import ray

        try:
            answer = ray.get(actor.ref)
        except ray.exceptions.RayTaskError as error:
            raise Halted(f"a worker {_where(error)}: {_told(error.cause, actor.ready)}") from None
        except ray.exceptions.RayError as error:
            if getattr(error, "actor_init_failed", False):  # it has none of its own: the package cannot be imported
                reason = str(error).splitlines()[-1]
                raise Halted(f"a worker {_where(error)}: {reason}; every node needs the same version of the package") from None
            self.last = _reason(error)
            return self._lost(actor, tasks, "died")
        task, actor.task, actor.ref, actor.deadline = actor.task, None, None, inf
        if task is None:
            actor.node, actor.before = answer, 0
            return []
        lines, halved = answer
        if halved:
            self.incidents["ran out of memory"] += halved
        entries = [Entry.model_validate_json(line) for line in lines]
        return [Arrival(task.places[int(each.key)], each.outcome, each.evaluations, each.seconds) for each in entries]

    def _lost(self, actor: _Actor, tasks: deque[_Task], how: str) -> list[Arrival]:
        """Replaces a worker; its candidates are asked for again one by one, or have failed. Raises `Halted` where none can start."""
        import ray

        self.head.wait()
        self.incidents[how] += 1
        before = 0 if actor.ready else actor.before + 1
        if before == DEATHS:
            raise Halted(f"{DEATHS} workers in a row died before they had loaded the model, the last {self.last}")
        ray.kill(actor.handle)
        self.actors[self.actors.index(actor)] = self._started(before)
        if actor.task is None:
            return []
        deaths, hangs = actor.task.deaths + (how == "died"), actor.task.hangs + (how != "died")
        if deaths >= DEATHS or hangs >= HANGS:
            failure = Failure(f"its worker {how}, {deaths + hangs} times" + (f", the last {self.last}" if how == "died" else ""))
            return [Arrival(place, failure, 0, 0.0) for place in actor.task.places]
        tasks.extendleft(_Task([place], deaths, hangs) for place in reversed(actor.task.places))
        return []

    def _dismiss(self) -> None:
        import ray

        for actor in self.actors:
            ray.kill(actor.handle)
        self.actors = []


def _told(error: Exception, ready: bool) -> str:
    """What a worker has raised."""
    if not isinstance(error, UserError):
        return f"{type(error).__name__}: {short(error)}"
    return str(error) if ready else f"{error}; every node needs the same package, and files at the same paths"


def _where(error: Exception) -> str:
    """The node that Ray names in what it says."""
    named = re.search(r"\bip[=:] ?([\w.:]*\w)", str(error), re.IGNORECASE)
    return f"on node {named[1]}" if named else "on a node"


def _reason(error: Exception) -> str:
    """Why a worker has died, in some words of Ray's pages."""
    import ray

    if isinstance(error, ray.exceptions.OutOfMemoryError):
        used = re.search(r"was (\S+ used / \S+ limit)", str(error))
        return f"{_where(error)}: killed by Ray's memory monitor{f', {used[1]}' if used else ''}"
    line = str(error).strip().splitlines()[-1].rpartition("exit detail: ")[2].partition(" Some common causes")[0]
    return f"{_where(error)}: {short(line)[:120].rstrip('.')}"


def _resources() -> str:
    import ray

    total = ray.cluster_resources()
    return f"{total.get('CPU', 0):g} CPUs and {total.get('GPU', 0):g} GPUs"
