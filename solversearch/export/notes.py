"""What a person should know about a plan before it samples elsewhere."""

from solversearch.export.shipped import levels
from solversearch.plan import Plan


def notes(plan: Plan, to: str) -> list[str]:
    """One sentence each, for the exporter of that name."""
    if to not in ("comfyui", "k-diffusion"):
        return []
    table, comfyui = plan.tableau, to == "comfyui"
    found = []
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
