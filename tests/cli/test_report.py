"""`solversearch report`: from a real run to a page."""

import json
from pathlib import Path

from tests.cli.calling import bad, file_in_the_way, good


def test_a_run_becomes_a_page(digits_run: tuple[Path, str], tmp_path: Path) -> None:
    folder, _ = digits_run
    assert good("report", folder, "--out", tmp_path / "new" / "page.html") == f"wrote {tmp_path / 'new' / 'page.html'}\n"
    page = (tmp_path / "new" / "page.html").read_text(encoding="utf-8")
    for wanted in (
        "digits: 2 evaluations",
        "Better at 2 evaluations: on ",
        "the plan&#39;s error is less than",
        "noise schedule",
        "data:image/png;base64,",
    ):
        assert wanted in page, wanted


def test_the_page_of_a_run_lies_in_it(coins_run: tuple[Path, str]) -> None:
    folder, _ = coins_run
    assert str(folder / "report.html") in good("report", folder)
    assert json.loads(good("report", folder, "--json")) == {"written": [str(folder / "report.html")]}
    assert (folder / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    (folder / "report.html").unlink()


def test_mistakes_are_one_line(tmp_path: Path, digits_run: tuple[Path, str]) -> None:
    assert "no such folder" in bad("report", tmp_path / "absent")
    assert "no plan.json there" in bad("report", tmp_path)
    assert "cannot write" in bad("report", digits_run[0], "--out", file_in_the_way() / "page.html")
    assert "it is a folder" in bad("report", digits_run[0], "--out", tmp_path)
