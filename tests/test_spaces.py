"""Search spaces: from YAML to candidates to tables."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution
from rich.console import Console

from solversearch.errors import UserError
from solversearch.grids import grid
from solversearch.report.space_view import space_view
from solversearch.schedules import VE, DiscreteVP, Flow, LinearVP, NoiseSchedule
from solversearch.solvers import get
from solversearch.solvers.dc import compensated
from solversearch.solvers.mixed import Decision, mixed
from solversearch.spaces import Candidate, Domain, SearchSpace, presets
from solversearch.spaces.candidate import canonical
from solversearch.spaces.domain import whole
from solversearch.spaces.source import load
from solversearch.tableau import trace

VP = DiscreteVP.named()
SCHEDULES: list[NoiseSchedule] = [VP, DiscreteVP.named(zero_terminal_snr=True), LinearVP(), VE(), Flow(shift=3.0, scale=1000.0)]
PRESETS = [
    "adaptive_guidance",
    "autodiffusion",
    "ays",
    "churn",
    "dc",
    "deepcache",
    "default",
    "dmn",
    "dpm_v3",
    "dualfast",
    "full",
    "gits",
    "gs",
    "guidance",
    "higs",
    "ld3",
    "momentum",
    "nonstationary",
    "oss",
    "s3",
    "s4s",
    "t_stitch",
    "time_shift",
    "times",
]


def read(tmp_path: Path, text: str) -> SearchSpace:
    path = tmp_path / "space.yaml"
    path.write_text(text)
    return SearchSpace.read(path)


def domain(space: SearchSpace, schedule: NoiseSchedule = VP, nfe: int = 5, guidance: float = 1.0, integer: bool = False) -> Domain:
    starts = [grid(name, schedule, nfe)[:-1] for name in ("linspace", "karras", "logsnr")]
    return Domain.of(space, schedule, nfe, guidance, starts, integer)


def drawn(each: Domain, seed: int = 0) -> Candidate:
    return each.candidate(each.random(np.random.default_rng(seed)))


# Files -----------------------------------------------------------------------------------------------------


def test_the_presets_are_these_and_the_first_is_the_default() -> None:
    assert list(presets()) == PRESETS
    assert SearchSpace.named("default") == SearchSpace()
    for name in PRESETS:
        assert SearchSpace.named(name).name == name
        assert SearchSpace.model_validate(SearchSpace.named(name).model_dump(exclude_defaults=True)) == SearchSpace.named(name)


def test_every_package_is_shipped_and_the_spaces_with_them() -> None:
    """setuptools cannot both search for packages and take one from another folder, so they are listed."""
    root = Path(__file__).parents[1]
    listed = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {".".join(path.parent.relative_to(root).parts) for path in (root / "solversearch").rglob("*.py")}
    assert sorted(listed) == sorted({*found, "solversearch.search_spaces"})


def test_a_space_is_found_by_path_too(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("solver: unip")
    assert SearchSpace.named(str(tmp_path / "mine.yaml")) == SearchSpace.model_validate({"solver": "unip", "name": "mine"})


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("order: 2\nsolvers: [unip]", 2, "solvers: unknown key 'solvers'; did you mean 'solver'?"),
        ("solver: {chose: [unip]}", 1, "solver.chose: unknown key 'chose'; did you mean 'choose'?"),
        ("search:\n  stages:\n    polish: some", 3, "search.stages.polish"),
        ("search:\n  stage: {}", 2, "did you mean 'stages'?"),
        ("solver:\n- unip\n- unipp", 3, "solver[2]: unknown choice 'unipp'; did you mean 'unip'?"),
        ("solver: {choose: [unip, unip]}", 1, "twice in the list"),
        ("solver: []", 1, "solver: an empty list"),
        ("solver: {per: step}", 1, "needs the values to choose from"),
        ("solver: {choose: [unip], low: 1}", 1, "not both"),
        ("solver: {low: 0, high: 1}", 1, "needs a list of values"),
        ("solver: ~", 1, "got nothing"),
        ("solver: {choose: [unip], per: stage}", 1, "solver.per"),
        ("order: [0]", 1, "order[1]: expected a number from 1 to 4, got 0"),
        ("order: [1.5]", 1, "whole number"),
        ("order: [true]", 1, "expected a number"),
        ("solver: dpmpp\norder:\n  choose:\n  - 3\n  - 4", 5, "order.choose[2]: order 4 is impossible: dpmpp has orders 1 to 3"),
        ("prediction: velocity", 1, "unknown choice 'velocity'"),
        ("prediction: [1.5]", 1, "from 0 to 1"),
        ("corrector: 1", 1, "expected true or false, got 1"),
        ("compensation:\n  low: 1.5\n  high: 0.5", 2, "compensation.low: an empty range: low 1.5 is above high 0.5"),
        ("compensation: {low: 0.5}", 1, "both ends"),
        ("compensation: {low: .nan, high: 1}", 1, "finite"),
        ("compensation: [.inf]", 1, "expected a name, a finite number"),
        ("compensation: [1, 20]", 1, "compensation[2]: expected a number from -2 to 4, got 20"),
        ("timesteps: {rho: 5}", 1, "grid is missing"),
        ("ridge: {low: 0, high: 1, log: true}", 1, "low > 0"),
        ("ridge: {low: 1.0e-6, high: 1.0e-2, per: step}", 1, "once a plan"),
        ("timesteps: karas", 1, "unknown timesteps 'karas'; did you mean 'karras'?"),
        ("timesteps: [free, karras]", 1, "stand alone"),
        ("timesteps:\n- linspace\n- {grid: logsnr, rho: 7}", 3, "timesteps[2].rho: logsnr has no rho"),
        ("timesteps: []", 1, "an empty list"),
        ("timesteps: 7", 1, "timesteps"),
        ("timesteps: [karras, karras]", 1, "twice"),
        ("guidance_interval: {above: 0.8, below: 0.2}", 1, "an empty interval"),
        ("guidance_interval: {above: 2}", 1, "from 0 to 1"),
        ("corrector: {choose: [true], when: {slover: unip}}", 1, "when.slover: unknown decision 'slover'; did you mean 'solver'?"),
        ("solver: [unip]\ncorrector:\n  choose: [true]\n  when: {solver: [dpmpp]}", 4, "solver is never dpmpp: it is one of unip"),
        ("corrector: {choose: true, when: {corrector: true}}", 1, "circle"),
        ("start: {choose: [singlestep], when: {corrector: [true]}}\ncorrector: {choose: [true], when: {start: [singlestep]}}",
         2, "conditions go in a circle: corrector -> start -> corrector"),
        ("solver: {choose: [unip, ipndm], per: step}\ncorrector: {choose: [true], when: {solver: [unip]}}", 2, "cannot depend on solver"),
        ("compensation: {low: 0, high: 1}\ncorrector: {choose: [true], when: {compensation: 1}}", 2, "compensation is a range"),
        ("corrector: {choose: [true], when: []}", 1, "when"),
        ("order: 1\norder: 2", 2, "order: the key stands twice"),
        ("solver: &a [unip]\nprediction: *a", 2, "aliases"),
        ("- a list", 1, "expected a mapping"),
        ("guidance: 10.5", 1, "guidance: expected a number from 0 to 10, got 10.5"),
        ("[" * 30 + "]" * 30, 1, "nested deeper"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_told_with_file_line_and_key(tmp_path: Path, text: str, line: int, message: str) -> None:
    with pytest.raises(UserError) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'space.yaml'}:{line}: ")
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"solver: [unip", "not YAML"),
        (b"!!python/object/apply:os.system ['true']", ":1: tags (tag:yaml.org,2002:python/"),
        (b"order: !!int ''", ":1: tags (tag:yaml.org,2002:int) are not read"),
        (b"\xff\xfe\x00", "not YAML"),
        (b"", "an empty file"),
        (b"order: 1\n" + b"# more\n" * 20_000, "more than 64 KiB"),
    ],
)
def test_what_is_no_space_at_all_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "space.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        SearchSpace.read(path)
    assert str(path) in str(caught.value) and message in str(caught.value) and "\n" not in str(caught.value)


def test_whole_times_are_the_nearest_that_fall() -> None:
    assert whole(VP, np.array([900.2, 500.4, 99.8]), False).tolist() == [900.0, 500.0, 100.0]
    assert whole(VP, np.array([999.0, 998.9, 500.2, 500.1, 0.3, 0.1]), False).tolist() == [999.0, 998.0, 500.0, 499.0, 1.0, 0.0]
    assert whole(VP, np.array([998.9, 998.8]), True).tolist() == [998.0, 997.0]  # t_start is taken


def test_a_candidate_of_one_step_is_described() -> None:
    one = Candidate((999.0,), (Decision(epsilon_scale=1.01),), (0.0,), (1.0,))
    assert one.describe() == {"solver": Decision().solver, "epsilon_scale": 1.01}


def test_length_has_a_limit(tmp_path: Path) -> None:
    text = "order: 1\n"
    assert read(tmp_path, text + "#" * (64 * 1024 - len(text))).order.choose == (1,)
    with pytest.raises(UserError, match="more than 64 KiB"):
        read(tmp_path, text + "#" * (64 * 1024 - len(text) + 1))


def test_nesting_has_a_limit(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text("[" * 16 + "]" * 16)
    found, _ = load(file)
    for _ in range(15):
        (found,) = found
    assert found == []
    file.write_text("[" * 17 + "]" * 17)
    with pytest.raises(UserError, match="nested deeper than 16"):
        load(file)


@pytest.mark.parametrize("name", PRESETS)
def test_what_a_space_is_written_as_is_the_space(name: str) -> None:
    space = SearchSpace.named(name)
    assert SearchSpace.model_validate(space.model_dump(mode="json", exclude_unset=True)) == space


def test_the_fit_can_be_switched_and_nothing_else_changes() -> None:
    space = SearchSpace.named("full")
    assert space.fits and not space.fitting(False).fits and space.fitting(False).fitting(True) == space


def test_a_missing_space_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read"):
        SearchSpace.read(tmp_path / "absent.yaml")
    with pytest.raises(UserError, match="cannot read"):
        SearchSpace.named(str(tmp_path / "absent.yaml"))
    with pytest.raises(UserError, match=r"unknown search space 'fool'; did you mean 'full'\?"):
        SearchSpace.named("fool")


@pytest.mark.parametrize("name", ["os:system", "tests.assets.coins:factory", "tests.assets.coins.factory", "../x", ""])
def test_a_file_names_no_code(tmp_path: Path, name: str) -> None:
    """A class of one's own is imported where the command line names it, and nowhere else."""
    with pytest.raises(UserError, match=r"space\.yaml:2: search\.strategy: .*(--strategy MODULE:CLASS|at least 1 character)"):
        read(tmp_path, f"search:\n  strategy: {name!r}")


def test_long_lists_and_large_numbers_are_refused_quickly(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="more than 1000 values"):
        read(tmp_path, f"compensation: {list(range(9000))}")
    with pytest.raises(UserError, match="expected a number"):
        read(tmp_path, f"compensation: {'9' * 400}")


def test_a_message_stays_short_whatever_it_quotes(tmp_path: Path) -> None:
    (tmp_path / "long.yaml").write_text(f"compensation: {'9' * 3000}\n")
    with pytest.raises(UserError, match=r"long\.yaml:1: compensation: expected a number, got 9{100}") as caught:
        SearchSpace.read(tmp_path / "long.yaml")
    assert len(str(caught.value)) < len(str(tmp_path)) + 1200


def test_numbers_without_a_point_are_numbers(tmp_path: Path) -> None:
    """YAML takes 1e-6 for a word."""
    space = read(tmp_path, "ridge: {low: 1e-6, high: 1e-2, log: true}\nchurn: [1e-1]")
    assert (space.ridge.low, space.churn.choose) == (1e-6, (0.1,))


# Candidates ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: type(schedule).__name__)
@pytest.mark.parametrize("name", PRESETS)
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), nfe=st.integers(1, 8), guidance=st.sampled_from([1.0, 7.5]), integer=st.booleans())
def test_every_candidate_of_every_preset_compiles(
    name: str, schedule: NoiseSchedule, seed: int, nfe: int, guidance: float, integer: bool
) -> None:
    each = domain(SearchSpace.named(name), schedule, nfe, guidance, integer)
    rng = np.random.default_rng(seed)
    one, other = (each.candidate(each.random(rng)) for _ in range(2))
    table = one.tableau(schedule)
    assert table.nfe == nfe and table.stochastic <= (name == "churn")
    assert np.all(np.diff(one.times) < 0) and schedule.t_end <= one.times[-1] <= one.times[0] <= schedule.t_start
    assert {node.guidance for node in table.nodes} == {guidance} or (name == "guidance" and guidance != 1)
    if (integer or each.space.integer) and schedule.discrete:
        assert all(node.t == round(node.t) for node in table.nodes)
    assert (one.signature == other.signature) == (one == other) and hash(one) == hash(each.candidate(dict(_params(each, one, seed))))


def _params(each: Domain, one: Candidate, seed: int) -> dict[str, Any]:
    params = each.random(np.random.default_rng(seed))
    assert each.candidate(params) == one
    return params


@given(st.lists(st.floats(0, 1), min_size=4, max_size=4), st.booleans(), st.booleans())
def test_times_that_coincide_are_held_apart(fractions: list[float], integer: bool, free: bool) -> None:
    space = SearchSpace.model_validate({"solver": "unip", "order": 3, "analytic_first_step": free})
    for schedule in SCHEDULES:
        each = Domain.of(space, schedule, 4, 1.0, (), integer)
        candidate = each.candidate({f"time.{i}": fraction for i, fraction in enumerate(fractions)})
        assert np.all(np.diff(candidate.times) < 0)
        assert candidate.tableau(schedule).nfe == 4


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: type(schedule).__name__)
@pytest.mark.parametrize("name", ["logsnr", "quadratic", "linspace"])
def test_a_seed_gives_its_own_times_and_decisions_back(schedule: NoiseSchedule, name: str) -> None:
    nodes = grid(name, schedule, 5)
    each = Domain.of(SearchSpace.named("s3"), schedule, 5, 1.0, [nodes, grid("karras", schedule, 5)])
    for decision in (None, Decision("dpmpp", 3, "noise", derivative_scale=0.08, start="singlestep")):
        params = each.seed(nodes, decision)
        assert set(params) == set(each.distributions)
        candidate = each.candidate(params)
        positions = schedule.position([node.t for node in nodes[:-1]])
        reach = np.ptp(schedule.position([schedule.t_end, schedule.t_start]))
        np.testing.assert_allclose(schedule.position(candidate.times), positions, atol=6e-4 * reach)
    assert candidate.decisions[3] == Decision("dpmpp", 3, "noise", derivative_scale=0.1, start="singlestep")


def test_a_seed_of_a_space_of_grids_is_the_nearest_grid() -> None:
    each = domain(SearchSpace.named("nonstationary"))
    for name in ("linspace", "karras_tmin", "ays_sdxl"):
        assert each.seed(grid(name, VP, 5))["grid"] == name


def test_parameters_that_cannot_be_are_told_by_name() -> None:
    each = domain(SearchSpace.named("s3"))
    params = each.random(np.random.default_rng(0))
    for name, value in (
        ("order.2", 5),
        ("order.2", 2.0),
        ("time.0", float("nan")),
        ("corrector.1", 1),
        ("time.1", "noon"),
        ("solver.0", []),
    ):
        with pytest.raises(UserError, match=name):
            each.candidate({**params, name: value})
    with pytest.raises(UserError, match=r"time\.4 is missing"):
        each.candidate({name: value for name, value in params.items() if name != "time.4"})
    with pytest.raises(UserError, match=r"unknown parameter 'oder\.1'; did you mean 'order\.1'"):
        each.candidate({**params, "oder.1": 1})


def test_a_domain_has_parameters_where_decisions_have_an_effect() -> None:
    """No order before there is a history, no corrector at the last step, no guidance without guidance, no ridge without a fit."""
    space = {"order": {"choose": [1, 2], "per": "step"}, "corrector": {"choose": [True, False], "per": "step"},
             "guidance": {"low": 0, "high": 2, "per": "step"}, "compensation": {"low": 0, "high": 2, "per": "step"}}  # fmt: skip
    names = set(Domain.of(SearchSpace.model_validate(space), VP, 4, 1.0).distributions)
    assert names == {f"time.{i}" for i in range(4)} | {"order.1", "order.2", "order.3", "corrector.0", "corrector.1", "corrector.2",
                                                       "compensation.2", "compensation.3"}  # fmt: skip
    fitted = {"ridge": {"low": 0.1, "high": 1}, "analytic_first_step": [True, False], **space}
    names = set(Domain.of(SearchSpace.model_validate(fitted), VP, 4, 2.0).distributions)
    assert {"ridge", "order.0", "compensation.1", "guidance.0", "analytic_first_step"} <= names and "compensation.0" not in names
    stretched = {"timesteps": "linspace", "order": 3, "derivative_scale": {"low": -0.2, "high": 0.2, "per": "step"}}
    assert list(Domain.of(SearchSpace.model_validate(stretched), VP, 5, 1.0).distributions) == [f"derivative_scale.{i}" for i in (1, 2, 3)]
    bare = {**fitted, "search": {"stages": {"fit": False}}}
    assert "ridge" not in Domain.of(SearchSpace.model_validate(bare), VP, 4, 2.0).distributions
    assert "analytic_first_step" not in Domain.of(SearchSpace.model_validate(fitted), Flow(), 4, 2.0).distributions


def test_conditions_leave_a_decision_at_its_default() -> None:
    space = SearchSpace.model_validate({
        "solver": {"choose": ["unip", "ipndm"], "per": "step"},
        "order": {"choose": [2, 3], "per": "step", "when": {"solver": "unip"}},
        "derivative": {"choose": "low", "per": "step", "when": {"order": 3}},
    })  # fmt: skip
    each = domain(space)
    params = each.seed(grid("linspace", VP, 5)) | {f"solver.{i}": "unip" for i in range(5)} | {f"order.{i}": 3 for i in range(1, 5)}
    assert [d.derivative for d in each.candidate(params).decisions] == ["exact", "exact", "low", "low", "exact"]
    off = each.candidate({**params, "solver.3": "ipndm"}).decisions[3]
    assert (off.order, off.derivative) == (2, "exact")
    assert each.candidate({**params, "solver.3": "ipndm"}) == each.candidate({**params, "solver.3": "ipndm", "order.3": 2})


@pytest.mark.parametrize(
    ("solver", "prediction", "derivative", "order"),
    [("dpmpp", "noise", "exact", 1), ("unip", "data", "exact", 1), ("unip", "noise", "low", 1), ("unip", "noise", "exact", 3)],
)
def test_a_last_step_that_takes_the_data_prediction_is_of_first_order(solver: str, prediction: Any, derivative: Any, order: int) -> None:
    """The shorter name of the same table."""
    nodes = grid("linspace", VP, 4)
    given = [Decision(solver=solver, order=3, prediction=prediction, derivative=derivative)] * 4
    found = canonical(given, False)
    assert found[-1].order == order
    for a, b in zip(trace(mixed(given), VP, nodes).rows, trace(mixed(found), VP, nodes).rows, strict=True):
        assert a.d == pytest.approx(b.d, abs=1e-12)


def test_orders_are_lowered_to_what_solver_history_and_end_allow() -> None:
    space = {"solver": {"choose": ["dpmpp", "unip"], "per": "step"}, "order": 4, "prediction": "noise"}
    each = domain(SearchSpace.model_validate(space), nfe=6)
    params = each.seed(grid("linspace", VP, 6)) | {f"solver.{i}": "dpmpp" if i == 3 else "unip" for i in range(6)}
    assert [d.order for d in each.candidate(params).decisions] == [1, 2, 3, 3, 4, 4]
    lowered = domain(SearchSpace.model_validate({"order": 3, "prediction": "noise", "lower_final_order": True}), nfe=6)
    assert [d.order for d in drawn(lowered).decisions] == [1, 2, 3, 3, 2, 1]


@pytest.mark.parametrize(
    ("content", "solver"),
    [
        ({"solver": "dpmpp", "order": 3, "lower_final_order": True}, "dpmpp_3m"),
        ({"solver": "unip_bh2", "order": 3, "lower_final_order": True, "corrector": True}, "unipc_3"),
        ({"solver": "ipndm", "order": 4}, "ipndm_4"),
    ],
)
def test_a_space_of_one_solver_is_that_solver(content: dict[str, Any], solver: str) -> None:
    space = SearchSpace.model_validate({**content, "timesteps": {"grid": "karras", "rho": 7}})
    assert space.size(5) == 1
    table, nodes = domain(space).tableau({}), grid("karras", VP, 5)
    for ours, theirs in zip(table.rows, get(solver).tableau(VP, nodes).rows, strict=True):
        np.testing.assert_allclose([ours.x, *ours.d], [theirs.x, *theirs.d], rtol=0, atol=1e-12)


def test_dc_is_dc_solver() -> None:
    each = domain(SearchSpace.named("dc"), nfe=6)
    ratios = [1.0, 1.0, 0.5, 0.9, 1.1, 1.2]
    table = each.tableau({"grid": "logsnr", **{f"compensation.{i}": ratios[i] for i in range(2, 6)}})
    theirs = trace(compensated(ratios), VP, grid("logsnr", VP, 6))
    for ours, other in zip(table.rows, theirs.rows, strict=True):
        np.testing.assert_allclose([ours.x, *ours.d], [other.x, *other.d], rtol=0, atol=1e-12)


def test_the_parameter_of_a_grid_family() -> None:
    space = SearchSpace.model_validate({"timesteps": [{"grid": "karras", "rho": {"low": 1, "high": 9}, "tmin": [False, True]}, "linspace"]})
    each = Domain.of(space, VP, 5, 1.0)
    assert set(each.distributions) == {"grid", "rho"}
    at = {name: each.candidate({"grid": name, "rho": 7.0}) for name in ("karras", "karras_tmin", "linspace")}
    for name, candidate in at.items():
        np.testing.assert_allclose(candidate.times, [node.t for node in grid(name, VP, 5)[:-1]], rtol=1e-12)
    assert each.candidate({"grid": "karras", "rho": 3.0}).times[2] > at["karras"].times[2]
    assert each.candidate({"grid": "linspace", "rho": 3.0}) == at["linspace"]


def test_an_analytic_first_step_adds_a_step_and_no_evaluation() -> None:
    space = SearchSpace.model_validate({"timesteps": "linspace", "order": 2, "analytic_first_step": [False, True]})
    each = Domain.of(space, VP, 5, 1.0)
    free = each.candidate({"analytic_first_step": True})
    assert free.times == tuple(node.t for node in grid("linspace", VP, 6)[1:-1])
    assert free.tableau(VP).nfe == 5 and [d.order for d in free.decisions] == [2, 2, 2, 2, 1]
    assert free.describe()["analytic_first_step"] is True
    assert not Domain.of(space, Flow(), 5, 1.0).candidate({}).analytic_first_step, "x says nothing without signal"
    assert not Domain.of(space, VP, 1, 1.0).candidate({}).analytic_first_step, "no time is left between"
    start = VP.start_of(0.6)
    assert start is not None and "analytic_first_step" in Domain.of(space, VP, 5, 1.0).distributions
    assert "analytic_first_step" not in Domain.of(space, VP.started(start), 5, 1.0).distributions, "noised pictures are not noise alone"


def test_an_analytic_first_step_leaves_the_curve_of_free_times() -> None:
    """It has one step more, the first of which is free."""
    each = Domain.of(SearchSpace.model_validate({"analytic_first_step": True}), VP, 4, 1.0)
    params = each.random(np.random.default_rng(0))
    times = each.candidate({**params, **{f"time.{i}": 1 - i / 3 for i in range(4)}}).times
    last, first = VP.position([VP.t_end, VP.t_start])
    assert (VP.position(times) - last) / (first - last) == pytest.approx([0.75, 0.5, 0.25, 0.0], abs=0.02)


def test_an_input_shift_moves_what_the_network_is_told_and_nothing_else() -> None:
    each = domain(SearchSpace.named("times"))
    params = each.seed(grid("linspace", VP, 5))
    plain = each.tableau(params)
    moved = each.tableau({**params, "input_shift.2": 0.1, "input_shift.0": 0.2})
    assert moved.rows == plain.rows
    assert [(node.alpha, node.sigma) for node in moved.nodes] == [(node.alpha, node.sigma) for node in plain.nodes]
    assert VP.position(moved.nodes[2].t) - VP.position(plain.nodes[2].t) == pytest.approx(0.1, rel=1e-2)
    assert moved.nodes[0].t == VP.t_start, "clipped into the schedule"
    assert moved.nodes[1] == plain.nodes[1]
    whole = domain(SearchSpace.named("times"), integer=True).tableau({**params, "input_shift.2": 0.1})
    assert whole.nodes[2].t == round(whole.nodes[2].t) > plain.nodes[2].t


def test_guidance_is_a_share_and_an_interval_saves_calls() -> None:
    """Share g of guidance w is the scale 1 + g (w - 1); outside the interval there is none, at half the cost."""
    space = SearchSpace.model_validate({
        "timesteps": "linspace",
        "guidance": {"choose": [1.0, 0.0, 1.5], "per": "step"},
        "guidance_interval": {"above": {"low": 0.0, "high": 0.9}, "below": 0.99},
    })  # fmt: skip
    each = Domain.of(space, VP, 4, 3.0)
    params = {f"guidance.{i}": 1.0 for i in range(4)} | {"guidance_above": 0.0, "guidance.2": 1.5}
    table = each.tableau(params)
    assert [node.guidance for node in table.nodes] == [1.0, 3.0, 4.0, 3.0] and table.network_calls == 7
    assert each.tableau({**params, "guidance_above": 0.9}).network_calls < 7
    assert each.candidate({**params, "guidance.1": 0.0}).guidance == (1.0, 1.0, 4.0, 3.0)
    assert not Domain.of(space, VP, 4, 1.0).distributions, "harmless without guidance"


@pytest.mark.parametrize(("shape", "expected"), [("linear", lambda u: 2 - 2 * u), ("cosine", lambda u: 1 + np.cos(np.pi * u))])
def test_guidance_grows_toward_the_data(shape: str, expected: Callable[[float], float]) -> None:
    """Its mean over all places is what was asked for; the noisiest evaluation has none, and costs half."""
    space = SearchSpace.model_validate({"timesteps": "linspace", "guidance_interval": {"shape": ["flat", shape]}, "guidance": 0.5})
    each = Domain.of(space, VP, 4, 3.0)
    table = each.tableau({"guidance_shape": shape})
    last, first = VP.position([VP.t_end, VP.t_start])
    places = [(float(VP.position([node.t])[0]) - last) / (first - last) for node in table.nodes]
    assert [node.guidance for node in table.nodes] == pytest.approx([1 + 0.5 * expected(u) * 2 for u in places])
    assert table.network_calls == 7 and np.mean([expected(u) for u in np.linspace(0, 1, 1001)]) == pytest.approx(1)
    assert each.tableau({"guidance_shape": "flat"}).nodes[0].guidance == 2.0
    assert each.seed(table.nodes)["guidance_shape"] == "flat"


def test_ends_of_an_interval_belong_to_it() -> None:
    space = SearchSpace.model_validate({"timesteps": "linspace", "guidance_interval": {"above": 1.0, "below": 1.0}})
    assert Domain.of(space, VP, 4, 3.0).candidate({}).guidance == (3.0, 1.0, 1.0, 1.0)


def test_churn_makes_a_stochastic_table() -> None:
    each = domain(SearchSpace.model_validate({"churn": {"choose": [0.3], "per": "step"}}))
    candidate = drawn(each)
    assert candidate.tableau(VP).stochastic and [d.churn for d in candidate.decisions] == [0.3] * 4 + [0.0]


def test_whole_times_run_out() -> None:
    with pytest.raises(UserError, match="more than the model's whole timesteps"):
        Domain.of(SearchSpace.named("autodiffusion"), DiscreteVP(np.full(4, 0.1)), 5, 1.0)
    with pytest.raises(UserError, match="5 evaluations"):
        Domain.of(SearchSpace(), VP, 5, 1.0, [grid("linspace", VP, 4)])
    five = Domain.of(SearchSpace.named("autodiffusion"), DiscreteVP(np.full(5, 0.1)), 5, 1.0)
    assert drawn(five).times == (4.0, 3.0, 2.0, 1.0, 0.0)


def test_size_counts_the_listed_values() -> None:
    assert SearchSpace().size(5) == 4 * 2 * 2 * 3**5
    assert SearchSpace.named("nonstationary").size(8) == 10 * 2
    assert SearchSpace.named("ays").size(8) == 1


def test_what_a_plan_says_of_its_candidate() -> None:
    """One value where all steps agree, a list where not, and nothing that is as usual."""
    told = drawn(domain(SearchSpace.model_validate({"order": 2}), guidance=2.0)).describe()
    assert told == {"solver": "unip", "order": [1, 2, 2, 2, 1], "guidance": 2.0, "ridge": 1e-4}


def test_the_view_has_size_parameters_and_a_candidate() -> None:
    each = domain(SearchSpace.named("s3"))
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(space_view(each, drawn(each)))
    text = console.export_text()
    for expected in ("about 10^16 combinations", "analytic_first_step", "unip_bh2", "A random candidate", "Strategy s3"):
        assert expected in text
    distribution = each.distributions["order.1"]
    assert isinstance(distribution, CategoricalDistribution) and distribution.choices == (1, 2, 3, 4)
