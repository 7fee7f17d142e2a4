"""The dashboard shows a run that it only reads, as it is and as it grows."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import create_trial
from optuna_dashboard import get_note

from solversearch.errors import UserError
from solversearch.report.dashboard import open_run
from tests.report.conftest import EVIL


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def study_of(storage: JournalStorage) -> optuna.Study:
    return optuna.load_study(study_name="search", storage=storage)


# The server ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def server(run: Path) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "solversearch.cli", "dashboard", str(run), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=dict(os.environ))
    assert process.stdout is not None and f"http://localhost:{port}/dashboard" in process.stdout.readline()
    yield port, process
    process.kill()
    process.wait()


def get(port: int, place: str) -> tuple[int, str, bytes]:
    for _ in range(100):
        connection = http.client.HTTPConnection("localhost", port, timeout=10)
        try:
            connection.request("GET", place)
            answer = connection.getresponse()
            return answer.status, answer.getheader("Content-Type", ""), answer.read()
        except ConnectionRefusedError:
            time.sleep(0.1)
        finally:
            connection.close()
    pytest.fail("the server did not answer")


def test_the_server_shows_trials_artifacts_and_the_note_and_stops(run: Path, server: Any) -> None:
    before, (port, process) = contents(run), server
    status, kind, page = get(port, "/dashboard/")
    assert status == 200 and "text/html" in kind and b"Optuna Dashboard" in page
    studies = json.loads(get(port, "/api/studies")[2])["study_summaries"]
    assert [each["study_name"] for each in studies] == ["search"]
    number = studies[0]["study_id"]
    shown = json.loads(get(port, f"/api/studies/{number}?after=0")[2])
    assert len(shown["trials"]) == 30 and shown["trials"][3]["params"]
    assert "solver\\_11" not in shown["note"]["body"] and "polish" in shown["note"]["body"]
    found = {each["filename"]: each["artifact_id"] for each in shown["artifacts"]}
    assert set(found) == {"plan.json", "comparison.json", "samples.png"}
    for name, mime in (("plan.json", "application/json"), ("samples.png", "image/png")):
        status, kind, content = get(port, f"/artifacts/{number}/{found[name]}")
        assert (status, kind, content) == (200, mime, (run / name).read_bytes())
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
    assert contents(run) == before, "a run is only read"


def test_a_port_that_is_taken_is_one_line(run: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "solversearch.cli", "dashboard", str(run), "--port", port]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2 and f"error: --host localhost --port {port}: cannot listen there" in done.stderr


# What it shows -------------------------------------------------------------------------------------------------------


def test_a_search_that_goes_on_is_followed(fresh: Callable[..., Path], tmp_path: Path) -> None:
    folder = fresh()
    storage, _ = open_run(folder, tmp_path / "artifacts")
    shown = study_of(storage)
    count = len(shown.trials)
    shown.set_user_attr("seen by", "the dashboard")
    other = study_of(JournalStorage(JournalFileBackend(str(folder / "journal.log"))))
    trial = shown.trials[0]
    other.add_trial(create_trial(params=trial.params, distributions=trial.distributions, value=0.25))
    assert [each.value for each in shown.trials[count:]] == [0.25]
    assert shown.user_attrs == {"seen by": "the dashboard"} and other.user_attrs == {}


def test_text_from_files_is_no_markup(run: Path, tmp_path: Path) -> None:
    body = get_note(study_of(open_run(run, tmp_path / "artifacts")[0]))
    assert "<" not in body and "alert\\(1\\)" in body and EVIL not in body


def test_links_out_of_the_run_are_left(fresh: Callable[..., Path], tmp_path: Path) -> None:
    folder = fresh()
    (tmp_path / "secret.png").write_bytes(b"secret")
    (folder / "search.png").symlink_to(tmp_path / "secret.png")
    open_run(folder, tmp_path / "artifacts")
    assert b"secret" not in contents(tmp_path / "artifacts").values() and len(contents(tmp_path / "artifacts")) == 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("journal.log", None, "not there"),
        ("journal.log", b"", "no study yet"),
        ("journal.log", b"{}\n{}\n", "a damaged journal"),
        ("journal.log", b"nonsense\nnonsense\n", "a damaged journal"),
        ("comparison.json", b"{", "comparison.json: Invalid JSON"),
    ],
)
def test_what_cannot_be_shown_is_one_line(
    fresh: Callable[..., Path], tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    folder = fresh()
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        open_run(folder, tmp_path / "artifacts")
    assert (folder / name).exists() == (content is not None)


def test_a_search_without_a_comparison_is_shown(fresh: Callable[..., Path], tmp_path: Path) -> None:
    folder = fresh()
    (folder / "comparison.json").unlink()
    assert "not been compared" in get_note(study_of(open_run(folder, tmp_path / "artifacts")[0]))
