"""The surrogates: closed forms against samples, and what they say of a real network."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau

from solversearch.grids import explicit, grid
from solversearch.judging.baselines import baselines
from solversearch.judging.objectives.endpoint import endpoint_mse
from solversearch.models.base import Denoiser, Model
from solversearch.models.variants import with_skips
from solversearch.runtime import Node, Row, Tableau
from solversearch.sampling import sample
from solversearch.schedules import VE, DiscreteVP, NoiseSchedule
from solversearch.search.fitting.polish import polish
from solversearch.search.surrogates.anchored import WORST, Anchored
from solversearch.search.surrogates.gaussian import HUGE, SUMMARY, Gaussian, Tables, summary
from solversearch.search.surrogates.guided_mixture import Axes, Mixture
from solversearch.search.surrogates.instant import stand_in
from solversearch.search.surrogates.surrogates import Surrogates
from solversearch.solvers import get
from solversearch.teacher import Teacher, teach
from tests.assets.coins import factory, unconditional
from tests.search.fitting.test_fit import baseline


@pytest.fixture(scope="module")
def surrogates(digits: Model, fitting: Teacher, validation: Teacher) -> Surrogates:
    return Surrogates.of(digits, fitting, validation)


def gaussian_model(schedule: NoiseSchedule) -> tuple[Model, Gaussian]:
    """Four independent numbers of known mean and variance, as a network and in closed form."""
    v, m = torch.tensor([2.0, 0.5, 0.1, 0.01]), torch.tensor([0.5, -1.0, 0.0, 0.2])

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        alpha, sigma = (torch.from_numpy(np.asarray(f(t.numpy()))).float()[:, None] for f in (schedule.alpha, schedule.sigma))
        return m + alpha * v / (alpha**2 * v + sigma**2) * (x - alpha * m)

    closed = Gaussian(schedule, "sample", v.double().numpy(), m.double().numpy() ** 2, np.ones(4))
    return Model("gaussian", network, schedule, "sample", (4,)), closed


@pytest.mark.parametrize("share", [1.0, 0.6])
@pytest.mark.parametrize("whole", [DiscreteVP.named(), VE(0.01, 20.0)])
def test_gaussian_knows_the_error_without_a_sample(whole: NoiseSchedule, share: float) -> None:
    start = whole.start_of(share)
    schedule = whole if start is None else whole.started(start)
    model, closed = gaussian_model(whole)
    model, closed = model.started(start), replace(closed, schedule=schedule)
    teacher = teach(model, "fit", 4096, trajectory=False, steps=256)
    for name in ("ddim", "unipc_3", "dpmpp_2m_sde"):
        table = get(name).tableau(schedule, grid("logsnr", schedule, 5))
        measured = endpoint_mse(sample(model, table, teacher), teacher.endpoint)
        margin = 5 * float(measured.std()) / 64
        assert closed.losses([table])[0] == pytest.approx(float(measured.mean()), abs=margin + 1e-6), name
    assert closed.losses([get("unipc_3").tableau(schedule, grid("logsnr", schedule, 400))])[0] < 1e-6


def test_gaussian_is_fitted_to_endpoints_of_any_dimension(digits: Model, fitting: Teacher) -> None:
    few = fitting.first(24)  # fewer samples than pixels: one axis stands for all others
    closed = Gaussian.fit(digits, [few])
    assert closed.dimensions.sum() == 64 and closed.dimensions[-1] > 1
    samples = few.endpoint.flatten(1).double()
    assert (closed.variances * closed.dimensions).sum() == pytest.approx(float(samples.var(0, correction=0).sum()), rel=1e-6)
    assert (closed.means * closed.dimensions).sum() == pytest.approx(float(samples.mean(0).square().sum()), rel=1e-6)
    features = closed.features([baseline(digits)])
    assert features[0, 0] == pytest.approx(np.log(closed.losses([baseline(digits)])[0] + 1e-8))


def test_a_network_told_another_time_predicts_its_own_output() -> None:
    """D = a x + b output, where the output is the one of the told time."""
    schedule = DiscreteVP.named()
    node, told = schedule.node(500.0), schedule.node(450.0)
    tables = Tables.of([Tableau((replace(node, t=told.t),), (Row(1.0), Row(0.0, (1.0,))))])
    x, clean = 0.7, 0.3  # the state, and what the denoiser of the told time makes of it
    output = (told.alpha * x - clean) / told.sigma
    _, _, share, rest = (each[0, 0] for each in tables.output(schedule, "v_prediction"))
    assert share * clean + rest * x == pytest.approx(node.alpha * x - node.sigma * output, abs=1e-9)
    _, _, share, rest = (each[0, 0] for each in Tables.of([Tableau((node,), (Row(1.0), Row(0.0, (1.0,))))]).output(schedule, "epsilon"))
    assert share == pytest.approx(1) and rest == pytest.approx(0)


def test_mixture_is_the_posterior_mean_under_guidance() -> None:
    rng = np.random.default_rng(0)
    centres, variances, weights = rng.normal(size=(3, 2)), rng.uniform(0.1, 1, (3, 2)), np.array([[0.7, 0.2, 0.1], [0.2, 0.3, 0.5]])
    m, v, log_weights = (torch.from_numpy(each).float() for each in (centres, variances, np.log(weights)))
    mixture = Mixture(Axes(torch.eye(2), torch.ones(2)), m, v, log_weights, torch.tensor([0]), 2)
    x, alpha, sigma = rng.normal(size=(5, 2)), 0.8, 0.6

    def mean(w: np.ndarray) -> np.ndarray:
        s = alpha**2 * variances + sigma**2
        apart = x[:, None] - alpha * centres
        share = w * np.exp(-(apart**2 / s).sum(2) / 2) / np.sqrt(s.prod(1))
        return ((share / share.sum(1, keepdims=True))[:, :, None] * (centres + alpha * variances / s * apart)).sum(1)

    arguments = torch.from_numpy(x).float()[None], torch.tensor([alpha]), torch.tensor([sigma]), mixture.weights_of(torch.zeros(5), 5)
    conditional, free = mean(weights[0]), mean(weights[1])
    np.testing.assert_allclose(mixture.denoise(*arguments)[0][0], conditional, atol=1e-5)
    guided, difference = mixture.denoise(*arguments, torch.tensor([4.0]), True)
    assert difference is not None
    np.testing.assert_allclose(guided[0], free + 4 * (conditional - free), atol=1e-4)
    np.testing.assert_allclose(difference[0], conditional - free, atol=1e-5)


def test_conditions_have_weights_of_their_own(digits: Model, fitting: Teacher) -> None:
    mixture = Mixture.fit([fitting])
    weights = mixture.weights_of(torch.tensor([0, 1, 10]), 3)  # 10 is no condition that was seen
    assert not torch.equal(weights[0], weights[1])
    assert torch.equal(weights[2], mixture.log_weights[-1])
    torch.testing.assert_close(weights.exp().sum(1), torch.ones(3))


def test_large_samples_are_seen_along_axes_of_the_same_length() -> None:
    rng = torch.Generator().manual_seed(0)
    axes = Axes.of(torch.randn(60, 400, generator=rng) * torch.linspace(2, 0.1, 400), 0)
    x = torch.randn(200, 400, generator=rng)
    assert axes.project(x).shape == (200, 32)
    assert float(axes.project(x).square().sum(1).mean()) == pytest.approx(400, rel=0.15)


def test_exact_along_the_teachers_trajectories(surrogates: Surrogates, digits: Model) -> None:
    """Whatever the mixture makes of the digits, a fine table ends where the teacher does."""
    fine = get("unipc_3").tableau(digits.schedule, grid("quadratic", digits.schedule, 60))
    coarse = baseline(digits)
    assert surrogates.anchored.losses([fine])[0] < 0.05 * surrogates.anchored.losses([coarse])[0]


def test_fitted_tables_have_no_column_for_a_difference_that_is_not_computed(surrogates: Surrogates, digits: Model) -> None:
    """Not one evaluation guides, so that a split fit has what another has; where one does, it has more."""
    table = baseline(digits)
    split, together = (surrogates.anchored.errors([table], 1e-4, each) for each in (True, False))
    torch.testing.assert_close(split, together, rtol=1e-3, atol=1e-6)
    guiding = replace(table, nodes=(replace(table.nodes[0], guidance=1 + 1e-6), *table.nodes[1:]))
    assert not torch.allclose(surrogates.anchored.errors([guiding], 1e-4, True), together, rtol=1e-3, atol=1e-6)


def test_ranks_tables_as_the_network_does_and_better_once_it_has_observed(
    digits: Model, fitting: Teacher, validation: Teacher, held_out: Teacher
) -> None:
    tables = [each.table for each in baselines(digits, 4, 1.0) if not each.table.stochastic][::8]
    truth = [float(endpoint_mse(sample(digits, table, held_out), held_out.endpoint).mean()) for table in tables]
    surrogates = Surrogates.of(digits, fitting, validation)

    def tau() -> float:
        return float(kendalltau(surrogates.anchored.losses(tables), truth).statistic)

    before = tau()
    assert before > 0.7
    version = surrogates.version
    surrogates.observe([tables[k] for k in np.argsort(surrogates.anchored.losses(tables))[:6]])
    assert surrogates.version > version and tau() > before


def test_split_and_stochastic_tables_and_those_that_run_away(surrogates: Surrogates, digits: Model) -> None:
    nodes = tuple(digits.schedule.node(t) for t in (999.0, 500.0))
    plain = Tableau(nodes, (Row(1.0), Row(0.5, (0.4,)), Row(0.0, (0.1, 0.9))))
    split = replace(plain, rows=(*plain.rows[:2], Row(0.0, (0.1, 0.9), (0.3, 0.3))))
    noisy = replace(plain, rows=(*plain.rows[:2], Row(0.0, (0.1, 0.9), (), (0.2,))))
    away = replace(plain, rows=(*plain.rows[:2], Row(1e30, (0.1, 0.9))))
    losses = surrogates.anchored.losses([plain, split, noisy, away])
    assert losses[1] != losses[0] and losses[2] - losses[0] == pytest.approx(0.04, rel=0.2) and losses[3] > 1e6
    closed = surrogates.gaussian.losses([plain, noisy])
    assert closed[1] - closed[0] == pytest.approx(0.04, rel=1e-6)
    features = surrogates.features([plain, away], ridge=1e-4)
    assert np.isfinite(features).all() and features[1, 0] <= max(WORST, np.log(HUGE))
    assert np.isfinite(summary([plain, away])).all() and summary([plain]).shape == (1, SUMMARY)


def test_fitting_on_the_surrogate_lowers_the_loss(surrogates: Surrogates, digits: Model) -> None:
    tables = [baseline(digits, "ddim", nfe=n) for n in (4,)]
    assert (surrogates.anchored.losses(tables, 1e-4) < 0.5 * surrogates.anchored.losses(tables)).all()


def test_without_conditions_or_trajectories() -> None:
    made = unconditional()
    model = Model("free", made["network"], made["schedule"], "sample", (1, 2, 2))  # type: ignore[arg-type]
    teacher = teach(model, "fit", 64, trajectory=False, steps=16)
    paired = Anchored(Mixture.fit([teacher]), model, teacher)
    fine, coarse = (get("unipc_2").tableau(model.schedule, grid("linspace", model.schedule, n)) for n in (40, 3))
    assert paired.losses([fine])[0] < 0.1 * paired.losses([coarse])[0]


def test_stands_in_for_the_network_under_guidance() -> None:
    """The stages of the package run on it, and its guided output on the teacher's trajectory is the teacher's."""
    model = factory()
    guided, checked = (teach(model, split, 64, guidance=3.0, steps=32) for split in ("fit", "validate"))
    unguided = [teach(model, split, 64, steps=32) for split in ("fit", "validate")]
    surrogates = Surrogates.of(model, guided, checked, unguided, 3.0)
    other, taught = stand_in(surrogates)
    k = 16
    angle = float(taught.angles[k])
    t = float(model.schedule.time_of_angle(angle))
    node = Node(t, float(model.schedule.alpha(t)), float(model.schedule.sigma(t)), 3.0)
    x = taught.states[k] * np.hypot(node.alpha, node.sigma)
    output = Denoiser(other, taught.conditions)(x, node)
    assert isinstance(output, torch.Tensor)
    teacher = np.cos(angle) * checked.states[k] - np.sin(angle) * checked.slopes[k]
    torch.testing.assert_close(output, surrogates.anchored.mixture.axes.project(teacher.flatten(1)), rtol=0, atol=2e-3)
    start = get("unip_2").tableau(model.schedule, explicit(model.schedule, [1.0, 0.6, 0.3])).guided(3.0)
    *_, better = polish(other, start, taught, 30, split=True)
    errors = [float(endpoint_mse(sample(other, table, taught), taught.endpoint).mean()) for table in (start, better)]
    assert errors[1] < errors[0]


def test_the_error_of_reused_features_grows_with_their_distance(digits: Model, fitting: Teacher, validation: Teacher) -> None:
    model = with_skips(digits)
    known = Surrogates.of(model, fitting, validation)
    learned = known.learn_variants({("features2", 1.0), ("small", 1.0)})
    angles, errors, further = learned["features2", False]
    assert further is not None and len(angles) == len(errors) == len(further) == len(learned["small", False].angles) - 1
    times = model.schedule.time_of_angle(learned["small", False].angles.numpy()).tolist()
    teacher, low = known.anchored.teacher, len(angles) // 2
    node, source = (model.schedule.node(times[k]) for k in (low, low + 1))
    stale = replace(node, variant="features2")
    denoise = Denoiser(model, teacher.conditions).anew([source, stale])
    with torch.no_grad():
        denoise(teacher.state(source), source)
        expected = denoise(teacher.state(node), stale) - denoise(teacher.state(node), node)  # type: ignore[operator]
    torch.testing.assert_close(errors[low], expected)
    known.anchored.learn(learned)
    table = Tables.of([Tableau((source, stale), (Row(1.0), Row(1.0), Row(1.0)))])
    found = known.anchored._of_variants(table, 1, np.arctan2(table.sigma, table.alpha))
    projected = known.anchored._project(expected[: len(known.anchored.noise)], 1)
    torch.testing.assert_close(found, projected[None], rtol=1e-3, atol=1e-5)
    tan = np.tan(float(angles[low]) / 2) * np.exp(2 * float(further[low]))
    twice = model.schedule.node(float(model.schedule.time_of_angle(np.array([2 * np.arctan(tan)]))[0]))
    tables = Tables.of([Tableau((twice, replace(source, variant="small"), stale), (Row(1.0),) * 4)])
    found = known.anchored._of_variants(tables, 2, np.arctan2(tables.sigma, tables.alpha))
    torch.testing.assert_close(found, 2 * projected[None], rtol=1e-2, atol=1e-4)
