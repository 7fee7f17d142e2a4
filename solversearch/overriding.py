"""Modules that answer otherwise for a while."""

import functools
from collections.abc import Callable
from typing import Any

from torch import nn


class Override:
    """Calls of module.forward become ask(forward, *args, **kwargs), until removed. Several may be on a module, and go in any order."""

    def __init__(self, module: nn.Module, ask: Callable[..., Any]) -> None:
        self.module, self.below, self.removed = module, module.__dict__.get("forward"), False
        inner = module.forward

        @functools.wraps(inner)
        def forward(*args: Any, **kwargs: Any) -> Any:
            return inner(*args, **kwargs) if self.removed else ask(inner, *args, **kwargs)

        forward.override = self  # type: ignore[attr-defined]
        module.forward = forward

    def remove(self) -> None:
        """Takes off what has been removed from the top: one below others stays until they go."""
        self.removed, members = True, self.module.__dict__
        while (top := getattr(members.get("forward"), "override", None)) is not None and top.removed:
            if top.below is None:
                del members["forward"]
            else:
                members["forward"] = top.below
