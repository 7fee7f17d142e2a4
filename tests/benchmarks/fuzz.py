"""Feeds damaged files to every reader: `python -m tests.benchmarks.fuzz --inputs 100000`.

A finding is anything but a valid object or `UserError`: another exception, more than SLOW seconds, or an allocation beyond the bound.
Each is written to --keep, and its number makes it again: input i of a reader depends on --seed and i alone.
"""

import argparse
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

from solversearch.errors import UserError
from tests.fuzzing import Target, targets

SLOW = 5.0
ROOM = 2 * 2**30
"""Bytes of memory beyond those at the start."""
SHARES = {"plan": 6, "space": 6, "regression": 3}
"""Inputs of a reader for each one of another's."""


class Slow(Exception):
    """The reader took too long."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="one reader")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"))
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, _stop)
    with tempfile.TemporaryDirectory() as scratch:
        readers = targets(Path(scratch))
        _bound_memory()
        shares = {name: SHARES.get(name, 1) for name in readers if asked.only in (None, name)}
        counts = {name: -(-asked.inputs * share // sum(shares.values())) for name, share in shares.items()}
        findings = sum(_fuzz(name, readers[name], Path(scratch) / name, count, asked) for name, count in counts.items())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{sum(counts.values()):,} inputs, {findings} findings, {time.process_time():.0f} s of one core, peak {peak} MiB")
    sys.exit(1 if findings else 0)


def _fuzz(name: str, target: Target, folder: Path, count: int, asked: Any) -> int:
    """Findings of one reader."""
    valid, findings, slowest, start = 0, dict[str, int](), 0.0, time.perf_counter()
    for i in range(count):
        content = target.input(random.Random(f"{asked.seed} {name} {i}"))
        began = time.perf_counter()
        try:
            signal.setitimer(signal.ITIMER_REAL, SLOW)
            target.run(folder, content)
            valid += 1
        except UserError:
            pass
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            place = traceback.extract_tb(error.__traceback__)[-1]
            kind = f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"
            if kind not in findings:
                asked.keep.mkdir(exist_ok=True)
                (asked.keep / f"{name}-{i}-{target.file}").write_bytes(content)
                print(f"  {name} {i}: {kind}: {str(error)[:120]}")
            findings[kind] = findings.get(kind, 0) + 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        slowest = max(slowest, time.perf_counter() - began)
    seconds = time.perf_counter() - start
    print(
        f"{name:12} {count:7,} inputs, {valid:6,} valid, {sum(findings.values()):4} findings, slowest {slowest:.2f} s, {seconds:.0f} s",
        flush=True,
    )
    return sum(findings.values())


def _stop(*_: object) -> None:
    raise Slow(f"more than {SLOW:g} s")


def _bound_memory() -> None:
    """An allocation beyond the room is a MemoryError, which is a finding."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, used + ROOM))


if __name__ == "__main__":
    main()
