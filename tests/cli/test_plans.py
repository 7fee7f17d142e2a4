"""The commands on plans: compare, sample, plan."""

import json
import re
from pathlib import Path

import jsonschema
import pytest

from solversearch.plan import Plan, schema
from solversearch.search.stages.task import OF_PLAN
from tests.cli.calling import ASSETS, COINS, bad, file_in_the_way, good

PLAN_V1 = str(ASSETS / "plan_v1.json")


# compare -------------------------------------------------------------------------------------------------------


def test_compare_finds_what_optimize_found(coins_run: tuple[Path, str]) -> None:
    folder, printed = coins_run
    arguments = ("compare", "--plan", folder / "plan.json", "--model", f"{COINS}:factory", "--samples", 128, "--seed", 5)
    again, before = json.loads(good(*arguments, "--json", "--batch-size", 40)), json.loads(printed)
    assert again["best_baseline"] == before["best_baseline"] and again["stages"] == []
    assert again["verdict"] == before["verdict"] and again["share"]["mean"] == pytest.approx(before["share"]["mean"], abs=0.02)
    for one, other in zip(again["ratios"], before["ratios"], strict=True):
        assert (one["measure"], one["baseline"]) == (other["measure"], other["baseline"])
        assert one["value"] == pytest.approx(other["value"], rel=2 * OF_PLAN**0.5)  # optimize's teacher is as exact as that


def test_compare_decides_by_the_objective_that_is_asked_for(coins_run: tuple[Path, str]) -> None:
    arguments = ("compare", "--plan", coins_run[0] / "plan.json", "--model", f"{COINS}:factory", "--samples", 128, "--seed", 5)
    found = json.loads(good(*arguments, "--objective", "frechet", "--json"))
    own = found["ratios"][-1]
    assert (found["objective"], own["measure"]) == ("frechet", "frechet") and own["low"] < own["value"] < own["high"]
    assert found["verdict"] == ("better" if own["high"] < 1 else "worse" if own["low"] > 1 else "undecided")
    # It is the distance that the table has beside the objective, of the same samples.
    assert own["plan_value"] == pytest.approx(found["rows"][0]["frechet_teacher"]["mean"], rel=1e-3)
    assert own["baseline_value"] == pytest.approx(min(row["frechet_teacher"]["mean"] for row in found["rows"][1:]), rel=1e-3)
    assert found["ratios"][0]["measure"] == "geometric mean" and len(found["ratios"]) == 6  # one confirms
    assert "unknown objective 'frechett'" in bad(*arguments, "--objective", "frechett")
    good("import", "--sigmas", "0.9,0.5,0", "--solver", "ddim", "--model", f"{COINS}:unconditional", "--out", "flow.json")
    assert "'frechet' needs a feature network" in bad(
        "compare", "--plan", "flow.json", "--model", f"{COINS}:unconditional", "--objective", "frechet"
    )


def test_compare_prints_a_table(digits_run: tuple[Path, str]) -> None:
    printed = good("compare", "--plan", digits_run[0] / "plan.json", "--model", "digits", "--samples", 128, "--guidance", 1)
    assert "128 held-out samples" in printed and "Better at 2 evaluations: on " in printed and "median" in printed and "[" in printed


BAD_COMPARISONS: dict[str, tuple[tuple[object, ...], str]] = {
    "no file": (("--plan", "nowhere.json", "--model", "digits"), r"nowhere\.json: cannot read the plan"),
    "damaged": (("--plan", ASSETS / "attacks" / "digest_mismatch.json", "--model", "digits"), "the plan was changed after it was written"),
    "not JSON": (("--plan", ASSETS / "coins.py", "--model", "digits"), r"coins\.py: "),
    "unknown model": (("--plan", PLAN_V1, "--model", "mixtures"), "unknown model 'mixtures'; did you mean 'mixture'"),
    "another model": (("--plan", PLAN_V1, "--model", f"{COINS}:factory"), "predicts"),
    "no samples": (("--plan", PLAN_V1, "--model", "digits", "--samples", 0), "--samples"),
}


@pytest.mark.parametrize("name", BAD_COMPARISONS)
def test_bad_comparisons(name: str) -> None:
    arguments, message = BAD_COMPARISONS[name]
    assert re.search(message, bad("compare", *arguments))


def test_a_plan_is_refused_for_other_weights_and_other_guidance(coins_run: tuple[Path, str]) -> None:
    plan = coins_run[0] / "plan.json"
    assert "made for model 'coins' with weights" in bad("compare", "--plan", plan, "--model", f"{COINS}:other_weights")
    assert "made for model 'coins' with weights" in bad("sample", "--plan", plan, "--model", f"{COINS}:other_weights")
    assert "hold for guidance 2 only" in bad("compare", "--plan", plan, "--model", f"{COINS}:factory", "--guidance", 3)


# sample --------------------------------------------------------------------------------------------------------


def test_sample_draws_a_picture(digits_run: tuple[Path, str]) -> None:
    command = ("sample", "--plan", digits_run[0] / "plan.json", "--model", "digits", "--count", 5, "--out", "new/grid.png")
    assert json.loads(good(*command, "--json")) == {"written": ["new/grid.png"]}
    assert good(*command) == "wrote new/grid.png\n" and Path("new/grid.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_sample_cannot_write(digits_run: tuple[Path, str]) -> None:
    arguments = ("sample", "--plan", digits_run[0] / "plan.json", "--model", "digits", "--out")
    file_in_the_way()
    assert "cannot write there" in bad(*arguments, "taken/grid.png")
    assert "it is a folder" in bad(*arguments, ".")


# plan ----------------------------------------------------------------------------------------------------------


def test_a_plan_is_shown_and_validated(digits_run: tuple[Path, str]) -> None:
    path = digits_run[0] / "plan.json"
    plan = Plan.read(path)
    shown = good("plan", "show", path)
    assert plan.digest in shown and "lambda = ln(alpha/sigma)" in shown and "Scores on 128 held-out samples" in shown
    assert good("plan", "validate", path) == f"{path}: valid, version 1, 2 evaluations, {plan.digest}\n"
    assert Plan.parse(good("plan", "show", path, "--json")) == plan
    told = {"file": str(path), "valid": True, "version": 1, "nfe": 2, "digest": plan.digest}
    assert json.loads(good("plan", "validate", path, "--json")) == told
    assert json.loads(good("plan", "schema")) == schema()
    jsonschema.validate(json.loads(path.read_text()), json.loads(good("plan", "schema")))


@pytest.mark.parametrize("command", ["show", "validate"])
@pytest.mark.parametrize("attack", ["digest_mismatch", "not_json", "nan_literal", "row_reads_the_future", "binary"])
def test_bad_plans_are_one_line(command: str, attack: str) -> None:
    path = ASSETS / "attacks" / f"{attack}.json"
    assert bad("plan", command, path).startswith(f"{path}: ")
