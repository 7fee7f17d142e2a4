"""Exports that carry the runtime with them: a folder for ComfyUI, a package for k-diffusion, one file for NumPy.

Each holds solversearch's own runtime.py, so a plan samples there by the loop that it was searched with.
"""

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from solversearch import components, plan_text, runtime
from solversearch.components import Components
from solversearch.errors import UserError
from solversearch.export import shipped
from solversearch.export.exporter import Exporter, check_consumer
from solversearch.export.shipped import levels
from solversearch.outputs import check_place, slug
from solversearch.plan import Plan, write_text
from solversearch.runtime import Array, Node
from solversearch.version import __version__

_NOTICE = f"# From solversearch {__version__}, under the Apache License, Version 2.0: https://www.apache.org/licenses/LICENSE-2.0\n"
_COMMON = {"components": components, "runtime": runtime, "plan_text": plan_text}
"""solversearch's own modules that every export holds."""


def write_comfyui(plan: Plan, out: Path, overwrite: bool = False) -> list[Path]:
    """A folder for ComfyUI's custom_nodes. Into one that is there already, the plan comes beside its others."""
    check_consumer(plan, "ComfyUI")
    own = plan.provenance
    name = f"{slug(own.model) if own.model else 'plan'}-nfe{plan.nfe}-g{plan.guidance:g}-{plan.digest[7:15]}.json"
    return _write_package(out, "comfyui", ("levels", "loop", "reader"), f"plans/{name}", plan, overwrite)


def write_k_diffusion(plan: Plan, out: Path, overwrite: bool = False) -> list[Path]:
    """A package with `sample_plan` and `get_sigmas`."""
    check_consumer(plan, "a model of k-diffusion")
    _check_importable(out)
    return _write_package(out, "k_diffusion", ("levels", "loop", "reader"), "plan.json", plan, overwrite)


def write_numpy(plan: Plan, out: Path, overwrite: bool = False) -> list[Path]:
    """One Python file with the runtime, the plan and `sample`."""
    check_place(out, "module", overwrite)
    if out.suffix != ".py":
        raise UserError(f"{out}: Python imports it where its name ends in .py; write --out {out}.py")
    _check_importable(out)
    main = _source("numpy_plan")
    shape = _shape(plan.components)
    values = {
        'PLAN_TEXT = ""': _embedded(plan),
        "SHAPE = (2, 4)": f"SHAPE = {shape}",
        "EXPECTED: list[float] = []": f"EXPECTED = {_expected(plan, shape)}",
    }
    for placeholder, value in values.items():
        main = main.replace(placeholder, value, 1)
    parts = [
        _NOTICE,
        *(f"\n# {name}.py\n\n{text}" for name, text in (*_common().items(), ("reader", _source("reader")))),
        "\n\n",
        main,
    ]
    write_text(out, "".join(line for part in parts for line in part.splitlines(True) if not line.startswith("from .")))
    return [out]


def _check_importable(out: Path) -> None:
    if not out.stem.isidentifier():
        raise UserError(f"{out}: Python imports no module named {out.stem!r}; choose a name such as plan_sampler with --out")


def _write_package(out: Path, main: str, others: Iterable[str], place: str, plan: Plan, overwrite: bool) -> list[Path]:
    sources = {"__init__.py": _source(main)} | {f"{name}.py": text for name, text in _common().items()}
    sources |= {f"{name}.py": _source(name) for name in others}
    if not overwrite:
        _check_own(out, sources)
    for name, text in sources.items():
        write_text(out / name, _NOTICE + text)
    plan.write(out / place)
    return [out / name for name in (*sources, place)]


def _check_own(folder: Path, sources: dict[str, str]) -> None:
    """The folder is new, empty or an earlier export of the same kind, known by its first docstring line, whose files are its own."""
    check_place(folder / "__init__.py", "module")
    there = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    first = sources["__init__.py"].partition("\n")[0]
    if there and ("__init__.py" not in there or first not in (folder / "__init__.py").read_text(encoding="utf-8", errors="replace")):
        raise UserError(
            f"{folder}: the folder holds {', '.join(there[:3])}, and is no earlier export; choose another with --out, or --overwrite"
        )
    for name in sources:
        check_place(folder / name, "module")


def _common() -> dict[str, str]:
    return {name: Path(str(module.__file__)).read_text(encoding="utf-8") for name, module in _COMMON.items()}


def _source(name: str) -> str:
    return (Path(shipped.__file__).parent / f"{name}.py").read_text(encoding="utf-8")


def _embedded(plan: Plan) -> str:
    """The plan's text as an expression of one string a line."""
    return "PLAN_TEXT = (\n" + "".join(f"    {line!r}\n" for line in plan.text().splitlines(True)) + ")"


def _shape(parts: Components | None) -> tuple[int, ...]:
    """Of samples that the exported file's check() runs: as small as the plan's components allow."""
    if parts is None:
        return (2, 4)
    side = 2 * math.ceil(1 / min(parts.bands, default=1.0))
    channels = len(parts.channels) or 1
    if not parts.patch:
        return (1, channels, side, side)
    return (1, math.ceil(side / parts.patch) ** 2, channels * parts.patch**2)


def _expected(plan: Plan, shape: tuple[int, ...]) -> list[float]:
    """What the exported file's check() computes, by solversearch itself."""
    split = plan.tableau.split

    def denoise(x: Array, node: Node) -> Array:
        d = node.alpha / (node.alpha**2 + node.sigma**2) * x
        return (d, d / 10) if split and not node.reuses else d

    noise = np.linspace(-2, 2, math.prod(shape)).reshape(shape)
    anchor = np.sin(noise) if plan.tableau.anchored else None
    picture = np.cos(noise) if plan.start and anchor is None else None
    return [float(value) for value in plan.sample(denoise, noise, picture, draw=lambda k: np.cos(noise + k), anchor=anchor).ravel()]


# What a person should know -----------------------------------------------------------------------------------------


def _notes(plan: Plan, comfyui: bool) -> list[str]:
    table, found = plan.tableau, []
    if plan.start:
        how = "connect a latent of VAE Encode" if comfyui else "x is pictures with noise at sigmas[0], see its docstring"
        found.append(f"The plan starts from pictures: {how}.")
    broken = [node.t for node in plan.nodes if node.t != round(node.t)]
    if broken and levels.kind(plan) == "vp" and max(node.t for node in plan.nodes) > 1:
        rounds = "ComfyUI's discrete models round them" if comfyui else "models that quantize round them"
        found.append(f"{len(broken)} of {plan.nfe} times are not whole, and {rounds}; 'optimize --integer' searches whole ones.")
    if table.split and not comfyui:
        found.append("The plan has split guidance: its model must return the pair (denoised, conditional minus unconditional).")
    elif any(node.guidance != 1 for node in plan.nodes) or table.split:
        place = "the guider's cfg is not used, and it needs a negative prompt" if comfyui else "extra_args needs cond_scale"
        found.append(f"The plan brings its own guidance, {plan.guidance:g}: {place}.")
    return found


EXPORTERS = (
    Exporter(
        "comfyui",
        "A folder for ComfyUI's custom_nodes, with the nodes 'Plan sampler' and 'Plan sigmas'.",
        write_comfyui,
        "solversearch_plans",
        "Put {out} into ComfyUI/custom_nodes, restart, and connect 'Plan sampler' and 'Plan sigmas' to SamplerCustomAdvanced.",
        notes=lambda plan: _notes(plan, comfyui=True),
    ),
    Exporter(
        "k-diffusion",
        "A Python package with sample_plan(model, x, sigmas, ...), called as k-diffusion's samplers are.",
        write_k_diffusion,
        "plan_sampler",
        "from {name} import get_sigmas, sample_plan; sample_plan(model, noise * get_sigmas()[0], get_sigmas(), extra_args)",
        notes=lambda plan: _notes(plan, comfyui=False),
    ),
    Exporter(
        "numpy",
        "One Python file that needs NumPy alone, and samples torch and JAX arrays too.",
        write_numpy,
        "plan.py",
        "from {name} import data_prediction, sample; sample(denoise, noise), where denoise(x, node) returns "
        "data_prediction(output=..., x=x, node=node). Run as a program, the file checks itself.",
        notes=lambda plan: ["The plan needs an anchor for each sample: sample and data_prediction take anchor=."] * plan.tableau.anchored,
    ),
)
