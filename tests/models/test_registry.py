"""What every registered model promises."""

import importlib

import pytest
import torch

from solversearch import models
from solversearch.errors import UserError
from solversearch.models import MODELS
from solversearch.models.base import Denoiser
from solversearch.models.options import Options
from tests.contracts import docstring_lacks, lacks, one_line


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
