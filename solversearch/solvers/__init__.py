"""The registry of solvers: `SOLVERS` by name, `get(name)`. Each file of `FILES` says in `SOLVERS` which it adds; see ADDING.md.

Names end in the order of the published formula; `Solver.order` is the one measured. Where the field lowers the order in the
last steps (order 3 ends ..., 3, 2, 1) that is the plain name, and `_full` keeps it; the two differ from order 3 on, for a step
to sigma = 0 takes the data prediction itself.
"""

from importlib import import_module

from solversearch.errors import UserError, nearest
from solversearch.solvers.base import Solver

__all__ = ["FILES", "SOLVERS", "Solver", "get"]

FILES = (
    "ddim", "ddim_ancestral", "heun", "dpm_2s", "dpm_3s", "dpm_multistep", "dpmpp_2m_sde", "unipc", "deis", "pndm", "plms", "ipndm", "ghvb",
    "hb", "bdia", "epsilon_scaling", "dualfast", "res", "dpm_v3", "pcg", "gradient_estimation",
)  # fmt: skip
"""In this order the solvers are tried; the first of those with the same table gives it its name."""

SOLVERS: dict[str, Solver] = {solver.name: solver for file in FILES for solver in import_module(f"{__name__}.{file}").SOLVERS}


def get(name: str) -> Solver:
    """The named solver; raises `UserError` with the nearest name."""
    if name not in SOLVERS:
        raise UserError(nearest(name, list(SOLVERS), "solver"))
    return SOLVERS[name]
