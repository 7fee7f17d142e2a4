"""Components of the best table: which are tried, what they are, and when they are taken."""

from typing import Any

import numpy as np
import pytest
import torch

from solversearch.models.base import Clock, Model
from solversearch.runtime import Row, Tableau, run
from solversearch.schedules import VE
from solversearch.search.evaluating.evaluations import Log
from solversearch.search.evaluating.evaluator import Evaluator
from solversearch.search.fitting.coordinates import Coordinates
from solversearch.search.fitting.design_matrix import Recorder
from solversearch.search.settings import Settings
from solversearch.search.stages import components
from solversearch.search.stages.components import choices, principal
from solversearch.search.stages.task import Budget, Task
from solversearch.spaces import SearchSpace
from solversearch.spaces.sections import ComponentChoice

ALL = {"bands": [1, 3], "channels": [False, True]}
BUDGET = Budget(None, Clock(), 0)


def model_of(variance: torch.Tensor) -> Model:
    """Pictures (2, 8, 8) that are nearly Gaussian, each channel of its own variance."""

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return x * variance / (variance + t[:, None, None, None] ** 2) + 0.05 * torch.sin(x)

    return Model("gaussian", network, VE(0.01, 10.0), "sample", (2, 8, 8))


def searched(model: Model, space: dict[str, Any] = ALL, budget: Budget = BUDGET) -> list[Any]:
    asked = SearchSpace(name="own", components=ComponentChoice(**space))
    settings = Settings.of(asked, nfe=1, fit_samples=64, validation_samples=64, samples=64).sized(model)
    task = Task(model, settings, lambda *_: None, Log())
    fitting, validation = task.teacher("fit", 64), task.teacher("validate", 64)
    evaluator = Evaluator(model, fitting, validation, task.objectives, 0.01, False, 512, task.clock)
    start = evaluator.table(Tableau((model.schedule.node(10.0),), (Row(10.0), Row(0.1, (0.9,)))), {"solver": "none"})
    return [start, *components.run(task, evaluator, budget, [start])]


def test_components_are_taken_where_the_data_has_them() -> None:
    start, found = searched(model_of(torch.tensor([1.0, 0.04])[:, None, None]))
    assert found.origin == {"solver": "none", "bands": 1, "channels": True}
    assert found.value < 0.2 * start.value and len(found.table.components) == 2


def test_the_plain_table_stays_where_they_bring_nothing() -> None:
    start, found = searched(model_of(torch.tensor(0.5)))
    assert found.table.components is None and found.origin == {"solver": "none"} and found.value < start.value


def test_a_spent_budget_leaves_them_out() -> None:
    assert len(searched(model_of(torch.tensor(0.5)), budget=Budget(1, Clock(evaluations=1), 0))) == 1


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((3, 8, 8), [(1, False), (1, True), (3, False), (3, True)]),
        ((1, 8, 8), [(1, False), (3, False)]),
        ((4, 1, 1), [(1, False), (1, True)]),
        ((2,), []),
        ((16, 64), []),
        ((1, 1, 1), []),
        ((1, 2, 2), []),  # its three frequencies are not near the finest band
    ],
)
def test_what_a_shape_has_room_for(shape: tuple[int, ...], expected: list[tuple[int, bool]]) -> None:
    assert choices(ComponentChoice(bands=(1, 3), channels=(False, True)), shape) == expected


def test_directions_are_the_principal_ones() -> None:
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    samples = torch.tensor(np.einsum("dc,ncs->nds", rotation, np.random.default_rng(1).normal(size=(400, 3, 16)) * [[3.0], [1.0], [0.1]]))
    found = np.array(principal(samples))
    np.testing.assert_allclose(found @ found.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(np.abs(np.diag(found @ rotation)), 1, atol=0.01)
    assert (found[range(3), np.abs(found).argmax(1)] > 0).all()


def test_the_polish_moves_every_component() -> None:
    """One number of the first row, and of the others as many as they have coefficients; copies a sample sample as the table does."""
    model = model_of(torch.tensor([1.0, 0.04])[:, None, None])
    (_, found) = searched(model, {"bands": [3], "channels": [True]})
    noise = torch.randn(4, 2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    seen = Recorder(noise, components=found.table.components)
    seen.d.append(seen.transformed(model.network(10 * noise, torch.full((4,), 10.0))))
    coordinates = Coordinates(model, found.table, seen, times=True)
    assert coordinates.sizes == [1, 1, 12]
    assert coordinates.table_at(torch.zeros(14, dtype=torch.float64)).rows == found.table.rows
    theta = 0.1 * torch.randn(14, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    table = coordinates.table_at(theta)
    nodes, rows = coordinates.differentiable(theta.expand(4, -1), noise)

    def denoise(x: torch.Tensor, node: Any) -> torch.Tensor:
        return model.network(x, torch.as_tensor(node.t).expand(4))

    one = run(table.nodes, table.rows, denoise, noise, components=table.components)
    many = run(nodes, rows, denoise, noise, components=table.components)
    torch.testing.assert_close(one, many, atol=1e-6, rtol=1e-5)
    assert (one - run(found.table.nodes, found.table.rows, denoise, noise, components=table.components)).abs().max() > 1e-3
