"""Plans for the places where people sample. The registry of exporters: `EXPORTERS` by name, `get(name)`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from solversearch.errors import UserError, nearest
from solversearch.export.folders import write_comfyui, write_k_diffusion, write_numpy
from solversearch.export.sigmas import sigma_text, write_sigmas
from solversearch.export.stock import write_diffusers_sigmas, write_diffusers_timesteps
from solversearch.plan import Plan

__all__ = ["EXPORTERS", "Exporter", "get"]


@dataclass(frozen=True)
class Exporter:
    """write(plan, out, overwrite=False) writes the export and returns the paths of its files.

    It raises `UserError` for a plan that has no place there, and where out is not ours, unless it may be overwritten.

    place is where it goes unless a person names another; use says what to do with it, {out} being its path and {name} its module's.
    text gives what is printed, and nothing written, where no path is named.
    """

    description: str
    write: Callable[..., list[Path]]
    place: str
    use: str
    text: Callable[[Plan], str] | None = None


EXPORTERS = {
    "comfyui": Exporter(
        "A folder for ComfyUI's custom_nodes, with the nodes 'Plan sampler' and 'Plan sigmas'.",
        write_comfyui,
        "solversearch_plans",
        "Put {out} into ComfyUI/custom_nodes, restart, and connect 'Plan sampler' and 'Plan sigmas' to SamplerCustomAdvanced.",
    ),
    "k-diffusion": Exporter(
        "A Python package with sample_plan(model, x, sigmas, ...), called as k-diffusion's samplers are.",
        write_k_diffusion,
        "plan_sampler",
        "from {name} import get_sigmas, sample_plan; sample_plan(model, noise * get_sigmas()[0], get_sigmas(), extra_args)",
    ),
    "numpy": Exporter(
        "One Python file that needs NumPy alone, and samples torch and JAX arrays too.",
        write_numpy,
        "plan.py",
        "from {name} import data_prediction, sample; sample(denoise, noise). Run as a program, the file checks itself.",
    ),
    "sigmas": Exporter(
        "Strings to paste into ComfyUI's ManualSigmas and stable-diffusion.cpp's --sigmas: the schedule alone.",
        write_sigmas,
        "sigmas.txt",
        "Paste what {out} holds.",
        sigma_text,
    ),
    "diffusers-sigmas": Exporter(
        "Sigmas for the stock scheduler of diffusers that the plan amounts to.",
        write_diffusers_sigmas,
        "sigmas.json",
        "{out} names the scheduler and has the lines of Python that use it.",
    ),
    "diffusers-timesteps": Exporter(
        "Timesteps for the stock scheduler of diffusers that the plan amounts to.",
        write_diffusers_timesteps,
        "timesteps.json",
        "{out} names the scheduler and has the lines of Python that use it.",
    ),
}


def get(name: str) -> Exporter:
    """The named exporter; raises `UserError` with the nearest name."""
    if name not in EXPORTERS:
        raise UserError(nearest(name, list(EXPORTERS), "export"))
    return EXPORTERS[name]
