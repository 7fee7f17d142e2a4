"""A day with a cluster of two nodes, by commands: what goes wrong is one line that says where and how to go on; the plan is the same."""

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import solversearch.judging.baselines as peers
from solversearch.judging.compare import Timing
from solversearch.plan import Plan
from solversearch.search.evaluating import fleet
from tests.cli.calling import call, good

ray = pytest.importorskip("ray", reason="Ray is not installed")
SMALL = ("--nfe", 2, "--trials", 12, "--samples", 128, "--fit-samples", 32, "--validation-samples", 32, "--no-instant", "--no-polish",
         "--strategy", "random")  # fmt: skip
OWN = """
import os, time
from dataclasses import replace
from tests.assets import coins

class Raising(coins.Coins):
    def forward(self, x, t, condition):
        if {when} and os.path.exists({broken!r}):
            raise KeyError("no such layer")
        while {when} and os.path.exists({held!r}):
            open({held!r} + " there", "w").close()
            time.sleep(0.05)
        return super().forward(x, t, condition)

def factory():
    return replace(coins.factory(), name="raising", network=Raising())
"""
RAISED = r"the network of 'raising' raised KeyError: 'no such layer' at \S+/own.py:9"
GO_ON = r"; go on with 'solversearch optimize --resume \S+/run --model \S+/own.py:factory'$"
GONE = "the head of the Ray cluster at {} has not answered for 3 s; start it again"
WITHOUT = """
import sys

class Absent:
    def find_spec(self, name, *_):
        if name.partition(".")[0] == "solversearch":
            raise ModuleNotFoundError(f"No module named {name!r}")

sys.meta_path.insert(0, Absent())
"""
"""The sitecustomize of a Python that has not installed the package."""


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    for name, kept in (("SOLVERS", ("ddim", "unipc_2")), ("GRIDS", ("logsnr", "quadratic"))):
        monkeypatch.setattr(peers, name, {key: getattr(peers, name)[key] for key in kept})


@pytest.fixture
def cluster(settings: None) -> Iterator[Any]:
    """A head with one CPU; a test adds the other node."""
    from ray.cluster_utils import Cluster

    try:
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    except Exception as error:
        pytest.skip(f"Ray cannot start a cluster here: {error}")
    yield cluster
    cluster.shutdown()


def own(folder: Path, when: str) -> str:
    """A network that raises while there is a file 'broken', and does not go on while there is one 'held', but says so: when it is so."""
    (folder / "own.py").write_text(OWN.format(broken=str(folder / "broken"), held=str(folder / "held"), when=when))
    return f"python:{folder}/own.py:factory"


def halted(*arguments: object) -> str:
    """The one line after the progress."""
    result = call(*arguments)
    *progress, told = result.err.splitlines()
    assert result.code == 2 and result.out == "" and told.startswith("error: "), result
    assert all(re.match(r"(teacher|baselines|fit|search|instant|comparison|sweep)\b", line) for line in progress), result.err
    return told.removeprefix("error: ")


def head_goes(cluster: Any, folder: Path) -> None:
    """The head dies as soon as a network on a node is held."""

    def kill() -> None:
        while not (folder / "held there").exists():
            time.sleep(0.01)
        cluster.head_node.kill_gcs_server(check_alive=False)

    (folder / "held").touch()
    threading.Thread(target=kill, daemon=True).start()


def check_goes_on(model: str, folder: Path, *where: object) -> None:
    """After what was wrong is mended: the plan of a search that nothing befell."""
    good("optimize", "--resume", folder / "run", "--model", model, *where)
    good("optimize", "--model", model, *SMALL, "--out", folder / "whole")
    one, other = (Plan.read(folder / name / "plan.json") for name in ("run", "whole"))
    assert (one.nodes, one.rows, one.scores) == (other.nodes, other.rows, other.scores)


def test_a_network_that_raises_in_the_driver(tmp_path: Path) -> None:
    model = own(tmp_path, "len(x) == 64")  # 32 samples to fit and 32 to judge a candidate
    (tmp_path / "broken").touch()
    told = halted("optimize", "--model", model, *SMALL, "--out", tmp_path / "run")
    assert re.match(f"^{RAISED}{GO_ON}", told), told
    (tmp_path / "broken").unlink()
    check_goes_on(model, tmp_path)


def test_a_cluster_that_breaks_three_times(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network raises on its nodes; one of them lacks the package; its head goes. Each time the search can go on where it was."""
    monkeypatch.setattr(fleet, "GONE", 3.0)
    model, where = own(tmp_path, "len(x) > 2 and 'RAY_RAYLET_PID' in os.environ"), ("--ray-address", cluster.address, "--workers")
    (tmp_path / "broken").touch()
    told = halted("optimize", "--model", model, *SMALL, "--out", tmp_path / "run", *where, 1)
    assert re.match(rf"^a worker on node [\d.]+: {RAISED}{GO_ON}", told), told
    (tmp_path / "broken").unlink()

    (tmp_path / "sitecustomize.py").write_text(WITHOUT)
    node = cluster.add_node(num_cpus=1, env_vars={"PYTHONPATH": str(tmp_path)})
    told = halted("optimize", "--resume", tmp_path / "run", "--model", model, *where, 2)
    reason = "ModuleNotFoundError: No module named 'solversearch'; every node needs the same version of the package"
    assert re.match(rf"^a worker on node [\d.]+: {reason}{GO_ON}", told), told
    cluster.remove_node(node)

    cluster.add_node(num_cpus=1)
    head_goes(cluster, tmp_path)
    told = halted("optimize", "--resume", tmp_path / "run", "--model", model, *where, 2)
    assert re.match(f"^{GONE.format(where[1])}{GO_ON}", told), told
    (tmp_path / "held").unlink()
    check_goes_on(model, tmp_path)


def test_the_head_of_a_sweep_goes(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray alone would end the process after a minute, with a line of its own."""
    monkeypatch.setattr(fleet, "GONE", 3.0)
    model, address = own(tmp_path, "'RAY_RAYLET_PID' in os.environ"), cluster.address
    (tmp_path / "sweep.yaml").write_text(f"models: '{model}'\nnfe: [2, 3]\nsettings: {{trials: 12, instant: false, polish: false}}")
    head_goes(cluster, tmp_path)
    told = halted("sweep", tmp_path / "sweep.yaml", "--out", tmp_path / "sweep", "--ray-address", address)
    assert told == GONE.format(address) + ", and go on with the same command"


def test_a_factory_that_is_not_the_same_twice(tmp_path: Path) -> None:
    text = OWN.replace("coins.factory(),", "coins.factory(), weights=os.urandom(8).hex(),")
    (tmp_path / "own.py").write_text(text.format(broken="", held="", when="False"))
    told = halted("optimize", "--model", f"python:{tmp_path}/own.py:factory", *SMALL, "--workers", 2, "--out", tmp_path / "run")
    assert "own.py:factory: the factory makes other weights every time" in told and told.endswith("begin it with torch.manual_seed(0)")
    assert not (tmp_path / "run").exists()


def test_workers_without_a_search_are_told(tmp_path: Path) -> None:
    told = call("optimize", "--model", "digits", "--nfe", 2, "--instant", "--samples", 128, "--workers", 2, "--out", tmp_path / "run")
    assert told.code == 0 and "warning: --workers: they share the candidates of a search, and here is none" in told.err


def test_seconds_in_the_network_are_of_the_drivers_where_they_can_be() -> None:
    assert Timing(wall_s=64.2, network_s=31.4).told == "64 s, 31 s of it in the network"
    assert Timing(wall_s=31.4, network_s=64.2).told == "31 s, 64 s in the network, on all workers together"
