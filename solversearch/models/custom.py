'''A person's own network: `--model python:my_model.py:factory`, or `python:package.module:factory`.

The factory takes no arguments and returns a `Model`, or a dict or dataclass with some of its fields. `network`, `schedule`,
`prediction_type` and `shape` must be there; `conditions` too unless the model is unconditional, and `null_condition` for
guidance; `features`, `data`, `images`, `disjoint`, `dtype`, `device`, `pad`, `name` and `variants` (cheaper networks with the same
arguments, by name) may. A mean-reverting model, whose schedule has a `beta`, has an `anchor` besides: conditions (B, ...) to the degraded
picture or recording y (B, *shape) of each sample, unless they are that themselves. Complete, with a network of one layer:

    import torch
    from solversearch.schedules import DiscreteVP

    class Network(torch.nn.Module):
        """x (B, 1, 8, 8), t (B,) in 0 .. 999 and condition (B,) to the predicted noise (B, 1, 8, 8)."""
        def __init__(self):
            super().__init__()
            self.label, self.layer = torch.nn.Embedding(11, 8), torch.nn.Linear(64 + 8 + 1, 64)
        def forward(self, x, t, condition):
            features = torch.cat([x.flatten(1), self.label(condition), t[:, None] / 1000], dim=1)
            return self.layer(features).view_as(x)

    def factory():
        torch.manual_seed(0)  # here, where there are no weights: every process has the same network
        network = Network()  # then network.load_state_dict(torch.load("weights.pt", weights_only=True))
        return {"network": network, "schedule": DiscreteVP.named("scaled_linear"), "prediction_type": "epsilon",
                "shape": (1, 8, 8), "conditions": torch.arange(10), "null_condition": torch.tensor(10)}

A module is put in evaluation mode and frozen; its dtype and device are those of its parameters unless the factory says
otherwise. t is in single precision even where that dtype is half. What the factory returns is tried, two samples at both
ends of the schedule, twice, so that a mistake is found here and not in the middle of a search. It has to denoise, too: a wrong sign or
direction of time is an error that says what to flip, what is doubtful a warning (see `denoising`); with `data`, a function that returns
real samples (M, *shape), much more can be told. The code runs because the person named it; nothing else ever imports it.
'''

import dataclasses
import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from solversearch.errors import UserError, blaming, nearest, short
from solversearch.models.base import Model, Variant
from solversearch.models.denoising import check
from solversearch.models.digest import exact, nearly, old_digest
from solversearch.models.options import FOUND
from solversearch.models.variants import variant_of
from solversearch.noise import SPLITS
from solversearch.schedules import PREDICTION_TYPES, NoiseSchedule, data_prediction, unknown_prediction_type

FIELDS = tuple(field.name for field in dataclasses.fields(Model))
REQUIRED = ("network", "schedule", "prediction_type", "shape")


def load_custom(spec: str, known: bool = False) -> Model:
    """The model that the factory of ``python:FILE_OR_MODULE:FACTORY`` returns; known: another process has checked that it denoises.

    Raises `UserError` with one line for whatever is wrong.
    """
    target, _, name = spec.removeprefix("python:").rpartition(":")
    if not target or not name:
        raise UserError(f"{spec}: a model of your own is named python:path/to/file.py:factory or python:package.module:factory")
    module = _import(target)
    factory = getattr(module, name, None)
    if factory is None:
        public = [each for each, value in vars(module).items() if callable(value) and not each.startswith("_")]
        raise UserError(f"{target}: {nearest(name, public, 'factory')}")
    if not callable(factory):
        raise UserError(f"{target}: {name} is {_kind(factory)}, not a function; a factory takes no arguments and returns the model")
    return made_by(factory, f"{target}: {name}()", f"{Path(target).stem}.{name}", getattr(module, "__file__", None) or "", known)


def check_repeats(model: Model, spec: str) -> None:
    """Whether other processes would have the same model. Raises `UserError`."""
    if exact(load_custom(spec, known=True)) != exact(model):
        raise UserError(
            f"{spec}: the factory makes other weights every time, so no other process could have this model; load them from a file, or "
            "begin it with torch.manual_seed(0)"
        )


def made_by(factory: Callable[[], Any], where: str, name: str, file: str, known: bool = False) -> Model:
    """The model that a factory returns. where is what messages call it, file has its code. Raises `UserError`."""
    with blaming(where, file):
        made = factory()
    model = with_anchor(Model(**_checked(_fields_of(made, where), where, name)), where)
    if not isinstance(model.network, nn.Module) and not model.weights:
        content = Path(file).read_bytes() if os.path.isfile(file) else b""
        model = dataclasses.replace(model, weights=hashlib.sha256(old_digest(model).encode() + content).hexdigest())
    _try(model, where, file)
    if model.variants:
        model = dataclasses.replace(model, variants={key: _variant(model, each, where, file) for key, each in model.variants.items()})
    return model if known else checked(model, where, file)


def with_anchor(model: Model, where: str = "") -> Model:
    """The model; where its schedule has a beta and nothing else says so, the conditions are its anchors. Raises `UserError`."""
    where, reverts = where or model.name, model.schedule.reverts
    if reverts and model.conditions is None:
        raise UserError(f"{where}: the schedule has a beta, so conditions are missing, of which the anchors are made")
    if reverts and model.anchor is None and model.conditions is not None and model.conditions.shape[1:] == model.shape:
        return dataclasses.replace(model, anchor=_themselves)
    if reverts and model.anchor is None:
        raise UserError(f"{where}: anchor is missing; the schedule has a beta, and the conditions are not of the sample's shape themselves")
    if model.anchor is not None and not reverts:
        raise UserError(f"{where}: anchor needs a schedule with a beta, such as MeanReverting")
    return model


def _themselves(conditions: Tensor) -> Tensor:
    return conditions


def _variant(model: Model, given: Any, where: str, file: str) -> Variant:
    network = given.network if isinstance(given, Variant) else given
    _try(dataclasses.replace(model, network=network), f"{where}: a variant", file)
    return given if isinstance(given, Variant) else variant_of(model, given, model.weights)


def checked(model: Model, where: str = "", file: str = "") -> Model:
    """The model, where it denoises, see `denoising.check`."""
    with blaming(where or model.name, file):
        check(model, where or model.name)
    return model


# Importing -----------------------------------------------------------------------------------------------------


def _import(target: str) -> ModuleType:
    """A file, with its folder importable as for any script, or a module, with the working directory importable."""
    is_file = target.endswith(".py") or os.sep in target or "/" in target
    path = Path(target).absolute()
    folder = str(path.parent if is_file else Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    if not is_file:
        try:
            found = importlib.util.find_spec(target)
        except (ImportError, ValueError):
            found = None
        if found is None:
            raise UserError(f"{target}: there is no module of this name; a file is named with its .py")
        with blaming(target, found.origin or ""):
            return importlib.import_module(target)
    if not path.is_file():
        siblings = [each.name for each in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise UserError(f"{target}: there is no such file" + (f"; {nearest(path.name, siblings, 'file')}" if siblings else ""))
    name = f"solversearch_custom_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
    found = importlib.util.spec_from_file_location(name, path)
    if found is None or found.loader is None:
        raise UserError(f"{target}: not a Python file; its name must end in .py")
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module  # dataclasses and pickle look there
    with blaming(target, str(path)):
        found.loader.exec_module(module)
    return module


# What the factory returned -------------------------------------------------------------------------------------


def _fields_of(made: Any, where: str) -> dict[str, Any]:
    """The fields that are given, by the names of `Model`; all required ones are there."""
    if dataclasses.is_dataclass(made) and not isinstance(made, type):
        fields = {each.name: getattr(made, each.name) for each in dataclasses.fields(made)}
    elif isinstance(made, Mapping):
        fields = dict(made)
    else:
        raise UserError(f"{where} returned {_kind(made)}; return a Model, a dict or a dataclass with {', '.join(REQUIRED)}")
    for each in fields:
        if each not in FIELDS:
            raise UserError(f"{where}: {nearest(str(each), list(FIELDS), 'field')}")
    for each in REQUIRED:
        if fields.get(each) is None:
            raise UserError(f"{where}: {each} is missing; a model needs {', '.join(REQUIRED)}")
    for each in (fields["network"], *(fields["variants"].values() if isinstance(fields.get("variants"), Mapping) else ())):
        if isinstance(each, nn.Module):
            each.eval().requires_grad_(False)
    if isinstance(fields["network"], nn.Module):
        parameter = next((each for each in fields["network"].parameters() if each.is_floating_point()), None)
        if parameter is not None and not isinstance(made, Model):
            fields = {"dtype": parameter.dtype, "device": str(parameter.device), **fields}
    return {each: value for each, value in fields.items() if value is not None}


def _checked(fields: dict[str, Any], where: str, name: str) -> dict[str, Any]:
    """The fields with shapes and conditions in the types that `Model` has, every one of them checked."""
    fields = {"name": name, **fields}
    if isinstance(fields["shape"], list | torch.Size):
        fields["shape"] = tuple(fields["shape"])
    _check_types(fields, where)
    for each in ("conditions", "null_condition"):
        if each in fields:
            fields[each] = _as_tensor(fields[each], f"{where}: {each}", fields.get("device", "cpu"))
    _check_conditions(fields.get("conditions"), fields.get("null_condition"), where)
    if fields.get("disjoint") and ("conditions" not in fields or len(fields["conditions"]) < len(SPLITS)):
        raise UserError(f"{where}: disjoint needs conditions, at least {len(SPLITS)} of them: one for each part of the noise")
    return fields


def _as_tensor(value: Any, where: str, device: str) -> Tensor:
    try:
        return torch.as_tensor(value, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{where} is no tensor: {short(error)}") from None


def _check_types(fields: Mapping[str, Any], where: str) -> None:
    def sizes(shape: Any) -> bool:
        return isinstance(shape, tuple) and len(shape) > 0 and all(type(n) is int and n > 0 for n in shape)

    rules: dict[str, tuple[Callable[[Any], bool], str]] = {
        "network": (callable, "a module or function network(x, t[, condition])"),
        "schedule": (lambda value: isinstance(value, NoiseSchedule), "a NoiseSchedule, such as DiscreteVP.named('scaled_linear')"),
        "shape": (sizes, "the sizes of one sample, such as (3, 32, 32)"),
        "features": (callable, "a function of samples"),
        "data": (callable, "a function without arguments"),
        "reference": (callable, "a function without arguments"),
        "images": (callable, "a function of samples"),
        "anchor": (callable, "a function of conditions"),
        "dtype": (lambda value: isinstance(value, torch.dtype), "a torch.dtype"),
        "disjoint": (lambda value: isinstance(value, bool), "True or False"),
        "pad": (lambda value: isinstance(value, int) and value >= 1, "a whole number of at least 1"),
        "device": (lambda value: isinstance(value, str), "a text such as 'cuda'"),
        "name": (lambda value: isinstance(value, str), "a text"),
        "looks": (lambda value: isinstance(value, str), "a text"),
        "weights": (lambda value: isinstance(value, str), "a text"),
        "variants": (_are_variants, "networks by their names, which are identifiers and not skip... or features..."),
    }
    for each, (right, what) in rules.items():
        if each in fields and not right(fields[each]):
            raise UserError(f"{where}: {each} must be {what}, got {_kind(fields[each])}")
    if fields["prediction_type"] not in PREDICTION_TYPES:
        raise UserError(f"{where}: {unknown_prediction_type(str(fields['prediction_type']))}")


def _are_variants(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(name, str) and name.isidentifier() and not name.startswith(FOUND) and (callable(each) or isinstance(each, Variant))
        for name, each in value.items()
    )


def _check_conditions(conditions: Tensor | None, null: Tensor | None, where: str) -> None:
    if conditions is None:
        if null is not None:
            raise UserError(f"{where}: null_condition needs conditions beside it")
        return
    if conditions.ndim == 0 or len(conditions) == 0:
        raise UserError(f"{where}: conditions must hold one condition a row, got the shape {tuple(conditions.shape)}")
    if null is not None and (null.shape != conditions.shape[1:] or null.dtype != conditions.dtype):
        like, got = (f"{tuple(shape)} of {dtype}" for shape, dtype in ((conditions.shape[1:], conditions.dtype), (null.shape, null.dtype)))
        raise UserError(f"{where}: null_condition must be like one row of conditions, {like}, got {got}")


@torch.no_grad()
def _try(model: Model, where: str, file: str) -> None:
    """Two samples at both ends of the schedule, under every kind of condition."""
    schedule = model.schedule
    chosen: list[Tensor | None] = [None]
    if model.conditions is not None:
        rows = model.conditions[torch.tensor([0, len(model.conditions) - 1], device=model.conditions.device)]
        chosen = [rows] if model.null_condition is None else [rows, model.null_condition.expand_as(rows)]
    noise = torch.randn(2, *model.shape, generator=torch.Generator().manual_seed(0)).to(model.device, model.dtype)
    if model.anchor is not None:
        with blaming(f"{where}: anchor, tried on two conditions,", file):
            anchors = model.anchor(chosen[0].clone())  # type: ignore[union-attr]
        _check_output(anchors, model, f"{where}: anchor, tried on two conditions,")
    for t in (schedule.t_start, schedule.t_end):
        node = schedule.node(t)
        try:
            data_prediction(model.prediction_type, node.alpha, node.sigma)
        except UserError as error:
            raise UserError(f"{where}: at t = {t:g}: {error}") from None
        for conditions in chosen:
            times = torch.full((2,), t, device=model.device, dtype=model.time_dtype)
            arguments = (noise, times, *(() if conditions is None else (conditions,)))
            with blaming(f"{where}: the network, tried at t = {t:g},", file):
                output, again = (model.network(*(each.clone() for each in arguments)) for _ in range(2))
            for returned in (output, again):
                _check_output(returned, model, f"{where}: the network, tried at t = {t:g},")
            if not nearly(output, again):
                raise UserError(
                    f"{where}: the network, tried twice at t = {t:g}, returned two different outputs for the same input; switch off what "
                    "is random in it, such as dropout or fresh noise"
                )
    for each in ("features", "images"):
        function: Callable[[Tensor], Tensor] | None = getattr(model, each)
        if function is not None:
            with blaming(f"{where}: {each}, tried on two samples,", file):
                result = function(noise.float().clone())
            if not isinstance(result, Tensor) or len(result) != 2:
                raise UserError(f"{where}: {each} must return a tensor with one row a sample, got {_kind(result)} for two")


def _check_output(output: Any, model: Model, where: str) -> None:
    if not isinstance(output, Tensor):
        hint = "; take its .sample" if hasattr(output, "sample") else ""
        raise UserError(f"{where} returned {_kind(output)}, not a tensor{hint}")
    if output.shape != (2, *model.shape):
        raise UserError(f"{where} returned the shape {tuple(output.shape)} for an input of {(2, *model.shape)}; they must be equal")
    if not torch.isfinite(output).all():
        raise UserError(f"{where} returned NaN or inf; check its weights and dtype")


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    shown = short(repr(value))
    return f"{type(value).__name__} {shown}" if len(shown) <= 60 else f"an object of type {type(value).__name__}"
