"""Drivers and workers killed at random moments of one search: the same plan in the end, and no evaluation lost or repeated."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from solversearch.plan import Plan
from tests.assets import troubles
from tests.cli.calling import good

ray = pytest.importorskip("ray", reason="Ray is not installed")
MODEL = f"python:{troubles.__file__}:factory"
COMMAND = (
    "optimize",
    "--model",
    MODEL,
    "--nfe",
    "2",
    "--samples",
    "128",
    "--no-instant",
    "--no-fit",
    "--no-polish",
    "--strategy",
    "random",
)
WORKERS = 2


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Its address, and the folder of its troubles."""
    from ray.cluster_utils import Cluster

    folder = tmp_path_factory.mktemp("troubles")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": Path(__file__).parents[2], "TROUBLES": folder}.items():
            patch.setenv(name, str(value))
        try:
            cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": WORKERS, "include_dashboard": False})
        except Exception as error:
            pytest.skip(f"Ray cannot start a cluster here: {error}")
        yield cluster.address, folder
        cluster.shutdown()


def started(folder: Path, *arguments: str) -> subprocess.Popen[Any]:
    """A driver, which has no troubles of its own."""
    command, environment = [sys.executable, "-m", "solversearch.cli", *arguments], {**os.environ, "TROUBLES": str(folder)}
    with (folder / "err").open("a") as err:
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=err, env=environment)


def workers() -> list[int]:
    """Processes of actors of the cluster."""
    listed = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [int(line.split()[0]) for line in listed if line.split()[1:2] and line.split()[1].startswith("ray::Worker")]


def lines(log: Path) -> int:
    return log.read_bytes().count(b"\n") if log.exists() else 0


def check_killed(kills: int, trials: int, cluster: tuple[str, Path], folder: Path) -> None:
    """Every other kill is the driver's, the others are of workers; each when a few more evaluations are done."""
    address, troubles = cluster
    (troubles / "slow").write_text("0.05")
    rng, run, log = np.random.default_rng(kills), folder / "killed", folder / "killed" / "evaluations.log"
    fleet = ("--workers", str(WORKERS), "--ray-address", address)
    driver = started(folder, *COMMAND, "--trials", str(trials), "--out", str(run), *fleet)
    total, drivers = 1.2 * trials, 0
    for number in range(kills):
        wanted = max(3 + 0.9 * total * number / kills, lines(log) + 1)
        while lines(log) < wanted:
            assert driver.poll() is None, (folder / "err").read_text()
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 0.3))
        if number % 2:
            for pid in workers()[:1]:
                os.kill(pid, signal.SIGKILL)
            continue
        drivers += 1
        driver.kill()
        driver.wait()
        before = log.read_bytes()
        driver = started(folder, "optimize", "--resume", str(run), "--model", MODEL, *fleet)
        assert log.read_bytes().startswith(before[: before.rfind(b"\n") + 1])
    assert driver.wait(timeout=600) == 0, (folder / "err").read_text()
    assert drivers == -(-kills // 2)
    keys = [json.loads(line)["key"] for line in log.read_text().splitlines()]
    assert len(keys) == len(set(keys))
    (troubles / "slow").unlink()
    good(*COMMAND, "--trials", trials, "--out", folder / "whole")
    killed, whole = (Plan.read(folder / name / "plan.json") for name in ("killed", "whole"))
    assert (killed.nodes, killed.rows, killed.scores) == (whole.nodes, whole.rows, whole.scores)
    assert sorted(keys) == sorted(json.loads(line)["key"] for line in (folder / "whole" / "evaluations.log").read_text().splitlines())


def test_three_kills(cluster: tuple[str, Path], tmp_path: Path) -> None:
    check_killed(3, 24, cluster, tmp_path)


@pytest.mark.slow
def test_twenty_kills(cluster: tuple[str, Path], tmp_path: Path) -> None:
    check_killed(20, 200, cluster, tmp_path)
