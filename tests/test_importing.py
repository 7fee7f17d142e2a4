"""Imported schedulers: each table, replayed by the runtime, is the scheduler's own loop on a nonlinear network."""

import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from solversearch.errors import UserError
from solversearch.importing import SCHEDULERS, from_diffusers, scheduler_by_name
from solversearch.runtime import Node, run
from solversearch.schedules import VE, DiscreteVP, Flow, data_prediction

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytestmark = pytest.mark.filterwarnings("ignore")

Array = NDArray[np.float64]

CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in SCHEDULERS),
    *((name, {"prediction_type": "v_prediction"}) for name in ("DDIM", "EulerDiscrete", "HeunDiscrete", "PNDM", "UniPCMultistep")),
    *((name, {"prediction_type": "sample"}) for name in ("DDIM", "EulerDiscrete", "DPMSolverMultistep", "DEISMultistep")),
    *(
        (name, {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0})
        for name in ("DPMSolverMultistep", "UniPCMultistep", "DEISMultistep")
    ),
    *((name, {"use_karras_sigmas": True}) for name in ("EulerDiscrete", "DPMSolverMultistep", "UniPCMultistep", "LMSDiscrete")),
    ("DPMSolverMultistep", {"solver_order": 3, "euler_at_final": True}),
    ("DDIM", {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}),
    ("PNDM", {"skip_prk_steps": False}),
    ("FlowMatchEulerDiscrete", {"shift": 3.0}),
]


def network(x: Any, t: float) -> Any:
    """Some smooth nonlinear network of the input and the time."""
    return torch.tanh(1.3 * x) + 0.2 * torch.cos(2 * x + t / 1000)


def own_loop(scheduler: Any, steps: int, noise: Array) -> Array:
    """As a pipeline runs it, in float32 as a pipeline would."""
    scheduler.set_timesteps(steps)
    x = torch.as_tensor(noise, dtype=torch.float32).reshape(1, 1, 1, -1) * getattr(scheduler, "init_noise_sigma", 1.0)
    for t in scheduler.timesteps:
        given = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        x = scheduler.step(network(given, float(t)), t, x, return_dict=False)[0]
    return x.numpy().ravel().astype(np.float64)


@pytest.mark.parametrize(("name", "config"), CASES, ids=[f"{name}-{i}" for i, (name, _) in enumerate(CASES)])
def test_the_table_replays_the_scheduler(name: str, config: dict[str, Any]) -> None:
    scheduler = scheduler_by_name(name, **config)
    tableau = from_diffusers(scheduler, 6)
    kind = scheduler.config.get("prediction_type", "flow")
    kind = {"flow_prediction": "flow"}.get(kind, kind)
    if name == "IPNDM":
        kind = "v_prediction"

    def denoise(x: Array, node: Node) -> Array:
        if name.startswith("EDM"):
            sigma, data = node.sigma, scheduler.config.sigma_data
            scaled, t = torch.as_tensor(x / np.hypot(sigma, data)), 0.25 * np.log(sigma)
            return np.asarray(scheduler.precondition_outputs(torch.as_tensor(x), network(scaled, t), torch.tensor(sigma)))
        a, b = data_prediction(kind, node.alpha, node.sigma)
        return a * x + b * np.asarray(network(torch.as_tensor(x), node.t))

    noise = np.random.default_rng(1).standard_normal(16)
    ours = run(tableau.nodes, tableau.rows, denoise, noise)
    theirs = own_loop(scheduler, 6, noise)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-4 * max(1.0, float(np.max(np.abs(theirs)))))


def test_the_scheduler_is_left_as_it_was() -> None:
    scheduler = scheduler_by_name("EulerDiscrete")
    before = scheduler.timesteps.clone()
    first, second = from_diffusers(scheduler, 5), from_diffusers(scheduler, 5)
    assert first == second
    assert torch.equal(before, scheduler.timesteps)


def test_custom_timesteps_and_sigmas() -> None:
    table = from_diffusers(scheduler_by_name("DPMSolverMultistep"), None, timesteps=[999, 600, 100])
    assert [node.t for node in table.nodes] == [999, 600, 100]
    flow = from_diffusers(scheduler_by_name("FlowMatchEulerDiscrete"), None, sigmas=[1.0, 0.5, 0.25])
    assert [node.sigma for node in flow.nodes] == [1.0, 0.5, 0.25]
    assert flow.nodes[0].alpha == 0


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("DDIM", {"clip_sample": True}),
        ("DPMSolverMultistep", {"thresholding": True}),
    ],
)
def test_schedulers_that_are_not_linear_are_refused(name: str, config: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"{name}Scheduler is not linear"):
        from_diffusers(scheduler_by_name(name, **config), 5)


def test_schedulers_that_divide_by_zero_are_refused() -> None:
    with pytest.raises(UserError, match="UniPCMultistepScheduler divides by zero"):
        from_diffusers(scheduler_by_name("UniPCMultistep", solver_type="bh1"), 5)


def test_an_object_that_is_no_scheduler_is_refused() -> None:
    with pytest.raises(UserError, match="dict cannot be imported"):
        from_diffusers({}, 5)


def test_the_schedule_of_the_model_is_checked() -> None:
    scheduler = scheduler_by_name("UniPCMultistep")
    assert from_diffusers(scheduler, 5, schedule=DiscreteVP.named()).nfe == 5
    from_diffusers(scheduler_by_name("EDMEuler"), 5, schedule=VE())
    from_diffusers(scheduler_by_name("FlowMatchEulerDiscrete"), 5, schedule=Flow(scale=1000.0))
    with pytest.raises(UserError, match="made for another model"):
        from_diffusers(scheduler, 5, schedule=Flow(scale=1000.0))


def test_names() -> None:
    assert type(scheduler_by_name("UniPCMultistepScheduler")).__name__ == "UniPCMultistepScheduler"
    with pytest.raises(UserError, match="did you mean 'HeunDiscrete'"):
        scheduler_by_name("HeunDiscret")
    with pytest.raises(UserError, match="did you mean 'solver_order'"):
        scheduler_by_name("UniPCMultistep", solver_ordre=2)


def test_without_diffusers_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(UserError, match=r"pip install 'solversearch\[diffusers\]'"):
        scheduler_by_name("DDIM")
