"""Cheaper stand-ins for a network: found, given, called, and asked for by plans."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from solversearch import models
from solversearch.errors import UserError
from solversearch.models.base import Clock, Denoiser, Model, Variant
from solversearch.models.digits import SMALL_COST
from solversearch.models.options import Options
from solversearch.models.skipping import found, operations, skip_sets, without
from solversearch.models.variants import of_plan, with_others, with_skips
from solversearch.overriding import left_out
from solversearch.plan import Plan, PlanVariant, Provenance
from solversearch.runtime import Node, Row
from solversearch.schedules import VE, DiscreteVP


class Residual(nn.Module):
    def __init__(self, size: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(size) * torch.eye(16).flip(0), requires_grad=False)

    def forward(self, context: Tensor, h: Tensor) -> tuple[None, Tensor]:
        return None, h + h @ self.weight


class Toy(nn.Module):
    """Blocks that add a tenth, a fifth and so on of their input; a plain layer; and a block inside a block."""

    def __init__(self, sizes: tuple[float, ...] = (0.4, 0.1, 0.2, 0.3)) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Residual(size) for size in sizes)
        self.layers = nn.ModuleList([nn.Linear(16, 8, bias=False), nn.Linear(8, 16, bias=False)])
        for layer in self.layers:
            nn.init.orthogonal_(layer.weight, generator=torch.Generator().manual_seed(0))  # type: ignore[arg-type]

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        h = x.flatten(1)
        for block in self.blocks:
            h = block(h * 0 + t[:, None], h=h)[1]
        return self.layers[1](self.layers[0](h)).view_as(x)


class Still(nn.Module):
    """Without a multiplication that is counted."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return x


def toy(**sizes: Any) -> Model:
    return Model("toy", Toy(**sizes).requires_grad_(False).eval(), VE(0.01, 10.0), "sample", (1, 4, 4))


def test_blocks_are_found_by_what_they_return() -> None:
    assert {block.name: block.passes for block in found(toy())} == {
        **{f"blocks.{k}": (None, "h") for k in range(4)}, "layers.0": None, "layers.1": None
    }  # fmt: skip
    assert found(replace(toy(), network=lambda x, t: x)) == []
    assert skip_sets(replace(toy(), device="meta")) == {} and skip_sets(Model("nothing", Still(), VE(0.01, 10.0), "sample", (4,))) == {}


def test_what_is_left_out_hands_on_its_input() -> None:
    model, x, t = toy(), torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.full((3,), 2.0)
    sets = skip_sets(model)
    assert [name for name, each in sets.items() if not each.reuses] == ["skip1", "skip2", "skip3"] and sets["skip2"].skips == (
        "blocks.1",
        "blocks.2",
    )
    expected = toy(sizes=(0.4, 0.0, 0.0, 0.3)).network(x, t)
    for _ in range(2):  # the first call of a block learns what it hands on
        torch.testing.assert_close(sets["skip2"].network(x, t), expected)
    assert not torch.allclose(model.network(x, t), expected) and not any("forward" in vars(each) for each in model.network.modules())  # type: ignore[attr-defined]
    costs = {name: each.cost for name, each in sets.items()}  # the two layers are as one block
    assert costs == pytest.approx({"skip1": 0.8, "skip2": 0.6, "skip3": 0.4, "features3": 0.4, "features4": 0.2})
    assert sets["features3"].skips == ("blocks.1", "blocks.2", "blocks.3")  # block 0 changes most of them
    with pytest.raises(ValueError, match=r"layers\.0 cannot be left out"), left_out(model.network, {"layers.0": None}):  # type: ignore[arg-type]
        model.network(x, t)


def test_a_part_that_is_named_nearly_so_is_not_a_pipelines_core() -> None:
    network = Toy()
    network.score = Toy()
    model = Model("toy", network.requires_grad_(False).eval(), VE(0.01, 10.0), "sample", (1, 4, 4))
    x, t = torch.ones(1, 1, 4, 4), torch.ones(1)
    assert torch.equal(without(model, ["score.blocks.0"]).network(x, t), network(x, t))
    assert not torch.equal(without(model, ["blocks.0"]).network(x, t), network(x, t))


def test_gradients_go_through_what_is_left() -> None:
    x = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    torch.autograd.backward(skip_sets(toy())["skip1"].network(x, torch.ones(2)).square().sum())
    given = x.grad
    x.grad = None
    torch.autograd.backward(toy(sizes=(0.4, 0.0, 0.2, 0.3)).network(x, torch.ones(2)).square().sum())
    assert given is not None and x.grad is not None
    torch.testing.assert_close(given, x.grad)


def test_digits_have_a_small_network_and_a_block_to_leave_out() -> None:
    digits = models.load("digits")
    assert digits.variants["small"].cost == SMALL_COST
    small, own = (sum(each.numel() for each in network.parameters()) for network in (digits.variants["small"].network, digits.network))  # type: ignore[attr-defined]
    assert small < own / 7
    model = with_skips(digits)
    assert sorted(model.variants) == ["features2", "features3", "skip1", "small"]
    costs = [model.variants[name].cost for name in ("skip1", "features2", "features3")]
    assert costs == pytest.approx([0.712, 0.425, 0.137], abs=0.001)
    assert model.digest == digits.digest  # its plans are those of the model itself


def test_each_node_calls_its_own_network() -> None:
    clock, calls = Clock(), list[str]()

    def network(name: str, factor: float) -> Any:
        def call(x: Tensor, t: Tensor) -> Tensor:
            calls.append(name)
            return factor * x

        return call

    model = replace(toy(), network=network("own", 1.0), variants={"half": Variant(network("half", 0.5), 0.1)})
    denoise, x = Denoiser(model, None, clock=clock), torch.ones(2, 1, 4, 4)
    nodes = [Node(1.0, 1.0, 1.0, variant=name) for name in ("half", "", "half")]
    outputs = denoise.together([(x, node) for node in nodes])
    assert [float(each.mean()) for each in outputs] == [0.5, 1.0, 0.5] and sorted(calls) == ["half", "own"]  # type: ignore[union-attr]
    with pytest.raises(UserError, match="model 'toy' has no variant 'third'; it has half"):
        denoise(x, replace(nodes[0], variant="third"))


def plan(**variants: PlanVariant) -> Plan:
    nodes = tuple(Node(5.0 - i, 1.0, 5.0 - i, variant=name) for i, name in enumerate(variants))
    rows = (Row(1.0), *(Row(0.5, (0.0,) * i + (0.5,)) for i in range(len(nodes))))
    return Plan(
        version=3, prediction_type="sample", guidance=1.0, nfe=len(nodes), network_calls=len(nodes), nodes=nodes, rows=rows,
        variants=variants, provenance=Provenance(model="toy", model_digest=""),
    )  # fmt: skip


def test_a_plan_brings_what_it_leaves_out() -> None:
    model = toy()
    given = of_plan(model, plan(fast=PlanVariant(cost=0.123, skips=("blocks.1", "blocks.0"))))
    x = torch.ones(1, 1, 4, 4)
    torch.testing.assert_close(given.variants["fast"].network(x, torch.ones(1)), toy(sizes=(0.0, 0.0, 0.2, 0.3)).network(x, torch.ones(1)))
    assert given.variants["fast"].cost == 0.123


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        (PlanVariant(cost=0.5, skips=("blocks.9",)), "leaves out 'blocks.9', which is no block of 'toy'"),
        (PlanVariant(cost=0.5, digest="0" * 64), "calls a variant 'fast' of the network, .*--variant fast=MODEL"),
    ],
)
def test_what_a_plan_calls_has_to_be_there(variant: PlanVariant, message: str) -> None:
    with pytest.raises(UserError, match=message):
        of_plan(toy(), plan(fast=variant))


def test_other_weights_are_noticed() -> None:
    model = with_others(toy(), [("fast", toy(sizes=(0.1,)))])
    assert model.variants["fast"].cost == pytest.approx(2 / 5)
    assert of_plan(model, plan(fast=PlanVariant(cost=0.4, digest=model.variants["fast"].digest))).variants.keys() == {"fast"}
    with pytest.raises(UserError, match="another variant 'fast' of the network: other weights"):
        of_plan(model, plan(fast=PlanVariant(cost=0.4, digest="0" * 64)))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"shape": (1, 2, 2)}, r"samples of the shape \(1, 2, 2\), and 'toy' \(1, 4, 4\)"),
        ({"prediction_type": "edm"}, "predictions of the type edm, and 'toy' sample"),
        ({"schedule": DiscreteVP.named()}, "has other noise levels than 'toy'"),
        ({"conditions": torch.arange(3)}, r"conditions of the shape \(3,\), and 'toy' None"),
        ({"network": lambda x, t: x}, "has no multiplications to count"),
    ],
)
def test_what_cannot_stand_in_is_told(other: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        with_others(toy(), [("fast", replace(toy(), **other))])
    assert "\n" not in str(caught.value)


def test_a_model_is_loaded_with_others(tmp_path: Path) -> None:
    model = models.load("digits", Options(variant=("twin=digits",)))
    assert model.variants["twin"].cost == 1 and sorted(model.variants) == ["small", "twin"]
    for wrong in ("twin", "=digits", "twin=", "skip1=digits", "a twin=digits"):
        with pytest.raises(UserError, match=f"--variant {wrong}: a variant is NAME=MODEL"):
            models.load("digits", Options(variant=(wrong,)))
    with pytest.raises(UserError, match="mixture"):
        models.load("digits", Options(variant=("exact=mixture",)))


def test_a_factory_may_return_them() -> None:
    fields = {"network": Toy(), "schedule": VE(0.01, 10.0), "prediction_type": "sample", "shape": (1, 4, 4)}
    from solversearch.models.custom import made_by

    model = made_by(lambda: {**fields, "variants": {"fast": Toy((0.1,))}}, "mine()", "mine", "", known=True)
    network = model.variants["fast"].network
    assert model.variants["fast"].cost == pytest.approx(2 / 5) and isinstance(network, nn.Module)
    assert not any(each.requires_grad for each in network.parameters())
    for wrong in ({"skip2": Toy()}, {"fast": 3}, [Toy()]):
        with pytest.raises(UserError, match="variants must be networks by their names"):
            made_by(lambda: {**fields, "variants": wrong}, "mine()", "mine", "", known=True)  # noqa: B023
    with pytest.raises(UserError, match=r"mine.*a variant: the network, tried at t = .* returned the shape"):
        made_by(lambda: {**fields, "variants": {"fast": lambda x, t: x.flatten(1)}}, "mine()", "mine", "", known=True)


def test_a_cost_is_that_of_multiplications() -> None:
    model = toy()
    assert (
        operations(model, model.network) == 5 * 2 * 16 * 16 and operations(model, without(model, ["blocks.0"]).network) == 4 * 2 * 16 * 16
    )
