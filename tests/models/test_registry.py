"""What every registered model promises, embedded ones and families of pipelines."""

import importlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from solversearch import models
from solversearch.errors import UserError
from solversearch.models import MODELS
from solversearch.models.base import Denoiser
from solversearch.models.options import Options
from solversearch.models.pipelines import FAMILIES
from solversearch.models.pipelines.adapter import Adapter
from tests import tiny
from tests.contracts import docstring_lacks, lacks, one_line

ADAPTERS = {family.__name__: family for family in FAMILIES.values()}


@pytest.mark.parametrize("name", MODELS)
def test_an_embedded_model_says_what_it_is_and_runs(name: str) -> None:
    module = importlib.import_module(f"solversearch.models.{name}")
    lacks(name, [*docstring_lacks(module), (not hasattr(module, "load"), "a function load(), without arguments, that returns the model")])
    model = models.load(name)
    assert isinstance(model, models.Model)
    lacks(name, [(model.name != name, f"its own name: it calls itself {model.name}"), (not model.digest, "a digest")])
    noise = torch.randn(2, *model.shape, generator=torch.Generator().manual_seed(0), dtype=model.dtype)
    conditions = None if model.conditions is None else model.conditions[:1].repeat(2)
    node = model.schedule.node(model.schedule.t_end)
    with torch.no_grad():
        found = Denoiser(model, conditions)(noise * node.sigma, node)
    assert isinstance(found, torch.Tensor) and found.shape == noise.shape and bool(found.isfinite().all())
    with pytest.raises(UserError) as caught:
        models.load(name, Options(dtype="float16"))
    lacks(name, [(not one_line(str(caught.value)) or name not in str(caught.value), "options refused in one line with its name")])


@pytest.mark.parametrize("family", ADAPTERS.values(), ids=ADAPTERS)
def test_a_family_of_pipelines_says_what_it_is(family: type[Adapter]) -> None:
    module = importlib.import_module(family.__module__)
    lacks(family.__name__, [
        *docstring_lacks(module),
        ("(" not in (module.__doc__ or "").partition("\n")[0], f"who made it, and when, in the docstring of {module.__name__}"),
        *((not hasattr(family, name), name) for name in ("PIPELINES", "CLASSES", "GUIDANCE")),
        (bool(family.TEXT) and family.encode.__func__ is Adapter.encode.__func__, "`encode`, for it has text encoders"),  # type: ignore[attr-defined]
    ])  # fmt: skip


def test_every_family_of_pipelines_is_tried(pipeline: Callable[[str], Path]) -> None:
    """The tests of pipelines run on what tests/tiny.py builds."""
    built = {json.loads((pipeline(name) / "model_index.json").read_text())["_class_name"] for name in tiny.FAMILIES}
    for name, family in ADAPTERS.items():
        lacks(name, [(built.isdisjoint(family.PIPELINES), "a tiny pipeline: a builder in tests/tiny.py, and its name in FAMILIES there")])
