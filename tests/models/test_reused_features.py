"""Features that evaluations reuse: against networks that are run by hand, bit for bit, whatever goes on beside."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from solversearch import models
from solversearch.errors import UserError
from solversearch.memo import NO_MEMO, memoized
from solversearch.models.base import Clock, Denoiser, Model
from solversearch.models.digits import DigitsNetwork
from solversearch.models.skipping import blocks_of, reusing
from solversearch.models.variants import of_plan
from solversearch.plan import Plan, PlanVariant, Provenance
from solversearch.runtime import Node, Row, Tableau, run
from solversearch.sampling import sample, sample_together
from solversearch.schedules import VE
from solversearch.teacher import teach

PLAIN = models.load("digits")
FEW, MANY = "few", "many"
FOUND = {name: reusing(PLAIN, blocks_of(PLAIN, blocks)) for name, blocks in ((FEW, ["blocks.1"]), (MANY, ["blocks.0", "blocks.1"]))}
DIGITS = replace(PLAIN, variants={**PLAIN.variants, **FOUND})


def table(*variants: str, guidance: Sequence[float] = (3.0,), split: bool = True) -> Tableau:
    """Of no published solver, through nodes of these networks; a star is for one that reuses guidance differences."""
    times = torch.linspace(950, 60, len(variants)).tolist()
    nodes = [DIGITS.schedule.node(t) for t in times]
    nodes = [
        replace(node, variant=name.rstrip("*"), guidance=1.0 if "*" in name else guidance[i % len(guidance)],
                guidance_difference="reuse" if "*" in name and split else "compute")
        for i, (node, name) in enumerate(zip(nodes, variants, strict=True))
    ]  # fmt: skip
    rows = [Row(1.0)]
    for i in range(1, len(nodes) + 1):
        sigma = nodes[i].sigma if i < len(nodes) else 0.0
        delta = tuple(0.05 * (j + 1) * ("*" not in variants[j]) for j in range(i)) if split else ()
        rows.append(Row(sigma, tuple(0.2 / i * (j + 1) for j in range(i)), delta))
    return Tableau(tuple(nodes), tuple(rows))


def by_hand(network: DigitsNetwork) -> Callable[..., Tensor]:
    """The network of `models.digits` with what each block added where it was last run; skipped names those that are not."""

    def forward(x: Tensor, t: Tensor, condition: Tensor, added: dict[int, Tensor], skipped: Sequence[int]) -> Tensor:
        blocks = [*network.blocks]

        class Instead(nn.Module):
            def __init__(self, k: int) -> None:
                super().__init__()
                self.k = k

            def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
                if self.k in skipped:
                    return h + added[self.k]
                output: Tensor = blocks[self.k](h, embedding)
                added[self.k] = output - h
                return output

        network.blocks = nn.ModuleList(Instead(k) for k in range(len(blocks)))
        try:
            return network(x, t, condition)
        finally:
            network.blocks = nn.ModuleList(blocks)

    return forward


def reference(table: Tableau, noise: Tensor, conditions: Tensor) -> Tensor:
    """The table's samples, each network call made by hand; as many samples as fill a batch."""
    forward = by_hand(DIGITS.network)  # type: ignore[arg-type]
    memory: dict[bool, dict[int, Tensor]] = {True: {}, False: {}}
    skipped = {"": (), FEW: (1,), MANY: (0, 1)}
    predictions: list[Tensor] = []
    differences: list[Tensor] = []
    for node, row in zip((*table.nodes, None), table.rows, strict=True):
        x = row.x * noise
        for weights, known in ((row.d, predictions), (row.delta, differences)):
            for weight, each in zip(weights, known, strict=True):
                x = x.add(each, alpha=weight) if weight else x
        if node is None:
            return x

        def predicted(conditional: bool, x: Tensor = x, node: Node = node) -> Tensor:
            given = conditions if conditional else torch.full_like(conditions, 10)
            output = forward(x, torch.full((len(x),), node.t), given, memory[conditional], skipped[node.variant])
            return node.alpha * x - node.sigma * output  # alpha^2 + sigma^2 = 1, but for rounding

        prediction = predicted(True)
        difference = torch.zeros_like(x)
        if node.guidance != 1:
            free = predicted(False)
            difference = prediction - free
            prediction = free + node.guidance * difference
        predictions.append(prediction)
        differences.append(difference)
    raise AssertionError


PATTERNS = [("", FEW, MANY, ""), ("", MANY, FEW, MANY), ("", "*", MANY, f"{MANY}*"), ("", f"{FEW}*", f"{MANY}*", MANY, "", MANY)]


def drawn(count: int) -> tuple[Tensor, Tensor]:
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(count) % 10


@pytest.mark.parametrize("pattern", PATTERNS)
def test_samples_are_those_made_by_hand(pattern: tuple[str, ...]) -> None:
    """Also where an evaluation between was made with the condition alone: each half of guidance has the features of its own latest call."""
    given, (noise, conditions) = table(*pattern), drawn(64)
    with torch.no_grad():
        found = run(given.nodes, given.rows, Denoiser(DIGITS, conditions, split=True), noise)
        expected = reference(given, noise, conditions)
        plain = replace(given, nodes=tuple(replace(node, variant="") for node in given.nodes))
        apart = (run(plain.nodes, plain.rows, Denoiser(DIGITS, conditions, split=True), noise) - expected).norm()
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)
    assert float((found - expected).norm()) < 1e-4 * float(apart)


def test_a_network_call_is_that_made_by_hand_bit_for_bit() -> None:
    noise, conditions = drawn(64)
    model = replace(DIGITS, prediction_type="sample")
    nodes = [
        Node(900.0, 0.1, 1.0),
        Node(700.0, 0.1, 1.0, variant=FEW),
        Node(500.0, 0.1, 1.0, variant=MANY),
        Node(400.0, 0.1, 1.0, variant=MANY),
    ]
    denoise, forward, added = Denoiser(model, conditions).anew(nodes), by_hand(DIGITS.network), {}  # type: ignore[var-annotated, arg-type]
    with torch.no_grad():
        for node, skipped in zip(nodes, ((), (1,), (0, 1), (0, 1)), strict=True):
            assert torch.equal(denoise(noise, node), forward(noise, torch.full((64,), node.t), conditions, added, skipped))  # type: ignore[arg-type]
            noise = 0.7 * noise


def test_the_batch_changes_nothing() -> None:
    given = table("", f"{MANY}*", FEW, MANY)
    teacher = teach(DIGITS, "fit", 150, 3.0, 0, steps=8, trajectory=False)
    expected = sample(DIGITS, given, teacher, 512)
    for size in (64, 128):
        assert torch.equal(sample(DIGITS, given, teacher, size), expected)
    assert torch.equal(sample(DIGITS, given, teacher.first(30)), expected[:30])
    others = [table("", "", MANY, FEW), given, table("", "", "", ""), table("small", "", MANY, "")]
    together = sample_together(DIGITS, others, teacher, 512)
    assert torch.equal(together[1], expected) and len(together) == 4  # type: ignore[arg-type]
    for each, found in zip(others, together, strict=True):
        assert torch.equal(found, sample(DIGITS, each, teacher))  # type: ignore[arg-type]


def test_runs_do_not_see_each_other() -> None:
    given, (noise, conditions) = table("", MANY, MANY), drawn(64)
    denoise = Denoiser(DIGITS, conditions, split=True)

    def sampled(**hooks: Any) -> Tensor:
        with torch.no_grad():
            found: Tensor = run(given.nodes, given.rows, denoise, noise, **hooks)
        return found

    expected, inner = sampled(), list[Tensor]()
    assert torch.equal(sampled(callback=lambda i, x, d: inner.append(sampled())), expected)
    assert len(inner) == 3 and all(torch.equal(each, expected) for each in inner)
    with pytest.raises(UserError, match=r"'many' reuses features: make the denoiser for the sampling run, denoise\.anew\(nodes\)"):
        run(given.nodes, given.rows, memoized(denoise, NO_MEMO), noise)
    one = denoise.anew(given.nodes)
    with (
        torch.no_grad(),
        pytest.raises(UserError, match=r"has the features of another sampling run: make one for each, denoise\.anew\(nodes\)"),
    ):
        one(noise, given.nodes[0])
        one.conditions = conditions[:32]
        one(noise[:32], given.nodes[1])


def test_a_block_that_has_not_run_yet_is_run() -> None:
    noise, conditions = drawn(64)
    node = Node(500.0, 0.8, 0.6)
    with torch.no_grad():
        found = Denoiser(DIGITS, conditions).anew([replace(node, variant=MANY)])(noise, replace(node, variant=MANY))
        assert torch.equal(found, Denoiser(DIGITS, conditions)(noise, node))  # type: ignore[arg-type]


def test_gradients_go_through_what_is_remembered() -> None:
    """To the state in which it was computed, too; the same where activations are made again."""
    given, (noise, conditions), found = table("", MANY, f"{FEW}*", MANY), drawn(64), list[Tensor]()
    for checkpointing in (False, True):
        x, clock = noise.clone().requires_grad_(), Clock()
        denoise = Denoiser(DIGITS, conditions, split=True, clock=clock, checkpointing=checkpointing)
        torch.autograd.backward(run(given.nodes, given.rows, denoise, x).square().sum())
        assert x.grad is not None and clock.evaluations == given.network_calls * 64
        found.append(x.grad)
    x = noise.clone().requires_grad_()
    torch.autograd.backward(reference(given, x, conditions).square().sum())
    assert x.grad is not None
    torch.testing.assert_close(found[0], x.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=0)


def test_what_was_computed_before_is_remembered_again() -> None:
    """A search that goes on where it was stopped, in the middle of a sampling run."""

    class Memo:
        def __init__(self, kept: list[dict[str, Tensor]]) -> None:
            self.kept, self.at = kept, 0

        def tensors(self, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
            if self.at == len(self.kept):
                self.kept.append(compute())
            self.at += 1
            return self.kept[self.at - 1]

        def numbers(self, compute: Any) -> Any:
            raise AssertionError

    given, (noise, conditions) = table("", MANY, FEW, MANY), drawn(64)
    with torch.no_grad():
        kept: list[dict[str, Tensor]] = []
        results = []
        for stopped in (0, 1, 2, 3, 4):
            denoise = Denoiser(DIGITS, conditions, split=True).anew(given.nodes)
            results.append(run(given.nodes, given.rows, memoized(denoise, Memo(kept[:stopped] if stopped else kept)), noise))
    assert len(kept) == 4 and all(torch.equal(each, results[0]) for each in results)


class Deep(nn.Module):
    """Blocks whose output has another shape than what they are given, one in a tuple, and one that writes into what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([Halved(16, 8), Halved(8, 4)])
        self.up = nn.ModuleList([nn.Linear(4, 8), nn.Linear(8, 16), Writing(16)])
        for weight in self.parameters():
            nn.init.normal_(weight, 0, 0.3, generator=torch.Generator().manual_seed(weight.numel()))
        self.requires_grad_(False)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        first, kept = self.down[0](x.flatten(1) * t[:, None])
        second, more = self.down[1](first)
        h = self.up[0](second) + more.sum(1, keepdim=True)
        output: Tensor = self.up[2](self.up[1](h + first) + kept)
        return output.view_as(x)


class Halved(nn.Module):
    def __init__(self, wide: int, narrow: int) -> None:
        super().__init__()
        self.linear = nn.Linear(wide, narrow)

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        return self.linear(h).tanh(), h.sin()


class Writing(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, h: Tensor) -> Tensor:
        h += self.linear(h).tanh()
        return h


def test_blocks_of_other_shapes_return_what_they_returned() -> None:
    network = Deep()
    model = Model("deep", network, VE(0.01, 10.0), "sample", (1, 4, 4))
    deep = reusing(model, blocks_of(model, ["down.1", "up.0", "up.2"]))
    assert {block.name: block.keys for block in deep.reuses} == {"down.1": [None, 0], "up.0": [None], "up.2": [0]}
    model = replace(model, variants={"deep": deep})
    x, t = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.full((3,), 2.0)
    nodes = [Node(2.0, 1.0, 2.0), Node(1.0, 1.0, 1.0, variant="deep")]
    denoise = Denoiser(model, None).anew(nodes)
    assert torch.equal(denoise(x, nodes[0]), network(x, t))  # type: ignore[arg-type]
    first, kept = network.down[0](x.flatten(1) * 2.0)
    second, more = network.down[1](first)
    before = network.up[1](network.up[0](second) + more.sum(1, keepdim=True) + first) + kept
    added = network.up[2](before.clone()) - before
    now, kept = network.down[0](0.5 * x.flatten(1))
    h = network.up[0](second) + (now + (more - first)).sum(1, keepdim=True)
    h = network.up[1](h + now) + kept
    assert torch.equal(denoise(0.5 * x, nodes[1]), (h + added).view_as(x))  # type: ignore[arg-type]


def test_a_plan_brings_which_features_it_reuses() -> None:
    nodes = (DIGITS.schedule.node(900.0), replace(DIGITS.schedule.node(300.0), variant="fast"))
    fast = PlanVariant(cost=0.4, skips=("blocks.0", "blocks.1"), reuses_features=True)
    fields: dict[str, Any] = {
        "version": 3, "prediction_type": "v_prediction", "guidance": 1.0, "nfe": 2, "network_calls": 2, "nodes": nodes,
        "rows": (Row(1.0), Row(0.5, (0.5,)), Row(0.0, (0.0, 1.0))), "variants": {"fast": fast},
        "provenance": Provenance(model="digits", model_digest=""),
    }  # fmt: skip
    plan, (noise, conditions) = Plan(**fields), drawn(64)
    model = of_plan(PLAIN, plan)
    with torch.no_grad():
        found = plan.sample(Denoiser(model, conditions), noise)
        given = replace(plan.tableau, nodes=(nodes[0], replace(nodes[1], variant=MANY)))
        assert torch.equal(found, run(given.nodes, given.rows, Denoiser(DIGITS, conditions), noise))
    with pytest.raises(UserError, match=r"leaves out 'blocks.7', which is no block of 'digits'"):
        of_plan(DIGITS, Plan(**fields | {"variants": {"fast": fast.model_copy(update={"skips": ("blocks.7",)})}}))
