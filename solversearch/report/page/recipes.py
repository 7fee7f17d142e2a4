"""How the plan of a run is used, as it can be typed: only what applies to its model."""

import shlex
from pathlib import Path

from solversearch.models import MODELS
from solversearch.models.aliases import ALIASES
from solversearch.plan import Plan
from solversearch.search.evaluating.resuming import OBJECT
from solversearch.search.evaluating.run_folder import NAME, Run

ONE = "the network's data prediction of x at node.t"
TWO = "(D, D_c - D_u), the data prediction with guidance, and the conditional minus the unconditional one"
REUSES = "; where node.reuses, D_c alone"
VARIANTS = "; of the network, or the blocks of it, that node.variant names, where it names one"


def recipes(folder: Path, plan: Plan) -> dict[str, str]:
    """Texts by their titles. A model is named as it was when the run was asked; else as its kind is."""
    asked = Run.read(folder) if (folder / NAME).exists() else None
    name = asked.model if asked else plan.provenance.model
    known = name in MODELS or name in ALIASES or "/" in name  # a plan alone names code of one's own FILE.FACTORY
    code = name.startswith(("python:", OBJECT)) or not (asked or known)
    pipeline = not code and name not in MODELS
    missing = [f"{key}=MODEL" for key, variant in plan.variants.items() if not variant.skips and name not in MODELS]
    others = list(asked.options.variant or ()) if asked else missing
    model = shlex.quote(name) if name.startswith("python:") or not code else "python:FILE:FACTORY"
    found = {
        "Python, any model": "from solversearch.plan import Plan\n\n"
        'plan = Plan.read("plan.json")\n'
        f"# denoise(x, node): {_denoise(plan)}; noise: standard normal\n"
        f"samples = plan.sample(denoise, noise{beside_noise(plan)})",
    }
    if pipeline:
        found["diffusers"] = (
            "from solversearch.export.diffusers import PlanScheduler\n\n"
            'scheduler = PlanScheduler.from_plan("plan.json")\n'
            f"images = pipe({'prompt, image=picture' if plan.start else 'prompt'}, **scheduler.attach(pipe{_given(plan, others)})).images"
            "  # steps and guidance are the plan's"
        )
    model += "".join(f" --variant {shlex.quote(each)}" for each in others)
    lines = [f"solversearch compare --plan plan.json --model {model}"]
    if (folder / "samples.png").exists():  # the model has pictures
        lines.insert(0, f"solversearch sample --plan plan.json --model {model}")
    target = "comfyui --out ComfyUI/custom_nodes/plan" if pipeline and not plan.variants else "numpy --out plan_sampler.py"
    found["Command line"] = "\n".join([*lines, f"solversearch export plan.json --to {target}"])
    return found


def beside_noise(plan: Plan) -> str:
    """What else a plan samples from."""
    return ", anchor=y" if plan.tableau.anchored else ", picture" * bool(plan.start)


def _denoise(plan: Plan) -> str:
    reuses = any(node.reuses for node in plan.nodes)
    return (TWO if plan.tableau.split else ONE) + REUSES * reuses + VARIANTS * bool(plan.variants)


def _given(plan: Plan, others: list[str]) -> str:
    """The networks that a person has to bring, of those that were added to the model."""
    names = [name for name in (each.partition("=")[0] for each in others) if name in plan.variants]
    return ", variants={" + ", ".join(f'"{name}": its_network' for name in names) + "}" if names else ""
