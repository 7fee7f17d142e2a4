"""Search spaces: from YAML to candidates to tables."""

from pathlib import Path

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from solversearch.errors import UserError
from solversearch.schedules import VE, DiscreteVP, Flow, LinearVP, NoiseSchedule, grid
from solversearch.spaces import SearchSpace

SCHEDULES: list[NoiseSchedule] = [
    DiscreteVP.named(), DiscreteVP.named(zero_terminal_snr=True), LinearVP(), VE(), Flow(shift=3.0, scale=1000.0),
]  # fmt: skip


def test_the_shipped_file_is_the_default() -> None:
    assert SearchSpace.read(Path(__file__).parents[1] / "search_spaces" / "default.yaml") == SearchSpace()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("solvers: [unip]", "solvers: unknown key"),
        ("solver: [unipp]", "unknown step solver 'unipp'; did you mean 'unip'?"),
        ("solver: []", "solver"),
        ("order: [0]", "order"),
        ("order: [4]", "orders 1 to 3"),
        ("prediction: [velocity]", "prediction"),
        ("ridge: [1.0e-2, 1.0e-6]", "ridge: needs 0 < low <= high"),
        ("ridge: [.nan, 1]", "ridge"),
        ("- a list", "space"),
        ("solver: [unip", "not YAML"),
        ("!!python/object/apply:os.system ['true']", "not YAML"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        SearchSpace.read(path)
    assert str(path) in str(caught.value) and message in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read"):
        SearchSpace.read(tmp_path / "absent.yaml")


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: type(schedule).__name__)
@given(fractions=st.lists(st.floats(0, 1), min_size=4, max_size=4), integer=st.booleans())
def test_every_suggestion_compiles(schedule: NoiseSchedule, fractions: list[float], integer: bool) -> None:
    """Also where times coincide or sit at the ends."""
    trial = optuna.trial.FixedTrial(
        {**{f"time_{i}": f for i, f in enumerate(fractions)}, **{f"order_{i}": 1 + i % 3 for i in range(4)},
         "solver": "unip", "prediction": "data", "corrector": True, "ridge": 1e-3}
    )  # fmt: skip
    candidate = SearchSpace().suggest(trial, schedule, integer, [(0.0, 1.0)] * 4)  # type: ignore[arg-type]
    assert np.all(np.diff(candidate.times) < 0)
    if integer and schedule.discrete:
        assert all(t == round(t) for t in candidate.times)
    table = candidate.tableau(schedule, 2.0)
    assert table.nfe == 4 and {node.guidance for node in table.nodes} == {2.0}


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: type(schedule).__name__)
@pytest.mark.parametrize("name", ["logsnr", "quadratic", "linspace"])
def test_a_seed_gives_its_own_times_back(schedule: NoiseSchedule, name: str) -> None:
    nodes = grid(name, schedule, 5)[:-1]
    parameters = SearchSpace.seed(schedule, nodes)
    ranges = SearchSpace.ranges(schedule, [nodes, grid("karras", schedule, 5)[:-1]])
    assert all(low <= parameters[f"time_{i}"] <= high for i, (low, high) in enumerate(ranges))
    fixed = {**parameters, **{f"order_{i}": 2 for i in range(5)}, "solver": "unip", "prediction": "data", "corrector": False, "ridge": 1e-3}
    candidate = SearchSpace().suggest(optuna.trial.FixedTrial(fixed), schedule, False, ranges)  # type: ignore[arg-type]
    positions = schedule.position([node.t for node in nodes])
    np.testing.assert_allclose(
        schedule.position(candidate.times), positions, atol=6e-4 * np.ptp(schedule.position([schedule.t_end, schedule.t_start]))
    )


def test_size_counts_the_choices() -> None:
    assert SearchSpace().size(5) == 4 * 2 * 2 * 3**5
    assert SearchSpace(solver=("unip",), order=(2,), prediction=("data",), corrector=(True,)).size(8) == 1
