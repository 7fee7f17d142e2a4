"""What candidates are worth, asked once: every finished evaluation is written down, and a search that is resumed finds it there.

A log has one line of JSON an evaluation, appended before the search goes on. Whatever ends the driver, no more than the last
line is damaged, and that is dropped; where the machine ends, too, the lines of its last second may be lost. Tensors lie beside the log,
in a folder that goes when the run is finished.
"""

import os
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, NamedTuple, Protocol, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator
from safetensors.torch import load, save
from torch import Tensor

from solversearch.components import Components
from solversearch.errors import UserError
from solversearch.models.base import Clock
from solversearch.outputs import KEPT, clear_kept
from solversearch.plan import Count, Many, parse_json, replacing
from solversearch.runtime import Node, Row, Tableau
from solversearch.search.evaluating.evaluator import Evaluated, Evaluator, Failure
from solversearch.spaces import Candidate

NAME = "evaluations.log"
SYNC = 1.0
"""Seconds after which what is written is forced onto the disk: each time takes as long as a small network call."""
Number = Annotated[float, Field(allow_inf_nan=False)]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")


class _Kept(_Frozen):
    """A `Evaluated` in plain numbers."""

    nodes: Many[Node]
    rows: Many[Row]
    error: Many[Number]
    values: Many[Number]
    origin: dict[str, JsonValue]
    components: Components | None = None

    @property
    def table(self) -> Tableau:
        return Tableau(self.nodes, self.rows, components=self.components)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        _ = self.table  # checks it
        return self


class Entry(_Frozen):
    """One evaluation: what came out, and what it took of the network. wall has all seconds since the entry before.

    failure is a reason; numbers are those of another stage; tensors is the SHA-256 of the file that has them.
    """

    key: str
    evaluations: Count = 0
    seconds: float = Field(0.0, ge=0)
    wall: float = Field(0.0, ge=0)
    result: _Kept | None = None
    failure: str | None = None
    numbers: Many[float] = ()
    tensors: str | None = None

    @classmethod
    def of(cls, key: str, outcome: Evaluated | Failure, evaluations: int = 0, seconds: float = 0.0) -> "Entry":
        if isinstance(outcome, Failure):
            return cls(key=key, evaluations=evaluations, seconds=seconds, failure=outcome.reason)
        table = outcome.table
        kept = _Kept.model_construct(
            nodes=table.nodes, rows=table.rows, error=tuple(outcome.error.tolist()), values=outcome.values, origin=outcome.origin,
            components=table.components,
        )  # fmt: skip
        return cls.model_construct(key=key, evaluations=evaluations, seconds=seconds, result=kept)

    @property
    def outcome(self) -> Evaluated | Failure:
        if self.result is None:
            return Failure(self.failure or "")
        error = torch.tensor(self.result.error, dtype=torch.float64)
        return Evaluated(self.result.table, error, self.result.values, self.result.origin)


class Log:
    """What earlier processes of the search have evaluated, by key, and the file that this one adds to, where there is a path."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.start = self.synced = time.perf_counter()
        self.earlier = self.last = 0.0
        self.entries: dict[str, Entry] = {}
        if path is not None and path.exists():
            drop_torn_line(path)
            for number, line in enumerate(path.read_bytes().splitlines(), 1):
                try:
                    entry = parse_json(Entry, line, f"{path}:{number}")
                except UserError as error:
                    warnings.warn(f"{error}; what this line had is evaluated again", stacklevel=2)
                    continue
                self.entries[entry.key] = entry

    def elapsed(self) -> float:
        """Seconds of this process, and of those before it on what it found in the log."""
        return time.perf_counter() - self.start + self.earlier

    def add(self, entries: Sequence[Entry]) -> None:
        """Writes them down; the first has the seconds since the entry before."""
        now = self.elapsed()
        entries = [entries[0].model_copy(update={"wall": round(now - self.last, 6)}), *entries[1:]]
        self.last = now
        if self.path is not None:
            with self.path.open("ab") as file:
                file.write(b"".join(entry.model_dump_json(exclude_defaults=True).encode() + b"\n" for entry in entries))
                file.flush()
                if time.perf_counter() - self.synced > SYNC:
                    os.fsync(file.fileno())
                    self.synced = time.perf_counter()

    def found(self, clock: Clock, keys: Iterable[str]) -> dict[str, Entry]:
        """The entries of earlier processes, by key. The clock runs on by what they took."""
        entries = {key: self.entries[key] for key in keys if key in self.entries}
        charge(clock, entries.values())
        wall = sum(entry.wall for entry in entries.values())
        self.earlier += wall
        self.last += wall
        return entries

    def once(self, key: str, clock: Clock, compute: Callable[[], Evaluated]) -> Evaluated:
        """The result of an earlier run of the search; else what compute returns, kept."""
        entry = self._entry(key, clock, lambda: Entry.of(key, compute()))
        assert isinstance(entry.outcome, Evaluated)
        return entry.outcome

    def numbers(self, key: str, clock: Clock, compute: Callable[[], Sequence[float]]) -> Sequence[float]:
        """Like `once`, of plain numbers."""
        return self._entry(key, clock, lambda: Entry(key=key, numbers=tuple(compute()))).numbers

    def tensors(self, key: str, clock: Clock, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Like `once`, of tensors, which come back in host memory. Where their file is missing or damaged they are computed again."""
        if key in self.entries and (content := self._read(key)) is not None:
            self.found(clock, [key])
            return load(content)
        made: dict[str, Tensor] = {}

        def computed() -> Entry:
            made.update({name: tensor.detach().cpu() for name, tensor in compute().items()})
            return Entry(key=key, tensors=self._write(key, made))

        self._made(clock, computed)
        return made

    def forget(self) -> None:
        """Removes the tensors: the run is finished."""
        if self.path is not None:
            clear_kept(self.path.parent)

    def _file(self, key: str) -> Path | None:
        """Where the tensors of a key are kept."""
        return self.path and self.path.parent / KEPT / f"{sha256(key.encode()).hexdigest()[:32]}.safetensors"

    def _read(self, key: str) -> bytes | None:
        """The file of a key, where it is the one that was written."""
        file = self._file(key)
        if file is None or not file.is_file():
            return None
        content = file.read_bytes()
        return content if sha256(content).hexdigest() == self.entries[key].tensors else None

    def _write(self, key: str, tensors: dict[str, Tensor]) -> str | None:
        """The SHA-256 of the file; None in memory."""
        file = self._file(key)
        if file is None:
            return None
        content = save({name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()})
        with replacing(file) as temporary:
            temporary.write_bytes(content)
        return sha256(content).hexdigest()

    def _entry(self, key: str, clock: Clock, compute: Callable[[], Entry]) -> Entry:
        return self.found(clock, [key]).get(key) or self._made(clock, compute)

    def _made(self, clock: Clock, compute: Callable[[], Entry]) -> Entry:
        evaluations, seconds, last = clock.evaluations, clock.seconds, self.last
        entry = compute().model_copy(update={"evaluations": clock.evaluations - evaluations, "seconds": clock.seconds - seconds})
        self.last = last  # what has entries of its own within
        self.add([entry])
        return entry


@dataclass
class Parts:
    """The `Memo` of a computation: its parts are entries of a log, under its key and their place."""

    log: Log
    key: str
    clock: Clock
    count: int = 0

    def numbers(self, compute: Callable[[], Sequence[float]]) -> Sequence[float]:
        return self.log.numbers(self._next(), self.clock, compute)

    def tensors(self, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        return self.log.tensors(self._next(), self.clock, compute)

    def _next(self) -> str:
        self.count += 1
        return f"{self.key}, {self.count}"


def drop_torn_line(path: Path) -> None:
    """Cuts off a last line without an end: the driver, or the machine, died while it was written."""
    content = path.read_bytes()
    if not content.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(content.rfind(b"\n") + 1)


def charge(clock: Clock, entries: Iterable[Entry]) -> None:
    for entry in entries:
        clock.evaluations += entry.evaluations
        clock.seconds += entry.seconds


class Arrival(NamedTuple):
    """What came out of one candidate of those asked for, by its place, and what it took of the network."""

    place: int
    outcome: Evaluated | Failure
    evaluations: int
    seconds: float


class Source(Protocol):
    """Evaluates candidates on the first n samples, or all; hands on what arrives together. befell says what went wrong meanwhile,
    at_work who evaluates."""

    @property
    def befell(self) -> str: ...

    @property
    def at_work(self) -> str: ...

    def stream(self, candidates: Sequence[Candidate], n: int | None) -> Iterable[Sequence[Arrival]]: ...


class InProcess:
    """Evaluates here, a network batch of candidates after the other."""

    befell = at_work = ""

    def __init__(self, evaluator: Evaluator) -> None:
        self.evaluator = evaluator

    def stream(self, candidates: Sequence[Candidate], n: int | None) -> Iterable[Sequence[Arrival]]:
        clock, size = self.evaluator.clock, self.evaluator.together(n)
        for first in range(0, len(candidates), size):
            evaluations, seconds = clock.evaluations, clock.seconds
            outcomes = self.evaluator.candidates(candidates[first : first + size], n)
            yield arrivals(outcomes, clock.evaluations - evaluations, clock.seconds - seconds, first)


def arrivals(outcomes: Sequence[Evaluated | Failure], evaluations: int, seconds: float, first: int = 0) -> list[Arrival]:
    """Shares out what candidates that were evaluated together, from the place first on, took of the network, by their calls."""
    calls = [outcome.table.network_calls if isinstance(outcome, Evaluated) else 0 for outcome in outcomes]
    calls = [each or max(calls) or 1 for each in calls]
    before = [evaluations * sum(calls[:k]) // sum(calls) for k in range(len(calls) + 1)]
    return [
        Arrival(first + k, outcome, before[k + 1] - before[k], seconds * calls[k] / sum(calls)) for k, outcome in enumerate(outcomes)
    ]  # fmt: skip


class Evaluations:
    """`candidates` for the loop: what the log does not have is evaluated, and logged as it arrives."""

    def __init__(self, source: Source, clock: Clock, log: Log) -> None:
        self.source, self.clock, self.log = source, clock, log

    def candidates(self, candidates: Sequence[Candidate], n: int | None) -> list[Evaluated | Failure]:
        """In the order of the candidates. The clock runs on by what they took, whenever and wherever that was."""
        keys = [f"{candidate.signature} {'all' if n is None else n}" for candidate in candidates]
        known = self.log.found(self.clock, keys)
        outcomes = {key: entry.outcome for key, entry in known.items()}
        new = [k for k, key in enumerate(keys) if key not in known]
        evaluations, seconds = self.clock.evaluations, self.clock.seconds
        entries: list[Entry] = []
        for arrived in self.source.stream([candidates[k] for k in new], n) if new else ():
            fresh = {keys[new[each.place]]: each for each in arrived}
            outcomes |= {key: each.outcome for key, each in fresh.items()}
            made = [Entry.of(key, each.outcome, each.evaluations, each.seconds) for key, each in fresh.items()]
            self.log.add(made)
            entries += made
        self.clock.evaluations, self.clock.seconds = evaluations, seconds
        charge(self.clock, entries)
        return [outcomes[key] for key in keys]
