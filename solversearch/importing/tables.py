"""Published tables of noise levels, by name: Align Your Steps, GITS and OptimalSteps."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from solversearch.errors import UserError, nearest
from solversearch.grids import AYS_SIGMAS

_SVD = (700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002)
_OPTIMAL_STEPS = {
    "flux": (0.9968, 0.9886, 0.9819, 0.975, 0.966, 0.9471, 0.9158, 0.8287, 0.5512, 0.2808, 0.001),
    "wan": (1.0, 0.997, 0.995, 0.993, 0.991, 0.989, 0.987, 0.985, 0.98, 0.975, 0.973, 0.968, 0.96, 0.946, 0.927, 0.902, 0.864, 0.776,
            0.539, 0.208, 0.001),
    "chroma": (0.992, 0.99, 0.988, 0.985, 0.982, 0.978, 0.973, 0.968, 0.961, 0.953, 0.943, 0.931, 0.917, 0.9, 0.881, 0.858, 0.832, 0.802,
               0.769, 0.731, 0.69, 0.646, 0.599, 0.55, 0.501, 0.451, 0.402, 0.355, 0.311, 0.27, 0.232, 0.199, 0.169, 0.143, 0.12, 0.101,
               0.084, 0.07, 0.058, 0.048, 0.001),
}  # fmt: skip
SVD_FRAME: Mapping[str, Any] = {"prediction_type": "v_prediction", "timestep_type": "continuous", "sigma_min": 0.002, "sigma_max": 700.0}


class PublishedTable(NamedTuple):
    """Published lists, each with a last level that stands for the end; frame is how its models read them, as `frame_of` takes it."""

    lists: Sequence[Sequence[float]]
    description: str
    frame: Mapping[str, Any]

    @property
    def steps(self) -> int:
        """Of the list that was published first of all: 10, where there is one."""
        counts = [len(each) - 1 for each in self.lists]
        return 10 if 10 in counts else counts[0]

    def sigmas(self, steps: int) -> list[float]:
        """The levels of so many steps, and 0: as published, or the longest list interpolated log-linearly, as the authors do."""
        found = next((each for each in self.lists if len(each) == steps + 1), None)
        if found is None:
            logs = np.log(self.lists[-1])
            found = np.exp(np.interp(np.linspace(0, 1, steps + 1), np.linspace(0, 1, len(logs)), logs)).tolist()
        return [*found[:-1], 0.0]


@cache
def tables() -> dict[str, PublishedTable]:
    """All of them by name."""
    betas = {"prediction_type": "epsilon"}
    ays = "Align Your Steps for {}, 10 steps (Sabour et al. 2024, arXiv:2404.14507)."
    names = {"sd15": "Stable Diffusion 1.5", "sdxl": "SDXL"}
    found = {f"ays_{name}": PublishedTable([AYS_SIGMAS[name]], ays.format(text), betas) for name, text in names.items()}
    found["ays_svd"] = PublishedTable([_SVD], ays.format("Stable Video Diffusion"), SVD_FRAME)
    content = json.loads(Path(__file__).with_name("gits.json").read_text(encoding="utf-8"))
    for coefficient, rows in content["rows"].items():
        lists = [[content["levels"][i] for i in row] for row in rows]
        text = f"GITS for Stable Diffusion 1.5, coefficient {coefficient}, 2 to 20 steps (Chen et al. 2024, arXiv:2405.11326)."
        found[f"gits_{coefficient}"] = PublishedTable(lists, text, betas)
    found["gits"] = found["gits_1.20"]  # ComfyUI's default
    for name, levels in _OPTIMAL_STEPS.items():
        text = f"OptimalSteps for {name.capitalize()}, {len(levels) - 1} steps (Pei et al. 2025, arXiv:2503.21774)."
        found[f"optimal_steps_{name}"] = PublishedTable([levels], text, {"prediction_type": "flow"})
    return found


def table(name: str) -> PublishedTable:
    """The named one; raises `UserError` with the nearest name."""
    known = tables()
    if name not in known:
        raise UserError(nearest(name, list(known), "table"))
    return known[name]
