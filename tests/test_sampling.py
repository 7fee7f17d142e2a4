"""Several sampling loops in lockstep: each gives what it gives alone, bit for bit, and no network batch is larger than asked for."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from solversearch import models
from solversearch.errors import UserError
from solversearch.grids import grid
from solversearch.models.base import Clock, Denoiser, Model, NotFinite
from solversearch.runtime import Node, Tableau
from solversearch.sampling import Sampler, alone, lockstep, sample, sample_together
from solversearch.solvers import get
from solversearch.teacher import Teacher, teach


@pytest.fixture(scope="module")
def digits() -> Model:
    return models.load("digits")


@pytest.fixture(scope="module")
def teacher(digits: Model) -> Teacher:
    return teach(digits, "validate", 64, trajectory=False)


def tables(model: Model) -> list[Tableau]:
    """Of different lengths, guidance and kinds; one of them stochastic."""
    made = [("ddim", "linspace", 3, 1.0), ("unipc_3", "logsnr", 5, 4.0), ("dpmpp_2m_sde", "karras", 4, 1.0), ("heun", "quadratic", 4, 2.0)]
    return [get(solver).tableau(model.schedule, grid(name, model.schedule, nfe)).guided(guidance) for solver, name, nfe, guidance in made]


@pytest.mark.parametrize("batch_size", [64, 128, 512])
def test_each_table_gives_what_it_gives_alone(digits: Model, teacher: Teacher, batch_size: int) -> None:
    together, single = Clock(), Clock()
    found = sample_together(digits, tables(digits), teacher, batch_size, together)
    for table, samples in zip(tables(digits), found, strict=True):
        assert isinstance(samples, Tensor) and torch.equal(samples, sample(digits, table, teacher, batch_size, single))
    assert together.evaluations == single.evaluations


def test_a_node_that_reuses_makes_one_call(digits: Model, teacher: Teacher) -> None:
    """Beside others in a batch, too: its table is the one that takes the same sums over D_c by itself."""
    whole = tables(digits)[1]
    nodes = tuple(replace(node, guidance=1.0, guidance_difference="reuse") if i in (2, 4) else node for i, node in enumerate(whole.nodes))
    table = Tableau(nodes, tuple(replace(row, delta=(0.3, 0.0, 0.0, -0.2)[:i]) for i, row in enumerate(whole.rows)))
    alone, together = Clock(), Clock()
    expected = sample(digits, table, teacher, clock=alone)
    other = replace(table, nodes=tuple(replace(node, guidance_difference="compute") for node in nodes))
    same, near = sample_together(digits, [table, other], teacher, clock=together)
    assert isinstance(same, Tensor) and torch.equal(same, expected)
    assert isinstance(near, Tensor) and torch.allclose(near, expected, rtol=0, atol=1e-4)  # D_u + (D_c - D_u) is rounded
    assert (table.network_calls, other.network_calls) == (8, 10)
    assert alone.evaluations == 64 * 8 and together.evaluations == 64 * 18


def test_one_that_runs_away_ends_alone(digits: Model, teacher: Teacher) -> None:
    given = tables(digits)
    wild = replace(given[0], rows=(replace(given[0].rows[0], x=float(torch.finfo(torch.float32).max) * 2), *given[0].rows[1:]))
    before, failed, after = sample_together(digits, [given[1], wild, given[2]], teacher)
    assert isinstance(failed, NotFinite)
    assert isinstance(before, Tensor) and torch.equal(before, sample(digits, given[1], teacher))
    assert isinstance(after, Tensor) and torch.equal(after, sample(digits, given[2], teacher))


def counted(steps: int, node: Node, fails: Exception | None = None) -> Sampler[int]:
    for k in range(steps):
        yield torch.full((2, 3), float(k)), node
    if fails:
        raise fails
    return steps


def test_loops_of_any_length_and_failure_share_network_calls() -> None:
    sizes: list[int] = []

    def network(x: Tensor, t: Tensor) -> Tensor:
        sizes.append(len(x))
        return x

    model = Model("seen", network, models.load("digits").schedule, "sample", (3,))
    node, error = model.schedule.node(5.0), ValueError("no such row")
    loops = [counted(2, node), counted(0, node), counted(1, node, error), counted(4, node)]
    assert lockstep(Denoiser(model, None, 6), loops, 2) == [2, 0, error, 4]
    assert sizes == [4, 2, 2, 2, 2, 2]  # three at a time: the fourth waits
    assert alone(Denoiser(model, None), counted(3, node)) == 3
    with pytest.raises(ValueError, match="no such row"):
        alone(Denoiser(model, None), counted(1, node, error))


def test_what_concerns_all_is_raised(teacher: Teacher, digits: Model) -> None:
    free = replace(digits, null_condition=None)
    with pytest.raises(UserError, match="no null condition"):
        sample_together(free, tables(digits), teacher)


def test_batches_never_exceed_what_is_asked_for(teacher: Teacher, digits: Model) -> None:
    seen: list[int] = []

    def network(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        seen.append(len(x))
        return digits.network(x, t, condition)

    small = replace(digits, network=network, pad=1)
    for size in (2, 100, 300):
        seen.clear()
        sample_together(small, tables(digits), teacher.first(50), size)
        assert max(seen) == min(size, 200)


@pytest.fixture(autouse=True)
def no_gradients_are_left() -> Iterator[None]:
    yield
    assert torch.is_grad_enabled()
