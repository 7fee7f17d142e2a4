"""What people bring: lists, tables, samplers' names, schedulers that draw noise or clip. Right is what the owner's own program computes."""

import inspect
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from solversearch.errors import UserError
from solversearch.export import get as export
from solversearch.export.diffusers import PlanScheduler
from solversearch.export.shipped.levels import ZERO_SNR, sigmas
from solversearch.export.stock import as_stock
from solversearch.importing import (
    STOCHASTIC,
    as_plan,
    from_diffusers,
    named,
    plan_of_list,
    plan_of_numbers,
    plan_of_table,
    read_numbers,
    scheduler_by_name,
    tables,
)
from solversearch.models.pipelines.schedule import schedule_of
from solversearch.plan import Plan
from solversearch.runtime import Node
from solversearch.schedules import CLEAN, DiscreteVP, Flow, NoiseSchedule, data_prediction

Array = NDArray[np.float64]
LIST = [14.6, 6.5, 2.7, 0.7, 0.0]
FLOW = [1.0, 0.9, 0.6, 0.25, 0.1, 0.0]
NOISE = np.random.default_rng(0).standard_normal((64, 2))
FRESH = np.random.default_rng(1).standard_normal((32, 64, 2))
MEAN, VARIANCE = 0.3, 0.25  # of the data of an exact denoiser


def gaussian(x: Array, alpha: float, sigma: float) -> Array:
    """The exact data prediction of Gaussian data."""
    return MEAN + alpha * VARIANCE / (alpha**2 * VARIANCE + sigma**2) * (x - alpha * MEAN)


def denoise(x: Array, node: Node) -> Array:
    return gaussian(x, node.alpha, node.sigma)


def sampled(plan: Plan) -> Array:
    return np.asarray(plan.sample(denoise, NOISE, draw=lambda k: FRESH[k]))


def close(a: Any, b: Any, bound: float = 1e-9) -> bool:
    return bool(np.linalg.norm(np.asarray(a) - b) <= bound * np.linalg.norm(b))


# Lists as they are pasted ------------------------------------------------------------------------------------------

TEXTS = {
    "brackets": "[14.6, 6.5, 2.7, 0.7, 0]",
    "parentheses": "(14.6, 6.5, 2.7, 0.7, 0)",
    "semicolons": "14.6; 6.5; 2.7; 0.7; 0",
    "a line each": "14.6\r\n6.5\r\n2.7\r\n0.7\r\n0\r\n",
    "old line ends": "14.6\r6.5\r2.7\r0.7\r0",
    "a printed tensor": "tensor([14.6000,  6.5000,  2.7000,  0.7000,  0.0000])",
    "a tensor on a GPU": "tensor([[14.6, 6.5, 2.7],\n        [0.7, 0.0, ]], device='cuda:0', dtype=torch.float64, grad_fn=<MulBackward0>)",
    "printed NumPy": "[14.6  6.5  2.7  0.7  0. ]",
    "an array": "array([14.6,  6.5,  2.7,  0.7,  0. ], dtype=float32)",
    "NumPy's scalars": "[np.float64(14.6), np.float64(6.5), np.float64(2.7), np.float64(0.7), np.float64(0.0)]",
    "an assignment": "sigmas = [14.6, 6.5, 2.7, 0.7, 0]",
    "JSON": '{"steps": 4, "sigmas": [14.6, 6.5, 2.7, 0.7, 0]}',
    "JSON of text": '["14.6", "6.5", "2.7", "0.7", "0"]',
    "a Python dictionary": "{'sigmas': [14.6, 6.5, 2.7, 0.7, 0.0]}",
    "a node of ComfyUI's API": '{"class_type": "ManualSigmas", "inputs": {"sigmas": "14.6, 6.5, 2.7, 0.7, 0"}}',
    "a node of ComfyUI's workflow": '{"type": "ManualSigmas", "widgets_values": ["14.6, 6.5, 2.7, 0.7, 0"]}',
    "stable-diffusion.cpp": '--sigmas "14.6,6.5,2.7,0.7,0"',
    "comments": "# mine\n14.6, 6.5, 2.7, 0.7, 0\n# dpmpp_2m",
    "exponents": "1.46e+01 6.5e0 2.7 7e-1 0e0",
}


@pytest.mark.parametrize("name", TEXTS)
def test_lists_are_read_as_they_are_pasted(name: str) -> None:
    assert read_numbers(TEXTS[name], "sigmas").numbers == LIST


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_files_of_any_encoding(tmp_path: Path, encoding: str, end: str) -> None:
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    (tmp_path / "list.txt").write_bytes((mark + end.join(map(str, LIST))).encode(encoding))
    for name in (str(tmp_path / "list.txt"), f"@{tmp_path / 'list.txt'}"):
        assert read_numbers(name, "sigmas").numbers == LIST


def test_a_list_in_its_frame_is_euler() -> None:
    """x + (s' - s) (x - D) / s in the frame that was said, for each frame."""
    frames: dict[str, tuple[list[float], Callable[[float], float]]] = {
        "flow": (FLOW, lambda s: 1 - s),
        "edm": ([80.0, 10.0, 2.0, 0.5, 0.0], lambda s: 1.0),
    }
    for kind, (levels, alpha) in frames.items():
        x = levels[0] * NOISE
        for s, t in zip(levels, levels[1:], strict=False):
            x = x + (t - s) * (x - gaussian(x, alpha(s), s)) / s
        plan = plan_of_list(levels, "euler", prediction_type=kind)
        assert plan.prediction_type == kind and close(sampled(plan), x)


def test_the_network_is_told_what_its_frame_says() -> None:
    assert [node.t for node in plan_of_list(FLOW, "euler", prediction_type="flow").nodes] == pytest.approx([1000, 900, 600, 250, 100])
    assert [
        node.t for node in plan_of_list([700.0, 1.0, 0.0], "euler", timestep_type="continuous", prediction_type="v_prediction").nodes
    ] == (pytest.approx([np.log(700) / 4, 0.0], abs=1e-12))


def test_a_list_that_may_be_of_two_frames_is_a_question() -> None:
    for levels in ([1.0, 0.5, 0.0], [0.9, 0.3, 0.0]):
        with pytest.raises(UserError, match="may be a flow's .* say --set prediction_type=flow"):
            plan_of_list(levels, "euler")
    assert plan_of_list([0.9, 0.3, 0.0], "euler", beta_schedule="scaled_linear").prediction_type == "epsilon"


def test_published_lists_end_above_zero() -> None:
    levels = tables()["ays_sd15"].lists[0]
    with pytest.warns(UserWarning, match="end at 0.0291672, not 0; that level stands for the end"):
        assert plan_of_numbers(f"[{', '.join(map(str, levels))}]", "sigmas", "euler").rows == plan_of_table("ays_sd15", "euler").rows
    with pytest.warns(UserWarning, match="is evaluated: its clean prediction is the result"):
        assert plan_of_list(LIST[:-1], "euler").rows == plan_of_list(LIST, "euler").rows
    with pytest.warns(UserWarning, match="is evaluated"):
        assert plan_of_list(levels, "euler", nfe=11).rows == plan_of_list([*levels, 0.0], "euler").rows


# Timesteps and tables ------------------------------------------------------------------------------------------------


def test_timesteps_are_those_of_the_network() -> None:
    times = [999, 850, 736, 645, 545, 455, 343, 233, 124, 24]
    plan = plan_of_numbers(str(times), "timesteps", "DPMSolverMultistepScheduler")
    assert [node.t for node in plan.nodes] == times
    assert close(replayed(plan), own_run(scheduler_by_name("DPMSolverMultistep"), None, timesteps=times), 2e-4)
    ended = [plan_of_list([*times, 0], "euler", what="timesteps", nfe=nfe) for nfe in (None, 11, 10)]
    assert [each.nfe for each in ended] == [11, 11, 10]


def test_timesteps_of_a_flow_end_at_0() -> None:
    plan = plan_of_list([1000, 600, 250, 0], "euler", what="timesteps", prediction_type="flow")
    assert [(node.t, node.alpha, node.sigma) for node in plan.nodes] == [(1000, 0, 1), (600, 0.4, 0.6), (250, 0.75, 0.25)]
    with pytest.raises(UserError, match="is named by its noise levels; use --sigmas"):
        plan_of_list([3, 2, 1], "euler", what="timesteps", prediction_type="edm")


@pytest.mark.parametrize(
    ("name", "steps", "levels"),
    [
        ("ays_svd", 10, [700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034]),
        ("ays_svd", 5, [700.0, 15.886, 4.248, 0.981, 0.173]),
        ("ays_svd", 20, [700.0, (700 * 54.5) ** 0.5, 54.5, (54.5 * 15.886) ** 0.5, 15.886]),
        ("optimal_steps_flux", 10, [0.9968, 0.9886, 0.9819, 0.975, 0.966, 0.9471, 0.9158, 0.8287, 0.5512, 0.2808]),
        ("optimal_steps_wan", 10, [1.0, 0.995, 0.991, 0.987, 0.98, 0.973, 0.96, 0.927, 0.864, 0.539]),
        ("optimal_steps_chroma", 4, [0.992, 0.943, 0.69, 0.232]),
        ("gits_1.20", 4, [14.61464119, 2.36326075, 0.92192322, 0.36617002]),
        ("gits_1.20", 7, [14.61464119, 5.85520077, 2.45070267, 1.24153244, 0.64427125, 0.29807833, 0.09824532]),
        ("gits_1.20", 40, [14.61464119, (14.61464119 * 7.49001646) ** 0.5, 7.49001646]),
    ],
)
def test_published_tables(name: str, steps: int, levels: list[float]) -> None:
    """As published, and log-linear between where the number of steps is another."""
    plan = plan_of_table(name, "euler", nfe=steps)
    ratio = (lambda node: node.sigma) if name.startswith("optimal") else (lambda node: node.sigma / node.alpha)
    assert plan.nfe == steps and [ratio(node) for node in plan.nodes][: len(levels)] == pytest.approx(levels, rel=1e-6)
    kind = {"ays_svd": "v_prediction"}.get(name, "flow" if name.startswith("optimal") else "epsilon")
    assert plan.prediction_type == kind


def test_tables_fall_and_are_named_by_what_they_are_for() -> None:
    for name, each in tables().items():
        assert all(np.all(np.diff(levels) < 0) for levels in each.lists), name
        assert plan_of_table(name, "euler").nfe == each.steps and "arXiv" in each.description
    assert plan_of_table("gits_1.20", "heun", nfe=7).nfe == 7


# Names of samplers -----------------------------------------------------------------------------------------------------


def theirs(name: str, levels: list[float], model: Callable[[Array, float], Array], x: Array) -> Array:
    """Published samplers of k-diffusion and ComfyUI on x = data + sigma * noise, written from their formulas."""
    slopes: list[Array] = []
    old: Array | None = None
    for i, (s, t) in enumerate(zip(levels, levels[1:], strict=False)):
        d = model(x, s)
        slope = (x - d) / s
        slopes.insert(0, slope)
        if name == "lcm":
            x = d + t * FRESH[i]
        elif name in ("euler_ancestral", "ddpm"):
            up = min(t, (t**2 * (s**2 - t**2) / s**2) ** 0.5)
            x = x + slope * ((t**2 - up**2) ** 0.5 - s) + up * FRESH[i]
        elif t == 0 or name == "euler":
            x = x + slope * (t - s)
        elif name in ("heun", "dpm_2"):
            middle = t if name == "heun" else (s * t) ** 0.5
            other = x + slope * (middle - s)
            second = (other - model(other, middle)) / middle
            x = x + (t - s) * ((slope + second) / 2 if name == "heun" else second)
        elif name == "ipndm":
            weights = {1: [1], 2: [1.5, -0.5], 3: [23 / 12, -16 / 12, 5 / 12], 4: [55 / 24, -59 / 24, 37 / 24, -9 / 24]}
            x = x + (t - s) * sum(w * e for w, e in zip(weights[min(i + 1, 4)], slopes, strict=False))
        elif name == "lms":
            known = levels[max(i - 3, 0) : i + 1][::-1]
            for j, (at, e) in enumerate(zip(known, slopes, strict=False)):
                basis = np.poly1d([1.0])
                for k, other_at in enumerate(known):
                    basis = basis * np.poly1d([1, -other_at]) / (at - other_at) if k != j else basis
                whole = basis.integ()
                x = x + e * (whole(t) - whole(s))
        elif old is None:
            x = x + slope * (t - s)
        elif name == "dpmpp_2m":
            h, last = np.log(s / t), np.log(levels[i - 1] / s)
            x = t / s * x + (1 - t / s) * (d + (d - old) * h / (2 * last))
        else:
            assert name == "res_multistep"
            h, c = np.log(s / t), np.log(s / levels[i - 1]) / np.log(s / t)
            phi_1 = (1 - np.exp(-h)) / h
            phi_2 = (1 - phi_1) / h
            x = np.exp(-h) * x + h * ((phi_1 - phi_2 / c) * d + phi_2 / c * old)
        old = d
    return x


COMFYUI = ("euler", "heun", "dpm_2", "lms", "ipndm", "dpmpp_2m", "res_multistep", "euler_ancestral", "ddpm", "lcm")


@pytest.mark.parametrize("name", COMFYUI)
@pytest.mark.parametrize("kind", ["epsilon", "edm", "flow"])
def test_samplers_of_comfyui(name: str, kind: str) -> None:
    """Each on a variance preserving network, an exploding one, and a flow, on which the stochastic ones follow other rules."""
    if kind == "flow" and name in ("euler_ancestral", "ddpm", "lcm"):
        pytest.skip("refused or tested elsewhere")
    levels = FLOW if kind == "flow" else [14.6, 6.5, 4.0, 2.7, 1.2, 0.7, 0.0]
    alpha = (lambda s: 1 - s) if kind == "flow" else (lambda s: 1.0)
    right = theirs(name, levels, lambda x, s: gaussian(x, alpha(s), s), levels[0] * NOISE)
    plan = plan_of_list(levels, f"comfyui:{name}", prediction_type=kind)
    scale = np.hypot(1, 1 / levels[0]) if kind == "epsilon" else 1.0  # plans start from unit noise, k-diffusion from sigma times it
    result = plan.sample(denoise, NOISE / scale, draw=lambda k: FRESH[k])
    assert close(result, right)


def test_flows_of_other_rules_are_told() -> None:
    with pytest.warns(UserWarning, match="heun steps flow models in sigma / alpha; ComfyUI's, .* is comfyui:heun"):
        plan_of_list(FLOW, "heun", prediction_type="flow")
    x, plan = NOISE, plan_of_list(FLOW, "lcm", prediction_type="flow")
    for i, (s, t) in enumerate(zip(FLOW, FLOW[1:], strict=False)):
        x = (1 - t) * gaussian(x, 1 - s, s) + t * FRESH[i]
    assert close(sampled(plan), x)


@pytest.mark.parametrize(("name", "variant"), [("uni_pc", "bh1"), ("uni_pc_bh2", "bh2")])
def test_unipc_of_comfyui_ends_at_a_thousandth(name: str, variant: str) -> None:
    """As diffusers' UniPC of order 3 does on the same levels with 0.001 for the last."""
    scheduler = scheduler_by_name("UniPCMultistep", solver_order=3, solver_type=variant, prediction_type="sample")
    levels = [14.6, 6.5, 4.0, 2.7, 1.2, 0.7, 0.001]
    scheduler.set_timesteps(6)
    scheduler.sigmas = torch.tensor(levels, dtype=torch.float64)
    x = torch.tensor(NOISE).reshape(1, 1, *NOISE.shape)
    for t, s in zip(scheduler.timesteps, levels, strict=False):
        d = gaussian(x.numpy(), 1 / np.hypot(1, s), s / np.hypot(1, s))
        x = scheduler.step(torch.tensor(d), t, x, return_dict=False)[0]
    right = x.numpy().reshape(NOISE.shape) * np.hypot(1, levels[-1])
    assert close(sampled(plan_of_list([*levels[:-1], 0.0], name)), right, 1e-6)


def test_names_of_diffusers_are_its_defaults() -> None:
    """Tables on the classes' own nodes; DEIS and PNDM end at the least noise of the betas."""
    betas, least = DiscreteVP.named(), DiscreteVP.named().node(0.0)
    for name, kept in {
        "DDIM": 1, "EulerDiscrete": 1, "EulerAncestralDiscrete": 1, "DDPM": 1, "LCM": 1, "LMSDiscrete": 1, "DPMSolverMultistep": 1,
        "DPMSolverSinglestep": 1, "UniPCMultistep": 1, "DEISMultistep": 1, "PNDM": 1, "HeunDiscrete": 2, "KDPM2Discrete": 2,
        "FlowMatchEulerDiscrete": 1, "FlowMatchHeunDiscrete": 2,
    }.items():  # fmt: skip
        table = from_diffusers(scheduler_by_name(name), 6)
        grid = list(dict.fromkeys([table.nodes[0], *(table.nodes[2::2] if kept == 2 else table.nodes[1:])]))
        schedule: NoiseSchedule = Flow(1.0, 1000.0) if name.startswith("Flow") else betas
        ours = named(f"{name}Scheduler").tableau(schedule, [*grid, least if name in ("DEISMultistep", "PNDM") else CLEAN])
        assert ours.nfe == table.nfe, name
        bound = 2e-4 if name == "PNDM" else 1e-5  # its last alpha is that of timestep 0, float32
        for a, b in zip(ours.rows, table.rows, strict=True):
            x, y = (np.array([row.x / rows[0].x, *row.d, *[0.0] * (table.nfe - len(row.d)), *row.z, *[0.0] * (8 - len(row.z))])
                    for row, rows in ((a, ours.rows), (b, table.rows)))  # fmt: skip
            assert np.max(np.abs(x - y)) < bound * np.max(np.abs(y)), name


# Schedulers that draw noise, or clip -----------------------------------------------------------------------------------


def network(x: Any, t: float) -> Any:
    """Some smooth nonlinear network of the input and the time."""
    return torch.tanh(1.3 * x) + 0.2 * torch.cos(2 * x + t / 1000)


def own_run(scheduler: Any, steps: int | None, model: Callable[[Any, float], Any] = network, **arguments: Any) -> Array:
    """The result of the scheduler's own loop, in float32 as a pipeline runs it."""
    scheduler.set_timesteps(**({} if steps is None else {"num_inference_steps": steps}), **arguments)
    x = torch.as_tensor(NOISE, dtype=torch.float32).reshape(1, 1, *NOISE.shape) * getattr(scheduler, "init_noise_sigma", 1.0)
    more = {"generator": torch.Generator().manual_seed(5)} if "generator" in inspect.signature(scheduler.step).parameters else {}
    for t in scheduler.timesteps:
        given = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        x = scheduler.step(model(given, float(t)), t, x, return_dict=False, **more)[0]
    return x.double().numpy().reshape(NOISE.shape)


def replayed(plan: Plan, model: Callable[[Any, float], Any] = network, unused: int = 0) -> Array:
    """The plan on the same network, and the same draws of the generator, one after the other; unused are the first that come to nothing."""
    generator = torch.Generator().manual_seed(5)
    draws = [torch.randn(1, 1, *NOISE.shape, generator=generator).double().numpy().reshape(NOISE.shape) for _ in range(24)]

    def reading(x: Array, node: Node) -> Array:
        a, b = data_prediction(plan.prediction_type, node.alpha, node.sigma)
        return a * x + b * model(torch.as_tensor(x), node.t).numpy()

    return np.asarray(plan.sample(reading, NOISE, draw=lambda k: draws[unused + k]))


DRAWING: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in STOCHASTIC),
    *(("DDPM", {"variance_type": kind}) for kind in ("fixed_large", "fixed_small_log")),
    ("DDPM", {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}),
    ("DDPM", {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "sample"}),
    ("EulerAncestralDiscrete", {"prediction_type": "v_prediction"}),
    ("EulerAncestralDiscrete", {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}),
    ("LCM", {"original_inference_steps": 100}),
    *((name, {"algorithm_type": "sde-dpmsolver++"}) for name in ("DPMSolverMultistep", "DPMSolverSinglestep")),
    ("DPMSolverMultistep", {"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True}),
    ("DPMSolverMultistep", {"algorithm_type": "sde-dpmsolver++", "solver_order": 1}),
    ("FlowMatchEulerDiscrete", {"stochastic_sampling": True, "shift": 3.0}),
]


@pytest.mark.parametrize(("name", "config"), DRAWING, ids=[f"{name}-{i}" for i, (name, _) in enumerate(DRAWING)])
def test_schedulers_that_draw_noise_are_stochastic_plans(name: str, config: dict[str, Any]) -> None:
    steps = 4
    with pytest.warns(UserWarning, match=f"{name}Scheduler draws fresh noise"):
        plan = as_plan(name, 7 if name.startswith("KDPM2") else steps, **config)
    assert plan.tableau.stochastic
    right = own_run(scheduler_by_name(name, **config), steps)
    assert close(replayed(plan, unused=int(name == "SASolver")), right, 2e-4)


def test_the_option_that_draws_is_named() -> None:
    with pytest.warns(UserWarning, match="stochastic_sampling=True"):
        as_plan("FlowMatchEulerDiscrete", 4, stochastic_sampling=True)


@pytest.mark.parametrize(
    ("name", "rule", "config"),
    [
        ("DDPM", "ddim_eta1", {}),
        ("EulerAncestralDiscrete", "ddim_eta1", {"timestep_spacing": "trailing"}),
        ("DPMSolverMultistep", "dpmpp_2m_sde", {"algorithm_type": "sde-dpmsolver++"}),
        ("LCM", "lcm", {}),
    ],
)
def test_their_tables_are_our_rules(name: str, rule: str, config: dict[str, Any]) -> None:
    table = from_diffusers(scheduler_by_name(name, **config), 5)
    ours = named(rule).tableau(DiscreteVP.named(), [*table.nodes, CLEAN])
    for a, b in zip(ours.rows, table.rows, strict=True):
        assert a.x / ours.rows[0].x == pytest.approx(b.x / table.rows[0].x, abs=1e-5)
        assert a.d == pytest.approx(b.d, abs=1e-5)
        assert (*a.z, *[0.0] * (len(b.z) - len(a.z))) == pytest.approx((*b.z, *[0.0] * (len(a.z) - len(b.z))), abs=1e-5)


def wide(x: Any, t: float) -> Any:
    """A network whose data predictions leave [-1, 1]."""
    return torch.tanh(x) * (0.2 + t / 900)


@pytest.mark.parametrize(("name", "config"), [("DDPM", {}), ("DDPM", {"clip_sample_range": 0.6}), ("HeunDiscrete", {}), ("LCM", {})])
def test_clipping_is_the_clamp_of_the_format(name: str, config: dict[str, Any]) -> None:
    config = {**config, "clip_sample": True}
    plan = as_plan(name, 5, **config)
    assert plan.threshold is not None and plan.threshold.kind == "clamp" and plan.threshold.limit == config.get("clip_sample_range", 1.0)
    right = own_run(scheduler_by_name(name, **config), 3 if name == "HeunDiscrete" else 5, wide)
    assert close(replayed(plan, wide), right, 2e-4)
    assert not close(replayed(plan.model_copy(update={"threshold": None}), wide), right, 1e-2)


def test_ddim_clips_as_it_does_with_the_clipped_noise() -> None:
    with pytest.warns(UserWarning, match=r"DDIMScheduler keeps the network's own noise prediction .* leave \[-1, 1\]"):
        plan = as_plan("DDIM", 5, clip_sample=True)
    scheduler = scheduler_by_name("DDIM", clip_sample=True)
    scheduler.step = partial(scheduler.step, use_clipped_model_output=True)
    assert close(replayed(plan, wide), own_run(scheduler, 5, wide), 2e-4)


# Zero terminal SNR, continuous times -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("name", ["EulerDiscrete", "DPMSolverMultistep", "UniPCMultistep"])
def test_zero_terminal_snr_comes_in_and_goes_out(kind: str, name: str) -> None:
    config = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "prediction_type": kind}
    plan = as_plan(name, 5, **config)
    assert plan.nodes[0].t == 999 and close(replayed(plan), own_run(scheduler_by_name(name, **config), 5), 2e-4)
    levels = sigmas(plan)
    again = plan_of_list(levels, "ddim", prediction_type=kind, rescale_betas_zero_snr=True)
    assert again.nodes[0].t == 999 and again.nodes[0].alpha == pytest.approx(2.0**-12 if kind == "epsilon" else 0.0)
    assert [node.t for node in again.nodes] == pytest.approx([node.t for node in plan.nodes], abs=0.05)
    if name == "DPMSolverMultistep":
        assert as_stock(plan).arguments["timesteps"] == [999, 799, 599, 399, 199]


def test_every_sigma_that_stands_for_infinity_is_the_first_timestep() -> None:
    for first in (np.inf, ZERO_SNR, 4096.0):
        plan = plan_of_list([first, 12.1, 0.5, 0.0], "ddim", prediction_type="v_prediction", rescale_betas_zero_snr=True)
        assert (plan.nodes[0].t, plan.nodes[0].alpha) == (999, 0)
    with pytest.raises(UserError, match="leave the model's range"):
        plan_of_list([ZERO_SNR, 12.1, 0.0], "ddim", prediction_type="v_prediction")


def test_a_model_of_noise_at_zero_snr_is_loaded_as_diffusers_samples_it() -> None:
    config = {"_class_name": "EulerDiscreteScheduler", "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    schedule = schedule_of({**config, "rescale_betas_zero_snr": True})[0]
    assert float(schedule.alpha(999)) == pytest.approx(2.0**-12, rel=1e-9)
    own = scheduler_by_name("EulerDiscrete", rescale_betas_zero_snr=True).alphas_cumprod.double().numpy()
    assert np.max(np.abs(schedule.alpha(np.arange(1000)) ** 2 - own)) < 1e-6


def test_continuous_times_are_those_of_the_scheduler() -> None:
    config = {"prediction_type": "v_prediction", "timestep_type": "continuous", "use_karras_sigmas": True, "sigma_min": 0.002,
              "sigma_max": 700.0}  # fmt: skip
    schedule, kind, _ = schedule_of({"_class_name": "EulerDiscreteScheduler", **config})
    plan = as_plan("EulerDiscrete", 6, **config)
    assert kind == "v_prediction"
    for node in plan.nodes:
        assert (float(schedule.alpha(node.t)), float(schedule.sigma(node.t))) == pytest.approx((node.alpha, node.sigma), rel=1e-5)
    ratios = [node.sigma / node.alpha for node in plan.nodes]
    listed = plan_of_list([*ratios, 0.0], "EulerDiscrete", prediction_type="v_prediction", timestep_type="continuous")
    assert [node.t for node in listed.nodes] == pytest.approx([node.t for node in plan.nodes], abs=1e-5)
    assert close(sampled(listed), sampled(plan), 2e-5)
    angles = schedule.angle([-1.5, 0.0, 1.6])
    assert schedule.time_of_angle(angles) == pytest.approx([-1.5, 0.0, 1.6])


# Own output as input ---------------------------------------------------------------------------------------------------


def test_own_exports_come_back(tmp_path: Path) -> None:
    plan = plan_of_list(LIST, "euler")
    for name in ("sigmas", "diffusers-sigmas"):
        export(name).write(plan, tmp_path / f"{name}.json")
        assert close(sampled(plan_of_numbers(str(tmp_path / f"{name}.json"), "sigmas", "euler")), sampled(plan), 1e-6), name
    whole = as_plan(str(tmp_path / "diffusers-sigmas.json"), None)
    assert whole.decisions["solver"] == "EulerDiscrete" and close(sampled(whole), sampled(plan), 3e-3)  # it starts from sqrt(1 + 14.6^2)
    export("diffusers-sigmas").write(plan_of_list(FLOW, "euler", prediction_type="flow"), tmp_path / "flow.json")
    with pytest.warns(UserWarning, match="is evaluated"):  # diffusers adds the 0 of flows itself
        flow = plan_of_numbers(str(tmp_path / "flow.json"), "sigmas", "euler")
    assert close(sampled(flow), sampled(plan_of_list(FLOW, "euler", prediction_type="flow")))


def test_exported_timesteps_come_back(tmp_path: Path) -> None:
    plan = as_plan("DPMSolverMultistep", 5, prediction_type="v_prediction", beta_schedule="linear", beta_start=0.0001, beta_end=0.02)
    export("diffusers-timesteps").write(plan, tmp_path / "times.json")
    assert close(sampled(as_plan(str(tmp_path / "times.json"), 5)), sampled(plan), 1e-6)
    listed = plan_of_numbers(str(tmp_path / "times.json"), "timesteps", "DPMSolverMultistep")
    assert listed.prediction_type == "v_prediction" and close(sampled(listed), sampled(plan), 1e-5)
    with pytest.raises(UserError, match="there are no sigmas in it"):
        plan_of_numbers(str(tmp_path / "times.json"), "sigmas", "euler")


def test_a_scheduler_made_of_a_plan_gives_the_plan_back(tmp_path: Path) -> None:
    plan = plan_of_list(LIST, "dpmpp_2m")
    PlanScheduler.from_plan(plan).save_pretrained(tmp_path / "scheduler")
    assert as_plan(str(tmp_path), 4) == plan == as_plan(str(tmp_path), None)
    with pytest.raises(UserError, match="it holds a plan of 4 evaluations"):
        as_plan(str(tmp_path), 5)
    with pytest.raises(UserError, match="saved with a plan as its scheduler, and the model's own settings are gone"):
        schedule_of(json.loads((tmp_path / "scheduler/scheduler_config.json").read_text()))
