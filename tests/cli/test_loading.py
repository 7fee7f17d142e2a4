"""The options that say how a model is loaded."""

from dataclasses import fields

import pytest

from solversearch.cli.loading import OPTIONS
from solversearch.models import Options
from tests.cli.calling import bad, call


def test_the_command_line_offers_what_a_model_can_be_asked_for() -> None:
    assert set(OPTIONS) == {field.name for field in fields(Options)}


@pytest.mark.parametrize("command", ["optimize", "compare", "sample", "study"])
def test_every_command_that_loads_a_model_takes_them(command: str) -> None:
    text = call(command, "--help").out
    for option in ("--device", "--dtype", "--prompts", "--compile", "--offload", "--reference"):
        assert option in text


def test_what_does_not_apply_to_a_model_is_refused() -> None:
    message = bad("optimize", "--model", "digits", "--nfe", 3, "--prompts", "captions.txt")
    assert message == "--prompts does not apply to model 'digits'; leave it out"
    assert "--compile does not apply" in bad("optimize", "--model", "mixture", "--nfe", 3, "--compile")


@pytest.mark.parametrize(
    "arguments",
    [
        ("optimize", "--nfe", 4, "--model"),
        ("optimize", "--nfe", 4, "--model", "digits", "--space"),
        ("optimize", "--nfe", 4, "--model", "digits", "--out"),
        ("optimize", "--resume"),
        ("report",),
        ("dashboard",),
        ("sweep",),
        ("plan", "show"),
        ("import", "--nfe", 4, "--out", "x.json"),
    ],
)
def test_a_name_that_no_file_can_bear_is_one_line(arguments: tuple[object, ...]) -> None:
    bad(*arguments, "k" * 5000)
