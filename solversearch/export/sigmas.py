"""A plan's noise levels as text to paste: all that a stock sampler takes, and often not all that a plan is."""

from itertools import pairwise
from pathlib import Path

import numpy as np

from solversearch.errors import UserError
from solversearch.export.exporter import Exporter, check_consumer
from solversearch.export.shipped import levels
from solversearch.outputs import check_place
from solversearch.plan import Plan, write_text
from solversearch.runtime import Node, Row, Tableau
from solversearch.schedules import CLEAN, VE
from solversearch.solvers import SOLVERS

_STOCK = {"ddim": ("euler", "euler"), "heun": ("heun", "heun"), "dpmpp_2m": ("dpmpp_2m", "dpm++2m")}
"""Solvers that ComfyUI and stable-diffusion.cpp have, under these names. Their others (lms, ipndm, uni_pc) end in steps of their own."""
_SAME = 1e-4  # of coefficients; schedulers imported from diffusers carry the rounding of float32


def write_sigmas(plan: Plan, out: Path, overwrite: bool = False) -> list[Path]:
    check_place(out, "sigmas", overwrite)
    write_text(out, sigma_text(plan))
    return [out]


def sigma_text(plan: Plan) -> str:
    """Paste-ready sigmas for ComfyUI's ManualSigmas and for stable-diffusion.cpp, and which sampler goes with them.

    Raises `UserError` where the noise levels do not fall: then no list of sigmas makes a sampler visit them.
    """
    check_consumer(plan, "a stock sampler")
    if plan.start is not None:
        raise UserError("the plan starts from noised pictures, for which stock samplers cut sigmas by themselves; export to comfyui")
    solver = stock_solver(plan)
    numbers = levels.sigmas(plan)
    if solver == "heun":
        numbers = list(dict.fromkeys(numbers))
    if any(high <= low for high, low in pairwise(numbers)):
        raise UserError("the plan's noise levels do not fall from evaluation to evaluation, so they are no schedule; export to comfyui")
    decimals = [_decimal(number) for number in numbers]
    return f'# ComfyUI, node ManualSigmas:\n{", ".join(decimals)}\n# stable-diffusion.cpp:\n--sigmas "{",".join(decimals)}"\n' + "".join(
        f"# {line}\n" for line in _advice(plan, solver)
    )


def stock_solver(plan: Plan) -> str | None:
    """The solver of `_STOCK` whose table the plan's is, on the plan's own noise levels."""
    numbers = levels.sigmas(plan)
    for name in _STOCK:
        steps = list(dict.fromkeys(numbers)) if name == "heun" else numbers
        if len(set(steps)) < len(steps):
            continue
        # Samplers of k-diffusion's kind know sigma alone: what they run is the solver in the frame x = data + sigma * noise.
        nodes = [*(Node(sigma, 1.0, sigma) for sigma in steps[:-1]), CLEAN]
        table = SOLVERS[name].tableau(VE(), nodes)
        if table.nfe == plan.nfe and _equal(plan, table):
            return name
    return None


def _equal(plan: Plan, table: Tableau) -> bool:
    """Whether both do the same, the table in the frame x = data + sigma * noise, where a network of kind vp sees x / sqrt(1 + sigma^2)."""
    whole = plan.tableau
    more = whole.split, whole.stochastic, whole.components, plan.threshold, plan.decisions.get("input_shift")
    if any(more) or any(node.guidance != plan.guidance for node in plan.nodes):
        return False
    vp = levels.kind(plan) == "vp"
    scales = [1 / np.hypot(1, node.sigma) if vp else 1.0 for node in table.nodes] + [1.0]
    start = table.rows[0].x * scales[0] / plan.rows[0].x
    for own, other, scale in zip(plan.rows, table.rows, scales, strict=True):
        a, b = _weights(own, plan.nfe), _weights(other, plan.nfe) * scale
        b[0] /= start
        if np.max(np.abs(a - b)) > _SAME * np.max(np.abs(a)):
            return False
    return True


def _weights(row: Row, nfe: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array([row.x, *row.d, *[0.0] * (nfe - len(row.d))])


def _decimal(number: float) -> str:
    """Fixed-point digits that read back as the same float32: ManualSigmas takes 1e-3 for two numbers."""
    return np.format_float_positional(number, precision=9, unique=False, fractional=False, trim="0")


def _advice(plan: Plan, solver: str | None) -> list[str]:
    if solver is None:
        return [
            "No stock sampler computes what this plan does: with these sigmas its noise levels are used and its coefficients are lost.",
            "For the plan itself, export to comfyui.",
        ]
    comfy, cpp = _STOCK[solver]
    return [f"This plan is sampler {comfy} in ComfyUI, --sampling-method {cpp} in stable-diffusion.cpp, at guidance {plan.guidance:g}."]


EXPORTERS = (
    Exporter(
        "sigmas",
        "Strings to paste into ComfyUI's ManualSigmas and stable-diffusion.cpp's --sigmas: the schedule alone.",
        write_sigmas,
        "sigmas.txt",
        "Paste what {out} holds.",
        sigma_text,
    ),
)
