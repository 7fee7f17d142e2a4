"""Sigmas to paste: read as their consumers read them, and run by the sampler that they are said to go with."""

import re
import shlex
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from solversearch.errors import UserError
from solversearch.export.sigmas import sigma_text, stock_solver
from solversearch.importing import from_diffusers, scheduler_by_name
from solversearch.plan import Plan
from tests.export.consumers import NOISE, PLANS, SCHEDULES, by_runtime, difference, plan_of, table_of
from tests.export.test_k_diffusion import ARGUMENTS, CFGDenoiser, Denoiser

Model = Callable[[Tensor, Tensor], Tensor]


def manual_sigmas(text: str) -> Tensor:
    """ComfyUI's node: whatever its pattern finds is a number."""
    return torch.tensor([float(found) for found in re.findall(r"[-+]?(?:\d*\.*\d+)", text)], dtype=torch.float64)


def command_line(text: str) -> list[float]:
    """stable-diffusion.cpp's: split at commas, each trimmed."""
    option, value = shlex.split(text)
    assert option == "--sigmas"
    return [float(item.strip()) for item in value.split(",")]


def euler(model: Model, x: Tensor, sigmas: Tensor) -> Tensor:
    for s, t in pairwise(sigmas):
        x = x + (x - model(x, s)) / s * (t - s)
    return x


def heun(model: Model, x: Tensor, sigmas: Tensor) -> Tensor:
    for s, t in pairwise(sigmas):
        slope = (x - model(x, s)) / s
        if t > 0:
            ahead = x + slope * (t - s)
            slope = (slope + (ahead - model(ahead, t)) / t) / 2
        x = x + slope * (t - s)
    return x


def dpmpp_2m(model: Model, x: Tensor, sigmas: Tensor) -> Tensor:
    before = None
    for i, (s, t) in enumerate(pairwise(sigmas)):
        denoised = model(x, s)
        used = denoised
        if before is not None and t > 0:
            r = (sigmas[i - 1] / s).log() / (s / t).log()
            used = denoised + (denoised - before) / (2 * r)
        x, before = t / s * x + (1 - t / s) * used, denoised
    return x


SAMPLERS = {"euler": euler, "heun": heun, "dpmpp_2m": dpmpp_2m}


def stock(plan: Plan, kind: str) -> Tensor:
    """The sampler that the text names, on the sigmas that it gives."""
    lines = sigma_text(plan).splitlines()
    found = re.search(r"This plan is sampler (\w+) in ComfyUI", lines[-1])
    assert found
    sigmas, denoiser = manual_sigmas(lines[1]), CFGDenoiser(Denoiser(kind))
    arguments = {**ARGUMENTS, "cond_scale": plan.guidance}
    first = sigmas[0] if kind == "flow" else (1 + sigmas[0] ** 2).sqrt()  # as ComfyUI scales the noise at its highest level
    return SAMPLERS[found[1]](lambda x, s: denoiser(x, s.expand(len(x)), **arguments), NOISE * first, sigmas)


@pytest.mark.parametrize("kind", ["epsilon", "v"])
@pytest.mark.parametrize("solver", ["ddim", "heun", "dpmpp_2m"])
def test_the_named_sampler_reproduces_the_plan(solver: str, kind: str) -> None:
    plan = plan_of(table_of(solver, kind).guided(3.0), kind, 3.0)
    assert stock_solver(plan) == solver
    assert difference(stock(plan, kind), by_runtime(plan)) < 1e-6


def test_flows_are_what_a_sampler_that_knows_sigma_alone_makes_of_them() -> None:
    plan = plan_of(table_of("ddim", "flow"), "flow")
    assert difference(stock(plan, "flow"), by_runtime(plan)) < 1e-6
    assert stock_solver(plan_of(table_of("dpmpp_2m", "flow"), "flow")) is None  # in lambda, where samplers step in ln sigma


@pytest.mark.parametrize("name", ["DPMSolverMultistep", "EulerDiscrete", "HeunDiscrete", "DDIM", "FlowMatchHeunDiscrete"])
def test_imported_schedulers_are_known_in_spite_of_their_rounding(name: str) -> None:
    pytest.importorskip("diffusers")
    kind = "flow" if name.startswith("Flow") else "epsilon"
    plan = plan_of(from_diffusers(scheduler_by_name(name), 4), kind)
    expected = {"DPMSolverMultistep": "dpmpp_2m", "HeunDiscrete": "heun", "FlowMatchHeunDiscrete": "heun"}
    assert stock_solver(plan) == expected.get(name, "ddim")


@pytest.mark.parametrize(
    "name", ["a solver", "split guidance", "guidance for each node", "other times", "clamped", "fresh noise", "components"]
)
def test_plans_that_are_more_than_a_schedule_say_so(name: str) -> None:
    plan = PLANS[name]("epsilon")
    assert stock_solver(plan) is None and "its coefficients are lost" in sigma_text(plan)
    told_otherwise = plan_of(table_of("ddim", "epsilon"), "epsilon", decisions={"input_shift": 0.1})
    assert stock_solver(told_otherwise) is None


def test_numbers_are_fixed_point_and_read_back() -> None:
    plan = plan_of(table_of("ddim", "edm", 8, on="karras_tmin"), "edm")
    lines = sigma_text(plan).splitlines()
    assert "e-" not in lines[1] and "0.002" in lines[1]
    expected = [node.sigma for node in plan.nodes] + [0.0]
    assert manual_sigmas(lines[1]).tolist() == command_line(lines[3]) == pytest.approx(expected, rel=1e-8)
    read = [np.float32(number) for number in command_line(lines[3])]
    assert read == [np.float32(number) for number in expected]


def test_levels_that_do_not_fall_are_no_schedule() -> None:
    with pytest.raises(UserError, match="the plan's noise levels do not fall"):
        sigma_text(plan_of(table_of("heun", "flow"), "flow"))


def test_zero_snr_starts_where_comfyui_does() -> None:
    first = manual_sigmas(sigma_text(plan_of(table_of("ddim", "zero_snr"), "zero_snr")).splitlines()[1])[0]
    assert first == pytest.approx(4518.77, rel=1e-5) and SCHEDULES["zero_snr"][0].alpha(999) == 0
