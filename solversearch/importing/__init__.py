"""Plans from elsewhere: schedulers of diffusers, by name or as a pipeline has them, lists of noise levels or times, published tables."""

from solversearch.importing.aliases import named
from solversearch.importing.diffusers import SCHEDULERS, STOCHASTIC, from_diffusers, scheduler_by_name
from solversearch.importing.plans import as_plan, plan_of_list, plan_of_numbers, plan_of_sigmas, plan_of_table
from solversearch.importing.reading import read_numbers
from solversearch.importing.sigmas import from_sigmas, from_timesteps
from solversearch.importing.tables import tables

__all__ = [
    "SCHEDULERS", "STOCHASTIC", "as_plan", "from_diffusers", "from_sigmas", "from_timesteps", "named", "plan_of_list",
    "plan_of_numbers", "plan_of_sigmas", "plan_of_table", "read_numbers", "scheduler_by_name", "tables",
]  # fmt: skip
