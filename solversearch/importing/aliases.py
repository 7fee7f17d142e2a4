"""Samplers by the names that ComfyUI and diffusers give them: a rule of `SOLVERS`, a rule of theirs, or why there is none.

ComfyUI's samplers, of k-diffusion, work on x = data + sigma * noise whatever the model. For flow models that is another rule than in
`SOLVERS`, which step in sigma / alpha: there sigma alone takes its place.
"""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from math import hypot
from typing import NamedTuple

from solversearch.errors import UserError, nearest
from solversearch.runtime import Node, Tableau
from solversearch.schedules import CLEAN, VE, Flow, NoiseSchedule
from solversearch.solvers import SOLVERS
from solversearch.solvers.base import Solver, Stage, Step, average, evaluate, first_order, lam, run_stages
from solversearch.solvers.deis import deis_rhoab
from solversearch.solvers.ipndm import ipndm
from solversearch.tableau import Problem, Rule, Vector

_COMFYUI = "ComfyUI's sampler of that name"
_OTHERWISE = ("heun", "dpmpp_2m", "gradient_estimation")
"""Names that ComfyUI has too, for another rule on flow models."""


class Named(NamedTuple):
    """A solver, whether it works on data + sigma * noise for flow models too, and the guidance scale of its tables."""

    solver: Solver
    exploding: bool = False
    guidance: float = 1.0

    def tableau(self, schedule: NoiseSchedule, nodes: Sequence[Node]) -> Tableau:
        """The table on a grid that ends in `CLEAN`, from unit noise. Raises `UserError` where it is not the same rule for such a model."""
        if not (self.exploding and isinstance(schedule, Flow)):
            if isinstance(schedule, Flow) and (name := self.solver.name) in _OTHERWISE:
                warnings.warn(
                    f"{name} steps flow models in sigma / alpha; ComfyUI's, which steps them in sigma, is comfyui:{name}", stacklevel=2
                )
            return self.solver.tableau(schedule, nodes, guidance=self.guidance)
        if self.solver.stochastic:
            raise UserError(f"{self.solver.name} renoises flow models by a rule of its own; 'ddim_eta1' is the one that is known here")
        levels = [node.sigma for node in nodes[:-1]]
        table = self.solver.tableau(VE(levels[-1], levels[0]), [*(Node(sigma, 1.0, sigma) for sigma in levels), CLEAN])
        rows = [replace(row, x=row.x / levels[0]) for row in table.rows]
        return Tableau(tuple(schedule.node(schedule.scale * node.sigma) for node in table.nodes), tuple(rows)).guided(self.guidance)


def named(name: str) -> Named:
    """The solver of `SOLVERS`, or what is known under a name of ComfyUI or a class of diffusers. Raises `UserError`."""
    short, theirs = name.removesuffix("Scheduler"), name.removeprefix("comfyui:")
    if theirs != name:
        return Named(SOLVERS[theirs], True) if theirs in _OTHERWISE else named(theirs)
    if name in SOLVERS:
        if SOLVERS[name].empirical:
            raise UserError(f"{name} takes statistics of a model, and an import has none; 'optimize --space dpm_v3' measures them")
        return Named(SOLVERS[name])
    if short in _CLASSES:
        return Named(SOLVERS[_CLASSES[short]]) if _CLASSES[short] in SOLVERS else Named(_THEIRS[_CLASSES[short]])
    if short in _EXPLODING_CLASSES:
        return Named(SOLVERS[_EXPLODING_CLASSES[short]], True)
    if name in _SAME:
        return Named(SOLVERS[_SAME[name]], name not in ("euler", "dpmpp_2m_sde_gpu"))  # which are the same for flow models
    if name in _THEIRS:
        return Named(_THEIRS[name], name != "lcm")
    for reason, names in _REFUSED.items():
        if name in names:
            raise UserError(f"{name}: {reason}")
    raise UserError(nearest(name, [*SOLVERS, *_SAME, *_THEIRS, *_CLASSES, *_EXPLODING_CLASSES], "solver"))


def _clean_end(step: Step, order: int) -> Rule:
    """A multistep rule whose last step takes the data prediction."""

    def rule(problem: Problem, x: Vector, nodes: Sequence[Node]) -> Vector:
        return run_stages(problem, x, nodes, [Stage(step, order)] * (len(nodes) - 2) + [Stage(step, 1)])

    return rule


def _dpm_2(problem: Problem, x: Vector, nodes: Sequence[Node]) -> Vector:
    """x_t = DDIM(x_s, eps at the middle in lambda -> t); the last step takes the data prediction."""
    for s, t in pairwise(nodes[:-1]):
        here = evaluate(problem, x, s)
        middle = problem.schedule.node_at_lam((lam(s) + lam(t)) / 2)
        x = average(here, t, [(evaluate(problem, first_order(here, middle), middle), 1.0)])
    return first_order(evaluate(problem, x, nodes[-2]), nodes[-1])


def _lcm(problem: Problem, x: Vector, nodes: Sequence[Node]) -> Vector:
    """The data prediction, noised anew."""
    for s, t in pairwise(nodes):
        x = evaluate(problem, x, s).d * t.alpha
        if t.sigma:
            x = x + problem.noise() * t.sigma
    return x


def _to_a_thousandth(order: int, variant: str) -> Rule:
    """ComfyUI's UniPC: its last step goes to sigma = 0.001, and the order is less than the number of steps."""

    def rule(problem: Problem, x: Vector, nodes: Sequence[Node]) -> Vector:
        steps, scale = len(nodes) - 1, hypot(1, _LEAST)
        end = Node(0.0, 1.0, _LEAST) if nodes[0].alpha == 1 else Node(0.0, 1 / scale, _LEAST / scale)
        lowered = SOLVERS[{1: "unipc_1", 2: "unipc_2", 3: "unipc_3"}[max(1, min(order, steps - 1))] + variant]
        return lowered.rule(problem, x, [*nodes[:-1], end]) * (1 / end.alpha)

    return rule


_LEAST = 1e-3


def _two_a_step(nfe: int) -> int:
    return SOLVERS["heun"].steps(nfe)


_THEIRS = {
    solver.name: solver
    for solver in (
        Solver("lms", _clean_end(deis_rhoab, 4), 4, _COMFYUI),
        Solver("ipndm", _clean_end(ipndm, 4), 2, _COMFYUI),
        Solver("dpm_2", _dpm_2, 2, _COMFYUI, _two_a_step),
        Solver("lcm", _lcm, 1, _COMFYUI, stochastic=True),
        Solver("uni_pc", _to_a_thousandth(3, "_bh1"), 3, _COMFYUI),
        Solver("uni_pc_bh2", _to_a_thousandth(3, ""), 3, _COMFYUI),
    )
}
_SAME = {
    "euler": "ddim", "euler_ancestral": "ddim_eta1", "ddpm": "ddim_eta1", "dpmpp_2m_sde_gpu": "dpmpp_2m_sde",
    "res_multistep": "res_2m",
}  # fmt: skip
"""ComfyUI's names of rules of `SOLVERS`."""
_CLASSES = {
    "DDIM": "ddim", "EulerDiscrete": "ddim", "EDMEuler": "ddim", "FlowMatchEulerDiscrete": "ddim", "DDPM": "ddim_eta1",
    "EulerAncestralDiscrete": "ddim_eta1", "HeunDiscrete": "heun", "KDPM2Discrete": "dpm_2", "LMSDiscrete": "deis_rhoab3",
    "DPMSolverMultistep": "dpmpp_2m", "EDMDPMSolverMultistep": "dpmpp_2m", "DPMSolverSinglestep": "dpmpp_2s",
    "UniPCMultistep": "unipc_2", "DEISMultistep": "deis_logrho2", "PNDM": "plms", "LCM": "lcm",
}  # fmt: skip
"""Classes of diffusers, with their own defaults, without the suffix "Scheduler"."""
_EXPLODING_CLASSES = {"FlowMatchHeunDiscrete": "heun"}
_REFUSED = {
    "it steps with the unconditional prediction, which sigmas and a solver do not say; leave _cfg_pp out": (
        "euler_cfg_pp", "euler_ancestral_cfg_pp", "dpmpp_2s_ancestral_cfg_pp", "dpmpp_2m_cfg_pp", "res_multistep_cfg_pp",
        "res_multistep_ancestral_cfg_pp", "gradient_estimation_cfg_pp",
    ),
    "it chooses noise levels of its own, so a list has no say": ("dpm_fast", "dpm_adaptive"),
    "ComfyUI's integrates over the times of a noise schedule that is not the model's; 'deis_tab2' is the paper's rule, "
    "'DEISMultistep' that of diffusers": ("deis",),
    "no rule here computes what it does; 'dpmpp_2m_sde' and 'ddim_eta1' are the stochastic ones": (
        "dpm_2_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde", "dpmpp_sde_gpu", "dpmpp_2m_sde_heun", "dpmpp_2m_sde_heun_gpu", "dpmpp_3m_sde",
        "dpmpp_3m_sde_gpu", "res_multistep_ancestral", "er_sde", "seeds_2", "seeds_3", "sa_solver", "sa_solver_pece", "exp_heun_2_x0_sde",
    ),
    "no rule here computes what it does; 'heun' and 'dpmpp_2m' are near": ("heunpp2", "exp_heun_2_x0", "ipndm_v"),
}  # fmt: skip
