"""Where trials are kept: new databases that many begin at once, and journals and logs that were damaged."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import solversearch.judging.baselines as peers
from solversearch.errors import UserError
from solversearch.plan import Plan
from solversearch.search.evaluating import fleet
from solversearch.search.evaluating.fleet import HERE, Fleet
from solversearch.search.evaluating.storage import check_reachable, database
from tests.assets import coins
from tests.cli.calling import call, good
from tests.search.postgres import server

MODEL = ("--model", f"python:{coins.__file__}:factory")
SMALL = ("optimize", *MODEL, "--nfe", "2", "--trials", "6", "--samples", "128", "--fit-samples", "32", "--validation-samples", "32",
         "--no-instant", "--no-polish")  # fmt: skip


def at_once(address: str, count: int, folder: Path) -> list[str]:
    """What each of several processes says that begin studies on one database in the same moment; nothing where all is well."""
    gate = folder / "gate"
    code = (
        "import sys, time; from pathlib import Path; from solversearch.search.evaluating.storage import Trials\n"
        "address, folder, name, gate = sys.argv[1:]\n"
        "Path(folder, name + '.ready').touch()\n"
        "while not Path(gate).exists(): time.sleep(0.001)\n"
        "Trials(Path(folder), address, name, 1, False)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, address, str(folder), f"study{k}", str(gate)], stderr=subprocess.PIPE, text=True, env=environment
        )
        for k in range(count)
    ]  # fmt: skip
    while len(list(folder.glob("*.ready"))) < count and all(process.poll() is None for process in started):
        time.sleep(0.01)
    gate.touch()
    return [(process.communicate()[1] or "")[-400:] * bool(process.returncode) for process in started]


def test_many_begin_on_one_new_file(tmp_path: Path) -> None:
    assert at_once(f"sqlite:///{tmp_path}/new.db", 4, tmp_path) == [""] * 4


def test_many_begin_on_one_new_server(tmp_path: Path) -> None:
    with server() as address:
        assert at_once(address, 5, tmp_path) == [""] * 5


def test_two_searches_on_one_new_database(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-m", "solversearch.cli", *SMALL, "--storage", f"sqlite:///{tmp_path}/new.db"]
    started = [
        subprocess.Popen(
            [*command, "--seed", str(k), "--out", f"run{k}"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=tmp_path,
            env=environment,
        )
        for k in range(2)
    ]  # fmt: skip
    assert [process.communicate()[1].decode()[-400:] * bool(process.returncode) for process in started] == [""] * 2
    assert {Plan.read(tmp_path / f"run{k}" / "plan.json").provenance.seed for k in range(2)} == {0, 1}


def test_what_cannot_be_reached() -> None:
    for address, reason in (
        ("nonsense", "Could not parse"),
        ("mysql+nowhere://h/d", "mysql.nowhere"),
        ("oracle://u:secret@h/d", "No module named 'oracledb'; install the driver that the address names"),
        ("postgresql+psycopg://u:secret@127.0.0.1:1/d", "refused"),
        ("sqlite:////nowhere/at/all.db", "unable to open"),
    ):
        with pytest.raises(UserError, match=reason) as told:
            check_reachable(HERE, address)
        assert str(told.value).startswith("--storage ") and "secret" not in str(told.value) and "\n" not in str(told.value)
    with pytest.raises(UserError, match=r"^--ray-address 127\.0\.0\.1:1: nobody listens there"):
        check_reachable(Fleet(address="127.0.0.1:1"), None)
    check_reachable(HERE, None)


def test_what_listens_and_is_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    monkeypatch.setattr(fleet, "ANSWERS", 6.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(UserError, match=rf"^--ray-address {address}: no Ray cluster answers there in 6 s"):
            check_reachable(Fleet(address=address), None)


def test_a_token_that_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("HOME", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(UserError, match=rf"^--ray-address {address}: the cluster's token is missing here, or another; set RAY"):
            check_reachable(Fleet(address=address), None)


def test_no_cluster_on_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    if subprocess.run(["pgrep", "-f", "gcs_server"], stdout=subprocess.DEVNULL, check=False).returncode == 0:
        pytest.skip("there is a cluster on this machine")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))  # where Ray notes the clusters of a machine
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(UserError, match=r"^--ray-address auto: .*[Cc]ould not find any running Ray") as told:
        check_reachable(Fleet(address="auto"), None)
    assert "\n" not in str(told.value)


def test_a_database_of_something_else_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "mine.db").write_text("no database at all, but a file of mine" * 50)
    with pytest.raises(UserError, match="file is not a database"):
        database(f"sqlite:///{tmp_path}/mine.db")
    assert (tmp_path / "mine.db").read_text().startswith("no database")


# Damaged files -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    run = tmp_path_factory.mktemp("damaged") / "run"
    with pytest.MonkeyPatch.context() as patch:
        for name, kept in (("SOLVERS", ("ddim", "unipc_2")), ("GRIDS", ("logsnr", "quadratic"))):
            patch.setattr(peers, name, {key: getattr(peers, name)[key] for key in kept})
        good(*SMALL, "--out", run)
        yield run


def resumed(finished: Path, run: Path, file: str, damage: dict[int, bytes | None]) -> str:
    """The same run before its comparison, with damaged lines (None: left out), and gone on with; what is said."""
    shutil.copytree(finished, run)
    (run / "comparison.json").unlink()
    lines = (run / file).read_bytes().splitlines(keepends=True)
    for number, line in damage.items():
        lines[number] = b"" if line is None else line
    (run / file).write_bytes(b"".join(lines))
    result = call("optimize", "--resume", run, *MODEL)
    assert result.code == 0, result.err
    one, other = Plan.read(run / "plan.json"), Plan.read(finished / "plan.json")
    assert (one.nodes, one.rows, one.scores, one.decisions) == (other.nodes, other.rows, other.scores, other.decisions)
    assert "Traceback" not in result.err
    return result.err


DAMAGE = {
    "cut": b'{"op_code": 4, "worker_id": "a\n', "empty": b"\n", "zeros": b"\0" * 40 + b"\n", "no UTF-8": b"\xff\xfe\n",
    "another kind": b"[1, 2]\n",
    "unknown": b'{"op_code": 99, "worker_id": "x"}\n', "a number": b"7\n", "without its keys": b'{"op_code": 4, "worker_id": "x"}\n',
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_line_of_the_journal_costs_one_line(name: str, finished: Path, tmp_path: Path) -> None:
    count = (finished / "journal.log").read_bytes().count(b"\n")
    run = tmp_path / "run"
    told = resumed(finished, run, "journal.log", {count // 2: DAMAGE[name]})
    warned = [line for line in told.splitlines() if line.startswith("warning: ")]
    assert len(warned) == 1 and warned[0].startswith(f"warning: {run}/journal.log: a line is damaged; ")
    assert DAMAGE[name] in (run / "journal.log.damaged").read_bytes()
    assert (run / "journal.log").read_bytes().count(b"\n") == count


@pytest.mark.parametrize("name", sorted(set(DAMAGE) - {"empty"}))
def test_a_damaged_line_of_the_log_costs_one_evaluation(name: str, finished: Path, tmp_path: Path) -> None:
    lines = (finished / "evaluations.log").read_bytes().splitlines()
    run, number = tmp_path / "run", len(DAMAGE[name]) % len(lines)
    told = resumed(finished, run, "evaluations.log", {number: DAMAGE[name]})
    warned = [line for line in told.splitlines() if line.startswith("warning: ")]
    assert len(warned) == 1 and warned[0].startswith(f"warning: {run}/evaluations.log:{number + 1}: ")
    assert warned[0].endswith("what this line had is evaluated again")
    keys = [json.loads(line)["key"] for line in (run / "evaluations.log").read_bytes().splitlines() if line.startswith(b'{"key"')]
    within = {"screening, 512 together, 1"}  # a part of what a later line has the whole of
    assert set(keys) | within == {json.loads(line)["key"] for line in lines}


def test_two_lines_that_have_become_one(finished: Path, tmp_path: Path) -> None:
    for file, told in (("journal.log", "a line is damaged"), ("evaluations.log", "what this line had is evaluated again")):
        lines = (finished / file).read_bytes().splitlines(keepends=True)
        assert resumed(finished, tmp_path / file, file, {3: lines[3][:-1]}).count(told) == 1
