"""The registry of solvers: `SOLVERS` by name, `get(name)`.

Names end in the order of the published formula; `Solver.order` is the one measured. Where the field lowers the order in the
last steps (order 3 ends ..., 3, 2, 1) that is the plain name, and `_full` keeps it; the two differ from order 3 on, for a step
to sigma = 0 takes the data prediction itself.
"""

from collections.abc import Sequence

from solversearch.errors import UserError, nearest
from solversearch.runtime import Node
from solversearch.solvers.base import Solver, multistep
from solversearch.solvers.bdia import bdia
from solversearch.solvers.ddim import ddim
from solversearch.solvers.ddim_ancestral import ddim_ancestral
from solversearch.solvers.deis import deis_rhoab, deis_tab
from solversearch.solvers.dpm_2s import dpm_2s
from solversearch.solvers.dpm_3s import dpm_3s
from solversearch.solvers.dpm_multistep import dpm_multistep
from solversearch.solvers.dpmpp_2m_sde import dpmpp_2m_sde
from solversearch.solvers.dualfast import dualfast
from solversearch.solvers.epsilon_scaling import epsilon_scaling
from solversearch.solvers.ghvb import ghvb
from solversearch.solvers.heun import heun
from solversearch.solvers.integrals import Prediction
from solversearch.solvers.ipndm import ipndm
from solversearch.solvers.plms import plms
from solversearch.solvers.pndm import pndm
from solversearch.solvers.unipc import Variant, unic, unip
from solversearch.tableau import Problem, Rule, Vector

__all__ = ["SOLVERS", "Solver", "get"]


def _heun_steps(nfe: int) -> int:
    if nfe % 2 == 0:
        raise UserError(f"heun spends an odd number of evaluations, 2 steps - 1, not {nfe}: ask for {nfe - 1} or {nfe + 1}")
    return (nfe + 1) // 2


def _plms_steps(nfe: int) -> int:
    if nfe < 3:
        raise UserError(f"plms needs at least 3 evaluations, one more than its steps, got {nfe}")
    return nfe - 1


def _pndm_steps(nfe: int) -> int:
    if nfe < 13:
        raise UserError(f"pndm needs at least 13 evaluations, 12 for its Runge-Kutta start, got {nfe}: plms has none")
    return nfe - 9


def _unip(order: int, variant: Variant = "exact", lower_final: bool = True) -> Rule:
    return multistep(unip("data", variant), order, None, lower_final)


def _unipc(order: int, variant: Variant = "bh2", prediction: Prediction = "data", lower_final: bool = True) -> Rule:
    return multistep(unip(prediction, variant), order, unic(prediction, variant), lower_final)


def _dpm(order: int, prediction: Prediction, lower_final: bool = True) -> Rule:
    return multistep(dpm_multistep(prediction), order, None, lower_final)


def _deis_tab(order: int) -> Rule:
    def rule(problem: Problem, x: Vector, nodes: Sequence[Node]) -> Vector:
        return multistep(deis_tab(problem.schedule), order)(problem, x, nodes)

    return rule


_DDIM = "Song et al. 2020, arXiv:2010.02502"
_EDM = "Karras et al. 2022, arXiv:2206.00364"
_DPM = "Lu et al. 2022, arXiv:2206.00927"
_DPMPP = "Lu et al. 2022, arXiv:2211.01095"
_UNIPC = "Zhao et al. 2023, arXiv:2302.04867"
_DEIS = "Zhang and Chen 2022, arXiv:2204.13902"
_PNDM = "Liu et al. 2022, arXiv:2202.09778"
_GHVB = "Wizadwongsa et al. 2023, arXiv:2307.11118"
_BDIA = "Zhang et al. 2023, arXiv:2307.10829"
_ES = "Ning et al. 2023, arXiv:2308.15321"
_DUALFAST = "Yu et al. 2025, arXiv:2506.13058"

_ALL_HISTORY = 10**6  # an order that no history reaches

SOLVERS: dict[str, Solver] = {
    solver.name: solver
    for solver in (
        Solver("ddim", ddim, 1, _DDIM),
        Solver("ddim_eta1", ddim_ancestral, 1, _DDIM, stochastic=True),
        Solver("heun", heun, 2, _EDM, _heun_steps),
        Solver("dpm_2s", dpm_2s("noise"), 2, _DPM),
        Solver("dpm_3s", dpm_3s, 3, _DPM),
        Solver("dpmpp_2s", dpm_2s("data"), 2, _DPMPP),
        Solver("dpm_2m", _dpm(2, "noise"), 2, _DPM),
        Solver("dpm_3m", _dpm(3, "noise"), 2, _DPM),
        Solver("dpmpp_2m", _dpm(2, "data"), 2, _DPMPP),
        Solver("dpmpp_3m", _dpm(3, "data"), 2, _DPMPP),
        Solver("dpmpp_3m_full", _dpm(3, "data", lower_final=False), 2, _DPMPP),
        Solver("dpmpp_2m_sde", dpmpp_2m_sde, 2, _DPMPP, stochastic=True),
        Solver("unip_2", _unip(2), 2, _UNIPC),
        Solver("unip_2_bh1", _unip(2, "bh1"), 2, _UNIPC),
        Solver("unip_3", _unip(3), 3, _UNIPC),
        Solver("unip_3_full", _unip(3, lower_final=False), 3, _UNIPC),
        Solver("unip_4", _unip(4), 4, _UNIPC),
        Solver("unipc_1", _unipc(1), 2, _UNIPC),
        Solver("unipc_2", _unipc(2), 3, _UNIPC),
        Solver("unipc_2_bh1", _unipc(2, "bh1"), 3, _UNIPC),
        Solver("unipc_3", _unipc(3), 4, _UNIPC),
        Solver("unipc_3_bh1", _unipc(3, "bh1"), 4, _UNIPC),
        Solver("unipc_3_full", _unipc(3, lower_final=False), 4, _UNIPC),
        Solver("unipc_4", _unipc(4), 5, _UNIPC),
        Solver("unipc_2_noise", _unipc(2, prediction="noise"), 3, _UNIPC),
        Solver("unipc_3_noise", _unipc(3, prediction="noise"), 4, _UNIPC),
        Solver("deis_logrho2", multistep(unip("noise"), 2, lower_final=True), 2, _DEIS),
        Solver("deis_logrho3", multistep(unip("noise"), 3, lower_final=True), 3, _DEIS),
        *(Solver(f"deis_tab{k}", _deis_tab(k + 1), k + 1, _DEIS) for k in (1, 2, 3)),
        *(Solver(f"deis_rhoab{k}", multistep(deis_rhoab, k + 1), k + 1, _DEIS) for k in (1, 2, 3)),
        Solver("pndm", pndm, 2, _PNDM, _pndm_steps),
        Solver("plms", plms, 2, _PNDM, _plms_steps),
        *(Solver(f"ipndm_{k}", multistep(ipndm, k), 2, _PNDM) for k in (2, 3, 4)),
        *(Solver(f"ghvb_{k - 1}.8", multistep(ghvb(k, 0.8), _ALL_HISTORY), 2, _GHVB) for k in (2, 3, 4)),
        Solver("bdia", multistep(bdia(0.5), 2), 1, _BDIA),
        Solver("es_ddim", epsilon_scaling(ddim, 1.01), 0, _ES),
        Solver("es_dpmpp_2m", epsilon_scaling(_dpm(2, "data"), 1.01), 0, _ES),
        Solver("es_unipc_3", epsilon_scaling(_unipc(3), 1.01), 0, _ES),
        Solver("dualfast_ddim", dualfast(ddim, 0.2), 0, _DUALFAST),
    )
}


def get(name: str) -> Solver:
    """The named solver; raises `UserError` with the nearest name."""
    if name not in SOLVERS:
        raise UserError(nearest(name, list(SOLVERS), "solver"))
    return SOLVERS[name]
