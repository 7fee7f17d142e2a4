"""`solversearch study`."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

import solversearch.studies.study as module
from solversearch.plan import Plan
from tests.cli.calling import COINS, bad, call, file_in_the_way, good

pytestmark = pytest.mark.usefixtures("few_baselines")

MODEL = ("study", "--model", f"{COINS}:factory")
CELLS = ("--nfe", "2,3", "--guidance", "1,2", "--evaluations", 1000, "--samples", 128, "--out", "out")
BY_HAND = "solver: dpmpp\nsearch: {stages: {instant: false, fit: false, polish: false}}"


def test_a_study_is_written_shown_and_continued(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("mine.yaml").write_text(BY_HAND)
    command = (*MODEL, *CELLS, "--methods", "autodiffusion, mine.yaml")
    found = json.loads(good(*command, "--json"))
    assert found == json.loads(Path("out/study.json").read_text())
    assert found["asked"]["methods"] == ["autodiffusion", "mine"] and len(found["rows"]) == 3 * 4
    assert Path("out/study.png").read_bytes().startswith(b"\x89PNG\r\n") and Path("out/study.png").stat().st_size > 30_000
    assert Plan.read("out/mine-nfe3-g2.json").provenance.command.startswith("solversearch study --model")

    def fails(*_: Any) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(module, "_measured", fails)
    printed = good(*command)
    assert "best baseline" in printed and printed.count("mine") >= 2 and "Wrote out: study.json, study.png" in printed
    assert "holds another study, with other nfe" in bad(*command, "--nfe", "4")
    Path("out/study.json").write_text("{")
    assert "out/study.json: cannot continue this study" in bad(*command)


def test_a_study_that_is_interrupted_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(model: Any, name: str, settings: Any, *rest: Any) -> Any:
        if settings.nfe == 3:
            raise KeyboardInterrupt
        return original(model, name, settings, *rest)

    original = module._measured
    command = (*MODEL, *CELLS, "--methods", "autodiffusion", "--json")
    with monkeypatch.context() as patch:
        patch.setattr(module, "_measured", interrupted)
        result = call(*command)
    assert result.code == 130 and result.out == ""
    assert result.err.splitlines()[-1] == "error: interrupted; out keeps what is done, and the same command goes on from there"
    assert len(json.loads(Path("out/study.json").read_text())["rows"]) == 4
    assert len(json.loads(good(*command))["rows"]) == 8


def test_an_ablation() -> None:
    found = json.loads(good(*MODEL, "--nfe", 2, "--evaluations", 1000, "--samples", 128, "--ablate", "autodiffusion", "--json"))
    assert found["asked"]["methods"] == [
        "autodiffusion", "autodiffusion without timesteps", "autodiffusion without order", "autodiffusion without the search stage",
    ]  # fmt: skip
    (folder,) = Path("runs").iterdir()
    assert re.fullmatch(r"study-python-.*coins\.py-factory-autodiffusion", folder.name)
    assert (folder / "autodiffusion-without-order-nfe2-g1.json").exists()


BAD_STUDIES: dict[str, tuple[tuple[object, ...], str]] = {
    "method": (("--methods", "s4"), "unknown search space 's4'; did you mean 's4s'"),
    "twice": (("--methods", "s3,s3"), "two methods are named 's3'; name each once"),
    "both": (("--methods", "s3", "--ablate", "s3"), "--methods and --ablate: choose one of them"),
    "ablate": (("--ablate", "fall"), "unknown search space 'fall'; did you mean 'full'"),
    "nfe": (("--nfe", "4,five"), "--nfe 4,five: write numbers with commas between"),
    "nfe 0": (("--nfe", "4,0"), "--nfe 4,0: write whole numbers from 1 to 1000"),
    "nfe twice": (("--nfe", "4,4"), "--nfe 4,4: a number stands twice"),
    "guidance": (("--guidance", "1,nan"), "--guidance 1,nan: write finite numbers"),
    "no null condition": (("--guidance", "1,2", "--model", f"{COINS}:unconditional"), "has no null condition"),
    "evaluations": (("--evaluations", 10), "--evaluations"),
    "samples": (("--samples", 3), "--samples"),
    "model": (("--model", "digit"), "unknown model 'digit'; did you mean 'digits'"),
}


@pytest.mark.parametrize("name", BAD_STUDIES)
def test_bad_studies(name: str) -> None:
    arguments, message = BAD_STUDIES[name]
    assert re.search(message, bad(*MODEL, *arguments))
    assert list(Path.cwd().iterdir()) == []


def test_a_place_that_cannot_be_written_is_told_before_the_work() -> None:
    file_in_the_way()
    assert "a file is in the way" in bad(*MODEL, "--nfe", 2, "--methods", "autodiffusion", "--out", "taken")
