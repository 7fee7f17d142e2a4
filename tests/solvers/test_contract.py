"""The contract that every solver keeps: exact invariants, one meaning, honest cost, measured order, agreement with peers."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from solversearch import solvers
from solversearch.errors import UserError
from solversearch.grids import grid
from solversearch.importing import from_diffusers, scheduler_by_name
from solversearch.runtime import Node, run
from solversearch.schedules import CLEAN, VE, CosineVP, DiscreteVP, Flow, LinearVP, NoiseSchedule
from solversearch.solvers import SOLVERS, get
from solversearch.solvers.base import Past, Solver, first_order, multistep
from solversearch.solvers.bdia import bdia
from solversearch.solvers.ghvb import ghvb
from solversearch.solvers.unipc import unic, unip
from solversearch.tableau import Problem, Tableau, trace
from tests.contracts import docstring_lacks, entries, files_are_registered, lacks, one_line

Array = NDArray[np.float64]

SCHEDULES: dict[str, NoiseSchedule] = {
    "vp": DiscreteVP.named(),
    "zero_snr": DiscreteVP.named(zero_terminal_snr=True),
    "linear": LinearVP(),
    "cosine": CosineVP(),
    "ve": VE(),
    "flow": Flow(shift=3.0, scale=1000.0),
}
GRIDS = ("linspace", "karras", "logsnr_tmin", "trailing")


def budgets(solver: Solver) -> list[tuple[int, int]]:
    """(nfe, steps) for the counts up to 8 that the solver can spend, or its smallest ones."""
    spendable = []
    for nfe in (1, 2, 3, 4, 5, 6, 8, 13, 14):
        try:
            spendable.append((nfe, solver.steps(nfe)))
        except UserError:
            continue
    return [each for each in spendable if each[0] <= 8] or spendable


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_constant_and_zero_denoisers_are_reproduced_exactly(solver: Solver, schedule: NoiseSchedule) -> None:
    """On D = c the exact state is alpha c + sigma e, at every node and for every grid; and the cost is what was asked for."""
    for name in GRIDS:
        for nfe, steps in budgets(solver):
            nodes = grid(name, schedule, steps)
            tableau = solver.tableau(schedule, nodes)
            assert tableau.nfe == nfe
            assert tableau.stochastic == (solver.stochastic and nfe > 1)
            if solver.name.startswith("es_"):  # epsilon scaling is meant to differ; see its own test
                continue
            scale = schedule.initial_scale(nodes[0].t)
            for node, row in zip((*tableau.nodes, CLEAN), tableau.rows, strict=True):
                x = row.x / scale
                constant = x * nodes[0].alpha + sum(row.d) - node.alpha
                noise = np.hypot(x * nodes[0].sigma, np.linalg.norm(row.z)) - node.sigma
                size = 1 + abs(x) + sum(map(abs, row.d))
                assert abs(constant) < 1e-12 * size, (name, nfe, node)
                assert abs(noise) < 1e-12 * size, (name, nfe, node)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_the_table_is_the_rule(solver: Solver, schedule: NoiseSchedule) -> None:
    """The traced table, executed, equals the rule run on arrays with a nonlinear denoiser; every evaluation is counted."""
    rng = np.random.default_rng(0)
    noise, draws = rng.standard_normal(7), rng.standard_normal((20, 7))
    calls: list[Node] = []

    def denoise(x: Array, node: Node) -> Array:
        calls.append(node)
        scale = np.hypot(node.alpha, node.sigma)
        return np.tanh(1.5 * x / scale) + 0.1 * np.cos(3 * x / scale)

    nfe, steps = budgets(solver)[-1]
    nodes = grid("logsnr", schedule, steps)
    fresh = iter(draws)
    direct = solver.rule(Problem(schedule, denoise, lambda: next(fresh)), noise * schedule.initial_scale(nodes[0].t), nodes)
    assert len(calls) == nfe
    tableau = solver.tableau(schedule, nodes)
    assert tableau.nodes == tuple(calls)
    table = run(tableau.nodes, tableau.rows, denoise, noise, draw=lambda k: draws[k])
    size = max(abs(row.x) + sum(map(abs, row.d)) + sum(map(abs, row.z)) for row in tableau.rows)
    np.testing.assert_allclose(table, direct, rtol=0, atol=1e-12 * max(1.0, size))


# Order -----------------------------------------------------------------------------------------------------

MEAN, VARIANCES = 0.3, np.array([0.05, 0.2, 0.5, 2.0])


def gaussian(x: Any, node: Node, variance: Any, mean: Any = MEAN) -> Any:
    """The exact denoiser of data N(mean, variance)."""
    return mean + (x - mean * node.alpha) * (node.alpha * variance / (node.alpha**2 * variance + node.sigma**2))


def smooth_grid(schedule: NoiseSchedule, n: int) -> list[Node]:
    """Between two finite lambda, with steps that shrink like 1/n^2 at both ends: there a first-order step costs 1/n^4."""
    u = np.linspace(0, 1, n + 1)
    height = u**2 / (u**2 + (1 - u) ** 2)
    return [schedule.node_at_lam(float(lam)) for lam in -2 + 4 * height]


def gaussian_error(solver: Solver, n: int) -> float:
    schedule = LinearVP()
    nodes = smooth_grid(schedule, n)
    s, t = nodes[0], nodes[-1]
    x = np.full(4, 1.7)
    result = solver.rule(Problem(schedule, lambda x, node: gaussian(x, node, VARIANCES), lambda: 0.0), x, nodes)
    growth = np.sqrt((t.alpha**2 * VARIANCES + t.sigma**2) / (s.alpha**2 * VARIANCES + s.sigma**2))
    exact = MEAN * t.alpha + growth * (x - MEAN * s.alpha)
    return float(np.sqrt(np.mean((result - exact) ** 2)))


def weak_error(solver: Solver, n: int) -> float:
    """Error of the mean and variance: the rule runs on coefficients of (1, x_T, z_0, z_1, ...), all of unit variance but the first."""
    schedule = LinearVP()
    nodes = smooth_grid(schedule, n)
    s, t = nodes[0], nodes[-1]
    basis, v = np.eye(n + 2)[:, :, None], VARIANCES
    fresh = iter(basis[2:])
    x = basis[0] * MEAN * s.alpha + basis[1] * np.sqrt(s.alpha**2 * v + s.sigma**2)
    problem = Problem(schedule, lambda x, node: gaussian(x, node, v, MEAN * basis[0]), lambda: next(fresh))
    result = solver.rule(problem, x, nodes)
    error_of_variance = np.sum(result[1:] ** 2, axis=0) - (t.alpha**2 * v + t.sigma**2)
    return float(np.linalg.norm(np.hypot(result[0] - MEAN * t.alpha, error_of_variance)))


@pytest.mark.parametrize("solver", [each for each in SOLVERS.values() if each.order], ids=lambda solver: solver.name)
def test_the_order_is_the_measured_one(solver: Solver) -> None:
    error = weak_error if solver.stochastic else gaussian_error
    measured = np.log2(error(solver, 120) / error(solver, 240))
    lacks(solver.name, [(not abs(measured - solver.order) < 0.3, f"the order {solver.order:g} that it claims; measured is {measured:.2f}")])


@pytest.mark.parametrize("solver", [each for each in SOLVERS.values() if not each.order], ids=lambda solver: solver.name)
def test_solvers_of_order_zero_do_not_converge(solver: Solver) -> None:
    lacks(solver.name, [(not gaussian_error(solver, 120) > 1e-3, "its order: it says 0, and converges")])


# Agreement with independent implementations ----------------------------------------------------------------

DIFFERENCES = {
    "initial noise": "Schedulers in the frame x / alpha start from sigma_max, not sqrt(1 + sigma_max^2), on linspace and trailing "
    "grids; so coefficients of the noise are compared relative to the first.",
    "lowered order": "diffusers lowers the order in the last steps below 15 steps only; here at any count.",
    "dpm_2s, even counts": "The official plan of orders ends 2; diffusers' ends 1, 1.",
    "dpm_3s": "diffusers' inner step of order 2 has the weight 1/2; the official one, used here, is exact.",
    "unip_3, unip_4": "Exact in their warm-up too; diffusers has the weight 1/2 in UniP-2. `unip_2_bh1` and `dpmpp_2m` are its two forms.",
    "ipndm": "IPNDMScheduler starts at alpha = 0, where it loses the first data prediction: that column is not compared.",
    "bh1 to sigma = 0": "diffusers multiplies an infinite B(h) by 0; compared on grids that end at the least noise of the table.",
    "heun on flows": "FlowMatchHeun steps in the time of the flow, not in sigma / alpha.",
    "dpmpp_3m_sde": "diffusers' has a sign error in its third-order term; none is registered.",
}


@dataclass(frozen=True)
class Peer:
    """A scheduler of diffusers, its settings, and where it ends."""

    scheduler: str
    config: dict[str, Any] = field(default_factory=dict)
    steps: tuple[int, ...] = (1, 2, 6, 7)
    end: Node | None = CLEAN
    """None: the least noise of the table."""
    step_arguments: dict[str, Any] = field(default_factory=dict)
    skipped_column: int | None = None


def dpm(algorithm: str, order: int, **config: Any) -> Peer:
    end = CLEAN if algorithm.endswith("++") and "final_sigmas_type" not in config else None
    ending = {} if end else {"final_sigmas_type": "sigma_min"}
    return Peer("DPMSolverMultistep", {"algorithm_type": algorithm, "solver_order": order, **ending, **config}, end=end)


def unipc(order: int, variant: str = "bh2", **config: Any) -> Peer:
    end = None if "final_sigmas_type" in config or variant == "bh1" else CLEAN
    ending = {} if end else {"final_sigmas_type": "sigma_min"}
    return Peer("UniPCMultistep", {"solver_order": order, "solver_type": variant, **ending, **config}, end=end)


NOT_REGISTERED = {"unipc_2_noise_bh1": multistep(unip("noise", "bh1"), 2, unic("noise", "bh1"), True)}
"""Rules that steps of a search space may have, but no baseline has."""

NOISELESS = {"variance_noise": 0}
FLOW: dict[str, Any] = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}

PEERS: list[tuple[str, Peer]] = [
    ("ddim", Peer("DDIM")),
    ("ddim", Peer("DDIM", {"prediction_type": "v_prediction"})),
    ("ddim", Peer("EulerDiscrete")),
    ("ddim", Peer("EDMEuler")),
    ("ddim", Peer("FlowMatchEulerDiscrete", {"shift": 3.0})),
    ("ddim", dpm("dpmsolver++", 1)),
    ("ddim", dpm("dpmsolver", 1)),
    ("ddim_eta1", Peer("DDIM", step_arguments={"eta": 1.0, **NOISELESS})),
    ("heun", Peer("HeunDiscrete")),
    ("heun", Peer("HeunDiscrete", {"prediction_type": "v_prediction"})),
    ("dpm_2s", Peer("DPMSolverSinglestep", {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}, (1, 3, 7), None)),
    ("dpmpp_2s", Peer("DPMSolverSinglestep", steps=(2, 3, 6, 7))),
    ("dpm_2m", dpm("dpmsolver", 2)),
    ("dpm_3m", dpm("dpmsolver", 3)),
    ("dpmpp_2m", dpm("dpmsolver++", 2)),
    ("dpmpp_2m", dpm("dpmsolver++", 2, use_karras_sigmas=True)),
    ("dpmpp_2m", dpm("dpmsolver++", 2, **FLOW)),
    ("dpmpp_2m", Peer("EDMDPMSolverMultistep")),
    ("dpmpp_2m", unipc(2, disable_corrector=list(range(10)))),
    ("dpmpp_3m", dpm("dpmsolver++", 3)),
    ("dpmpp_3m", Peer("EDMDPMSolverMultistep", {"solver_order": 3})),
    ("dpmpp_3m_full", dpm("dpmsolver++", 3, lower_order_final=False)),
    ("dpmpp_2m_sde", Peer("DPMSolverMultistep", {"algorithm_type": "sde-dpmsolver++"}, step_arguments=NOISELESS)),
    ("unip_2_bh1", unipc(2, "bh1", disable_corrector=list(range(10)))),
    ("unipc_1", unipc(1)),
    ("unipc_2", unipc(2)),
    ("unipc_2", unipc(2, **FLOW)),
    ("unipc_2_bh1", unipc(2, "bh1")),
    ("unipc_3", unipc(3)),
    ("unipc_3", unipc(3, prediction_type="v_prediction")),
    ("unipc_3_bh1", unipc(3, "bh1")),
    ("unipc_3_full", unipc(3, lower_order_final=False, final_sigmas_type="sigma_min")),
    ("unipc_4", unipc(4)),
    ("unipc_2_noise", unipc(2, predict_x0=False, final_sigmas_type="sigma_min")),
    ("unipc_3_noise", unipc(3, predict_x0=False, final_sigmas_type="sigma_min")),
    ("unipc_2_noise_bh1", unipc(2, "bh1", predict_x0=False)),
    ("deis_logrho2", Peer("DEISMultistep", {"solver_order": 2}, end=None)),
    ("deis_logrho3", Peer("DEISMultistep", {"solver_order": 3}, end=None)),
    *((f"deis_rhoab{k}", Peer("LMSDiscrete", step_arguments={"order": k + 1})) for k in (1, 2, 3)),
    ("plms", Peer("PNDM", {"steps_offset": 1, "set_alpha_to_one": True}, (2, 6, 7))),
    ("pndm", Peer("PNDM", {"steps_offset": 1, "set_alpha_to_one": True, "skip_prk_steps": False}, (5, 10))),
    ("ipndm_4", Peer("IPNDM", steps=(2, 6, 7), skipped_column=0)),
]  # fmt: skip


def imported(peer: Peer, steps: int) -> Tableau:
    """The peer's table. Its noise levels, which it rounds to float32, are given back in float64, so that it computes in float64."""
    scheduler = scheduler_by_name(peer.scheduler, **peer.config)
    kind = type(scheduler)

    def set_timesteps(self: Any, *args: Any, **kwargs: Any) -> None:
        kind.set_timesteps(self, *args, **kwargs)
        if hasattr(self, "sigmas"):
            self.sigmas = self.sigmas.double()

    def step(self: Any, output: Any, *args: Any, **kwargs: Any) -> Any:
        zeros = {key: output * 0 if key == "variance_noise" else value for key, value in peer.step_arguments.items()}
        return kind.step(self, output, *args, **zeros, **kwargs)

    scheduler.__class__ = type(kind.__name__, (kind,), {"step": step, "set_timesteps": set_timesteps})
    return from_diffusers(scheduler, steps)


def table_of(peer: Peer) -> NoiseSchedule:
    """The schedule of the peer's own table, whose float32 keeps five digits of the least noise."""
    if not hasattr(scheduler_by_name(peer.scheduler), "alphas_cumprod"):
        return DiscreteVP.named()
    bar = scheduler_by_name(peer.scheduler).alphas_cumprod.double().numpy()
    return DiscreteVP(1 - bar / np.concatenate([[1.0], bar[:-1]]))


def coefficients(tableau: Tableau, skipped: int | None) -> Array:
    table = np.zeros((tableau.nfe + 1, tableau.nfe + 1))
    for i, row in enumerate(tableau.rows):
        table[i, 0] = row.x / tableau.rows[0].x
        table[i, 1 : 1 + len(row.d)] = row.d
    return table if skipped is None else np.delete(table, 1 + skipped, axis=1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "peer"), PEERS, ids=[f"{name}-{peer.scheduler}-{i}" for i, (name, peer) in enumerate(PEERS)])
def test_agrees_with_diffusers(name: str, peer: Peer) -> None:
    schedule = table_of(peer)
    rule = NOT_REGISTERED[name] if name in NOT_REGISTERED else get(name).rule
    for steps in peer.steps:
        theirs = imported(peer, steps)
        nodes = [node for node, _ in groupby(theirs.nodes)]
        if name == "pndm":  # its grid is not the list of its evaluations
            nodes = [schedule.node(901 - 100 * i) if steps == 10 else schedule.node(801 - 200 * i) for i in range(steps)]
        ours = trace(rule, schedule, [*nodes, peer.end or schedule.node(0)])
        error = np.abs(coefficients(ours, peer.skipped_column) - coefficients(theirs, peer.skipped_column))
        worst = np.max(error / np.abs(coefficients(theirs, None)).max(axis=1, keepdims=True))
        assert worst < 1e-6, (steps, float(worst))


# Single facts ----------------------------------------------------------------------------------------------


def test_named_equalities() -> None:
    """UniP-2 with bh2 is DPM-Solver++(2M); AB in ln rho of order 1 and singlestep solvers with one evaluation are DDIM."""
    schedule = DiscreteVP.named()
    nodes = grid("karras", schedule, 6)
    ours, theirs = trace(multistep(unip("data", "bh2"), 2), schedule, nodes), get("dpmpp_2m").tableau(schedule, nodes)
    np.testing.assert_allclose(coefficients(ours, None), coefficients(theirs, None), rtol=0, atol=1e-14)
    single = [schedule.node(999), CLEAN]
    for name in ("dpm_2s", "dpm_3s", "dpmpp_2s", "heun", "ipndm_4", "unipc_3"):
        assert get(name).tableau(schedule, single) == get("ddim").tableau(schedule, single)


@pytest.mark.parametrize(("name", "nfe"), [("heun", 4), ("plms", 2), ("pndm", 12)])
def test_counts_that_cannot_be_spent(name: str, nfe: int) -> None:
    with pytest.raises(UserError, match=name):
        get(name).steps(nfe)


def test_an_unknown_solver_is_told_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'unipc_3'"):
        get("unipc3")


def test_every_file_of_solvers_is_registered() -> None:
    files_are_registered(solvers, "SOLVERS")
    assert [solver for _, solver in entries(solvers, "SOLVERS")] == list(SOLVERS.values())


@pytest.mark.parametrize(("module", "solver"), list(entries(solvers, "SOLVERS")), ids=SOLVERS)
def test_a_solver_says_what_it_is_and_is_proven(module: ModuleType, solver: Solver) -> None:
    """Order and invariants are measured above; agreement with an independent implementation somebody has to write."""
    tests = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    family = module.__name__.rpartition(".")[2]
    proven = any(f'"{each.name}"' in tests or f"solvers.{family} import" in tests for each in module.SOLVERS)
    lacks(solver.name, [
        *docstring_lacks(module, solver.reference, formula=True),
        (not re.search("[Oo]rder", module.__doc__ or ""), f"its order in the docstring of {module.__name__}"),
        ("arXiv:" not in solver.reference or not one_line(solver.reference), "a reference with an arXiv number, in one line"),
        (not proven, "agreement with another implementation: a peer in PEERS here, or the published loop in a test of its own"),
    ])  # fmt: skip


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_a_count_that_cannot_be_spent_is_told_in_one_line(solver: Solver) -> None:
    for nfe in range(1, 21):
        try:
            assert 1 <= solver.steps(nfe) <= nfe
        except UserError as error:
            told = str(error)
            lacks(solver.name, [(not one_line(told) or solver.name not in told or str(nfe) not in told, f"one line with both in {told!r}")])


def test_epsilon_scaling_divides_noise_predictions() -> None:
    """es_ddim with a denoiser D equals ddim with the denoiser of eps / 1.01."""
    schedule = DiscreteVP.named()
    nodes = grid("linspace", schedule, 5)

    def denoise(x: Array, node: Node) -> Array:
        return np.tanh(x)

    def divided(x: Array, node: Node) -> Array:
        eps = (x - node.alpha * np.tanh(x)) / node.sigma
        return (x - node.sigma * eps / 1.01) / node.alpha

    x = np.linspace(-2, 2, 5)
    none: Callable[[], Array] = lambda: x  # noqa: E731
    scaled = get("es_ddim").rule(Problem(schedule, denoise, none), x, nodes)
    np.testing.assert_allclose(scaled, get("ddim").rule(Problem(schedule, divided, none), x, nodes), rtol=0, atol=1e-13)


def test_dualfast_leads_noise_predictions_away_from_the_first() -> None:
    """eps' = (1 + c) eps - c eps_tau with c = 0.2 (1 - phi / phi_tau), and DDIM on that."""
    schedule = DiscreteVP.named()
    nodes = grid("linspace", schedule, 5)
    first: list[tuple[float, Array]] = []

    def led(x: Array, node: Node) -> Array:
        eps, phi = (x - node.alpha * np.tanh(x)) / node.sigma, float(np.arctan2(node.sigma, node.alpha))
        first.append((phi, eps))
        c = 0.2 * (1 - phi / first[0][0])
        return (x - node.sigma * ((1 + c) * eps - c * first[0][1])) / node.alpha

    x = np.linspace(-2, 2, 5)
    found = get("dualfast_ddim").rule(Problem(schedule, lambda x, node: np.tanh(x), lambda: x), x, nodes)
    np.testing.assert_allclose(found, get("ddim").rule(Problem(schedule, led, lambda: x), x, nodes), rtol=0, atol=1e-13)


def test_a_half_weight_is_the_exact_one_after_pure_noise() -> None:
    """The first step from alpha = 0, of infinite h, corrected: B(h) has no say in it."""
    schedule = DiscreteVP.named(zero_terminal_snr=True)
    nodes = [*map(schedule.node, (999, 700, 300)), CLEAN]
    exact, half = (
        trace(multistep(unip("data", variant), 1, unic("data", variant)), schedule, nodes) for variant in ("exact", "bh2")
    )  # fmt: skip
    plain = get("ddim").tableau(schedule, nodes)
    assert half.rows[2].d == pytest.approx(exact.rows[2].d, rel=1e-12)
    assert half.rows[2].d != pytest.approx(plain.rows[2].d, rel=1e-3)


@pytest.mark.parametrize("b", [0.8, 0.5])
@pytest.mark.parametrize(
    ("order", "sums"),
    [
        (2, lambda b, v: ((2 + b) * v[-1] - (2 - b) * v[-2]) / (2 * b)),
        (3, lambda b, v: ((18 + 5 * b) * v[-1] - (24 - 8 * b) * v[-2] + (6 - b) * v[-3]) / (12 * b)),
        (4, lambda b, v: ((46 + 9 * b) * v[-1] - (78 - 19 * b) * v[-2] + (42 - 5 * b) * v[-3] - (10 - b) * v[-4]) / (24 * b)),
    ],
)
def test_ghvb_is_its_recursion_of_velocities(order: int, sums: Callable[[float, list[Array]], Array], b: float) -> None:
    """v_0 = eps_0, v_i = (1 - b) v_{i-1} + b eps_i, and DDIM along their sum, from the step on whose history is long enough."""
    schedule = VE(1.0, 60.0)
    nodes = [schedule.node(float(sigma)) for sigma in (60, 40, 27, 14, 6, 3, 1)]
    states: list[Array] = []

    def denoise(x: Array, node: Node) -> Array:
        states.append(x)
        return np.tanh(x / 9)

    x = np.linspace(-100.0, 100, 5)
    states.append(multistep(ghvb(order, b), 99)(Problem(schedule, denoise, lambda: x), x, nodes))
    velocities: list[Array] = []
    for i, node in enumerate(nodes[:-1]):
        eps = (states[i] - np.tanh(states[i] / 9)) / node.sigma
        velocities.append(eps if i == 0 else (1 - b) * velocities[-1] + b * eps)
        if len(velocities) >= order:
            expected = states[i] + (nodes[i + 1].sigma - node.sigma) * sums(b, velocities)
            np.testing.assert_allclose(states[i + 1], expected, rtol=1e-12)


@pytest.mark.parametrize(("order", "name"), [(2, "ipndm_2"), (3, "ipndm_3"), (4, "ipndm_4")])
def test_ghvb_without_damping_is_ipndm(order: int, name: str) -> None:
    schedule = DiscreteVP.named()
    nodes = grid("linspace", schedule, 8)
    ours, theirs = trace(multistep(ghvb(order, 1.0), 99), schedule, nodes), get(name).tableau(schedule, nodes)
    np.testing.assert_allclose(coefficients(ours, None), coefficients(theirs, None), rtol=0, atol=1e-12)


@pytest.mark.parametrize("order", [2, 3, 4])
@pytest.mark.parametrize("name", ["ipndm_{}", "ghvb_{}"])
def test_constant_coefficients_have_their_order_on_even_grids(name: str, order: int) -> None:
    """On a grid uniform in sigma, a noise prediction that is a polynomial of degree order - 1 in it is integrated exactly.

    For GHVB after the velocity has forgotten its start, which takes (1 - b)^n.
    """
    schedule = VE(1.0, 60.0)
    nodes = [schedule.node(float(sigma)) for sigma in range(60, 0, -1)]
    polynomial = np.polynomial.Polynomial([1.0, -2.0, 3.0, 1.0][:order], domain=[0, 60])
    states: list[Array] = []

    def denoise(x: Array, node: Node) -> Array:
        states.append(x)
        return x - node.sigma * polynomial(node.sigma)

    result = get(name.format(order if name.startswith("ip") else f"{order - 1}.8")).rule(
        Problem(schedule, denoise, lambda: np.zeros(1)), np.zeros(1), nodes
    )
    exact = polynomial.integ()(1.0) - polynomial.integ()(2.0)
    assert result - states[-1] == pytest.approx(exact, rel=1e-10)


def test_bdia_with_gamma_one_runs_backwards_to_where_it_came_from() -> None:
    """x_{i+1} = x_{i-1} + DDIM(x_i -> t_{i+1}) - DDIM(x_i -> t_{i-1}): solved for x_{i-1} it is exact."""
    schedule = DiscreteVP.named()
    nodes = grid("linspace", schedule, 4)
    states: list[Array] = []

    def denoise(x: Array, node: Node) -> Array:
        states.append(x)
        return np.tanh(x)

    x = np.linspace(-2, 2, 5)
    states.append(multistep(bdia(1.0), 2)(Problem(schedule, denoise, lambda: x), x, nodes))
    for i in (3, 2, 1):
        here = Past(nodes[i], states[i], np.tanh(states[i]), states[i])
        back = states[i + 1] - first_order(here, nodes[i + 1]) + first_order(here, nodes[i - 1])
        np.testing.assert_allclose(back, states[i - 1], rtol=0, atol=1e-12)
