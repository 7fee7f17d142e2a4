"""The gradient polish."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

import solversearch.search.fitting.polish as module
from solversearch.errors import UserError
from solversearch.judging.objectives.endpoint import endpoint_mse, tempered
from solversearch.memory import Backward
from solversearch.models.base import Clock, Denoiser, Model, NotFinite
from solversearch.runtime import Tableau, run, steps
from solversearch.sampling import alone, sample
from solversearch.search.fitting.design_matrix import Recorder, weights
from solversearch.search.fitting.polish import polish
from solversearch.teacher import Teacher, teach
from tests.search.fitting.test_fit import baseline, mean_error


def objective(monkeypatch: pytest.MonkeyPatch, *arguments: Any, **options: Any) -> tuple[Any, int]:
    """The loss-and-gradient function that the polish hands to the optimiser, and its dimension."""
    taken: list[Any] = []

    def minimize(function: Any, theta: Any, **_: Any) -> None:
        taken.extend([function, len(theta)])

    with monkeypatch.context() as patch:
        patch.setattr("solversearch.search.fitting.quasi_newton.minimize", minimize)
        polish(*arguments, **options)
    return taken[0], taken[1]


def told_other_times(model: Model, table: Tableau, shift: float) -> Tableau:
    """The table with every time that the network is told moved by a shift of its position, and nothing else."""
    times = model.schedule.time_at(model.schedule.position([node.t for node in table.nodes]) + shift)
    return replace(table, nodes=tuple(replace(node, t=float(t)) for node, t in zip(table.nodes, times, strict=True)))


@pytest.mark.parametrize(("guidance", "split", "shift"), [(1.0, False, 0.0), (4.0, True, 0.0), (1.0, False, -0.2)])
def test_gradient_against_finite_differences(
    digits: Model, monkeypatch: pytest.MonkeyPatch, guidance: float, split: bool, shift: float
) -> None:
    teacher = teach(digits, "fit", 16, guidance=guidance)
    table = told_other_times(digits, baseline(digits, nfe=3, guidance=guidance), shift)
    function, size = objective(monkeypatch, digits, table, teacher, teacher, split=split, scale=1e-2)
    at = np.full(size, 0.01)
    gradient = function(at)[1]
    for k in range(size):
        step = np.zeros(size)
        step[k] = 2e-3
        slope = (function(at + step)[0] - function(at - step)[0]) / 4e-3
        assert slope == pytest.approx(gradient[k], abs=2e-2 * np.abs(gradient).max())


@pytest.mark.parametrize("shift", [0.0, -0.3])
def test_starts_at_the_given_table_and_moves_told_time_and_noise_level_alike(digits: Model, fitting: Teacher, shift: float) -> None:
    teacher, schedule = fitting.first(16), digits.schedule
    table = told_other_times(digits, baseline(digits, nfe=3), shift)
    seen = Recorder(teacher.noise, False)
    alone(Denoiser(digits, teacher.conditions), seen.watched(steps(table.nodes, table.rows, teacher.noise)))
    coordinates = module._Coordinates(digits, table, seen, times=True)
    theta = torch.zeros(sum(coordinates.sizes), dtype=torch.float64)
    assert coordinates.table_at(theta) == table
    nodes, rows = coordinates.differentiable(theta.expand(16, -1), teacher.noise.double())
    for node, given in zip(nodes, table.nodes, strict=True):
        assert all(torch.all(getattr(node, name) == getattr(given, name)) for name in ("t", "alpha", "sigma"))
    for i, (row, start) in enumerate(zip(rows, table.rows, strict=True)):
        numbers: list[Any] = [row.x, *row.d]
        assert torch.equal(torch.stack(numbers)[:, 0].flatten(), weights(start, i, False))
    theta[1] = -0.1
    moved, given = coordinates.table_at(theta).nodes[1], table.nodes[1]
    assert float(schedule.position(moved.t) - schedule.position(given.t)) == pytest.approx(-0.1, abs=1e-9)
    levels = [np.log(np.tan(np.arctan2(node.sigma, node.alpha) / 2)) for node in (moved, given)]
    assert levels[0] - levels[1] == pytest.approx(-0.1, abs=1e-9)


@pytest.mark.parametrize("batch_size", [16, 37, 64])
def test_gradient_does_not_depend_on_the_batch_size(
    digits: Model, fitting: Teacher, monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    whole, size = objective(monkeypatch, digits, baseline(digits), fitting, fitting, batch_size=256)
    parts, _ = objective(monkeypatch, digits, baseline(digits), fitting, fitting, batch_size=batch_size)
    at = np.full(size, 0.01)
    assert whole(at)[0] == parts(at)[0]
    assert np.array_equal(whole(at)[1], parts(at)[1])


@pytest.mark.parametrize(("guidance", "split"), [(1.0, False), (4.0, True)])
def test_checkpoints_change_no_gradient_and_cost_one_forward_more(
    digits: Model, monkeypatch: pytest.MonkeyPatch, guidance: float, split: bool
) -> None:
    teacher, table = teach(digits, "fit", 64, guidance), baseline(digits, nfe=3, guidance=guidance)
    calls: list[int] = []

    def network(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        calls.append(len(x))
        return digits.network(x, t, condition)

    found = []
    for way in (Backward(64, False), Backward(64, True)):
        clock = Clock()
        function, size = objective(
            monkeypatch, replace(digits, network=network), table, teacher, teacher, split=split, scale=1e-2, way=way, clock=clock
        )  # fmt: skip
        calls.clear()
        before = clock.evaluations
        found.append(function(np.full(size, 0.01)))
        forward = 3 * (2 if split else 1)
        assert len(calls) == forward * (2 if way.checkpointing else 1)
        assert clock.evaluations - before == 64 * forward * (4 if way.checkpointing else 3)
    assert found[0][0] == found[1][0] and np.array_equal(found[0][1], found[1][1])


def test_checkpoints_keep_the_activations_of_one_evaluation(digits: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """What autograd keeps from the forward pass of eight evaluations: with checkpoints less than without for one."""
    teacher, table = teach(digits, "fit", 64), baseline(digits, nfe=8)
    kept = {}
    for way in (Backward(64, False), Backward(64, True)):
        function, size = objective(monkeypatch, digits, table, teacher, teacher, way=way)
        bytes_of: dict[int, int] = {}

        def keep(tensor: Tensor, bytes_of: dict[int, int] = bytes_of) -> Tensor:
            bytes_of[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
            return tensor

        with monkeypatch.context() as patch:
            patch.setattr(torch.autograd, "grad", lambda loss, copies: (torch.zeros_like(copies),))
            with saved_tensors_hooks(keep, lambda tensor: tensor):
                function(np.zeros(size))
        kept[way.checkpointing] = sum(bytes_of.values())
    assert kept[True] < kept[False] / 8


def test_a_polish_that_runs_out_of_memory_takes_less_of_it(digits: Model, fitting: Teacher, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def network(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            sizes.append(len(x))
            if len(x) > room:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return digits.network(x, t, condition)

    room, small = 64, replace(digits, network=network)
    whole, size = objective(monkeypatch, digits, baseline(digits), fitting, fitting)
    parts, _ = objective(monkeypatch, small, baseline(digits), fitting, fitting, way=Backward(128, False))
    at = np.full(size, 0.01)
    value, gradient = parts(at)
    assert value == whole(at)[0] and np.array_equal(gradient, whole(at)[1])
    assert sizes[:3] == [128, 128, 64] and max(sizes[2:]) == 64
    room = 0
    with pytest.raises(UserError, match="the polish of model 'digits' runs out of memory on cpu even with one sample at a time; leave it"):
        parts(at)


def test_polish_beats_its_start_on_held_out_noise(digits: Model, fitting: Teacher, validation: Teacher, held_out: Teacher) -> None:
    start = baseline(digits, nfe=4)
    table = polish(digits, start, fitting, validation, iterations=25, scale=1e-2)
    assert mean_error(digits, table, held_out) < 0.6 * mean_error(digits, start, held_out)
    assert [node.t for node in table.nodes] != [node.t for node in start.nodes]


def test_times_can_be_held(digits: Model, fitting: Teacher, validation: Teacher) -> None:
    start = baseline(digits, nfe=3)
    table = polish(digits, start, fitting, validation, iterations=5, times=False)
    assert table.nodes == start.nodes and table.rows != start.rows


def test_never_worse_on_validation_and_stops_early(digits: Model, fitting: Teacher, validation: Teacher) -> None:
    start = baseline(digits, nfe=3)
    losses: list[float] = []
    table = polish(digits, start, fitting, validation, iterations=400, patience=3, progress=lambda i, loss: losses.append(loss))

    def loss(candidate: Tableau) -> float:
        return float(endpoint_mse(sample(digits, candidate, validation), validation.endpoint).mean())

    assert len(losses) < 400
    assert losses == sorted(losses, reverse=True)
    assert loss(table) == pytest.approx(losses[-1], rel=1e-5) and losses[-1] < loss(start)


def test_a_network_that_fails_far_away_does_not_end_the_polish(
    digits: Model, fitting: Teacher, validation: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, calls = baseline(digits, nfe=3), 0

    def failing(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise NotFinite("too far")
        return run(*arguments, **options)

    monkeypatch.setattr(module, "run", failing)
    table = polish(digits, start, fitting, validation, iterations=8)
    assert calls > 4
    assert mean_error(digits, table, validation) < mean_error(digits, start, validation)


def test_tempered_is_linear_below_the_scale_and_logarithmic_above() -> None:
    error = torch.tensor([1e-6, 1e3], dtype=torch.float64)
    low, high = tempered(error, 1.0).tolist()
    assert low == pytest.approx(1e-6, rel=1e-5) and high == pytest.approx(np.log(1001.0))
    assert torch.equal(tempered(error, None), error)
