"""Samplers by their names in ComfyUI and diffusers."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch

from solversearch.importing import from_diffusers, named, plan_of_list, scheduler_by_name
from solversearch.schedules import CLEAN, DiscreteVP, Flow, NoiseSchedule
from tests.importing.owners import FLOW, FRESH, NOISE, Array, close, denoise, gaussian, sampled

pytest.importorskip("diffusers")
pytestmark = pytest.mark.filterwarnings("ignore")


WEIGHTS: dict[str, list[list[float]]] = {
    "ipndm": [[1], [1.5, -0.5], [23 / 12, -16 / 12, 5 / 12], [55 / 24, -59 / 24, 37 / 24, -9 / 24]],
    "gradient_estimation": [[1], [2, -1]],
}
"""Of slopes, newest first, in each step and those after the last."""


def theirs(name: str, levels: list[float], model: Callable[[Array, float], Array], x: Array) -> Array:
    """Published samplers of k-diffusion and ComfyUI on x = data + sigma * noise, written from their formulas."""
    slopes: list[Array] = []
    old: Array | None = None
    for i, (s, t) in enumerate(pairwise(levels)):
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
        elif name in WEIGHTS:
            x = x + (t - s) * sum(w * e for w, e in zip(WEIGHTS[name][: i + 1][-1], slopes, strict=False))
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


COMFYUI = ("euler", "heun", "dpm_2", "lms", "ipndm", "dpmpp_2m", "res_multistep", "gradient_estimation", "euler_ancestral", "ddpm", "lcm")


@pytest.mark.parametrize("name", COMFYUI)
@pytest.mark.parametrize("kind", ["epsilon", "edm", "flow"])
def test_samplers_of_comfyui(name: str, kind: str) -> None:
    """Each on a variance preserving network, an exploding one, and a flow, on which the stochastic ones follow other rules."""
    if kind == "flow" and name in ("euler_ancestral", "ddpm", "lcm"):
        pytest.skip("refused or tested elsewhere")
    levels = FLOW if kind == "flow" else [14.6, 6.5, 4.0, 2.7, 1.2, 0.7, 0.0]
    right = theirs(name, levels, lambda x, s: gaussian(x, 1 - s if kind == "flow" else 1.0, s), levels[0] * NOISE)
    plan = plan_of_list(levels, f"comfyui:{name}", prediction_type=kind)
    scale = np.hypot(1, 1 / levels[0]) if kind == "epsilon" else 1.0  # plans start from unit noise, k-diffusion from sigma times it
    result = plan.sample(denoise, NOISE / scale, draw=lambda k: FRESH[k])
    assert close(result, right)


def test_flows_of_other_rules_are_told() -> None:
    with pytest.warns(UserWarning, match=r"heun steps flow models in sigma / alpha; ComfyUI's, .* is comfyui:heun"):
        plan_of_list(FLOW, "heun", prediction_type="flow")
    x, plan = NOISE, plan_of_list(FLOW, "lcm", prediction_type="flow")
    for i, (s, t) in enumerate(pairwise(FLOW)):
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
