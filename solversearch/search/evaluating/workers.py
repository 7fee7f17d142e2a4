"""Candidates evaluated on the workers of a Ray cluster: actors that may die, hang or run out of memory while the search goes on.

An actor does one task at a time, a task being some candidates. What an actor takes with it when it dies, or is killed for taking too
long, is asked for again candidate by candidate, so that the one at fault is found; the actor is replaced. Results are the same as in
the driver's own process; they are handed on as they arrive.
"""

import os
import socket
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, Self

from solversearch.errors import UserError
from solversearch.models import Options
from solversearch.models.digest import exact
from solversearch.search.evaluating.evaluations import Arrival, Entry
from solversearch.search.evaluating.evaluator import Evaluator, Failure
from solversearch.search.evaluating.worker import CANDIDATES, Job, Worker, shared
from solversearch.spaces import Candidate

DEATHS, HANGS = 5, 2
"""Workers that a candidate may cost, by their death or by its slowness, before it has failed."""
SOCKET = 107
"""Bytes that the name of a socket may have."""
PATIENCE = 10.0
"""Seconds in which somebody must listen at an address."""
ANSWERS = 30.0
"""Seconds in which a cluster must answer: most of them are those that a busy machine needs to start Python and Ray."""
STARTS = 300.0
"""Seconds in which some worker must have started."""


@dataclass(frozen=True)
class Fleet:
    """The workers that a person asks for. gpus is the share of a GPU that each takes; limit the seconds that a candidate may take."""

    count: int = 1
    gpus: float = 0.0
    address: str | None = None
    limit: float = 600.0

    def __post_init__(self) -> None:
        for option, value, least in (("--workers", self.count, 1), ("--gpus-per-worker", self.gpus, 0), ("--time-limit", self.limit, 1)):
            if value < least:
                raise UserError(f"{option} {value}: write {least} or more")

    @property
    def remote(self) -> bool:
        """One worker that is not on a cluster is the driver itself."""
        return self.count > 1 or self.address is not None

    def check(self) -> None:
        """Before any work: whether Ray can be there. Raises `UserError`."""
        if self.address is not None:
            _check_listens(self.address)
            _check_answers(self.address)
        elif self.remote and len(os.fsencode(_socket())) > SOCKET:
            raise UserError(
                f"--workers: the temporary folder {_temporary()} is {len(os.fsencode(_socket())) - SOCKET} bytes too long for the names of "
                "Ray's sockets; set TMPDIR to a shorter one, such as /tmp"
            )


HERE = Fleet()


def _temporary() -> str:
    """Where Ray puts its sockets."""
    return os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"


def _socket() -> str:
    """A name as long as the longest of Ray's."""
    return f"{_temporary()}/ray/session_2026-01-01_00-00-00_000000_{os.getpid()}/sockets/plasma_store"


def _check_listens(address: str) -> None:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address == "auto":  # Ray itself looks for a cluster on this machine
        return
    if not host or not port.isdecimal():
        raise UserError(f"--ray-address {address}: write HOST:PORT, or auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--ray-address {address}: nobody listens there ({reason}); start a cluster with 'ray start --head'") from None


def _check_answers(address: str) -> None:
    """In a process of its own, for Ray waits minutes for what listens and is no cluster, and may end the process that it is in."""
    code = "import sys, ray; ray.init(sys.argv[1], log_to_driver=False, logging_level='ERROR')"
    try:
        ended = subprocess.run([sys.executable, "-c", code, address], capture_output=True, text=True, timeout=ANSWERS, check=False)
    except subprocess.TimeoutExpired:
        raise UserError(
            f"--ray-address {address}: no Ray cluster answers there in {ANSWERS:.0f} s; name the port of 'ray start --head', 6379 unless "
            "it was told another"
        ) from None
    if ended.returncode:
        reason = (ended.stderr.strip() or f"Ray ended with {ended.returncode}").splitlines()[-1]
        raise UserError(f"--ray-address {address}: {reason.rpartition('Error: ')[2]}")


@contextmanager
def cluster(cpus: int, address: str | None) -> Iterator[None]:
    """Ray: that at an address, or one of its own with so many workers; raises `UserError` where there is none.

    Ray prints what befalls its processes to stdout, which is for results.
    """
    import ray

    with ExitStack() as leave:
        leave.enter_context(redirect_stdout(leave.enter_context(open(os.devnull, "w"))))
        if not ray.is_initialized():
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            own = {"num_cpus": cpus, "include_dashboard": False} if address is None else {}
            try:
                ray.init(address or "local", log_to_driver=False, logging_level="ERROR", **own)
            except ConnectionError as error:
                raise UserError(f"--ray-address {address}: {' '.join(str(error).split())}") from None
            leave.callback(ray.shutdown)
        yield


@dataclass
class _Task:
    places: list[int]
    deaths: int = 0
    hangs: int = 0


@dataclass
class _Actor:
    """ref is what it is at: a task, or loading the model, where it has none."""

    handle: Any
    ref: Any
    task: _Task | None = None
    ready: bool = False
    deadline: float = inf


class Workers:
    """A `Source` of evaluations, between `__enter__`, which starts Ray, and `__exit__`."""

    def __init__(self, fleet: Fleet, model: str, options: Options, objective: str, evaluator: Evaluator) -> None:
        self.fleet, self.evaluator = fleet, evaluator
        self.job = Job(
            model, options, exact(evaluator.model), Path.cwd(), objective, evaluator.scale, evaluator.split, evaluator.batch_size
        )  # fmt: skip
        self.actors: list[_Actor] = []
        self.incidents: Counter[str] = Counter()

    def __enter__(self) -> Self:
        import ray

        self.leave = ExitStack()
        self.leave.enter_context(cluster(self.fleet.count, self.fleet.address))
        self.leave.callback(self._dismiss)
        self.teachers = [ray.put(shared(teacher)) for teacher in (self.evaluator.fitting, self.evaluator.validation)]
        self.actors = [self._started() for _ in range(self.fleet.count)]
        return self

    def __exit__(self, *_: object) -> None:
        self.leave.close()

    @property
    def befell(self) -> str:
        """What the workers suffered, in a few words; empty where nothing did."""
        return ", ".join(f"{what} {count} time{'s' * (count > 1)}" for what, count in self.incidents.items())

    def stream(self, candidates: Sequence[Candidate], n: int | None) -> Iterator[list[Arrival]]:
        """A task fills a network batch; whoever has finished one is given the next before its results are handed on."""
        import ray

        count = len(candidates)
        size = min(self.evaluator.together(n), -(-count // len(self.actors)))
        tasks = deque(_Task(list(range(first, min(first + size, count)))) for first in range(0, count, size))
        since = time.monotonic()
        while tasks or any(actor.task for actor in self.actors):
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
                raise UserError(f"no worker has started in {STARTS:.0f} s: the cluster has {_resources()}; ask for fewer --workers")

    def _started(self) -> _Actor:
        import ray

        environment = {"env_vars": {"OMP_NUM_THREADS": "1"}}
        handle = ray.remote(num_cpus=1, num_gpus=self.fleet.gpus, runtime_env=environment)(Worker).remote()
        return _Actor(handle, handle.load.remote(self.job, *self.teachers))

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
        except (ray.exceptions.RayActorError, ray.exceptions.WorkerCrashedError, ray.exceptions.ObjectLostError,
                ray.exceptions.OutOfMemoryError):  # fmt: skip
            return self._lost(actor, tasks, "died")
        except ray.exceptions.RayTaskError as error:
            raise UserError(f"a worker: {error.cause}") if isinstance(error.cause, UserError) else error from None
        task, actor.task, actor.ref, actor.ready, actor.deadline = actor.task, None, None, True, inf
        if task is None:
            return []
        lines, halved = answer
        if halved:
            self.incidents["ran out of memory"] += halved
        entries = [Entry.model_validate_json(line) for line in lines]
        return [Arrival(task.places[int(each.key)], each.outcome, each.evaluations, each.seconds) for each in entries]

    def _lost(self, actor: _Actor, tasks: deque[_Task], how: str) -> list[Arrival]:
        """Replaces a worker; its candidates are asked for again one by one, or have failed."""
        import ray

        self.incidents[how] += 1
        ray.kill(actor.handle)
        self.actors[self.actors.index(actor)] = self._started()
        if actor.task is None:
            return []
        deaths, hangs = actor.task.deaths + (how == "died"), actor.task.hangs + (how != "died")
        if deaths >= DEATHS or hangs >= HANGS:
            failure = Failure(f"its worker {how}, {deaths + hangs} times")
            return [Arrival(place, failure, 0, 0.0) for place in actor.task.places]
        tasks.extendleft(_Task([place], deaths, hangs) for place in reversed(actor.task.places))
        return []

    def _dismiss(self) -> None:
        import ray

        for actor in self.actors:
            ray.kill(actor.handle)
        self.actors = []


def _resources() -> str:
    import ray

    total = ray.cluster_resources()
    return f"{total.get('CPU', 0):g} CPUs and {total.get('GPU', 0):g} GPUs"
