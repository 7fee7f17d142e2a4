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
REUSES = f"{TWO}; where node.reuses, D_c alone"


def recipes(folder: Path, plan: Plan) -> dict[str, str]:
    """Texts by their titles. A model is named as it was when the run was asked; else as its kind is."""
    asked = Run.read(folder) if (folder / NAME).exists() else None
    name = asked.model if asked else plan.provenance.model
    known = name in MODELS or name in ALIASES or "/" in name  # a plan alone names code of one's own FILE.FACTORY
    code = name.startswith(("python:", OBJECT)) or not (asked or known)
    pipeline = not code and name not in MODELS
    model = shlex.quote(name) if name.startswith("python:") or not code else "python:FILE:FACTORY"
    found = {
        "Python, any model": "from solversearch.plan import Plan\n\n"
        'plan = Plan.read("plan.json")\n'
        f"# denoise(x, node): {REUSES if plan.version == 3 else TWO if plan.tableau.split else ONE}; noise: standard normal\n"
        "samples = plan.sample(denoise, noise)",
    }
    if pipeline:
        found["diffusers"] = (
            "from solversearch.export.diffusers import PlanScheduler\n\n"
            'scheduler = PlanScheduler.from_plan("plan.json")\n'
            "images = pipe(prompt, **scheduler.attach(pipe)).images  # steps and guidance are the plan's"
        )
    lines = [f"solversearch compare --plan plan.json --model {model}"]
    if (folder / "samples.png").exists():  # the model has pictures
        lines.insert(0, f"solversearch sample --plan plan.json --model {model}")
    target = "comfyui --out ComfyUI/custom_nodes/plan" if pipeline else "numpy --out plan_sampler.py"
    found["Command line"] = "\n".join([*lines, f"solversearch export plan.json --to {target}"])
    return found
