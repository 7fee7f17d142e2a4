"""A person's own model: what is right works through the denoiser, and what is wrong is said in one line."""

import itertools
import sys
from pathlib import Path
from textwrap import dedent

import pytest
import torch
from torch import nn

from solversearch import models
from solversearch.errors import UserError
from solversearch.models import custom
from solversearch.models.base import Denoiser, Model
from solversearch.models.custom import load_custom
from solversearch.runtime import Node, Row, run

HEAD = """\
import torch
from dataclasses import dataclass
from solversearch.models.base import Model
from solversearch.schedules import DiscreteVP, Flow

SCHEDULE = DiscreteVP.named("scaled_linear")

class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.label = torch.nn.Linear(4, 4), torch.nn.Embedding(3, 4)
        self.drop = torch.nn.Dropout(0.5)
        self.register_buffer("count", torch.tensor(0))
    def forward(self, x, t, condition):
        return self.drop(self.layer(x) + self.label(condition) + t[:, None] / 1000)

def good(**changes):
    return {"network": Network(), "schedule": SCHEDULE, "prediction_type": "epsilon", "shape": (4,),
            "conditions": torch.arange(2), "null_condition": torch.tensor(2), **changes}

def plain(network, **changes):
    return {"network": network, "schedule": SCHEDULE, "prediction_type": "v_prediction", "shape": (4,), **changes}
"""
HEAD_LINES = HEAD.count("\n")
names = (f"my_model_{i}" for i in itertools.count())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def write(folder: Path, body: str) -> Path:
    path = folder / f"{next(names)}.py"
    path.write_text(HEAD + dedent(body))
    return path


def loaded(folder: Path, body: str) -> Model:
    return load_custom(f"python:{write(folder, body)}:factory")


# What works ----------------------------------------------------------------------------------------------------


def test_a_tiny_network_end_to_end(folder: Path) -> None:
    model = loaded(folder, "def factory(): return good()")
    assert (model.shape, model.dtype, model.device) == ((4,), torch.float32, "cpu") and model.name.endswith(".factory")
    assert isinstance(model.network, nn.Module) and not model.network.training
    assert not any(parameter.requires_grad for parameter in model.network.parameters())
    assert model.conditions is not None
    nodes = [Node(t, float(model.schedule.alpha(t)), float(model.schedule.sigma(t)), 2.0) for t in (999.0, 500.0)]
    rows = [Row(1.0), Row(0.6, (0.3,)), Row(0.0, (0.2, 0.8))]
    noise, conditions = torch.randn(5, 4), model.conditions[torch.tensor([0, 1, 0, 1, 1])]
    result = run(nodes, rows, Denoiser(model, conditions), noise)
    assert result.shape == (5, 4) and result.isfinite().all()
    assert torch.equal(result, run(nodes, rows, Denoiser(model, conditions), noise))


@pytest.mark.parametrize(
    "body",
    [
        "def factory(): return Model(name='mine', **good())",
        "def factory(): return good(shape=[4], conditions=[0, 1], null_condition=2, name=None)",
        "def factory(): return good(features=lambda x: x, images=lambda x: x[:, None].clip(0, 1), data=lambda: torch.zeros(9, 4))",
        "def factory(): return good(network=Network().double())",
        "def factory(): return plain(lambda x, t: -x)",
        "def factory(): return plain(lambda x, t: -x + 1e-5 * torch.randn_like(x))",
        "def factory(): return plain(lambda x, t: -x, schedule=Flow(), prediction_type='flow')",
        """
        @dataclass
        class Mine:
            network: object
            schedule: object = SCHEDULE
            prediction_type: str = "sample"
            shape: tuple = (4,)

        def factory(): return Mine(lambda x, t: 0.5 * x)
        """,
    ],
)
def test_ways_to_return_a_model(folder: Path, body: str) -> None:
    model = loaded(folder, body)
    assert model.shape == (4,) and len(model.digest.partition(":")[0]) == 64
    assert model.dtype == (torch.float64 if "double" in body else torch.float32)


def test_the_documented_example_works(folder: Path) -> None:
    example = dedent((custom.__doc__ or "").partition("Complete, with a network of one layer:\n")[2].partition("\nA module is put")[0])
    assert "def factory()" in example
    path = folder / "documented.py"
    path.write_text(example)
    assert load_custom(f"python:{path}:factory").shape == (1, 8, 8)


def test_modules_and_neighbours_can_be_imported(folder: Path) -> None:
    (folder / "neighbour_of_mine.py").write_text("SCALE = 0.5\n")
    (folder / "package_of_mine").mkdir()
    (folder / "package_of_mine" / "model.py").write_text(HEAD + "def factory(): return good()\n")
    assert load_custom("python:package_of_mine.model:factory").name == "package_of_mine.factory"
    assert loaded(folder, "from neighbour_of_mine import SCALE\ndef factory(): return plain(lambda x, t: SCALE * x)").shape == (4,)


def test_digest_is_of_the_weights_or_of_the_source(folder: Path) -> None:
    def digest(body: str) -> str:
        return loaded(folder, body).digest

    assert digest("def factory(): return good()") == digest("# the weights count, not the text\ndef factory(): return good()")
    nudged = "def factory():\n    net = Network()\n    net.layer.weight.data[0, 0] += 1e-3\n    return good(network=net)"
    assert digest(nudged) != digest("def factory(): return good()")
    same = "def factory(): return plain(lambda x, t: {} * x, name='same')"
    assert digest(same.format(1)) == digest(same.format(1)) != digest(same.format(2))
    named = "def factory(): return plain(lambda x, t: {} * x, weights='mine')"  # whoever names them says that they are the same
    assert digest(named.format(1)) == digest(named.format("1.0")) != digest(named.format(2))


# What is wrong -------------------------------------------------------------------------------------------------


def refusal(spec: str) -> str:
    with pytest.raises(UserError) as caught:
        load_custom(spec)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 900
    return message


@pytest.mark.parametrize("spec", ["python:", "python:model.py", "python:model.py:", "python::factory"])
def test_a_spec_has_two_parts(spec: str) -> None:
    assert "python:path/to/file.py:factory" in refusal(spec)


def test_missing_files_modules_and_names(folder: Path) -> None:
    path = write(folder, "def factory(): return good()\nnumber = 3")
    assert f"did you mean {path.name!r}" in refusal(f"python:{folder / path.name.replace('model', 'modle')}:factory")
    assert "there is no such file" in refusal("python:nowhere/model.py:factory")
    assert "there is no such file" in refusal(f"python:{folder}/:factory")
    assert "no module of this name" in refusal("python:no_such_package.model:factory")
    assert "no module of this name" in refusal("python:json.missing:factory")
    assert "did you mean 'factory'" in refusal(f"python:{path}:factroy")
    assert "number is int 3, not a function" in refusal(f"python:{path}:number")
    (folder / "data.txt").touch()
    assert "must end in .py" in refusal(f"python:{folder / 'data.txt'}:factory")


@pytest.mark.parametrize(
    "body, line, message",
    [
        ("x = 1\ndef factory() return 3", 2, "raised SyntaxError: expected ':'"),
        ("import no_such_package", 1, "raised ModuleNotFoundError: No module named 'no_such_package'"),
        ("1 / 0", 1, "raised ZeroDivisionError: division by zero"),
        ("raise SystemExit('stop')", 1, "raised SystemExit: stop"),
        ("def factory():\n    raise ValueError('two\\nlines')", 2, "factory() raised ValueError: two lines"),
        ("def factory():\n    torch.zeros(2) @ torch.zeros(3)", 2, "factory() raised RuntimeError: "),
        ("def factory(argument):\n    return 3", None, "factory() raised TypeError: factory() missing 1 required positional argument"),
        (
            "def factory():\n    return good(network=lambda x, t, c:\n        x @ torch.zeros(3))",
            3,
            "tried at t = 999, raised RuntimeError",
        ),
    ],
)
def test_exceptions_are_told_with_their_place(folder: Path, body: str, line: int | None, message: str) -> None:
    path = write(folder, body)
    told = refusal(f"python:{path}:factory")
    assert message in told
    assert line is None or told.endswith(f" at {path}:{HEAD_LINES + line}")


@pytest.mark.parametrize(
    "made, message",
    [
        ("None", "returned NoneType None; return a Model, a dict or a dataclass"),
        ("Network()", "returned an object of type Network; return a Model"),
        ("good(netwrok=1)", "unknown field 'netwrok'; did you mean 'network'?"),
        ("good(network=None)", "network is missing; a model needs network, schedule, prediction_type, shape"),
        ("{'network': Network()}", "schedule is missing"),
        ("good(network=3)", "network must be a module or function network(x, t[, condition]), got int 3"),
        ("good(schedule='linear')", "schedule must be a NoiseSchedule, such as DiscreteVP.named('scaled_linear'), got str 'linear'"),
        ("good(schedule=DiscreteVP.named('lineal'))", "unknown beta schedule 'lineal'; did you mean 'linear'?"),
        ("good(prediction_type='epsilom')", "unknown prediction type 'epsilom'; did you mean 'epsilon'?"),
        ("good(prediction_type=['epsilon'])", "unknown prediction type"),
        ("good(shape=4)", "shape must be the sizes of one sample"),
        ("good(shape=())", "shape must be"),
        ("good(shape=(4.0,))", "shape must be"),
        ("good(shape=(0,))", "shape must be"),
        ("good(shape=(5,))", "tried at t = 999, raised RuntimeError"),
        ("good(dtype='float32')", "dtype must be a torch.dtype, got str 'float32'"),
        ("good(device=3)", "device must be a text"),
        ("good(name=3)", "name must be a text"),
        ("good(features=3)", "features must be a function of samples"),
        ("good(data=torch.zeros(3, 4))", "data must be a function without arguments, got a tensor of shape (3, 4)"),
        ("good(features=lambda x: x[0])", "features must return a tensor with one row a sample"),
        ("good(images=lambda x: 1 / 0)", "images, tried on two samples, raised ZeroDivisionError"),
        ("good(conditions=torch.tensor(1))", "conditions must hold one condition a row, got the shape ()"),
        ("good(conditions=[])", "conditions must hold one condition a row, got the shape (0,)"),
        ("good(conditions=['cat', 'dog'])", "conditions is no tensor"),
        ("good(conditions=[3, 4])", "tried at t = 999, raised IndexError: index out of range in self"),
        ("good(conditions=None)", "null_condition needs conditions beside it"),
        ("good(null_condition=[2])", "null_condition must be like one row of conditions, () of torch.int64, got (1,) of torch.int64"),
        ("good(null_condition=2.0)", "got () of torch.float32"),
        ("good(network=lambda x, t: x)", "raised TypeError"),
        ("plain(lambda x, t: x[:, :3])", "returned the shape (2, 3) for an input of (2, 4); they must be equal"),
        ("plain(lambda x, t: (x,))", "returned an object of type tuple, not a tensor"),
        ("plain(lambda x, t: type('Output', (), {'sample': x})())", "not a tensor; take its .sample"),
        ("plain(lambda x, t: x / 0)", "tried at t = 999, returned NaN or inf"),
        ("plain(lambda x, t: x / t[:, None])", "tried at t = 0, returned NaN or inf"),
        ("plain(lambda x, t: torch.dropout(x, 0.1, True))", "tried twice at t = 999, returned two different outputs for the same input"),
        ("plain(lambda x, t: x + 0.1 * torch.randn_like(x))", "switch off what is random in it, such as dropout or fresh noise"),
        ("plain(lambda x, t: x + torch.where(t < 5, 1.0, 0.0)[:, None] * torch.rand(1))", "tried twice at t = 0, returned two different"),
        ("good(network=lambda x, t, c: x + torch.where(c == 2, 1.0, 0.0)[:, None] * torch.rand(1))", "tried twice at t = 999"),
        ("good(schedule=DiscreteVP.named(zero_terminal_snr=True))", "at t = 999: an epsilon-predicting network has no data prediction"),
    ],
)  # fmt: skip
def test_what_the_factory_returns_is_checked(folder: Path, made: str, message: str) -> None:
    path = write(folder, f"def factory():\n    return {made}")
    told = refusal(f"python:{path}:factory")
    assert told.startswith(f"{path}: factory()") and message in told


# The registry --------------------------------------------------------------------------------------------------


def test_registry(folder: Path) -> None:
    assert list(models.MODELS) == ["digits", "mixture"]
    assert models.load("mixture").name == "mixture"
    assert models.load(f"python:{write(folder, 'def factory(): return good()')}:factory").shape == (4,)
    with pytest.raises(UserError, match=r"unknown model 'digit'; did you mean 'digits'\? Known: digits, mixture, sd14, .* as python:"):
        models.load("digit")
