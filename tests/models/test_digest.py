"""What a model is: every edit that changes its outputs is noticed, and nothing that does not."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from solversearch import models
from solversearch.errors import UserError
from solversearch.grids import grid
from solversearch.judging.compatibility import check_model
from solversearch.models import DEFAULT, digest
from solversearch.models.base import Model
from solversearch.models.custom import load_custom
from solversearch.models.digest import NOT_FINITE, is_of, numbers, old_digest, probe, same
from solversearch.plan import Plan, Provenance
from solversearch.schedules import Flow
from solversearch.search.evaluating.run_folder import Run
from solversearch.search.settings import Settings
from solversearch.solvers import get
from solversearch.teacher import teach

OLD = {
    "digits": "13d66edcf750477eb6bc113e89e2e1fe399f6fa1060115844ad6d98e067b55a8",
    "mixture": "275313d4c2e054fe2fef331f8c09e6326223659dd713408c1c8a1114862a2bd9",
}
"""As plans carried them before there was a probe."""

SOURCE = """
import torch
from solversearch.schedules import DiscreteVP

SCALE = 1.0

class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.label = torch.nn.Linear(6, 32), torch.nn.Linear(32, 6), torch.nn.Embedding(5, 32)
        self.register_buffer("shift", torch.zeros(6))
        self.register_buffer("frequency", torch.tensor(0.001), persistent=False)
        self.gain = 1.0
    def forward(self, x, t, condition):
        hidden = torch.tanh(self.first(x) + self.label(condition) + (t * self.frequency)[:, None].to(x.dtype))
        return SCALE * self.gain * (self.second(hidden) + self.shift)

def factory():
    network = Network()
    return {"network": network, "schedule": DiscreteVP.named("scaled_linear"), "prediction_type": "sample", "shape": (6,),
            "conditions": torch.arange(4), "null_condition": torch.tensor(4), "name": "mine"}
"""

EDITS = {
    "weights": ("    network = Network()", "    network = Network()\n    network.second.bias.data += 1e-4"),
    "buffer": ("torch.zeros(6)", "torch.full((6,), 1e-4)"),
    "buffer that is not stored": ("torch.tensor(0.001)", "torch.tensor(0.001001)"),
    "attribute": ("self.gain = 1.0", "self.gain = 2.0"),
    "code": ("return SCALE *", "return 2 * SCALE *"),
    "constant": ("SCALE = 1.0", "SCALE = 1.02"),
    "conditions fewer": ("torch.arange(4)", "torch.arange(3)"),
    "conditions reordered": ("torch.arange(4)", "torch.tensor([1, 0, 2, 3])"),
    "null condition": ("torch.tensor(4)", "torch.tensor(0)"),
    "prediction type": ('"sample"', '"v_prediction"'),
    "schedule": ('"scaled_linear"', '"linear"'),
    "clip": ('"shape": (6,)', '"shape": (6,), "clip": 1.0'),
    "dtype": ("network = Network()", "network = Network().double()"),
    "scale of times": ("t * self.frequency", "t / 2 * self.frequency"),
    "what is made of conditions": ("self.label(condition)", "self.label((condition + 1) % 5)"),
}


def loaded(folder: Path, source: str = SOURCE) -> Model:
    (folder / "my_model.py").write_text(source)
    return load_custom(f"python:{folder / 'my_model.py'}:factory")


def plan_of(model: Model, digest: str | None = None) -> Plan:
    table = get("ddim").tableau(model.schedule, grid("logsnr", model.schedule, 3))
    return Plan(
        prediction_type=model.prediction_type, guidance=1.0, nfe=table.nfe, network_calls=table.network_calls, nodes=table.nodes,
        rows=table.rows, provenance=Provenance(model=model.name, model_digest=model.digest if digest is None else digest),
    )  # fmt: skip


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SOLVERSEARCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


# What is noticed ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("edit", EDITS)
def test_no_edit_takes_what_belongs_to_the_model_before(edit: str, tmp_path: Path, cache: Path) -> None:
    before, (old, new) = loaded(tmp_path), EDITS[edit]
    assert SOURCE.count(old) == 1
    settings = Settings(nfe=3)
    run = Run(model="m", options=DEFAULT, model_digest=before.fingerprint, settings=settings, command="", versions={})
    told: list[int] = []
    teach(before, "fit", 8, steps=8)
    teach(loaded(tmp_path), "fit", 8, steps=8, progress=told.append)
    assert not told
    check_model(plan_of(before), loaded(tmp_path))

    after = loaded(tmp_path, SOURCE.replace(old, new))
    fresh = teach(after, "fit", 8, steps=8, progress=told.append)
    assert told and torch.equal(fresh.endpoint, teach(after, "fit", 8, steps=8).endpoint)
    with pytest.raises(UserError, match=r"the plan (was made for model 'mine'|is for a network that predicts 'sample')"):
        check_model(plan_of(before), after)
    with pytest.raises(UserError, match="was begun with another model;"):
        run.check(after, settings, tmp_path)


def test_a_teacher_of_other_code_is_replaced(tmp_path: Path, cache: Path) -> None:
    before, after = loaded(tmp_path), loaded(tmp_path, SOURCE.replace(*EDITS["code"]))
    ends = [teach(model, "fit", 8, steps=8).endpoint for model in (before, after, before)]
    assert torch.equal(ends[0], ends[2]) and not torch.equal(ends[0], ends[1])
    assert len(list(cache.iterdir())) == 1


def test_a_plan_of_other_code_says_so(tmp_path: Path) -> None:
    before, after = loaded(tmp_path), loaded(tmp_path, SOURCE.replace(*EDITS["attribute"]))
    with pytest.raises(UserError, match="made for model 'mine' before its code or a setting of it was changed, not for"):
        check_model(plan_of(before), after)


def model_of(network: Callable[..., Tensor], count: int = 0, **changes: Any) -> Model:
    conditions = {"conditions": torch.arange(count), "null_condition": torch.tensor(count)} if count else {}
    return Model("function", network, **{"schedule": Flow(), "prediction_type": "sample", "shape": (5,), **conditions, **changes})


@pytest.mark.parametrize("odd", range(11))
def test_every_condition_of_a_few_is_tried(odd: int) -> None:
    """The last of them is the null condition."""
    plain = model_of(lambda x, t, condition: torch.sin(x), 10)
    assert not same(plain.digest, replace(plain, network=lambda x, t, c: torch.sin(x) * (1 + 0.1 * (c == odd))[:, None]).digest)


def test_many_conditions_are_tried_from_end_to_end() -> None:
    seen: list[int] = []

    def network(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        seen.extend(condition.tolist())
        return x

    probe(model_of(network, 1000))
    assert set(seen) == {0, 91, 182, 272, 363, 454, 545, 636, 727, 817, 908, 999, 1000} and seen.count(1000) == 4


def test_times_are_tried_from_end_to_end_and_whole_where_they_must_be() -> None:
    seen: list[float] = []

    def network(x: Tensor, t: Tensor) -> Tensor:
        seen.extend(t.tolist())
        return x

    probe(model_of(network, schedule=models.load("digits").schedule))
    assert seen == sorted(seen, reverse=True) and len(seen) == 4
    probe(model_of(network))
    assert seen[4] == 1 and seen[-1] == pytest.approx(Flow().t_end)


# What is not ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_batches_and_threads_change_nothing(tmp_path: Path, threads: None, dtype: torch.dtype) -> None:
    made = "network = Network().to(torch.bfloat16)" if dtype == torch.bfloat16 else "network = Network()"
    found = []
    for count, pad in ((1, 1), (2, 1), (1, 64), (2, 7)):
        torch.set_num_threads(count)
        found.append(replace(loaded(tmp_path, SOURCE.replace("network = Network()", made)), pad=pad))
        assert found[-1].dtype == dtype
    assert all(same(found[0].fingerprint, other.fingerprint) for other in found)


@pytest.mark.parametrize(("dtype", "unseen", "seen"), [
    (torch.float32, 1e-3, 1e-2), (torch.float64, 1e-3, 1e-2), (torch.float16, 4e-3, 4e-2), (torch.bfloat16, 1e-2, 0.11)
])  # fmt: skip
def test_rounding_errors_are_no_change(dtype: torch.dtype, unseen: float, seen: float) -> None:
    def changed(by: float) -> str:
        return model_of(lambda x, t: ((1 + by) * torch.sin(3 * x.double())).to(dtype), dtype=dtype).digest

    plain = changed(0.0)
    assert same(plain, changed(unseen)) and same(plain, changed(-unseen))
    assert not same(plain, changed(seen)) and not same(plain, changed(-seen))


def test_a_probe_is_the_logarithm_of_the_size_and_projections() -> None:
    """Of a constant output c: ln |c| in steps of 0.005, the same projections at all times, and those of the other sign for -c."""
    found, negated = (torch.tensor(probe(model_of(lambda x, t, c=c: torch.full_like(x, c)))).view(4, 9) for c in (3.0, -3.0))
    assert found[:, 0].tolist() == [220] * 4  # ln 3 / 0.005 = 219.7
    assert (found == found[0]).all() and found[:, 1:].abs().sum() > 0
    assert torch.equal(found[:, 1:], -negated[:, 1:]) and torch.equal(found[:, 0], negated[:, 0])
    assert found[:, 1:].abs().max() <= 5**0.5 / 0.005


def test_neighbours_are_the_same_at_every_edge() -> None:
    assert same("a:5,-3", "a:6,-4") and same("a:5,-3", "a:4,-3") and same("a:", "a:") and same("a", "a")
    for other in ("b:5,-3", "a:7,-3", "a:5,-5", "a:5", "a:5,-3,0", "a:", "a"):
        assert not same("a:5,-3", other)
    assert numbers("5,x") == numbers("5,") == numbers("9" * 5000) == []


def test_what_is_not_finite_or_nothing_is_no_error() -> None:
    broken = model_of(lambda x, t: torch.where(t[:, None] > 0.5, torch.nan, x))
    found = numbers(broken.digest.partition(":")[2])
    assert found.count(NOT_FINITE) == 18 and len(found) == 36  # two of four times, nine numbers each
    assert same(broken.digest, replace(broken).digest) and not same(broken.digest, model_of(lambda x, t: x).digest)
    nothing = model_of(lambda x, t: 0 * x)
    assert NOT_FINITE not in probe(nothing) and same(nothing.digest, replace(nothing).digest)


def test_weights_count_and_names_do_not() -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(5, 5)
    model = model_of(layer_of(layer))
    assert model.digest == replace(model, name="other").digest
    assert replace(model, network=lambda x, t: x).digest != replace(model, network=lambda x, t: x, name="other").digest
    before = model.digest
    layer.weight.data[0, 0] += 1e-6
    assert not same(before, replace(model).digest)


def layer_of(layer: torch.nn.Module) -> torch.nn.Module:
    class Timeless(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            out: Tensor = self.layer(x)
            return out

    return Timeless()


# Plans of before ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OLD)
def test_plans_without_a_probe_are_still_read(name: str) -> None:
    model = models.load(name)
    assert old_digest(model) == OLD[name] and is_of(OLD[name], model)
    assert is_of(OLD[name], model.started(model.schedule.start_of(0.6)))  # it is the same network, whatever it starts from
    check_model(plan_of(model, OLD[name]), model)
    with pytest.raises(UserError, match=r"made for model .* with weights 000000000000, not for"):
        check_model(plan_of(model, "0" * 64), model)


def test_stored_weights_serve_every_precision_and_prompt() -> None:
    module = layer_of(torch.nn.Linear(5, 5))
    stored = model_of(module, weights="files", conditioning="prompts")
    assert stored.digest.endswith(":") and stored.digest == replace(stored, dtype=torch.float64, conditioning="others").digest
    assert not same(stored.fingerprint, replace(stored, conditioning="others").fingerprint)
    for change in ({"weights": "other"}, {"clip": 1.0}, {"schedule": Flow(2.0)}, {"shape": (5, 1)}, {"prediction_type": "flow"}):
        assert replace(stored, **change).digest != stored.digest
    assert len(digest.old_digest(stored)) == 64
