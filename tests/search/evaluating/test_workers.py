"""Workers on a cluster of several nodes, whose processes are really killed: nothing is lost, and the results are the driver's own."""

import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from solversearch.errors import Halted, UserError
from solversearch.judging.objectives import parse_many
from solversearch.models import DEFAULT
from solversearch.models.base import Clock
from solversearch.search.evaluating.evaluations import Evaluations, InProcess, Log
from solversearch.search.evaluating.evaluator import Evaluated, Evaluator, Failure
from solversearch.search.evaluating.fleet import Fleet
from solversearch.search.evaluating.worker import CANDIDATES, Worker, shared
from solversearch.search.evaluating.workers import DEATHS, HANGS, Workers, _reason
from solversearch.spaces import Candidate, Domain, SearchSpace
from solversearch.teacher import teach
from solversearch.version import __version__
from tests.assets import troubles
from tests.cli.calling import good

ray = pytest.importorskip("ray", reason="Ray is not installed")
NAME = f"python:{troubles.__file__}:factory"
LIMIT = 4.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where troubles come from."""
    folder = tmp_path_factory.mktemp("troubles")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TROUBLES", str(folder))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
        yield folder


@pytest.fixture(scope="module")
def cluster(folder: Path) -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    try:
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    except Exception as error:
        pytest.skip(f"Ray cannot start a cluster here: {error}")
    cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="module")
def evaluator(folder: Path) -> Evaluator:
    model = troubles.factory()
    teachers = teach(model, "fit", 32), teach(model, "validate", 64)
    return Evaluator(model, *teachers, parse_many("endpoint"), 1e-3, False, 64, Clock())


@pytest.fixture(scope="module")
def workers(cluster: Any, evaluator: Evaluator) -> Iterator[Workers]:
    with Workers(Fleet(2, address=cluster.address, limit=LIMIT), NAME, DEFAULT, "endpoint", evaluator) as workers:
        yield workers


@pytest.fixture
def candidates(evaluator: Evaluator) -> list[Candidate]:
    domain = Domain.of(SearchSpace(), evaluator.model.schedule, 3, 1.0)
    rng = np.random.default_rng(0)
    return [domain.candidate(domain.random(rng)) for _ in range(6)]


@pytest.fixture(autouse=True)
def no_trouble(folder: Path) -> Iterator[None]:
    yield
    for file in folder.iterdir():
        file.unlink()


def arrived(workers: Workers, candidates: Sequence[Candidate], n: int | None = None) -> list[Evaluated | Failure]:
    """In the order of the candidates; each arrives once."""
    arrivals = [arrival for arrived in workers.stream(candidates, n) for arrival in arrived]
    assert sorted(arrival.place for arrival in arrivals) == list(range(len(candidates)))
    return [arrival.outcome for arrival in sorted(arrivals, key=lambda arrival: arrival.place)]


def check_same(found: Sequence[Evaluated | Failure], expected: Sequence[Evaluated | Failure]) -> None:
    for one, other in zip(found, expected, strict=True):
        if isinstance(one, Failure) or isinstance(other, Failure):
            assert one == other
        else:
            assert (one.table, one.values, one.origin) == (other.table, other.values, other.origin)
            assert torch.equal(one.error, other.error)


def test_results_are_those_of_the_driver_to_the_last_bit(
    workers: Workers, evaluator: Evaluator, candidates: list[Candidate], folder: Path
) -> None:
    (folder / "nan").write_text(repr(float(np.float32(candidates[2].times[1]))))
    expected = evaluator.candidates(candidates, None)
    assert [isinstance(each, Failure) for each in expected] == [False, False, True, False, False, False]
    check_same(arrived(workers, candidates), expected)
    check_same(arrived(workers, candidates, 16), evaluator.candidates(candidates, 16))
    both = [Evaluations(source, Clock(), Log()) for source in (InProcess(evaluator), workers)]
    for each in both:
        each.candidates(candidates[:2], None)
    assert both[0].clock.evaluations == both[1].clock.evaluations == 2 * 3 * (32 + 64)


def test_a_worker_that_is_killed_loses_nothing(workers: Workers, evaluator: Evaluator, candidates: list[Candidate], folder: Path) -> None:
    expected = evaluator.candidates(candidates, None)
    (folder / "die").touch()
    check_same(arrived(workers, candidates), expected)
    assert workers.incidents["died"] == 1 and re.search(r"died 1 time \(the last on node [\d.]+: Worker unexpectedly exits", workers.befell)
    while not all(actor.ready for actor in workers.actors):
        arrived(workers, candidates)
    assert workers.at_work == "2 workers on 2 nodes, died 1"


def test_a_worker_that_hangs_is_replaced_and_a_candidate_that_hangs_fails(
    workers: Workers, evaluator: Evaluator, candidates: list[Candidate], folder: Path
) -> None:
    expected = evaluator.candidates(candidates[:4], None)
    (folder / "hang").touch()
    workers.fleet = replace(workers.fleet, limit=1.0)
    check_same(arrived(workers, candidates[:4]), expected)
    (folder / "hangs").write_text(repr(float(np.float32(candidates[1].times[0]))))
    found = arrived(workers, candidates[:4])
    expected[1] = Failure(f"its worker took too long, {HANGS} times")
    check_same(found, expected)
    workers.fleet = replace(workers.fleet, limit=LIMIT)


def test_memory_that_runs_out_halves_the_batch(workers: Workers, evaluator: Evaluator, candidates: list[Candidate], folder: Path) -> None:
    expected = evaluator.candidates(candidates, None)
    (folder / "memory").write_text("20")
    check_same(arrived(workers, candidates), expected)
    assert workers.incidents["ran out of memory"] >= 2
    (folder / "memory").write_text("0")
    failed = arrived(workers, candidates[:2])
    assert all(isinstance(each, Failure) and "runs out of memory" in each.reason for each in failed)


def test_other_weights_on_a_worker_are_told(cluster: Any, evaluator: Evaluator, candidates: list[Candidate], workers: Workers) -> None:
    other = replace(evaluator, model=replace(evaluator.model, weights="another"))
    workers._dismiss()  # the cluster has room for two
    with (
        Workers(Fleet(1, address=cluster.address), NAME, DEFAULT, "endpoint", other) as strangers,
        pytest.raises(
            UserError,
            match=r"^a worker on node \S+: model .* other weights on a worker than on the driver.*; every node",
        ),
    ):
        arrived(strangers, candidates)


def test_another_version_on_a_worker_is_told(cluster: Any, evaluator: Evaluator, candidates: list[Candidate]) -> None:
    with Workers(Fleet(1, address=cluster.address), NAME, DEFAULT, "endpoint", evaluator) as strangers:
        strangers._dismiss()
        strangers.job = replace(strangers.job, version="0.0.1")
        strangers.actors = [strangers._started()]
        with pytest.raises(Halted, match=rf"^a worker on node \S+: has version {__version__} of the package, the driver 0.0.1; every node"):
            arrived(strangers, candidates)


def test_a_file_that_a_node_lacks_is_told(cluster: Any, evaluator: Evaluator, candidates: list[Candidate]) -> None:
    with (
        Workers(Fleet(1, address=cluster.address), "python:/not/here.py:factory", DEFAULT, "endpoint", evaluator) as strangers,
        pytest.raises(Halted, match=r"^a worker on node \S+: /not/here.py: there is no such file; every node needs the same package"),
    ):
        arrived(strangers, candidates)


def test_a_worker_that_cannot_load_has_a_few_tries(cluster: Any, evaluator: Evaluator, candidates: list[Candidate], tmp_path: Path) -> None:
    (tmp_path / "deadly.py").write_text("import os\n\ndef factory():\n    os._exit(1)\n")
    with (
        Workers(Fleet(1, address=cluster.address), f"python:{tmp_path}/deadly.py:factory", DEFAULT, "endpoint", evaluator) as strangers,
        pytest.raises(Halted, match=rf"^{DEATHS} workers in a row died before they had loaded the model, the last on node \S+: Worker un"),
    ):
        arrived(strangers, candidates)
    assert strangers.incidents["died"] == DEATHS


def test_why_ray_killed_a_worker() -> None:
    """The beginning of what Ray 2.60 said when its memory monitor did."""
    text = (
        "1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 192.0.2.2, ID: a54826f2) was 3.12GB used / "
        "23.54GB limit (0.132674)\nOOM kill reason: Memory usage 3221409792B exceeded threshold of 3033127168B\nTop 10 memory users: PID"
    )
    expected = "on node 192.0.2.2: killed by Ray's memory monitor, 3.12GB used / 23.54GB limit"
    assert _reason(ray.exceptions.OutOfMemoryError(text)) == expected
    assert _reason(ray.exceptions.RayError("no more\n\n")) == "on a node: no more"


def test_a_node_that_is_lost_loses_nothing(cluster: Any, evaluator: Evaluator, candidates: list[Candidate], folder: Path) -> None:
    expected = evaluator.candidates(candidates, None)
    node = cluster.add_node(num_cpus=2)
    with Workers(Fleet(4, address=cluster.address), NAME, DEFAULT, "endpoint", evaluator) as workers:
        while not all(actor.ready for actor in workers.actors):  # those of the node among them
            check_same(arrived(workers, candidates), expected)
        (folder / "slow").write_text("0.3")  # so that the node goes while something runs
        threading.Timer(1.0, lambda: cluster.remove_node(node, allow_graceful=False)).start()
        found = arrived(workers, candidates)
    check_same(found, expected)
    assert workers.incidents["died"] >= 1  # a worker that was idle there is missed only when it is asked again


def test_one_and_two_workers_make_one_plan_file(tmp_path: Path, folder: Path) -> None:
    """To the byte: the command that a plan tells leaves out what changes no result."""
    small = ("--nfe", 2, "--trials", 4, "--samples", 128, "--fit-samples", 32, "--validation-samples", 32, "--no-instant", "--no-polish")
    for name, more in (("one", ()), ("two", ("--workers", 2)), ("batches", ("--batch-size=48", "--storage", f"sqlite:///{tmp_path}/t.db"))):
        good("optimize", "--model", NAME, *small, *more, "--out", tmp_path / name)
    one, two, batches = ((tmp_path / name / "plan.json").read_bytes() for name in ("one", "two", "batches"))
    assert one == two == batches


def test_a_worker_starts_from_the_pictures_of_the_driver(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = troubles.factory()
    model = model.started(model.schedule.start_of(0.5))
    own = Evaluator(model, teach(model, "fit", 16), teach(model, "validate", 16), parse_many("endpoint"), 1e-3, False, 64, Clock())
    monkeypatch.setattr(ray, "get_runtime_context", type("Context", (), {"get_node_id": lambda self: "here"}))
    worker, job = Worker(), Workers(Fleet(1), NAME, DEFAULT, "endpoint", own).job
    assert worker.load(job, shared(own.fitting), shared(own.validation)) == "here" and job.start == model.start
    domain = Domain.of(SearchSpace(), model.schedule, 3, 1.0)
    candidate = domain.candidate(domain.random(np.random.default_rng(0)))
    (entry,), _ = worker.evaluate(CANDIDATES.dump_json([candidate]).decode(), None)
    (expected,) = own.candidates([candidate], None)
    assert isinstance(expected, Evaluated) and repr(expected.value) in entry
