"""The folder for ComfyUI, used as ComfyUI uses it: a plan samples there what the runtime samples."""

import logging
from pathlib import Path
from types import ModuleType

import pytest
import torch

from solversearch.errors import UserError
from solversearch.export import EXPORTERS
from solversearch.plan import Plan
from tests.export.comfy import BaseModel, Discrete, Guider, Preconditioned, Rectified, comfy, sample_custom
from tests.export.consumers import (
    CONDITION,
    NOISE,
    NULL,
    PICTURE,
    PLANS,
    SCHEDULES,
    by_runtime,
    difference,
    imported,
    network,
    plan_of,
    table_of,
)

__all__ = ["comfy"]
pytestmark = pytest.mark.usefixtures("comfy")


def guider(kind: str, cfg: float, negative: float | None = NULL) -> Guider:
    sampling = {"flow": Rectified, "edm": Preconditioned}.get(kind, lambda: Discrete(SCHEDULES[kind][0], v=kind != "epsilon"))()
    return Guider(BaseModel(sampling, network), cfg, CONDITION, negative)


def folder(plan: Plan, where: Path) -> ModuleType:
    EXPORTERS["comfyui"].write(plan, where)
    return imported(where)


def nodes(module: ModuleType, name: str | None = None) -> tuple[object, torch.Tensor]:
    """What the two nodes give for a plan, of those that they offer."""
    sampler, sigmas = (module.NODE_CLASS_MAPPINGS[f"SolversearchPlan{each}"] for each in ("Sampler", "Sigmas"))
    offered = sampler.INPUT_TYPES()["required"]["plan"][0]
    assert name is None or name in offered
    chosen = name or offered[0]
    results = getattr(sampler(), sampler.FUNCTION)(chosen) + getattr(sigmas(), sigmas.FUNCTION)(chosen)
    assert (sampler.RETURN_TYPES, sigmas.RETURN_TYPES) == (("SAMPLER",), ("SIGMAS",))
    return results


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("name", PLANS)
def test_the_sampler_is_the_runtime(name: str, kind: str, tmp_path: Path) -> None:
    plan = PLANS[name](kind)
    sampler, sigmas = nodes(folder(plan, tmp_path / "plans_here"))
    model = guider(kind, plan.guidance)
    latent = PICTURE if plan.start else None
    result, shown = sample_custom(model, sampler, sigmas.double(), NOISE, seed=4, latent=latent)  # type: ignore[arg-type]
    assert difference(result, by_runtime(plan, seed=5)) < 1e-6
    assert shown == [(i, plan.nfe) for i in range(plan.nfe)]
    if name not in ("guidance for each node",):  # where a guider at another cfg than 1 runs both conditions
        assert model.inner_model.calls == plan.network_calls


@pytest.mark.parametrize("kind", ["epsilon", "flow"])
def test_single_precision(kind: str, tmp_path: Path) -> None:
    sampler, sigmas = nodes(folder(PLANS["a solver"](kind), tmp_path / "plans_here"))
    result, _ = sample_custom(guider(kind, 1.0), sampler, sigmas, NOISE.float())  # type: ignore[arg-type]
    assert result.dtype == torch.float32 and difference(result, by_runtime(PLANS["a solver"](kind))) < 1e-6


@pytest.mark.parametrize("cfg", [1.0, 8.0])
@pytest.mark.parametrize("name", ["a solver", "guidance", "split guidance", "split at guidance 1", "reused differences"])
def test_the_plans_guidance_counts_and_the_guiders_is_told(name: str, cfg: float, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plan = PLANS[name]("epsilon")
    sampler, sigmas = nodes(folder(plan, tmp_path / "plans_here"))
    with caplog.at_level(logging.WARNING):
        result, _ = sample_custom(model := guider("epsilon", cfg), sampler, sigmas.double(), NOISE)  # type: ignore[arg-type]
    assert difference(result, by_runtime(plan)) < 1e-6 and model.cfg == cfg
    assert [record.getMessage() for record in caplog.records] == (
        [] if cfg == plan.guidance else [f"solversearch: the plan's guidance {plan.guidance:g} is used, not the guider's cfg {cfg:g}"]
    )


def test_guidance_needs_a_negative_prompt(tmp_path: Path) -> None:
    sampler, sigmas = nodes(folder(PLANS["guidance"]("flow"), tmp_path / "plans_here"))
    with pytest.raises(ValueError, match="connect a CFGGuider"):
        sample_custom(guider("flow", 1.0, negative=None), sampler, sigmas, NOISE)  # type: ignore[arg-type]


def test_broken_times_are_rounded_and_that_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plan = plan_of(table_of("unipc_2", "v", integer=False, on="karras"), "v")
    sampler, sigmas = nodes(folder(plan, tmp_path / "plans_here"))
    result, _ = sample_custom(guider("v", 1.0), sampler, sigmas.double(), NOISE)  # type: ignore[arg-type]
    assert difference(result, by_runtime(plan, whole=True)) < 1e-6 < difference(result, by_runtime(plan))
    assert "whole times only: 837.121 as 837, 593.502 as 594" in caplog.text


def test_what_a_mask_keeps_is_kept(tmp_path: Path) -> None:
    plan = PLANS["split guidance"]("flow")
    sampler, sigmas = nodes(folder(plan, tmp_path / "plans_here"))
    mask, latent = torch.zeros_like(NOISE), torch.ones_like(NOISE)
    mask[..., 0] = 1
    kept = plan.rows[-1].x * NOISE + sum(plan.rows[-1].d)  # where every data prediction is 1, and no guidance difference
    result, _ = sample_custom(guider("flow", 4.0), sampler, sigmas.double(), NOISE, latent=latent, mask=mask)  # type: ignore[arg-type]
    torch.testing.assert_close(result[..., 1:], kept[..., 1:])


def test_other_sigmas_are_refused(tmp_path: Path) -> None:
    sampler, sigmas = nodes(folder(PLANS["a solver"]("epsilon"), tmp_path / "plans_here"))
    for wrong in (sigmas[1:], sigmas * 0.9):
        with pytest.raises(ValueError, match="connect 'Plan sigmas'"):
            sample_custom(guider("epsilon", 1.0), sampler, wrong, NOISE)  # type: ignore[arg-type]


@pytest.mark.parametrize(("planned", "model"), [("epsilon", "v"), ("v", "epsilon"), ("epsilon", "flow"), ("flow", "epsilon")])
def test_models_of_another_kind_are_refused(planned: str, model: str, tmp_path: Path) -> None:
    sampler, sigmas = nodes(folder(PLANS["a solver"](planned), tmp_path / "plans_here"))
    with pytest.raises(ValueError, match=f"for a network that predicts {SCHEDULES[planned][1]}"):
        sample_custom(guider(model, 1.0), sampler, sigmas, NOISE)  # type: ignore[arg-type]


def test_a_plan_that_starts_from_a_picture_wants_one(tmp_path: Path) -> None:
    sampler, sigmas = nodes(folder(PLANS["pictures"]("epsilon"), tmp_path / "plans_here"))
    with pytest.raises(ValueError, match="connect the latent of one"):
        sample_custom(guider("epsilon", 1.0), sampler, sigmas, NOISE)  # type: ignore[arg-type]


def test_several_plans_share_a_folder(tmp_path: Path) -> None:
    first, second = PLANS["a solver"]("flow"), PLANS["guidance"]("flow")
    names = [EXPORTERS["comfyui"].write(plan, tmp_path / "plans_here")[-1].name for plan in (first, second, first)]
    assert names[0] == names[2] == f"tiny-nfe5-g1-{first.digest[7:15]}.json"
    module = imported(tmp_path / "plans_here")
    assert module.PlanSampler.IS_CHANGED(names[1]) == second.digest
    sampler, sigmas = nodes(module, names[1])
    result, _ = sample_custom(guider("flow", 4.0), sampler, sigmas.double(), NOISE)  # type: ignore[arg-type]
    assert difference(result, by_runtime(second)) < 1e-6


def test_a_folder_of_a_person_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds notes\.txt, and is no earlier export"):
        EXPORTERS["comfyui"].write(PLANS["a solver"]("flow"), tmp_path)
    EXPORTERS["k-diffusion"].write(PLANS["a solver"]("flow"), tmp_path / "package")
    with pytest.raises(UserError, match="is no earlier export"):
        EXPORTERS["comfyui"].write(PLANS["a solver"]("flow"), tmp_path / "package")


def test_changed_plans_are_refused(tmp_path: Path) -> None:
    module = folder(PLANS["a solver"]("flow"), tmp_path / "plans_here")
    (path,) = (tmp_path / "plans_here" / "plans").iterdir()
    text = path.read_text()
    for changed, message in (
        (text.replace('"nfe": 5', '"nfe": 6'), "the digest does not match"),
        (text.replace('"version": 1', '"version": 2'), "version 2 is that of plans with components"),
        (text.replace('"version": 1', '"version": 6'), "not a plan of version 1 to 5"),
        ("{}", "not a plan of version 1 to 5"),
    ):
        path.write_text(changed)
        with pytest.raises(ValueError, match=message):
            nodes(module)
