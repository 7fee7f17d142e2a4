"""Every linear scheduler of diffusers, run by a pipeline and imported from its configuration: the runtime replays the pipeline."""

import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from solversearch.importing import SCHEDULERS, as_plan, scheduler_by_name
from solversearch.models import pipelines
from solversearch.models.base import Denoiser, Model
from solversearch.models.edm import Preconditioned
from solversearch.models.pipelines.schedule import sigma_data_of
from solversearch.plan import Plan
from tests import tiny
from tests.export.families import pack, unpack

diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.filterwarnings("ignore")

NFE = 5
BOUND = 1e-5
GUIDANCE = 3.0
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}

CASES: list[tuple[str, str, dict[str, Any]]] = [
    *(("sd", name, {"clip_sample": False} if name == "DDIM" else {}) for name in SCHEDULERS if not name.startswith("FlowMatch")),
    *(("sd_v", name, {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}) for name in ("DDIM", "DPMSolverMultistep")),
    *(("sd", name, {"use_karras_sigmas": True}) for name in ("EulerDiscrete", "DPMSolverMultistep", "HeunDiscrete", "UniPCMultistep")),
    ("sd", "DPMSolverMultistep", {"final_sigmas_type": "sigma_min", "timestep_spacing": "leading", "solver_order": 3}),
    ("sd", "PNDM", {"timestep_spacing": "trailing", "set_alpha_to_one": True}),
    *(("sd3", name, {}) for name in SCHEDULERS if name.startswith("FlowMatch")),
    *(("sd3", name, FLOW) for name in ("DPMSolverMultistep", "DEISMultistep", "UniPCMultistep")),
    ("flux", "FlowMatchEulerDiscrete", {}),
    ("flux", "FlowMatchEulerDiscrete", {"use_dynamic_shifting": False}),
]


class Opened:
    """A tiny pipeline, and the model that the same folder makes."""

    def __init__(self, family: str, folder: Path) -> None:
        prompts = folder / "prompts.txt"
        tiny.build(family, folder)
        prompts.write_text("\n".join(tiny.CAPTIONS))
        self.family, self.folder = family, folder
        self.model: Model = pipelines.load(str(folder), tiny.options(family, prompts=prompts))
        absent = [key for key, kind in json.loads((folder / "model_index.json").read_text()).items() if kind == [None, None]]
        self.pipe = diffusers.DiffusionPipeline.from_pretrained(folder, **dict.fromkeys(absent))
        self.pipe.set_progress_bar_config(disable=True)

    def scheduler(self, name: str, changed: dict[str, Any]) -> Any:
        """With what the class takes of the pipeline's own settings, as people exchange schedulers; written into the folder."""
        kind = type(scheduler_by_name(name))
        scheduler = kind.from_config(self.pipe.scheduler.config, **changed)
        scheduler.save_pretrained(self.folder / "scheduler")
        return scheduler

    def run(self, scheduler: Any, steps: int, noise: torch.Tensor) -> torch.Tensor:
        pipe = type(self.pipe)(**{**self.pipe.components, "scheduler": scheduler})
        pipe.set_progress_bar_config(disable=True)
        guidance = {} if self.family == "flux" else {"guidance_scale": GUIDANCE}
        called = tiny.arguments(self.family) | guidance
        latents = pack(noise) if self.family == "flux" else noise
        result = pipe(**called, latents=latents, num_inference_steps=steps, output_type="latent").images
        return unpack(result, *noise.shape[-2:]) if self.family == "flux" else result

    def replay(self, plan: Plan, scheduler: Any, noise: torch.Tensor) -> torch.Tensor:
        network = self.model.network
        if plan.prediction_type == "edm":
            network = Preconditioned(network, *sigma_data_of({"_class_name": type(scheduler).__name__, **scheduler.config}))
        model = replace(self.model, network=network, prediction_type=plan.prediction_type)
        with torch.no_grad():
            return plan.sample(Denoiser(model, torch.arange(len(noise))), noise)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Opened]]:
    class Pipelines(dict[str, Opened]):
        def __missing__(self, family: str) -> Opened:
            self[family] = Opened(family, tmp_path_factory.mktemp(family))
            return self[family]

    yield Pipelines()


def steps_of(scheduler: Any) -> int:
    """How many steps spend NFE evaluations."""
    for steps in range(1, NFE + 1):
        tried = deepcopy(scheduler)
        tried.set_timesteps(steps, **({"mu": 1.0} if tried.config.get("use_dynamic_shifting") else {}))
        if len(tried.timesteps) == NFE:
            return steps
    raise AssertionError(f"{type(scheduler).__name__} cannot spend {NFE} evaluations")


@pytest.mark.parametrize(("family", "name", "changed"), CASES, ids=[f"{family}-{name}-{i}" for i, (family, name, _) in enumerate(CASES)])
def test_the_runtime_replays_the_pipeline(family: str, name: str, changed: dict[str, Any], opened: dict[str, Opened]) -> None:
    pipeline = opened[family]
    scheduler = pipeline.scheduler(name, changed)
    noise = torch.randn(2, *pipeline.model.shape, generator=torch.Generator().manual_seed(0))
    expected = pipeline.run(scheduler, steps_of(scheduler), noise)
    plan = as_plan(str(pipeline.folder), NFE, pipeline.model if family == "flux" else None, 1.0 if family == "flux" else GUIDANCE)
    result = pipeline.replay(plan, scheduler, noise)
    assert float((result - expected).norm() / expected.norm()) <= BOUND
