"""The Python API: the same search as the command line's, on names and on objects, and the same one line for a mistake."""

import gc
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import solversearch
from solversearch import api
from solversearch.errors import Interrupted
from solversearch.judging.compare import Comparison
from solversearch.models.custom import load_custom
from solversearch.models.options import Options
from solversearch.outputs import LOCK
from solversearch.plan import Plan
from solversearch.search.settings import Settings
from solversearch.search.stages import search as search_stage
from solversearch.spaces import SearchSpace
from tests import tiny
from tests.assets import coins
from tests.cli.calling import COINS, bad, call, good

CHEAP: dict[str, Any] = {"nfe": 3, "samples": 64, "fit_samples": 16, "validation_samples": 16, "trials": 4}
CHEAPER: dict[str, Any] = CHEAP | {"nfe": 2, "search": False, "polish": False, "instant": False}
QUIET: dict[str, Any] = {"progress": False}


def arguments(**options: object) -> list[object]:
    return [each for name, value in options.items() for each in (f"--{name.replace('_', '-')}", value)]


def content(plan: Plan) -> dict[str, Any]:
    """All but the command that made it."""
    return plan.model_dump(exclude={"digest": True, "provenance": {"command"}})


@pytest.fixture(scope="module")
def result() -> solversearch.Result:
    return solversearch.optimize("digits", **CHEAP, **QUIET)


# Searches ------------------------------------------------------------------------------------------------------------


def test_the_command_line_finds_the_same_plan(result: solversearch.Result, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    printed = good("optimize", "--model", "digits", *arguments(**CHEAP), "--out", folder, "--json")
    of_cli, ours = Comparison.model_validate_json(printed), result.comparison
    assert content(Plan.read(folder / "plan.json")) == content(result.plan)
    assert (of_cli.rows, of_cli.ratios, of_cli.progress) == (ours.rows, ours.ratios, ours.progress)
    assert {each.name for each in folder.iterdir()} == {each.name for each in result.folder.iterdir()}
    command = result.plan.provenance.command
    assert command == "solversearch.optimize('digits', nfe=3, samples=64, fit_samples=16, validation_samples=16, trials=4)"
    assert "Tensor" not in command and eval(command, {"solversearch": Spelled}) == (("digits",), CHEAP)


class Spelled:
    @staticmethod
    def optimize(*names: str, **options: Any) -> tuple[tuple[str, ...], dict[str, Any]]:
        return names, options


def test_the_defaults_of_the_command_line_are_those_of_settings() -> None:
    """It hands on only what the person said."""
    shown, said = Settings(nfe=1), " ".join(re.sub(r"[│┃]", " ", good("optimize", "--help")).split())
    for name in ("seed", "undecided"):
        assert re.search(rf"--{name} .*?\[default: {getattr(shown, name)}\]", said), name
    assert set(api._FLEET.values()) == {1, 0.0, None, 600.0} and "[default: 600.0]" in said


@pytest.mark.parametrize("source", [coins.factory(), coins.factory, f"{COINS}:factory"], ids=["model", "factory", "name"])
def test_objects_are_searched_as_names_are(source: Any, tmp_path: Path) -> None:
    found = solversearch.optimize(source, **CHEAPER, guidance=2, out=tmp_path / "run", **QUIET)
    named = solversearch.optimize(f"{COINS}:factory", **CHEAPER, guidance=2, **QUIET)
    assert content(found.plan) == content(named.plan) and found.plan.network_calls == 4
    assert found.folder == tmp_path / "run" and Plan.read(found.folder / "plan.json") == found.plan
    stored = json.loads((found.folder / "run.json").read_text())
    assert stored["model"] == (source if isinstance(source, str) else "object:coins")


@pytest.mark.parametrize("family", ["ddpm", "sd"])
def test_a_pipeline_object_is_the_model_of_its_folder(family: str, tmp_path: Path) -> None:
    import diffusers
    import torch

    folder = tiny.build(family, tmp_path / family)
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(tiny.CAPTIONS))
    told: dict[str, Any] = {} if family == "ddpm" else {"prompts": prompts, "resolution": tiny.RESOLUTION}
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder)
    ours, stored = solversearch.load_model(pipe, **told), solversearch.load_model(folder, device="cpu", **told)
    assert ours.digest == stored.digest and ours.fingerprint == stored.fingerprint and ours.guidance == stored.guidance
    assert ours.name == type(pipe).__name__ and ours.disjoint == stored.disjoint and ours.images is not None
    noise, times = torch.randn(2, *ours.shape), torch.full((2,), 400.0)
    given = () if ours.conditions is None else (ours.conditions[:2],)
    assert torch.equal(ours.network(noise, times, *given), stored.network(noise, times, *given))
    assert stored.images is not None and torch.equal(ours.images(noise), stored.images(noise))
    half = solversearch.load_model(pipe, dtype="bfloat16", **told)
    assert half.dtype == torch.bfloat16 and ours.dtype == torch.float32 == next(pipe.unet.parameters()).dtype
    assert half.digest == ours.digest
    with torch.no_grad():
        pipe.unet.conv_out.weight *= 1.5  # as a person may who trains it on
    assert solversearch.load_model(pipe, **told).digest != stored.digest


def test_a_pipeline_object_is_searched(tmp_path: Path) -> None:
    import diffusers

    pipe = diffusers.DiffusionPipeline.from_pretrained(tiny.build("ddpm", tmp_path / "ddpm"))
    found = solversearch.optimize(pipe, **CHEAPER, **QUIET)
    assert found.model == "object:DDPMPipeline" and found.plan.provenance.model == "DDPMPipeline"
    assert (found.folder / "samples.png").exists()


def test_a_space_may_be_an_object() -> None:
    space = SearchSpace.named("autodiffusion")
    found, named = (solversearch.optimize(coins.factory(), **CHEAPER, space=each, **QUIET) for each in (space, "autodiffusion"))
    assert content(found.plan) == content(named.plan) and found.plan.decisions["space"] == "autodiffusion"
    assert "space='autodiffusion'" in found.plan.provenance.command == named.plan.provenance.command


def test_progress_is_told_unless_it_is_not_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    solversearch.optimize(coins.factory(), **CHEAPER)
    assert "baselines" in capsys.readouterr().err
    solversearch.optimize(coins.factory(), **CHEAPER, **QUIET)
    assert capsys.readouterr() == ("", "")


def test_a_temporary_folder_lives_as_long_as_the_result() -> None:
    found = solversearch.optimize(coins.factory(), **CHEAPER, **QUIET)
    folder = found.folder
    assert (folder / "plan.json").exists()
    del found
    gc.collect()
    assert not folder.exists()


def test_an_estimate_costs_nothing() -> None:
    facts = solversearch.estimate(coins.factory(), nfe=5)
    told = json.loads(good("optimize", "--model", f"{COINS}:factory", "--nfe", 5, "--dry-run", "--json"))
    counted = [name for name in told if name.startswith("network evaluations")]
    assert counted and [facts[name] for name in counted] == [told[name] for name in counted]


# What is done with a result ------------------------------------------------------------------------------------------


def test_save_copies_the_run_and_overwrites_nothing(result: solversearch.Result, tmp_path: Path) -> None:
    place = result.save(tmp_path / "deep" / "mine")
    written = {each.name: each.read_bytes() for each in result.folder.iterdir() if each.name != LOCK}
    assert {each.name: each.read_bytes() for each in place.iterdir()} == written and "samples.png" in written
    assert result.save(result.folder) == result.folder
    with pytest.raises(solversearch.UserError, match=r"mine: the run folder exists and holds comparison\.json"):
        result.save(place)
    (place / "notes.txt").write_text("mine")
    (place / "plan.json").write_text("another")
    result.save(place, overwrite=True)
    assert Plan.read(place / "plan.json") == result.plan and (place / "notes.txt").read_text() == "mine"


def test_a_notebook_shows_tables_and_pictures(result: solversearch.Result) -> None:
    whole, plan, comparison = result._repr_html_(), result.plan._repr_html_(), result.comparison._repr_html_()
    for cell in (whole, plan, comparison):
        assert "<table" in cell and "<script" not in cell and not re.search(r"""(src|href)="(?!data:)""", cell)
    assert result.plan.digest in plan and f"{result.plan.nodes[1].t:.6g}" in plan and "<img" not in plan
    assert whole.count('src="data:image/png;base64,') == 2 and comparison.count('src="data:image/png;base64,') == 1
    assert result.comparison.best_baseline in comparison and result.comparison.best_baseline in whole
    assert "at 3 evaluations" in whole


def test_a_plan_is_compared_from_python_as_from_the_command_line(result: solversearch.Result) -> None:
    compared = solversearch.compare(result.plan, "digits", samples=64, **QUIET)
    told = good("compare", "--plan", result.folder / "plan.json", "--model", "digits", "--samples", 64, "--json")
    assert compared.rows == Comparison.model_validate_json(told).rows
    assert solversearch.read_plan(result.folder / "plan.json") == result.plan


def test_schedulers_are_imported() -> None:
    plan = solversearch.import_scheduler(sigmas=[14.6, 6.5, 2.7, 0], solver="ddim")
    assert plan.nfe == 3 and plan.nodes == solversearch.import_scheduler(sigmas="14.6, 6.5, 2.7, 0", solver="ddim").nodes
    guided = replace(solversearch.load_model("digits"), guidance=3.0)
    spaced = {"timestep_spacing": "trailing"}
    scales = [solversearch.import_scheduler("DDIM", 5, model=guided, guidance=each, settings=spaced).guidance for each in (None, 1.0)]
    assert scales == [3.0, 1.0] and plan.guidance == 1.0
    named = solversearch.import_scheduler("DDIM", 5, model="digits", settings=spaced)
    assert named.nfe == 5 and named.provenance.model == "digits" and named.decisions["timestep_spacing"] == "trailing"
    with pytest.raises(solversearch.UserError, match="--nfe is missing"):
        solversearch.import_scheduler("DDIM")


# Mistakes ------------------------------------------------------------------------------------------------------------


MISTAKES: dict[str, tuple[Any, dict[str, Any], str]] = {
    "option": ("digits", {"nfe": 5, "guidence": 2}, "unknown option 'guidence'; did you mean 'guidance'"),
    "no nfe": ("digits", {}, "--nfe is missing: type for example 'solversearch optimize --model digits --nfe 5'"),
    "nfe": ("digits", {"nfe": 0}, "--nfe: .*greater than or equal to 1, got 0$"),
    "few samples": ("digits", {"nfe": 5, "fit_samples": 3}, "--fit-samples: .*got 3"),
    "undecided": ("digits", {"nfe": 5, "undecided": "best"}, "--undecided: .*got best"),
    "workers": ("digits", {"nfe": 5, "workers": 0}, "--workers 0: write 1 or more"),
    "name": ("digts", {"nfe": 5}, "unknown model 'digts'; did you mean 'digits'"),
    "no model": (5, {"nfe": 5}, "a model is a name, a Model, .* or a factory, got an object of type int"),
    "factory": (coins.fails, {"nfe": 5}, r"fails\(\) raised RuntimeError: no weights here at .*coins.py"),
    "no dict": (lambda: 5, {"nfe": 5}, "returned int 5; return a Model, a dict or a dataclass"),
    "device": (coins.factory(), {"nfe": 5, "device": "cpu"}, "--device does not apply to model 'coins'"),
    "objects on workers": (coins.factory(), {"nfe": 5, "workers": 2}, "workers load the model by a name, such as python:FILE:FACTORY"),
    "space": ("digits", {"nfe": 5, "space": "s4"}, "unknown search space 's4'; did you mean 's4s'"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source, options, message = MISTAKES[name]
    with pytest.raises(solversearch.UserError, match=message) as caught:
        solversearch.optimize(source, **options)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_a_run_of_an_object_is_resumed_with_the_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, model = tmp_path / "run", coins.factory()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    wanted = {**CHEAPER, "search": True}
    with monkeypatch.context() as patch:
        patch.setattr(search_stage, "run", interrupt)
        with pytest.raises(Interrupted, match=re.escape(f"go on with solversearch.optimize(model, resume={str(folder)!r})")) as caught:
            solversearch.optimize(model, **wanted, out=folder, **QUIET)
    assert "object:" not in str(caught.value)
    line = bad("optimize", "--resume", folder)
    assert (
        line == f"{folder}: its model was an object, not a name; go on in Python, with solversearch.optimize(model, resume={str(folder)!r})"
    )
    assert call("optimize", "--resume", folder, "--model", f"{COINS}:factory").code == 2
    with pytest.raises(solversearch.UserError, match="another --seed"):
        solversearch.optimize(model, resume=folder, seed=5)
    with pytest.raises(solversearch.UserError, match="was begun with another model"):
        solversearch.optimize(replace(load_custom(f"{COINS}:other_weights"), name="coins"), resume=folder, **QUIET)
    found = solversearch.optimize(model, resume=folder, **QUIET)
    assert content(found.plan) == content(solversearch.optimize(model, **wanted, **QUIET).plan)


def test_nothing_is_left_of_a_temporary_run_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(solversearch.UserError, match=r"storage"):
        solversearch.optimize(coins.factory(), **CHEAPER, storage="nonsense://", **QUIET)
    assert not list(tmp_path.glob("solversearch-*"))


def test_options_are_those_of_the_command_line() -> None:
    named = {name for line in good("optimize", "--help").splitlines() for name in re.findall(r"(?<![\w-])--([a-z-]+)", line)}
    ours = {"compile" if name == "compiled" else name.replace("_", "-") for name in api.SearchOptions.__annotations__}
    assert ours <= named
    assert set(api.LoadingOptions.__annotations__) == set(Options.__dataclass_fields__)
