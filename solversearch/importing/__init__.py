"""Plans from elsewhere: schedulers of diffusers by name or by a pipeline's configuration, lists of sigmas, Align Your Steps."""

from solversearch.importing.diffusers import SCHEDULERS, from_diffusers, scheduler_by_name
from solversearch.importing.plans import as_plan, plan_of_sigmas
from solversearch.importing.sigmas import ays_sigmas, from_sigmas, read_sigmas

__all__ = ["SCHEDULERS", "as_plan", "ays_sigmas", "from_diffusers", "from_sigmas", "plan_of_sigmas", "read_sigmas", "scheduler_by_name"]
