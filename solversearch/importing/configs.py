"""The scheduler of a pipeline, from its configuration file: which class, with which settings, and how the pipeline sets its steps."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import log
from pathlib import Path
from typing import Any

import numpy as np

from solversearch.errors import UserError, short
from solversearch.importing.diffusers import check_settings, scheduler_by_name, scheduler_class
from solversearch.plan import Plan
from solversearch.schedules import Flow, NoiseSchedule

_FILE = "scheduler_config.json"


@dataclass(frozen=True)
class SchedulerSource:
    """A scheduler of diffusers; own says that its settings are a pipeline's, pipeline is the class of that, where it is known.

    given are the timesteps or sigmas that come with it; a pipeline that was saved with a `PlanScheduler` has a plan in its place.
    """

    scheduler: Any
    own: bool = False
    pipeline: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    given: Mapping[str, list[float]] = field(default_factory=dict)
    plan: Plan | None = None

    def arguments(self, steps: int, schedule: NoiseSchedule | None) -> dict[str, Any]:
        """Of its `set_timesteps`, besides the number of steps, as the pipeline calls it; sigmas take the place of that number.

        A dynamic shift depends on the resolution: that of the model's schedule or, without a model, of the largest that the configuration
        speaks of (1024 pixels for Flux).
        """
        config = self.scheduler.config
        dynamic = bool(config.get("use_dynamic_shifting"))
        arguments: dict[str, Any] = {}
        if dynamic or self.pipeline.startswith("Flux"):
            arguments["sigmas"] = np.linspace(1.0, 1 / steps, steps).tolist()
        if dynamic:
            shift = schedule.shift if isinstance(schedule, Flow) else None
            exponential = config.get("time_shift_type", "exponential") == "exponential"
            arguments["mu"] = config["max_shift"] if shift is None else log(shift) if exponential else shift
        return arguments


def scheduler_of(where: str, settings: Mapping[str, Any]) -> SchedulerSource:
    """By the name of a class, or as a pipeline has it: its folder, the folder or file of its scheduler, hf:ID, or a model's short name.

    A file that `export` wrote for diffusers serves too, with the sigmas or timesteps in it.

    settings override those of the file. Raises `UserError`.
    """
    from solversearch.models.aliases import ALIASES
    from solversearch.models.pipelines.library import quiet
    from solversearch.models.pipelines.source import read_json

    if where.startswith("hf:") or where in ALIASES:
        place, index = _fetched(ALIASES[where].repository if where in ALIASES else where.removeprefix("hf:"))
    elif Path(where).exists() or "/" in where or where.endswith(".json"):
        place, index = _local(Path(where).expanduser())
    else:
        return SchedulerSource(scheduler_by_name(where, **settings), settings=settings)
    config, pipeline = read_json(place), str(read_json(index).get("_class_name", "")) if index.is_file() else ""
    if "scheduler" in config:
        return _exported(config, settings)
    name = str(config.get("_class_name", "")).removesuffix("Scheduler")
    if name == "Plan":
        return SchedulerSource(None, True, pipeline, plan=Plan.parse(json.dumps(config.get("plan")), str(place)))
    try:
        kind = scheduler_class(name)
    except UserError as error:
        raise UserError(f"{place}: {error}") from None
    check_settings(kind, settings)
    with quiet():
        return SchedulerSource(kind.from_config({**config, **settings}), True, pipeline, settings)


def _exported(content: Mapping[str, Any], settings: Mapping[str, Any]) -> SchedulerSource:
    """What `export` wrote for diffusers: a class, the settings in which it differs from its defaults, and the list that it is given."""
    kind, config = scheduler_class(str(content["scheduler"])), {**content.get("config", {}), **settings}
    check_settings(kind, config)
    numbers = {key: content[key] for key in ("timesteps", "sigmas") if key in content}
    return SchedulerSource(kind(**config), True, "", settings, numbers)


def _local(path: Path) -> tuple[Path, Path]:
    """The configuration file, and where a pipeline around it has its index."""
    for place in (path, path / _FILE, path / "scheduler" / _FILE):
        if place.is_file():
            return place, place.parent.parent / "model_index.json"
    raise UserError(f"{path}: there is no {_FILE}; name a pipeline's folder, its scheduler's folder or file, or a class such as DDIM")


def _fetched(repository: str) -> tuple[Path, Path]:
    from solversearch.models.pipelines.library import library

    hub = library("huggingface_hub")
    try:
        index, place = (Path(hub.hf_hub_download(repository, name)) for name in ("model_index.json", f"scheduler/{_FILE}"))
    except Exception as error:  # the client raises what its HTTP library raises
        reason = short(error, 100)
        raise UserError(
            f"hf:{repository}: cannot fetch the scheduler's configuration ({type(error).__name__}: {reason}); name the pipeline's folder"
        ) from error
    return place, index
