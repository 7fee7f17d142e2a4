"""Where commands write: never over what is not theirs, and never where they cannot."""

from collections.abc import Callable
from pathlib import Path

import pytest

from solversearch.errors import UserError
from solversearch.outputs import MARKS, check_free, check_name, check_place
from tests.test_plan import plan


@pytest.mark.parametrize("kind", MARKS)
def test_a_file_of_the_person_is_kept(kind: str, tmp_path: Path) -> None:
    for content in (b"", b"mine", bytes(range(256))):
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(
            UserError, match=r"file: exists, and is not what this command writes; choose another with --out, or --overwrite$"
        ):
            check_place(tmp_path / "file", kind)
        check_place(tmp_path / "file", kind, overwrite=True)
        assert (tmp_path / "file").read_bytes() == content and [each.name for each in tmp_path.iterdir()] == ["file"]


def test_one_commands_file_is_not_anothers(tmp_path: Path) -> None:
    for kind, mark in MARKS.items():
        (tmp_path / "file").write_bytes(b"...\n" + mark + b"...")
        check_place(tmp_path / "file", kind)
        for other in set(MARKS) - {kind}:
            with pytest.raises(UserError, match="exists"):
                check_place(tmp_path / "file", other)


@pytest.mark.parametrize("command", ["solversearch optimize --model digits --nfe 5", "", "solversearch cpr fit runs"])
def test_a_plan_that_was_searched_is_no_commands_to_replace(command: str, tmp_path: Path) -> None:
    original = plan()
    fields = {name: getattr(original, name) for name in type(original).model_fields if name not in ("digest", "provenance")}
    type(original)(**fields, provenance=original.provenance.model_copy(update={"command": command})).write(tmp_path / "plan.json")
    for kind in ("imported plan", "predicted plan"):
        with pytest.raises(UserError, match="exists"):
            check_place(tmp_path / "plan.json", kind)


def test_nothing_is_made_by_looking(tmp_path: Path) -> None:
    check_place(tmp_path / "new" / "deeper" / "file", "page")
    check_free(tmp_path / "new" / "run", overwrite=False)
    assert not any(tmp_path.iterdir())


PLACES: list[Callable[[Path], object]] = [
    lambda place: check_place(place / "file", "page"),
    lambda place: check_free(place / "run", overwrite=False),
    lambda place: check_free(place / "run", overwrite=True),
]


@pytest.mark.parametrize("check", PLACES)
@pytest.mark.parametrize("where", ["/proc/none", "file", "file/deeper", "x" * 300])
def test_where_nothing_can_be_written(check: Callable[[Path], object], where: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file in the way")
    with pytest.raises(UserError, match=r"cannot write there: .*; choose another (place|folder) with --out"):
        check(tmp_path / where)
    assert (tmp_path / "file").read_text() == "a file in the way"


def test_what_a_folder_holds(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    for overwrite, told in ((False, "choose another with --out, or --overwrite$"), (None, "choose another with --out$")):
        with pytest.raises(UserError, match=r"exists and holds notes\.txt; " + told):
            check_free(tmp_path, overwrite)
    check_free(tmp_path, None, lambda name: name == "notes.txt")
    check_free(tmp_path, overwrite=True)


def test_names_are_utf_8() -> None:
    for good in ("ü", "模型 😀", "--out=\u2028"):
        check_name(good)
    with pytest.raises(UserError, match=r"^caf\?\.json: the name has bytes that are no UTF-8; ") as told:
        check_name("caf\udce9.json")
    assert str(told.value).isprintable()
