"""What a solver interpolates along a step, as a function of lambda: DPM-Solver-v3's coefficients l and s.

    f = (sigma eps - l x) / alpha,    df/dlambda ~ s f

Data prediction is l = 1, s = 0, for there f = -D; noise prediction is l = 0, s = -1, for there f = e^{-lambda} eps. What lies between,
and suits a model best, is measured (`solversearch.empirical`).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from solversearch.schedules import Floats


@dataclass(frozen=True)
class Parametrization:
    """l and s at ascending lambdas, linear between them and constant beyond; channels has those of each channel alone, where they are
    told apart."""

    lams: tuple[float, ...]
    l: tuple[float, ...]  # noqa: E741  # as the paper has it
    s: tuple[float, ...]
    channels: tuple["Parametrization", ...] = ()

    @cached_property
    def _arrays(self) -> tuple[Floats, Floats, Floats]:
        return np.array(self.lams), np.array(self.l), np.array(self.s)

    def l_at(self, lam: float) -> float:
        return float(np.interp(lam, *self._arrays[:2]))

    def exponents(self, lam: Floats, start: float) -> tuple[Floats, Floats]:
        """int l and int s from start to each lambda, exactly."""
        (lams, l, s), both = self._arrays, np.append(lam, start)  # noqa: E741
        corners = np.unique(np.concatenate([lams, both]))
        places, widths = np.searchsorted(corners, both), np.diff(corners) / 2

        def from_start(values: Floats) -> Floats:
            known = np.interp(corners, lams, values)
            found = np.concatenate([[0.0], np.cumsum(widths * (known[1:] + known[:-1]))])[places]
            return found[:-1] - found[-1]

        return from_start(l), from_start(s)


def constant(l: float, s: float) -> Parametrization:  # noqa: E741
    return Parametrization((0.0,), (l,), (s,))


DATA, NOISE = constant(1.0, 0.0), constant(0.0, -1.0)
"""Those of DPM-Solver++ and DPM-Solver."""
