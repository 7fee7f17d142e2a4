"""The commands on plans: compare, sample, plan, import."""

import json
import re
from pathlib import Path

import jsonschema
import pytest

from solversearch.plan import Plan, schema
from tests.cli.calling import ASSETS, COINS, bad, file_in_the_way, good

PLAN_V1 = str(ASSETS / "plan_v1.json")


# compare -------------------------------------------------------------------------------------------------------


def test_compare_finds_what_optimize_found(coins_run: tuple[Path, str]) -> None:
    folder, printed = coins_run
    arguments = ("compare", "--plan", folder / "plan.json", "--model", f"{COINS}:factory", "--samples", 128, "--seed", 5)
    again, before = json.loads(good(*arguments, "--json", "--batch-size", 40)), json.loads(printed)
    assert again["best_baseline"] == before["best_baseline"] and again["stages"] == []
    assert again["ratio_endpoint_mse"] == pytest.approx(before["ratio_endpoint_mse"], rel=1e-5)


def test_compare_prints_a_table(digits_run: tuple[Path, str]) -> None:
    printed = good("compare", "--plan", digits_run[0] / "plan.json", "--model", "digits", "--samples", 128, "--guidance", 1)
    assert "128 held-out samples" in printed and "The plan's error at 2 evaluations is" in printed


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
    printed = good("sample", "--plan", digits_run[0] / "plan.json", "--model", "digits", "--count", 5, "--out", "new/grid.png")
    assert printed == "wrote new/grid.png\n" and Path("new/grid.png").read_bytes().startswith(b"\x89PNG\r\n")


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
    assert json.loads(good("plan", "schema")) == schema()
    jsonschema.validate(json.loads(path.read_text()), json.loads(good("plan", "schema")))


@pytest.mark.parametrize("command", ["show", "validate"])
@pytest.mark.parametrize("attack", ["digest_mismatch", "not_json", "nan_literal", "row_reads_the_future", "binary"])
def test_bad_plans_are_one_line(command: str, attack: str) -> None:
    path = ASSETS / "attacks" / f"{attack}.json"
    assert bad("plan", command, path).startswith(f"{path}: ")


# import --------------------------------------------------------------------------------------------------------


def test_a_scheduler_becomes_a_plan_and_is_compared() -> None:
    pytest.importorskip("diffusers")
    good("import", "DPMSolverMultistep", "--nfe", 1, "--model", "digits", "--out", "dpm.json", "--set", "algorithm_type=dpmsolver++")
    plan = Plan.read("dpm.json")
    assert plan.nfe == 1 and plan.prediction_type == "v_prediction" and plan.provenance.model == "digits"
    assert plan.decisions["algorithm_type"] == "dpmsolver++" and "import DPMSolverMultistep" in plan.provenance.command
    result = json.loads(good("compare", "--plan", "dpm.json", "--model", "digits", "--samples", 128, "--json", "--guidance", 3))
    assert result["ratio_endpoint_mse"] >= 1 and result["guidance"] == 3
    assert result["rows"][0]["solver"] == "DPMSolverMultistep" and result["rows"][0]["network_calls"] == 2


def test_a_scheduler_without_a_model_serves_those_it_fits() -> None:
    pytest.importorskip("diffusers")
    good("import", "FlowMatchEulerDiscrete", "--nfe", 4, "--out", "flow.json")
    assert Plan.read("flow.json").provenance.model_digest == ""
    assert "predicts 'flow', but model 'digits'" in bad("compare", "--plan", "flow.json", "--model", "digits")
    good("import", "DDIM", "--nfe", 3, "--out", "v.json", "--set", "prediction_type=v_prediction")
    good("sample", "--plan", "v.json", "--model", "digits", "--count", 2)
    good("import", "DDIM", "--nfe", 3, "--out", "linear.json", "--set", "prediction_type=v_prediction", "--set", "beta_schedule=linear")
    assert "another noise schedule" in bad("compare", "--plan", "linear.json", "--model", "digits")


@pytest.mark.parametrize(("nfe", "name"), [(5, "HeunDiscrete"), (5, "KDPM2Discrete"), (5, "PNDM"), (5, "LMSDiscrete"), (1, "DDIM")])
def test_imports_spend_exactly_what_was_asked(nfe: int, name: str) -> None:
    pytest.importorskip("diffusers")
    good("import", name, "--nfe", nfe, "--out", "plan.json")
    assert Plan.read("plan.json").nfe == nfe


BAD_IMPORTS: dict[str, tuple[tuple[object, ...], str]] = {
    "scheduler": (("DPMSolverMultstep", "--nfe", 5), "unknown scheduler 'DPMSolverMultstep'; did you mean 'DPMSolverMultistep'"),
    "setting": (("DDIM", "--nfe", 5, "--set", "beta_strt=1"), "unknown setting of DDIM 'beta_strt'; did you mean 'beta_start'"),
    "no value": (("DDIM", "--nfe", 5, "--set", "beta_start"), "write KEY=VALUE"),
    "cost": (("HeunDiscrete", "--nfe", 6), "cannot spend exactly 6 evaluations; ask for 5 or 7"),
    "nfe": (("DDIM", "--nfe", 0), "--nfe"),
    "not linear": (("DDIM", "--nfe", 5, "--set", "clip_sample=true"), "is not linear"),
    "other levels": (("DDIM", "--nfe", 5, "--model", "digits", "--set", "beta_schedule=linear"), "was made for another model"),
    "other prediction": (("FlowMatchEulerDiscrete", "--nfe", 5, "--model", "digits"), "reads its network as 'flow', but model 'digits'"),
    "model": (("DDIM", "--nfe", 5, "--model", "digit"), "did you mean 'digits'"),
}


@pytest.mark.parametrize("name", BAD_IMPORTS)
def test_bad_imports(name: str) -> None:
    pytest.importorskip("diffusers")
    arguments, message = BAD_IMPORTS[name]
    assert re.search(message, bad("import", *arguments, "--out", "plan.json"))
    assert not Path("plan.json").exists()
