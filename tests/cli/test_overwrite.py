"""Every command that writes a file: the person's own is kept, an earlier one of the same command is replaced, --overwrite replaces both."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from solversearch.plan import Plan
from tests.assets import networks
from tests.cli.calling import COINS, bad, call, good

SIGMAS = ("--sigmas", "14.6,6.5,2.7,0", "--solver", "ddim")


@pytest.fixture
def places(tmp_path: Path, digits_run: tuple[Path, str]) -> Path:
    """Something of everything that commands read: plans of import, images, a network of features, a run."""
    good("import", *SIGMAS, "--out", "p.json")
    good("import", "--sigmas", "14.6,6.5,2.7,0", "--solver", "ddim", "--integer", "--out", "stock.json")
    images = tmp_path / "images"
    images.mkdir()
    for i in range(3):
        Image.fromarray(np.full((8, 8, 3), 40 * i, np.uint8)).save(images / f"{i}.png")
    networks.save(networks.Summary(), tmp_path / "summary.pt")
    shutil.copytree(digits_run[0], tmp_path / "run")
    return tmp_path


WRITING: dict[str, tuple[Any, ...]] = {
    "import": ("import", *SIGMAS, "--out", "OUT.json"),
    "export numpy": ("export", "p.json", "--to", "numpy", "--out", "OUT.py"),
    "export sigmas": ("export", "p.json", "--to", "sigmas", "--out", "OUT.txt"),
    "export diffusers": ("export", "stock.json", "--to", "diffusers-timesteps", "--out", "OUT.json"),
    "statistics": ("statistics", "images", "--features", "summary.pt", "--out", "OUT.npz"),
    "sample": ("sample", "--plan", "run/plan.json", "--model", "digits", "--count", "2", "--out", "OUT.png"),
    "report": ("report", "run", "--out", "OUT.html"),
}


@pytest.mark.parametrize("name", WRITING)
def test_one_rule_for_every_file(name: str, places: Path) -> None:
    command = WRITING[name]
    out = places / next(word for word in command if word.startswith("OUT"))
    out.write_bytes(b"mine\xff")
    assert bad(*command).endswith(": exists, and is not what this command writes; choose another with --out, or --overwrite")
    assert out.read_bytes() == b"mine\xff"
    good(*command, "--overwrite")
    first = out.read_bytes()
    assert first != b"mine\xff"
    good(*command)  # what it wrote itself
    shutil.copy(places / "run" / "plan.json", out)
    searched = out.read_bytes()
    assert "exists" in bad(*command)
    assert out.read_bytes() == searched


def test_where_nothing_is_named(places: Path) -> None:
    """The places that commands choose themselves."""
    (places / "plan.py").write_text("print('my own')\n")
    assert bad("export", "p.json", "--to", "numpy").startswith("plan.py: exists")
    assert (places / "plan.py").read_text() == "print('my own')\n"
    (places / "run" / "report.html").write_text("my own notes")
    assert bad("report", "run").startswith("run/report.html: exists")
    assert (places / "run" / "report.html").read_text() == "my own notes"
    good("report", "run", "--overwrite")
    good("report", "run")


def test_predictions_and_regressions(places: Path) -> None:
    for nfe in (3, 4, 5):
        good("import", "--sigmas", ",".join(f"{s:g}" for s in np.geomspace(0.99, 0.1, nfe)) + ",0", "--solver", "ddim", "--model",
             f"{COINS}:factory", "--out", f"{nfe}.json")  # fmt: skip
    fit = ("cpr", "fit", "3.json", "4.json", "5.json", "--model", f"{COINS}:factory", "--no-tune", "--out", "c.json")
    predict = ("cpr", "predict", "c.json", "--nfe", 4, "--model", f"{COINS}:factory", "--out")
    (places / "c.json").write_text("{}")
    assert bad(*fit).startswith("c.json: exists")
    good(*fit, "--overwrite")
    good(*fit)
    good(*predict, "made.json")
    good(*predict, "made.json")
    for own in ("p.json", "run/plan.json"):  # an imported plan, and one that was searched
        before = (places / own).read_bytes()
        assert bad(*predict, own).startswith(f"{own}: exists")
        assert (places / own).read_bytes() == before
    assert bad(*predict, "c.json", "--overwrite").startswith("c.json: that is the regression itself")


@pytest.mark.parametrize("to", ["comfyui", "k-diffusion"])
def test_folders_of_exports(to: str, places: Path) -> None:
    export = ("export", "p.json", "--to", to, "--out", "folder")
    (places / "folder").mkdir()
    (places / "folder" / "loop.py").write_text("mine")
    assert "and is no earlier export" in bad(*export)
    good(*export, "--overwrite")
    good(*export)
    (places / "folder" / "reader.py").write_text("changed by me")
    (places / "folder" / "notes.txt").write_text("kept")
    assert bad(*export).startswith("folder/reader.py: exists")
    assert (places / "folder" / "reader.py").read_text() == "changed by me"
    good(*export, "--overwrite")
    assert (places / "folder" / "notes.txt").read_text() == "kept"
    other = "k-diffusion" if to == "comfyui" else "comfyui"
    assert "no earlier export" in bad("export", "p.json", "--to", other, "--out", "folder")


def test_studies_and_sweeps_begin_in_folders_of_their_own(places: Path) -> None:
    (places / "mine").mkdir()
    (places / "mine" / "study.png").write_text("a picture of mine")
    (places / "sweep.yaml").write_text("models: digits\nnfe: 3\n")
    for command in (("study", "--model", "digits", "--nfe", "3"), ("sweep", "sweep.yaml")):
        assert bad(*command, "--out", "mine").endswith("exists and holds study.png; choose another with --out")
    (places / "mine" / "sweep.json").write_text("{}")
    assert bad("sweep", "sweep.yaml", "--out", "mine").startswith("mine/sweep.json: ")
    assert (places / "mine" / "study.png").read_text() == "a picture of mine" and len(list((places / "mine").iterdir())) == 2


def test_what_commands_write_can_be_given_back_to_them(places: Path) -> None:
    good("export", "p.json", "--to", "sigmas", "--out", "s.txt")
    for mark, end in ((b"", b"\n"), (b"\xef\xbb\xbf", b"\r\n")):
        (places / "t.txt").write_bytes(mark + (places / "s.txt").read_bytes().replace(b"\n", end))
        good("import", "--sigmas", "t.txt", "--solver", "ddim", "--out", "again.json")
        one, other = Plan.read("p.json"), Plan.read("again.json")
        assert [node.sigma for node in other.nodes] == pytest.approx([node.sigma for node in one.nodes], rel=1e-8)


def test_a_command_is_told_without_what_changes_no_result(places: Path) -> None:
    good("import", *SIGMAS, "--out=q.json")
    good("import", "--out", "p.json", *SIGMAS, "--overwrite")
    assert Plan.read("p.json").provenance.command == "solversearch import --sigmas 14.6,6.5,2.7,0 --solver ddim"
    assert (places / "p.json").read_bytes() == (places / "q.json").read_bytes()
    assert f"table's digest {Plan.read('p.json').table_digest()}" in " ".join(good("plan", "show", "p.json").split())


# What has nothing to do with the file's content ----------------------------------------------------------------


def run(*words: str | bytes, **environment: str) -> subprocess.CompletedProcess[bytes]:
    import os

    return subprocess.run(
        [sys.executable, "-m", "solversearch.cli", *words], capture_output=True, check=False, timeout=240,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **environment},
    )  # fmt: skip


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "module://nowhere.at_all", "nonsense", "TkAgg", ""])
def test_pictures_need_no_display_and_no_backend(backend: str, digits_run: tuple[Path, str], tmp_path: Path) -> None:
    ran = run("sample", "--plan", str(digits_run[0] / "plan.json"), "--model", "digits", "--count", "2", MPLBACKEND=backend, DISPLAY="")
    assert (ran.returncode, ran.stderr.decode().count("Traceback")) == (0, 0), ran.stderr.decode()
    with Image.open(tmp_path / "samples.png") as picture:
        assert picture.format == "PNG" and picture.info["Software"] == "solversearch"


def test_bytes_that_are_no_utf_8_are_told_before_any_work(tmp_path: Path) -> None:
    for words in (("import", *SIGMAS, "--out"), ("optimize", "--model", "digits", "--nfe", "3", "--out"), ("plan", "show")):
        ran = run(*words, b"caf\xe9")
        assert ran.returncode == 2 and ran.stderr.decode().startswith("error: caf?: the name has bytes that are no UTF-8"), ran.stderr
    assert not any(tmp_path.iterdir())


def test_output_that_takes_ascii_only() -> None:
    ran = run("import", *SIGMAS, "--out", "pü.json", PYTHONIOENCODING="ascii")
    assert ran.returncode == 0 and ran.stdout == b"wrote p\\xfc.json\n", ran.stderr
    assert Plan.read("pü.json").nfe == 3


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--ray-address", "127.0.0.1:1", "--ray-address 127.0.0.1:1: nobody listens there (Connection refused); start a cluster with"),
        ("--ray-address", "nowhere.invalid:6379", "--ray-address nowhere.invalid:6379: nobody listens there ("),
        ("--ray-address", "somewhere", "--ray-address somewhere: write HOST:PORT, or auto"),
        ("--storage", "nonsense", "--storage nonsense: "),
        ("--storage", "mysql+nodriver://me:secret@host/db", "--storage mysql+nodriver://me@host/db: "),
        ("--storage", "sqlite:////nowhere/at/all.db", "--storage sqlite:////nowhere/at/all.db: "),
        ("--storage", "postgresql+psycopg://me:secret@/x?host=/nowhere", "--storage postgresql+psycopg://me@/x?host=/nowhere: "),
        ("--out", "/proc/none/run", "/proc/none/run: cannot write there: "),
    ],
)
def test_said_before_any_work(option: str, value: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from solversearch import models

    def load(*_: Any, **__: Any) -> None:
        raise AssertionError("the model is loaded before the places are looked at")

    monkeypatch.setattr(models, "load", load)
    told = bad("optimize", "--model", "digits", "--nfe", "3", *(() if option == "--out" else ("--out", "run")), option, value)
    assert told.startswith(message) and "secret" not in told
    assert not any(tmp_path.iterdir())


def test_a_long_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / ("x" * 80)))
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    told = bad("optimize", "--model", "digits", "--nfe", "3", "--workers", "2", "--out", "run")
    assert told.startswith(f"--workers: the temporary folder {tmp_path}/xxx") and "set TMPDIR to a shorter one, such as /tmp" in told
    assert not (tmp_path / "run").exists()
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    from solversearch.search.evaluating.fleet import Fleet

    Fleet(2).check()
    assert json.loads(call("optimize", "--model", "digits", "--nfe", "3", "--dry-run", "--json").out)
