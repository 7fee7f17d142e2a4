"""`solversearch optimize --resume`."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from solversearch.plan import Plan
from solversearch.search.stages import search
from tests.assets import coins
from tests.cli.calling import COINS, bad, call, good

MODEL = f"{COINS}:factory"
COMMAND = ("optimize", "--model", MODEL, "--nfe", "2", "--samples", "128", "--trials", "60", "--no-polish", "--no-instant")


def started(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "solversearch.cli", *arguments], stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def test_a_killed_driver_is_resumed_and_two_do_not_work_in_one_folder() -> None:
    log = Path("killed/evaluations.log")
    driver = started(*COMMAND, "--out", "killed")
    while not log.exists() or log.read_text().count("all") < 3:  # in the midst of the search
        assert driver.poll() is None, driver.stderr and driver.stderr.read()
        time.sleep(0.01)
    os.kill(driver.pid, signal.SIGSTOP)
    assert "killed: another driver is at work in this run folder" in bad("optimize", "--resume", "killed", "--model", MODEL)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    before = log.read_text()
    assert not Path("killed/plan.json").exists()
    good("optimize", "--resume", "killed", "--model", MODEL)
    assert log.read_text().startswith(before[: before.rfind("\n") + 1])  # nothing lost
    keys = [json.loads(line)["key"] for line in log.read_text().splitlines()]
    assert len(keys) == len(set(keys))  # nothing repeated
    good(*COMMAND, "--out", "whole")
    killed, whole = Plan.read("killed/plan.json"), Plan.read("whole/plan.json")
    assert (killed.nodes, killed.rows, killed.scores) == (whole.nodes, whole.rows, whole.scores)
    assert "killed: this run is finished" in bad("optimize", "--resume", "killed", "--model", MODEL)


@pytest.mark.usefixtures("few_baselines")
def test_what_may_be_said_beside_resume(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(search, "prepare", interrupt)
        stopped = call(*COMMAND, "--out", "my run")
    assert stopped.code == 130 and f"go on with 'solversearch optimize --resume 'my run' --model {MODEL}'" in stopped.err
    for arguments, message in {
        ("--seed", "5"): "my run: was begun with another --seed, or without; leave it out",
        ("--space", "s3"): "another --space",
        ("--polish",): "another --polish",
        ("--instant",): "another --instant",
        ("--out", "elsewhere"): "another --out",
        ("--model", "digits"): "another --model",
        (): f"my run: runs code of your own; say so again with --model {MODEL}",
    }.items():
        assert message in bad("optimize", "--resume", "my run", *arguments)
    assert "--model is missing: type for example 'solversearch optimize --model digits --nfe 5'" in bad("optimize", "--nfe", 3)
    assert "cannot read the record of what the run was asked" in bad("optimize", "--resume", "nowhere")
    same = ("--model", MODEL, "--nfe", 2, "--no-polish", "--space", "default", "--batch-size", 100)
    printed = good("optimize", "--resume", "my run", *same)
    assert "Wrote my run: plan.json" in printed


@pytest.mark.usefixtures("few_baselines")
def test_an_edited_model_does_not_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a run nor a study; the weights are the same."""
    mine, source = Path("mine.py"), Path(coins.__file__).read_text()
    mine.write_text(source)
    optimize = ("optimize", "--model", "python:mine.py:factory", "--nfe", 2, "--samples", 128, "--trials", 4, "--no-polish", "--no-instant")
    study = ("study", "--model", "python:mine.py:factory", "--methods", "autodiffusion", "--nfe", 2, "--guidance", 1, "--samples", 128,
             "--evaluations", 2000, "--out", "study")  # fmt: skip

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(search, "prepare", interrupt)
        assert call(*optimize, "--out", "run").code == 130
    good(*study)
    mine.write_text(source.replace("return (alpha * self.spread**2 * x", "return 1.02 * (alpha * self.spread**2 * x"))
    assert "run: was begun with another model" in bad("optimize", "--resume", "run", "--model", "python:mine.py:factory")
    assert "holds another study, with other model_digest" in bad(*study)
    mine.write_text(source)
    good(*study)
    good("optimize", "--resume", "run", "--model", "python:mine.py:factory")
