"""Noise schedules, prediction types and timestep grids."""

import json
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from solversearch.errors import UserError
from solversearch.grids import AYS_SIGMAS, GRIDS, explicit, grid
from solversearch.runtime import Start
from solversearch.schedules import (
    CLEAN,
    PREDICTION_TYPES,
    VE,
    ContinuousVP,
    CosineVP,
    DiscreteVP,
    Floats,
    Flow,
    LinearVP,
    MeanReverting,
    NoiseSchedule,
    data_prediction,
)
from tests.cli.calling import good
from tests.contracts import lacks, one_line

SCHEDULES: dict[str, NoiseSchedule] = {
    "vp": DiscreteVP.named(),
    "linear_table": DiscreteVP.named("linear", 1e-4, 0.02),
    "cosine_table": DiscreteVP.named("squaredcos_cap_v2"),
    "zero_snr": DiscreteVP.named(zero_terminal_snr=True),
    "linear": LinearVP(),
    "reverting": MeanReverting(0.4),
    "cosine": CosineVP(),
    "continuous": ContinuousVP(),
    "ve": VE(),
    "flow": Flow(),
    "shifted_flow": Flow(shift=3.0, scale=1000.0),
}
STARTED: dict[str, NoiseSchedule] = {
    f"{name} from a share": schedule.started(start) for name, schedule in SCHEDULES.items() if (start := schedule.start_of(0.6))
}
schedules = st.sampled_from(list(SCHEDULES.values()))
fractions = st.floats(0, 1)


@given(st.sampled_from([*SCHEDULES.values(), *STARTED.values()]), fractions)
def test_times_angles_and_lambdas_are_inverses(schedule: NoiseSchedule, u: float) -> None:
    t = float(schedule.at_fraction(u))
    assert schedule.t_end <= t <= schedule.t_start
    span = schedule.t_start - schedule.t_end
    assert float(schedule.time_of_angle(schedule.angle(t))) == pytest.approx(t, rel=1e-9, abs=1e-9 * span)
    if float(schedule.alpha(t)) > 0:
        assert float(schedule.time_of_lam(schedule.lam(t))) == pytest.approx(t, rel=1e-8, abs=1e-8 * span)
        assert schedule.node_at_lam(float(schedule.lam(t))).sigma == pytest.approx(float(schedule.sigma(t)), rel=1e-7)


@given(schedules, fractions, fractions)
def test_noise_grows_with_time(schedule: NoiseSchedule, u: float, v: float) -> None:
    low, high = sorted((float(schedule.at_fraction(u)), float(schedule.at_fraction(v))))
    if high - low > 1e-9 * schedule.t_start:
        assert schedule.angle(low) < schedule.angle(high)
        assert schedule.lam(low) > schedule.lam(high)


@given(schedules, fractions)
def test_the_frame_is_that_of_its_family(schedule: NoiseSchedule, u: float) -> None:
    node = schedule.node(float(schedule.at_fraction(u)))
    of_kind = {"Flow": node.alpha + node.sigma, "VE": node.alpha, "MeanReverting": node.alpha**2 + (node.sigma / 0.4) ** 2}
    expected = of_kind.get(type(schedule).__name__, node.alpha**2 + node.sigma**2)
    assert expected == pytest.approx(1, abs=1e-13)


@given(st.floats(0.05, 20), st.sampled_from([1.0, 1000.0]))
def test_any_shift_keeps_the_ends(shift: float, scale: float) -> None:
    schedule = Flow(shift, scale)
    for name in GRIDS:
        assert grid(name, schedule, 4)[-1] == CLEAN
    assert float(schedule.at_fraction(1.0)) == pytest.approx(scale, rel=1e-14)
    assert float(schedule.at_fraction(0.0)) == pytest.approx(schedule.t_end, rel=1e-9)


def test_zero_terminal_snr_is_exactly_zero() -> None:
    schedule = SCHEDULES["zero_snr"]
    assert schedule.node(999).alpha == 0
    assert schedule.node(999).sigma == 1
    assert float(schedule.lam(999)) == -np.inf
    assert Flow().node(1.0).alpha == 0


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("beta_schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_tables_agree_with_diffusers(beta_schedule: str, zero_snr: bool) -> None:
    diffusers = pytest.importorskip("diffusers")
    peer = diffusers.DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule=beta_schedule, rescale_betas_zero_snr=zero_snr
    )  # fmt: skip
    ours = DiscreteVP.named(beta_schedule, zero_terminal_snr=zero_snr)
    np.testing.assert_allclose(ours.alphas_cumprod, peer.alphas_cumprod.numpy(), rtol=0, atol=1e-6)
    whole = np.arange(1000)
    np.testing.assert_allclose(np.asarray(ours.alpha(whole)) ** 2, ours.alphas_cumprod, rtol=0, atol=1e-15)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("steps", [1, 3, 5, 10, 20])
@pytest.mark.parametrize(
    ("name", "scheduler", "config"),
    [
        ("linspace", "DPMSolverMultistepScheduler", {"timestep_spacing": "linspace"}),
        ("trailing", "DPMSolverMultistepScheduler", {"timestep_spacing": "trailing"}),
        ("trailing", "DDIMScheduler", {"timestep_spacing": "trailing"}),
        ("linspace_tmin", "DDIMScheduler", {"timestep_spacing": "linspace"}),
        ("leading", "DDIMScheduler", {"timestep_spacing": "leading", "steps_offset": 1}),
    ],
)
def test_integer_grids_agree_with_diffusers(name: str, scheduler: str, config: dict[str, Any], steps: int) -> None:
    diffusers = pytest.importorskip("diffusers")
    if name == "linspace_tmin" and steps == 1:
        pytest.skip("one step of np.linspace(0, 999, 1) starts at t = 0, without noise; here at t_start")
    peer = getattr(diffusers, scheduler)(**config)
    peer.set_timesteps(steps)
    ours = grid(name, DiscreteVP.named(), steps, integer=True)
    assert [node.t for node in ours[:-1]] == peer.timesteps.tolist()


def test_the_flow_grid_agrees_with_diffusers() -> None:
    diffusers = pytest.importorskip("diffusers")
    peer = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    peer.set_timesteps(6)
    ours = grid("linspace_tmin", Flow(3.0, 1000.0, sigma_end=float(peer.sigma_min)), 6)
    # diffusers shifts the ends of its table once more before it spaces them, so only the first times are the same.
    assert ours[0].t == float(peer.timesteps[0]) == 1000
    comfy = 3 * (np.arange(6, 0, -1) / 6) / (1 + 2 * np.arange(6, 0, -1) / 6)  # equation 23 at i / n
    np.testing.assert_allclose([node.sigma for node in grid("trailing", Flow(3.0, 1.0, sigma_end=0.0), 6)[:-1]], comfy, rtol=1e-12)


def align_your_steps(u: Floats, table: str) -> Floats:
    """Log-linear between the published levels, stretched to the range in ln sigma."""
    logs = np.log(AYS_SIGMAS[table])
    height = (np.interp(1 - u, np.linspace(0, 1, len(logs)), logs) - logs[-1]) / (logs[0] - logs[-1])
    return LOW * (HIGH / LOW) ** height


LOW, HIGH = 0.002, 80.0
"""Noise levels of EDM."""
FORMULAS: dict[str, Callable[[Floats], Floats]] = {
    "linspace": lambda u: LOW + u * (HIGH - LOW),
    "quadratic": lambda u: LOW + u**2 * (HIGH - LOW),
    "logsnr": lambda u: LOW ** (1 - u) * HIGH**u,
    "karras": lambda u: (LOW ** (1 / 7) + u * (HIGH ** (1 / 7) - LOW ** (1 / 7))) ** 7,
    "ays_sd15": lambda u: align_your_steps(u, "sd15"),
    "ays_sdxl": lambda u: align_your_steps(u, "sdxl"),
    "trailing": lambda u: LOW + u * (HIGH - LOW),
    "leading": lambda u: LOW + (u - 0.2 + 1e-3) * (HIGH - LOW),
}
"""Noise levels of the five evaluations of a grid, from their places u between the data (0) and the noise (1)."""


@pytest.mark.parametrize("name", [name for name in GRIDS if name.removesuffix("_tmin") in FORMULAS])
def test_a_grid_is_its_published_formula(name: str) -> None:
    u = np.linspace(1, 0, 5) if name.endswith("_tmin") else np.linspace(1, 0, 6)[:-1]
    levels = [node.sigma for node in grid(name, VE(LOW, HIGH), 5)[:-1]]
    np.testing.assert_allclose(levels, FORMULAS[name.removesuffix("_tmin")](u), rtol=1e-9)


@pytest.mark.parametrize("table", list(AYS_SIGMAS))
def test_align_your_steps_at_its_own_count(table: str) -> None:
    sigmas = AYS_SIGMAS[table]
    nodes = grid(f"ays_{table}", VE(sigmas[-1], sigmas[0]), 10)
    np.testing.assert_allclose([node.sigma for node in nodes[:-1]], sigmas[:-1], rtol=1e-9)


@pytest.mark.parametrize("name", GRIDS)
def test_a_grid_says_what_it_is(name: str) -> None:
    told = next(entry["description"] for entry in json.loads(good("list", "grids", "--json")) if entry["name"] == name)
    lacks(f"grid {name}", [
        (not one_line(told) or not told.endswith("."), "a docstring, which is its description: what is even in what, and the source"),
        (not re.search(r"arXiv:\d{4}\.\d{5}|[Dd]iffusers'", told), "a source in it: an arXiv number, or diffusers"),
        (name.removesuffix("_tmin") not in FORMULAS, "the published formula, written anew in FORMULAS of tests/test_schedules.py"),
    ])  # fmt: skip


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("name", GRIDS)
def test_a_grid_of_too_many_whole_times_is_refused_in_one_line(name: str, schedule: NoiseSchedule) -> None:
    try:
        made = grid(name, schedule, 2000, integer=True)
    except UserError as error:
        lacks(f"grid {name}", [(not one_line(str(error)), f"one line in {error}")])
    else:
        assert len(made) == 2001 and not schedule.discrete


@given(st.sampled_from(list(GRIDS)), schedules, st.integers(1, 12))
def test_grids_fall_from_the_start_to_clean(name: str, schedule: NoiseSchedule, n: int) -> None:
    nodes = grid(name, schedule, n)
    times = [node.t for node in nodes[:-1]]
    assert len(times) == n
    assert nodes[-1] == CLEAN
    assert all(later < earlier for earlier, later in pairwise(times))
    assert schedule.t_end <= times[-1]
    assert times[0] <= schedule.t_start
    if name != "leading":
        assert times[0] == schedule.t_start
    if name.endswith("_tmin") and n > 1:
        assert times[-1] == pytest.approx(schedule.t_end, rel=1e-7, abs=1e-7)


@given(st.integers(1, 8), st.sampled_from([name for name in GRIDS if not name.startswith(("karras", "logsnr", "ays"))]))
def test_integer_grids_are_whole(n: int, name: str) -> None:
    assert all(node.t == int(node.t) for node in grid(name, SCHEDULES["vp"], n, integer=True))
    assert grid("linspace", Flow(), 3, integer=True) == grid("linspace", Flow(), 3)


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([], "at least one"),
        ([900, 900, 10], "fall strictly"),
        ([100, 200], "fall strictly"),
        ([float("nan")], "fall strictly"),
        ([1000, 10], "must lie in"),
        ([10, -1], "must lie in"),
    ],
)
def test_grids_that_are_refused(times: list[float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        explicit(SCHEDULES["vp"], times)


def test_repeated_integer_times_are_refused() -> None:
    with pytest.raises(UserError, match="fewer steps or another grid"):
        grid("karras_tmin", SCHEDULES["vp"], 200, integer=True)


def test_unknown_names_are_told_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'karras'"):
        grid("karas", VE(), 3)
    with pytest.raises(UserError, match="did you mean 'scaled_linear'"):
        DiscreteVP.named("scaled-linear")
    with pytest.raises(UserError, match="here it is 'epsilon', the noise"):
        data_prediction("eps", 0.5, 0.5)


@pytest.mark.parametrize("betas", [[], [0.1], [[0.1, 0.2]], [0.1, 1.0], [0.0, 0.1]])
def test_beta_tables_that_are_refused(betas: Any) -> None:
    with pytest.raises(UserError, match="beta table"):
        DiscreteVP(betas)


@given(st.sampled_from(PREDICTION_TYPES), schedules, fractions)
def test_prediction_types_are_consistent(kind: str, schedule: NoiseSchedule, u: float) -> None:
    """From x = alpha x0 + sigma eps and the output of a perfect network, each type recovers x0, also at alpha = 0."""
    node = schedule.node(float(schedule.at_fraction(u)))
    x0, eps = 0.7, -1.3
    x = node.alpha * x0 + node.sigma * eps
    output = {
        "epsilon": eps,
        "v_prediction": node.alpha * eps - node.sigma * x0,
        "sample": x0,
        "edm": x0,
        "flow": eps - x0,
    }[kind]
    if kind == "epsilon" and node.alpha == 0:
        with pytest.raises(UserError, match="alpha = 0"):
            data_prediction(kind, node.alpha, node.sigma)
        return
    a, b = data_prediction(kind, node.alpha, node.sigma)
    assert a * x + b * output == pytest.approx(x0, abs=1e-12 * (1 + abs(a) + abs(b)))


# Starts from noised pictures -----------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", [0.1, 0.3, 0.5, 0.6, 0.9])
def test_a_share_of_the_times_begins_where_diffusers_starts_at_that_strength(strength: float) -> None:
    diffusers = pytest.importorskip("diffusers")
    steps = 1000
    first = round(steps * (1 - strength))  # as get_timesteps of image-to-image pipelines has it
    stock = diffusers.DDIMScheduler(timestep_spacing="trailing")
    stock.set_timesteps(steps)
    start = SCHEDULES["vp"].start_of(strength)
    assert start is not None and start.t == float(stock.timesteps[first]) == round(1000 * strength) - 1
    flow = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    flow.set_timesteps(steps)
    start = SCHEDULES["shifted_flow"].start_of(strength)
    assert start is not None and start.t == pytest.approx(float(flow.timesteps[first]), abs=5)
    assert Flow(scale=1000.0).start_of(strength) == Start(1000 * strength, 1 - strength, strength)
    edm = diffusers.EDMEulerScheduler()
    edm.set_timesteps(steps)
    start = SCHEDULES["ve"].start_of(strength)
    assert start is not None and start.t == pytest.approx(float(edm.sigmas[first]), rel=0.02)
    assert all(schedule.start_of(1.0) is None for schedule in SCHEDULES.values())


@pytest.mark.parametrize("name", STARTED)
def test_a_schedule_from_a_start_ends_there(name: str) -> None:
    schedule, whole = STARTED[name], SCHEDULES[name.removesuffix(" from a share")]
    start = whole.start_of(0.6)
    assert start is not None and schedule.t_start == start.t < whole.t_start and schedule.t_end == whole.t_end
    assert start.alpha == float(whole.alpha(start.t)) > 0 and not whole.noised
    assert float(schedule.at_fraction(1)) == start.t and float(schedule.at_fraction(0)) == pytest.approx(schedule.t_end, abs=1e-9)
    assert float(schedule.time_of_angle(whole.angle(whole.t_start))) == start.t
    assert schedule.initial_scale(start.t) == 1
    low = schedule.node((start.t + schedule.t_end) / 2)
    assert schedule.initial_scale(low.t) == pytest.approx(np.hypot(low.alpha, low.sigma) / np.hypot(start.alpha, start.sigma))


@pytest.mark.parametrize("name", STARTED)
@pytest.mark.parametrize("of", GRIDS)
def test_every_grid_begins_at_the_start_or_is_refused(of: str, name: str) -> None:
    """A picture is noised to the start, and to no other level."""
    schedule = STARTED[name]
    if of == "leading":
        with pytest.raises(UserError, match=r"the grid leading begins at t = .*, below the pictures' noise at"):
            grid(of, schedule, 5)
        return
    nodes = grid(of, schedule, 5)
    assert nodes[0].t == schedule.t_start and all(high.t > low.t for high, low in pairwise(nodes[:-1]))
