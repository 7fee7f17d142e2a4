"""The gradient polish."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

import solversearch.search.fitting.polish as module
from solversearch.errors import UserError
from solversearch.grids import grid
from solversearch.judging.objectives.endpoint import endpoint_mse, tempered
from solversearch.memory import Backward
from solversearch.models.base import Clock, Denoiser, Model, NotFinite
from solversearch.runtime import Tableau, run, steps
from solversearch.sampling import alone, sample
from solversearch.schedules import VE
from solversearch.search.fitting.coordinates import Coordinates
from solversearch.search.fitting.design_matrix import Recorder, differences, frugal, weights
from solversearch.search.fitting.polish import GaussNewton, polish
from solversearch.search.stages.components import components
from solversearch.solvers import get
from solversearch.teacher import Teacher, teach
from tests.search.fitting.test_fit import baseline, mean_error, without_guidance

WAY = Backward(64, False)


def gradients(model: Model, table: Tableau, teacher: Teacher, split: bool = False, way: Backward = WAY, clock: Clock | None = None) -> Any:
    """What the polish asks for errors and gradients, and the count of numbers it moves."""
    table = replace(table, nodes=frugal(table)) if split else table
    seen = Recorder(teacher.noise, differences(table.nodes) if split else ())
    alone(Denoiser(model, teacher.conditions, split=split), seen.watched(steps(table.nodes, table.rows, teacher.noise)))
    coordinates = Coordinates(model, table, seen, times=True)
    return module.Gradients(model, coordinates, teacher, split, clock or Clock(), way), sum(coordinates.sizes)


class KeptInMemory:
    """A memo that goes through what is kept before it computes."""

    def __init__(self, kept: list[dict[str, Tensor]]) -> None:
        self.kept, self.place = kept, 0

    def tensors(self, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        if self.place == len(self.kept):
            self.kept.append(compute())
        self.place += 1
        return self.kept[self.place - 1]

    def numbers(self, compute: Callable[[], Sequence[float]]) -> Sequence[float]:
        raise AssertionError


def last(*arguments: Any, **options: Any) -> Tableau:
    """The table at the end of a polish."""
    return list(polish(*arguments, **options))[-1]


def told_other_times(model: Model, table: Tableau, shift: float) -> Tableau:
    """The table with every time that the network is told moved by a shift of its position, and nothing else."""
    times = model.schedule.time_at(model.schedule.position([node.t for node in table.nodes]) + shift)
    return replace(table, nodes=tuple(replace(node, t=float(t)) for node, t in zip(table.nodes, times, strict=True)))


@pytest.mark.parametrize(
    ("guidance", "split", "shift", "saved", "numbers"),
    [
        (1.0, False, 0.0, (), 3 + 1 + 2 + 3 + 4),
        (4.0, True, 0.0, (), 3 + 1 + 3 + 5 + 7),
        (1.0, False, -0.2, (), 13),
        (4.0, True, 0.0, (1,), 3 + 1 + 3 + 4 + 6),
    ],
)
def test_gradient_against_finite_differences(
    digits: Model, guidance: float, split: bool, shift: float, saved: tuple[int, ...], numbers: int
) -> None:
    teacher = teach(digits, "fit", 16, guidance=guidance)
    table = without_guidance(told_other_times(digits, baseline(digits, nfe=3, guidance=guidance), shift), *saved)
    function, size = gradients(digits, table, teacher, split)
    assert size == numbers
    at, places = torch.full((size,), 0.01, dtype=torch.float64), list(range(16))
    gradient = function(at, places)[1]
    assert gradient.shape == (16, size)
    for k in range(size):
        step = 2e-3 * torch.eye(size, dtype=torch.float64)[k]
        slope = (function(at + step, places)[0] - function(at - step, places)[0]) / 4e-3
        assert torch.allclose(slope, gradient[:, k], rtol=0, atol=2e-2 * float(gradient.abs().max()))


@pytest.mark.parametrize("shift", [0.0, -0.3])
def test_starts_at_the_given_table_and_moves_told_time_and_noise_level_alike(digits: Model, fitting: Teacher, shift: float) -> None:
    teacher, schedule = fitting.first(16), digits.schedule
    table = told_other_times(digits, baseline(digits, nfe=3), shift)
    seen = Recorder(teacher.noise)
    alone(Denoiser(digits, teacher.conditions), seen.watched(steps(table.nodes, table.rows, teacher.noise)))
    coordinates = Coordinates(digits, table, seen, times=True)
    theta = torch.zeros(sum(coordinates.sizes), dtype=torch.float64)
    assert coordinates.table_at(theta) == table
    nodes, rows = coordinates.differentiable(theta.expand(16, -1), teacher.noise.double())
    for node, given in zip(nodes, table.nodes, strict=True):
        assert all(torch.all(getattr(node, name) == getattr(given, name)) for name in ("t", "alpha", "sigma"))
    for i, (row, start) in enumerate(zip(rows, table.rows, strict=True)):
        numbers: list[Any] = [row.x, *row.d]
        assert torch.equal(torch.stack(numbers)[:, 0].flatten(), weights(start, i)[0])
    theta[1] = -0.1
    moved, given = coordinates.table_at(theta).nodes[1], table.nodes[1]
    assert float(schedule.position(moved.t) - schedule.position(given.t)) == pytest.approx(-0.1, abs=1e-9)
    levels = [np.log(np.tan(np.arctan2(node.sigma, node.alpha) / 2)) for node in (moved, given)]
    assert levels[0] - levels[1] == pytest.approx(-0.1, abs=1e-9)


def test_gradient_does_not_depend_on_how_many_are_made_together(digits: Model, fitting: Teacher) -> None:
    (whole, numbers), (parts, _) = (gradients(digits, baseline(digits), fitting, way=Backward(each, False)) for each in (128, 64))
    at, places = torch.full((numbers,), 0.01, dtype=torch.float64), [5, 3, *range(20, 96)]
    for a, b in zip(whole(at, places), parts(at, places), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(("guidance", "split"), [(1.0, False), (4.0, True)])
def test_checkpoints_change_no_gradient_and_cost_one_forward_more(digits: Model, guidance: float, split: bool) -> None:
    teacher, table = teach(digits, "fit", 64, guidance), baseline(digits, nfe=3, guidance=guidance)
    calls: list[int] = []

    def network(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        calls.append(len(x))
        return digits.network(x, t, condition)

    found = []
    for way in (Backward(64, False), Backward(64, True)):
        clock = Clock()
        function, size = gradients(replace(digits, network=network), table, teacher, split, way, clock)
        calls.clear()
        found.append(function(torch.full((size,), 0.01, dtype=torch.float64), list(range(64))))
        forward = 3 * (2 if split else 1)
        assert len(calls) == forward * (2 if way.checkpointing else 1)
        assert clock.evaluations == 64 * forward * (4 if way.checkpointing else 3)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_checkpoints_keep_the_activations_of_one_evaluation(digits: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """What autograd keeps from the forward pass of eight evaluations: with checkpoints less than without for one."""
    teacher, table = teach(digits, "fit", 64), baseline(digits, nfe=8)
    kept = {}
    for way in (Backward(64, False), Backward(64, True)):
        function, size = gradients(digits, table, teacher, way=way)
        bytes_of: dict[int, int] = {}

        def keep(tensor: Tensor, bytes_of: dict[int, int] = bytes_of) -> Tensor:
            bytes_of[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
            return tensor

        with monkeypatch.context() as patch:
            patch.setattr(torch.autograd, "grad", lambda loss, moved: tuple(map(torch.zeros_like, moved)))
            with saved_tensors_hooks(keep, lambda tensor: tensor):
                function(torch.zeros(size, dtype=torch.float64), list(range(64)))
        kept[way.checkpointing] = sum(bytes_of.values())
    assert kept[True] < kept[False] / 8


def test_a_polish_that_runs_out_of_memory_takes_less_of_it(digits: Model, fitting: Teacher) -> None:
    sizes: list[int] = []

    def network(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            sizes.append(len(x))
            if len(x) > room:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return digits.network(x, t, condition)

    room, small = 512, replace(digits, network=network)
    whole, size = gradients(digits, baseline(digits), fitting)
    parts, _ = gradients(small, baseline(digits), fitting, way=Backward(128, False))
    at, places = torch.full((size,), 0.01, dtype=torch.float64), list(range(96))
    sizes.clear()
    room = 64
    assert all(torch.equal(a, b) for a, b in zip(parts(at, places), whole(at, places), strict=True))
    assert sizes[:3] == [128, 128, 64] and max(sizes[2:]) == 64
    room = 0
    with pytest.raises(UserError, match="the polish of model 'digits' runs out of memory on cpu even with one sample at a time; leave it"):
        parts(at, places)


def test_steps_solve_a_weighted_least_squares_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of residuals J theta - b, one a sample, some of them far off: the weights of the first step are known, and so is where it ends."""
    monkeypatch.setattr(module, "REACH", 1e9)
    rng = np.random.default_rng(0)
    jacobian, b = rng.standard_normal((200, 5)) * [1, 2, 3, 4, 5], rng.standard_normal(200)
    b[:10] *= 100
    error, gradient = torch.from_numpy(b**2), torch.from_numpy(-2 * b[:, None] * jacobian)
    median = float(np.sort(b**2)[99])  # torch takes the lower of the two in the middle
    for bound in (3.0, 1e12):
        weight = np.sqrt(1 / (1 + b**2 / (bound * median)))
        expected, *_ = np.linalg.lstsq(weight[:, None] * jacobian, weight * b, rcond=None)
        theta = GaussNewton(bound, 0.0).step(error, gradient, 1.0).numpy()
        assert np.abs(theta - expected).max() < 1e-9 * np.abs(expected).max()
        assert np.allclose(GaussNewton(bound, 0.0).step(error, gradient, 0.5).numpy(), theta / 2)


def test_repeated_steps_end_at_the_minimum_of_the_tempered_error() -> None:
    rng = np.random.default_rng(1)
    jacobian, true = rng.standard_normal((400, 3)), np.array([1.0, -2.0, 0.5])
    b = jacobian @ true + 0.1 * rng.standard_normal(400)
    b[:40] += 20.0  # outliers, all to one side
    theta, newton = np.zeros(3), GaussNewton(3.0)
    for k in range(300):
        residual = jacobian @ theta - b
        theta += newton.step(torch.from_numpy(residual**2), torch.from_numpy(2 * residual[:, None] * jacobian), 0.3 * (1 - k / 300)).numpy()
    plain, *_ = np.linalg.lstsq(jacobian, b, rcond=None)
    assert np.abs(theta - true).max() < 0.03 and np.abs(plain - true).max() > 0.3


def test_a_step_is_bounded_by_what_it_would_change_of_a_sample() -> None:
    error, gradient = torch.full((8,), 4.0, dtype=torch.float64), torch.full((8, 1), 2.0, dtype=torch.float64)
    # r = 2, g = 2 r J: J = 1/2, the whole step is -4, and a step d changes a residual by d / 2: by a tenth of 2, at most.
    assert float(GaussNewton(3.0).step(error, gradient, 1.0)) == pytest.approx(-2 * module.REACH * 2, rel=1e-3)
    assert float(GaussNewton(3.0).step(error, gradient, 1e-3)) == pytest.approx(-4e-3, rel=1e-3)


def test_every_sample_is_seen_as_often_as_any_other() -> None:
    batches = module.batches(10, 4, seed=3)
    seen = [place for _, batch in zip(range(5), batches, strict=False) for place in batch]
    assert sorted(seen) == sorted([*range(10)] * 2) and seen != sorted(seen)
    again = module.batches(10, 4, seed=3)
    assert seen == [place for _, batch in zip(range(5), again, strict=False) for place in batch]


def test_polish_beats_its_start_on_held_out_noise(digits: Model, fitting: Teacher, held_out: Teacher) -> None:
    start = baseline(digits, nfe=4)
    table = last(digits, start, fitting, 50)
    assert mean_error(digits, table, held_out) < 0.5 * mean_error(digits, start, held_out)
    assert [node.t for node in table.nodes] != [node.t for node in start.nodes]


def test_a_greater_bound_gives_the_mean_for_the_median(digits: Model, fitting: Teacher) -> None:
    few, many = (endpoint_mse(sample(digits, last(digits, baseline(digits, nfe=4), fitting, 60, bound), fitting), fitting.endpoint)
                 for bound in (1.0, 100.0))  # fmt: skip
    assert few.median() < many.median() and many.mean() < few.mean()


@pytest.mark.parametrize(("bands", "channels", "damping"), [(1, False, 1e-3), (3, False, 1e-3), (1, True, 3.0), (4, False, 3.0)])
def test_what_many_numbers_are_damped_by(bands: int, channels: bool, damping: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Channel directions, or more than `MANY` numbers, ran away with little damping: see there."""
    monkeypatch.setattr(module, "MANY", 20)  # at two evaluations 5 numbers a component and three times are 18 for three, 23 for four
    model = Model("colours", lambda x, t: 0.3 * x + 0.05 * x.sin(), VE(0.01, 10.0), "sample", (3, 8, 8))
    taught, used = teach(model, "fit", 32, steps=16), list[float]()

    def seen(bound: float, damping: float) -> GaussNewton:
        used.append(damping)
        return GaussNewton(bound, damping)

    monkeypatch.setattr(module, "GaussNewton", seen)
    start = get("dpmpp_2m").tableau(model.schedule, grid("logsnr", model.schedule, 2))
    last(model, replace(start, components=components(bands, channels, taught.endpoint)), taught, 2, batch=8)
    assert used == [damping]


def test_nodes_that_reuse_are_polished_at_their_price(digits: Model) -> None:
    teacher, held = teach(digits, "fit", 256, guidance=4.0), teach(digits, "held_out", 256, guidance=4.0)
    clock, start = Clock(), without_guidance(baseline(digits, nfe=4, guidance=4.0), 2)
    table = last(digits, start, teacher, 12, split=True, clock=clock)
    assert [node.reuses for node in table.nodes] == [False, False, True, False] and table.network_calls == start.network_calls == 7
    assert clock.evaluations == module.cost(7, 12, 256)
    assert mean_error(digits, table, held) < 0.75 * mean_error(digits, start, held)
    again = last(digits, table, teacher, 2, split=True)  # nodes keep what they are, and the rows know it
    assert [node.reuses for node in again.nodes] == [node.reuses for node in table.nodes]


def test_times_can_be_held(digits: Model, fitting: Teacher) -> None:
    start = baseline(digits, nfe=3)
    table = last(digits, start, fitting, 5, times=False)
    assert table.nodes == start.nodes and table.rows != start.rows


def test_tables_on_the_way_and_what_it_costs(digits: Model, fitting: Teacher) -> None:
    clock, told = Clock(), list[int]()
    start = baseline(digits, nfe=3)
    tables = list(polish(digits, start, fitting, 8, batch=16, clock=clock, progress=lambda step, median: told.append(step)))
    assert told == list(range(1, 9)) and len(set(tables)) == len(tables) == len(module.KEPT)
    assert clock.evaluations == module.cost(3, 8, len(fitting), batch=16)
    assert tables[0] == next(polish(digits, start, fitting, 8, batch=16, batch_size=64))


def test_what_an_earlier_process_has_seen_is_not_evaluated_again(digits: Model, fitting: Teacher) -> None:
    clock, kept, start = Clock(), list[dict[str, Tensor]](), baseline(digits, nfe=3)
    whole = list(polish(digits, start, fitting, 4, memo=KeptInMemory(kept)))
    again = list(polish(digits, start, fitting, 4, clock=clock, memo=KeptInMemory(kept)))
    assert again == whole and clock.evaluations == 0


@pytest.mark.parametrize("failing", [module.FIRST + 3, module.FIRST + 7])
def test_a_network_that_fails_far_away_does_not_end_the_polish(
    digits: Model, fitting: Teacher, validation: Teacher, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    start, calls = baseline(digits, nfe=3), 0

    def running(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == failing:
            raise NotFinite("too far")
        return run(*arguments, **options)

    monkeypatch.setattr(module, "run", running)
    table = last(digits, start, fitting, 12)
    assert calls == module.FIRST + 12
    assert mean_error(digits, table, validation) < mean_error(digits, start, validation)


def test_tempered_is_linear_below_the_scale_and_logarithmic_above() -> None:
    error = torch.tensor([1e-6, 1e3], dtype=torch.float64)
    low, high = tempered(error, 1.0).tolist()
    assert low == pytest.approx(1e-6, rel=1e-5) and high == pytest.approx(np.log(1001.0))
    assert torch.equal(tempered(error, None), error)
