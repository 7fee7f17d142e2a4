"""Search spaces: which decisions a search may take, and how they become a table.

YAML file -> SearchSpace -> Domain (at one schedule, NFE and guidance) -> Candidate -> Tableau
"""

from solversearch.spaces.candidate import Candidate
from solversearch.spaces.domain import Domain, Params
from solversearch.spaces.sections import Polish
from solversearch.spaces.space import SearchSpace, presets

__all__ = ["Candidate", "Domain", "Params", "Polish", "SearchSpace", "presets"]
