"""`solversearch cache`."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.cli.calling import bad, good

FILES = {
    "teacher-" + "a" * 32 + ".safetensors": (3 * 2**20, 300), "teacher-" + "b" * 32 + ".safetensors": (2 * 2**20, 200),
    "teacher-" + "c" * 32 + ".safetensors": (1 * 2**20, 100), "prompts-" + "0" * 32 + ".safetensors": (2**19, 400),
    "statistics-" + "1" * 32 + ".npz": (2**10, 50), "teacher-mine.safetensors": (7, 9), "inception-2015-12-05.pt": (8, 9),
    "teacher-" + "a" * 32 + ".safetensors.bak": (9, 9),
}  # fmt: skip
"""Bytes, and seconds since 1970 when they were used last; the last three are not ours."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SOLVERSEARCH_CACHE", str(tmp_path / "cache [red]"))
    (tmp_path / "cache [red]").mkdir()
    for name, (size, used) in FILES.items():
        (tmp_path / "cache [red]" / name).write_bytes(bytes(size))
        os.utime(tmp_path / "cache [red]" / name, (used, used))
    (tmp_path / "cache [red]" / ("teacher-" + "d" * 32 + ".safetensors")).mkdir()
    return tmp_path / "cache [red]"


def shown(*arguments: object) -> Any:
    return json.loads(good("cache", *arguments, "--json"))


def test_what_there_is(folder: Path) -> None:
    found = shown()
    assert found["folder"] == str(folder) and found["removed"] == {"files": 0, "bytes": 0}
    counted = {row["kind"]: (row["files"], row["bytes"]) for row in found["kept"]}
    assert counted == {"teacher": (3, 6 * 2**20), "prompts": (1, 2**19), "statistics": (1, 2**10)}
    assert [row["oldest"][:8] for row in found["kept"]] == ["1970-01-"] * 3
    text = good("cache")
    assert str(folder) in text and "removed" not in text
    teachers = next(line for line in text.splitlines() if "│ teacher" in line)
    assert [cell.strip() for cell in teachers.split("│")[1:4]] == ["teacher", "3", "6.0"]


def test_teachers_used_least_lately_go_first(folder: Path) -> None:
    assert shown("--limit", 4 / 1024)["removed"] == {"files": 2, "bytes": 3 * 2**20}
    left = {file.name[:9] for file in folder.iterdir() if file.is_file()}
    assert left == {"teacher-a", "teacher-m", "prompts-0", "statistic", "inception"}
    assert "removed 0 files" in good("cache", "--limit", 3 / 1024)
    assert shown("--limit", 0)["removed"]["files"] == 1 and len(shown()["kept"]) == 3


def test_only_what_is_ours_is_cleared(folder: Path) -> None:
    assert "removed 5 files, 6.5 MiB" in good("cache", "--clear")
    assert {file.name for file in folder.iterdir() if file.is_file()} == {name for name, (size, _) in FILES.items() if size < 10}
    empty = good("cache")
    assert empty.count(" 0 ") == 3


def test_no_cache_and_mistakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOLVERSEARCH_CACHE", "nowhere")
    assert [row["files"] for row in shown("--clear")["kept"]] == [0, 0, 0] and not Path("nowhere").exists()
    assert "--limit and --clear: choose one of them" in bad("cache", "--clear", "--limit", 1)
    assert "--limit" in bad("cache", "--limit", -1)
