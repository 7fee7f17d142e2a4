"""solversearch: few-step sampling procedures for pretrained diffusion and flow models, searched and proven."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from solversearch.api import Result, compare, estimate, import_scheduler, load_model, optimize, read_plan
    from solversearch.errors import UserError

__version__ = "0.1.0"
__all__ = ["Result", "UserError", "compare", "estimate", "import_scheduler", "load_model", "optimize", "read_plan"]


def __getattr__(name: str) -> Any:
    """The API is imported when it is asked for: the runtime alone needs nothing of it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from solversearch import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
