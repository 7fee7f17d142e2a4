"""`solversearch import`."""

import json
import re
from pathlib import Path

import pytest

from solversearch.grids import AYS_SIGMAS
from solversearch.plan import Plan
from tests.cli.calling import COINS, bad, call, good


def test_a_scheduler_becomes_a_plan_and_is_compared() -> None:
    pytest.importorskip("diffusers")
    good("import", "DPMSolverMultistep", "--nfe", 1, "--model", "digits", "--out", "dpm.json", "--set", "algorithm_type=dpmsolver++")
    plan = Plan.read("dpm.json")
    told = good("import", "--sigmas", "14.6,6.5,2.7,0", "--solver", "ddim", "--out", "sigmas.json", "--json")
    assert json.loads(told) == {"written": ["sigmas.json"], "nfe": 3, "digest": Plan.read("sigmas.json").digest}
    assert plan.nfe == 1 and plan.prediction_type == "v_prediction" and plan.provenance.model == "digits"
    assert plan.decisions["algorithm_type"] == "dpmsolver++" and "import DPMSolverMultistep" in plan.provenance.command
    result = json.loads(good("compare", "--plan", "dpm.json", "--model", "digits", "--samples", 128, "--json", "--guidance", 3))
    assert all(ratio["value"] >= 1 for ratio in result["ratios"]) and result["guidance"] == 3
    assert result["verdict"] in ("worse", "undecided") and result["exported"] == "plan"  # nothing is exported by a comparison
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


COINS_MODEL = f"{COINS}:factory"
BAD_IMPORTS: dict[str, tuple[tuple[object, ...], str]] = {
    "scheduler": (("DPMSolverMultstep", "--nfe", 5), "unknown scheduler 'DPMSolverMultstep'; did you mean 'DPMSolverMultistep'"),
    "setting": (("DDIM", "--nfe", 5, "--set", "beta_strt=1"), "unknown setting of DDIM 'beta_strt'; did you mean 'beta_start'"),
    "no value": (("DDIM", "--nfe", 5, "--set", "beta_start"), "write KEY=VALUE"),
    "cost": (("HeunDiscrete", "--nfe", 6), "cannot spend exactly 6 evaluations; ask for 5 or 7"),
    "nfe": (("DDIM", "--nfe", 0), "--nfe"),
    "no nfe": (("DDIM",), "--nfe is missing"),
    "no file": (("nowhere/scheduler_config.json", "--nfe", 5), "there is no scheduler_config.json"),
    "no source": (("--nfe", 5), "name one source, not 0"),
    "two sources": (("DDIM", "--nfe", 5, "--ays", "sd15"), "name one source, not 2"),
    "solver of its own": (("DDIM", "--nfe", 5, "--solver", "ddim"), "--solver goes with --sigmas, --timesteps, --ays, --table;"),
    "whole times of its own": (("DDIM", "--nfe", 5, "--integer"), "--integer goes with --sigmas, --timesteps, --ays, --table;"),
    "no solver": (("--sigmas", "14,1,0"), "--solver is missing"),
    "unknown solver": (("--sigmas", "14,1,0", "--solver", "dpmp_2m"), "unknown solver 'dpmp_2m'; did you mean 'dpmpp_2m'"),
    "rising": (("--sigmas", "14,1,2,0", "--solver", "ddim"), "sigmas must fall, but number 3, 2, comes after 1"),
    "infinite": (("--sigmas", "inf,1,0", "--solver", "ddim"), "sigmas must fall, but number 2, 1, comes after inf"),
    "no fall": (("--sigmas", "14,1,-0.5", "--solver", "ddim"), "not below 0, but number 3 is -0.5"),
    "which frame": (("--sigmas", "1,0.5,0", "--solver", "ddim"), "say --set prediction_type=flow, or epsilon"),
    "shortened": (("--sigmas", "14, 1, ..., 0", "--solver", "ddim"), r"printed shortened \(\.\.\.\)"),
    "decimal commas": (("--sigmas", "14,6; 6,5; 0", "--solver", "ddim"), "write decimals with a point"),
    "no number": (("--sigmas", "[14, x, 0]", "--solver", "ddim"), "in place 2 of 3, 'x' is no number"),
    "a word for a number": (("--sigmas", "[14, true, 0]", "--solver", "ddim"), "place 2 of the list holds true"),
    "rising times": (("--timesteps", "999,500,600", "--solver", "ddim"), "timesteps must fall, but number 3, 600, comes after 500"),
    "times beyond": (("--timesteps", "1000,500", "--solver", "ddim"), r"timesteps must lie in \[0, 999\]"),
    "their number of times": (("--timesteps", "999,500,24", "--solver", "ddim", "--nfe", 2), "ddim spends 3 evaluations on these 3"),
    "no table": (("--table", "optimal_step_flux", "--solver", "ddim"), "unknown table .*; did you mean 'optimal_steps_flux'"),
    "unconditional steps": (("--sigmas", "14,1,0", "--solver", "euler_cfg_pp"), "steps with the unconditional prediction"),
    "deis of ComfyUI": (("--sigmas", "14,1,0", "--solver", "deis"), "a noise schedule that is not the model's"),
    "its own levels": (("--sigmas", "14,1,0", "--solver", "dpm_adaptive"), "chooses noise levels of its own"),
    "ancestral flow": (("--table", "optimal_steps_flux", "--solver", "euler_ancestral"), "renoises flow models by a rule of its own"),
    "no alpha": (
        ("DDIM", "--nfe", 5, "--set", "rescale_betas_zero_snr=true", "--set", "timestep_spacing=trailing"),
        "divides by alpha = 0 at timestep 999, in diffusers too: take EulerDiscrete",
    ),
    "one timestep twice": (
        ("DPMSolverMultistep", "--nfe", 10, "--set", "beta_schedule=squaredcos_cap_v2", "--set", "use_karras_sigmas=true"),
        "use_karras_sigmas on squaredcos_cap_v2 betas puts several of its 10 steps on one timestep; leave use_karras_sigmas out",
    ),
    "learned variance": (("DDPM", "--nfe", 5, "--set", "variance_type=learned_range"), "--set variance_type=fixed_small"),
    "one": (("--sigmas", "0", "--solver", "ddim"), "at least two sigmas"),
    "too much noise": (("--sigmas", "80,1,0", "--solver", "ddim"), r"80 \.\. 1 leave the model's range, 14\.6146 \.\. 0\.0291672"),
    "too little noise": (("--sigmas", "14,0.001,0", "--solver", "ddim"), "leave the model's range"),
    "no numbers": (("--sigmas", "sigmas.txt", "--solver", "ddim"), r"'sigmas\.txt' is no number, nor the name of a file"),
    "one time twice": (("--sigmas", "1.001,1,0", "--solver", "ddim", "--integer"), "timesteps must fall strictly"),
    "their number": (("--sigmas", "14,1,0", "--solver", "heun", "--nfe", 2), "heun spends 3 evaluations on these 3 sigmas"),
    "table": (("--ays", "sd16", "--solver", "ddim"), "unknown table 'ays_sd16'; did you mean 'ays_sd15'"),
    "another model's table": (("--ays", "sd15", "--solver", "ddim", "--model", COINS_MODEL), "they were made for another model"),
    "unknown betas": (("--ays", "sd15", "--solver", "ddim", "--set", "beta_strt=1"), "did you mean 'beta_start'"),
    "bad betas": (("--ays", "sd15", "--solver", "ddim", "--set", "beta_start=x"), "these settings make no noise schedule"),
    "unknown prediction": (("--ays", "sd15", "--solver", "ddim", "--set", "prediction_type=v"), "unknown prediction type 'v'"),
    "betas beside a model": (("--sigmas", "1,0", "--solver", "ddim", "--model", "digits", "--set", "beta_end=1"), "leave out --set"),
    "not linear": (("DDIM", "--nfe", 5, "--set", "thresholding=true"), "is not linear.*: turn off thresholding"),
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


# Configurations of pipelines -----------------------------------------------------------------------------------


@pytest.fixture
def pipeline() -> Path:
    """What import looks at in a pipeline's folder."""
    config = {"_class_name": "UniPCMultistepScheduler", "beta_schedule": "linear", "prediction_type": "v_prediction", "unknown": 1}
    Path("pipe/scheduler").mkdir(parents=True)
    Path("pipe/model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    Path("pipe/scheduler/scheduler_config.json").write_text(json.dumps(config))
    return Path("pipe")


@pytest.mark.parametrize("place", ["pipe", "pipe/scheduler", "pipe/scheduler/scheduler_config.json"])
def test_a_pipelines_scheduler_comes_with_its_settings(pipeline: Path, place: str) -> None:
    pytest.importorskip("diffusers")
    good("import", place, "--nfe", 4, "--out", "own.json", "--set", "solver_order=3")
    good("import", "UniPCMultistep", "--nfe", 4, "--out", "named.json", *_set(UNIPC | {"solver_order": 3}))
    own, named = Plan.read("own.json"), Plan.read("named.json")
    assert own.rows == named.rows and own.nodes == named.nodes and own.prediction_type == "v_prediction"
    assert own.decisions["solver"] == "UniPCMultistep" and own.decisions["solver_order"] == "3"


def test_the_hub_has_schedulers_too(pipeline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("diffusers")
    import huggingface_hub

    asked: list[str] = []

    def download(repository: str, name: str) -> str:
        asked.append(repository)
        if repository == "no/where":
            raise OSError("no connection")
        return str(pipeline / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    for name in ("hf:some/pipeline", "sd15"):
        good("import", name, "--nfe", 4, "--out", "own.json")
        assert Plan.read("own.json").decisions["solver"] == "UniPCMultistep"
    assert set(asked) == {"some/pipeline", "stable-diffusion-v1-5/stable-diffusion-v1-5"}
    message = bad("import", "hf:no/where", "--nfe", 4, "--out", "x.json")
    assert message.startswith("hf:no/where: cannot fetch the scheduler's configuration (OSError: no connection)")


UNIPC = {"beta_schedule": "linear", "prediction_type": "v_prediction", "beta_start": 0.0001, "beta_end": 0.02}


def _set(settings: dict[str, object]) -> list[str]:
    return [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]


def test_pipelines_that_cannot_be_imported_are_told(pipeline: Path) -> None:
    pytest.importorskip("diffusers")
    config = pipeline / "scheduler" / "scheduler_config.json"
    assert "made for another model" in bad(
        "import", pipeline, "--nfe", 4, "--out", "x.json", "--model", "digits", "--set", "prediction_type=v_prediction"
    )
    assert "unknown setting of UniPCMultistep 'solver_ordre'" in bad(
        "import", pipeline, "--nfe", 4, "--out", "x.json", "--set", "solver_ordre=1"
    )
    for text, message in (
        ('{"_class_name": "RePaintScheduler"}', "RePaint is not known to be linear; known: DDIM"),
        ('{"_class_name": "DPMSolverSDEScheduler"}', "take DPMSolverMultistep with algorithm_type=sde-dpmsolver++"),
        ("{}", "scheduler_config.json: unknown scheduler ''"),
        ("no json", "not readable as JSON"),
    ):
        config.write_text(text)
        assert message in bad("import", pipeline, "--nfe", 4, "--out", "x.json")
    assert not Path("x.json").exists()


# Sigmas ----------------------------------------------------------------------------------------------------------


def test_a_list_of_sigmas_and_a_solver_are_a_plan() -> None:
    good("import", "--sigmas", "14.6, 6.5,2.7,0.7 , 0", "--solver", "dpmpp_2m", "--out", "plan.json", "--guidance", 7.5)
    plan = Plan.read("plan.json")
    assert [node.sigma / node.alpha for node in plan.nodes] == pytest.approx([14.6, 6.5, 2.7, 0.7])
    assert (plan.prediction_type, plan.guidance, plan.network_calls, plan.decisions["solver"]) == ("epsilon", 7.5, 8, "dpmpp_2m")
    Path("levels.txt").write_text("[14.6, 6.5,\n 2.7, 0.7, 0]\n")
    good("import", "--sigmas", "levels.txt", "--solver", "dpmpp_2m", "--out", "again.json", "--guidance", 7.5)
    assert Plan.read("again.json").rows == plan.rows


def test_exported_sigmas_come_back() -> None:
    good("import", "--ays", "sdxl", "--solver", "ddim", "--nfe", 6, "--out", "plan.json")
    plan, line = Plan.read("plan.json"), good("export", "plan.json", "--to", "sigmas").splitlines()[1]
    good("import", "--sigmas", line, "--solver", "ddim", "--out", "again.json")
    again = Plan.read("again.json")
    assert [node.t for node in again.nodes] == pytest.approx([node.t for node in plan.nodes], abs=1e-3)


def test_flows_name_sigma_itself() -> None:
    good("import", "--sigmas", "1,0.6,0.2,0", "--solver", "ddim", "--model", COINS_MODEL, "--out", "plan.json")
    plan = Plan.read("plan.json")
    assert [(node.t, node.sigma) for node in plan.nodes] == [pytest.approx((s, s)) for s in (1, 0.6, 0.2)]
    assert plan.prediction_type == "sample" and plan.provenance.model == "coins"


@pytest.mark.parametrize(("table", "times"), [
    ("sd15", [999, 850, 736, 645, 545, 455, 343, 233, 124, 24]),
    ("sdxl", [999, 845, 730, 587, 443, 310, 193, 116, 53, 13]),
])  # fmt: skip
def test_ten_steps_of_align_your_steps_are_as_published(table: str, times: list[int]) -> None:
    good("import", "--ays", table, "--solver", "unipc_2", "--out", "plan.json")
    plan = Plan.read("plan.json")
    assert [node.sigma / node.alpha for node in plan.nodes] == pytest.approx(AYS_SIGMAS[table][:-1], rel=1e-6)
    good("import", "--ays", table, "--solver", "unipc_2", "--integer", "--out", "whole.json")
    assert [node.t for node in Plan.read("whole.json").nodes] == pytest.approx(times, abs=1)
    assert Plan.read("whole.json").decisions["timesteps"] == "whole"


def test_other_counts_of_align_your_steps_are_interpolated() -> None:
    good("import", "--ays", "sd15", "--solver", "dpmpp_2m", "--nfe", 5, "--out", "plan.json")
    found = [node.sigma / node.alpha for node in Plan.read("plan.json").nodes]
    assert found == pytest.approx(AYS_SIGMAS["sd15"][:10:2], rel=1e-6)
    good("import", "--ays", "sd15", "--solver", "heun", "--nfe", 5, "--out", "heun.json")
    assert Plan.read("heun.json").nfe == 5


def test_what_is_made_of_a_list_is_told() -> None:
    """One line on stderr, and the plan."""
    result = call("import", "--sigmas", str(list(AYS_SIGMAS["sd15"])), "--solver", "dpmpp_2m", "--out", "plan.json")
    good("import", "--ays", "sd15", "--solver", "DPMSolverMultistepScheduler", "--out", "same.json")
    assert result.code == 0 and result.err.count("\n") == 1
    assert result.err.startswith("warning: the sigmas end at 0.0291672, not 0; that level stands for the end")
    assert Plan.read("plan.json").rows == Plan.read("same.json").rows


def test_timesteps_and_tables_have_options() -> None:
    good("import", "--timesteps", "999, 850, 736", "--solver", "euler", "--out", "times.json")
    assert [node.t for node in Plan.read("times.json").nodes] == [999, 850, 736]
    good("import", "--table", "optimal_steps_flux", "--solver", "euler", "--nfe", 10, "--out", "flux.json")
    plan = Plan.read("flux.json")
    assert (plan.prediction_type, plan.nfe, plan.decisions["grid"]) == ("flow", 10, "optimal_steps_flux")
    assert [node.sigma for node in plan.nodes][:3] == pytest.approx([0.9968, 0.9886, 0.9819])
    names = {entry["name"] for entry in json.loads(good("list", "tables", "--json"))}
    assert {"ays_svd", "gits", "gits_0.80", "optimal_steps_chroma"} <= names


def test_a_scheduler_that_draws_noise_is_sampled() -> None:
    pytest.importorskip("diffusers")
    message = call("import", "DDPM", "--nfe", 3, "--model", "digits", "--out", "ddpm.json")
    assert message.code == 0 and "DDPMScheduler draws fresh noise" in message.err
    assert Plan.read("ddpm.json").tableau.stochastic
    good("sample", "--plan", "ddpm.json", "--model", "digits", "--count", 2)
