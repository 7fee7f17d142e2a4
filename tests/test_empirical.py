"""The statistics of a model against what is known of normal data, and against derivatives."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from solversearch import empirical
from solversearch.cache import cache_folder
from solversearch.empirical import cost, measure, parametrization
from solversearch.errors import UserError
from solversearch.grids import grid
from solversearch.importing.aliases import named
from solversearch.judging.baselines import baselines
from solversearch.models.base import Clock, Denoiser, Model
from solversearch.noise import fresh_noise
from solversearch.parametrization import DATA, Parametrization
from solversearch.sampling import sample
from solversearch.schedules import VE
from solversearch.search.evaluating.worker import CANDIDATES
from solversearch.search.pipeline import run_stages
from solversearch.search.settings import Settings
from solversearch.search.stages.task import Task
from solversearch.solvers import get
from solversearch.solvers.dpm_v3 import dpm_v3
from solversearch.spaces import Domain, SearchSpace
from solversearch.tableau import trace
from solversearch.teacher import Teacher, teach


class Normal(nn.Module):
    """The exact denoiser of data N(0, variances) under VE noise, which counts what it is asked."""

    def __init__(self, variances: Tensor) -> None:
        super().__init__()
        self.register_buffer("variances", variances)
        self.seen = 0

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.seen += len(x)
        assert isinstance(self.variances, Tensor)
        return x * (self.variances / (self.variances + t.view(-1, 1, 1, 1) ** 2))


def normal(*variances: float) -> Model:
    shaped = torch.tensor(variances).view(-1, 1, 1).expand(-1, 4, 4).clone()
    return Model("normal", Normal(shaped), VE(0.02, 20.0), "sample", tuple(shaped.shape))


class Curved(nn.Module):
    """No denoiser of any data: curved, and each channel looks at the other."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.5), requires_grad=False)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        scaled = self.weight * x / (1 + t.view(-1, 1, 1, 1) ** 2).sqrt()
        return torch.tanh(scaled + 0.5 * scaled.flip(1).square() + condition.view(-1, 1, 1, 1))


@pytest.fixture(scope="module")
def curved() -> Model:
    return Model("curved", Curved(), VE(0.02, 20.0), "sample", (2, 4, 4), torch.tensor([-0.3, 0.2]), torch.tensor(0.0), pad=64)


@pytest.fixture(scope="module")
def taught(curved: Model) -> Teacher:
    return teach(curved, "fit", 24, steps=16)


VARIANCES = np.array([0.05, 0.3, 2.0])


def test_those_of_normal_data_are_known() -> None:
    """With k = sigma^2 / (v + sigma^2), c = k - l and E y^2 = v + sigma^2: l is the average of k, and the regression of f' on f = c y,
    with y' = -k y, is sum c (c' - k c) (v + sigma^2) / sum c^2 (v + sigma^2)."""
    model = normal(*VARIANCES)
    found = measure(model, teach(model, "fit", 64, steps=64))
    fine = np.linspace(found.lams[0], found.lams[-1], 20_001)
    noise = np.exp(-2 * fine)[:, None]
    k = noise / (VARIANCES + noise)
    c = k - k.mean(1, keepdims=True)
    slope = np.gradient(c, fine, axis=0)
    s = (c * (slope - k * c) * (VARIANCES + noise)).sum(1) / (c**2 * (VARIANCES + noise)).sum(1)
    np.testing.assert_allclose(found.l, np.interp(found.lams, fine, k.mean(1)), rtol=0, atol=1e-4)
    inside = slice(2, -2)  # at the ends differences are one-sided
    np.testing.assert_allclose(found.s[inside], np.interp(found.lams, fine, s)[inside], rtol=0.05, atol=0.01)


def test_normal_data_take_one_step_with_what_was_measured() -> None:
    """To the least noise; the teacher, exact to its own error, goes on from there."""
    model = normal(0.3)
    known = measure(model, teacher := teach(model, "validate", 16, steps=64))
    nodes = grid("logsnr_tmin", model.schedule, 2)
    table = get("dpm_v3_2").tableau(model.schedule, nodes, known)
    error = (sample(model, table, teacher) - teacher.endpoint).square().mean().sqrt()
    degenerate = sample(model, get("dpm_v3_2").tableau(model.schedule, nodes), teacher)
    assert error < 0.002
    assert (degenerate - teacher.endpoint).square().mean().sqrt() > 0.1


def test_each_channel_has_the_statistics_of_its_own_data() -> None:
    """A channel is measured as if it were alone; steps are right for both variances at once, those of their average for none."""
    both, alone = normal(0.3, 2.0), [normal(0.3), normal(2.0)]
    known = measure(both, teacher := teach(both, "validate", 64, steps=64))
    for channel, model in zip(known.channels, alone, strict=True):
        single = measure(model, teach(model, "validate", 64, steps=64))
        assert single.channels == ()
        np.testing.assert_allclose(channel.l, single.l, rtol=0, atol=1e-4)
        np.testing.assert_allclose(channel.s[2:-2], single.s[2:-2], rtol=0.05, atol=0.01)
    nodes = grid("logsnr_tmin", both.schedule, 2)
    tables = [get(name).tableau(both.schedule, nodes, known) for name in ("dpm_v3_2_by_channel", "dpm_v3_2")]
    apart, averaged = ((sample(both, table, teacher) - teacher.endpoint).square().mean().sqrt() for table in tables)
    assert apart < 0.002
    assert averaged > 0.05
    assert get("dpm_v3_2_by_channel").tableau(both.schedule, nodes) == get("dpm_v3_2").tableau(both.schedule, nodes)


def test_differences_are_as_good_as_derivatives(curved: Model, taught: Teacher) -> None:
    """v . J v by forward-mode differentiation, of the same v at the same states."""
    found = measure(curved, taught)
    v = fresh_noise(curved, "fit", taught.numbers, empirical.SIGNS, taught.seed).sign()
    denoise = Denoiser(curved, taught.conditions)
    for k in (2, 7, 12):
        node = curved.schedule.node_at_lam(float(found.lams[k]))

        def prediction(x: Tensor) -> Tensor:
            output = denoise(x, node)  # noqa: B023  # called in this turn of the loop
            assert isinstance(output, Tensor)
            return output

        change = torch.func.jvp(prediction, (taught.state(node),), (v,))[1]
        assert found.l[k] == pytest.approx(1 - float((v * change).double().mean()) * node.alpha, abs=5e-4)


def test_the_batch_changes_nothing_and_few_samples_nearly_say_it(curved: Model, taught: Teacher) -> None:
    one, other = measure(curved, taught, batch_size=7), measure(curved, taught, batch_size=512)
    assert one == other
    few = measure(curved, taught.first(12))
    assert np.abs(np.subtract(few.l, one.l)).max() < 0.05


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_it_is_measured_once_at_the_price_that_is_told(
    curved: Model, guidance: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SOLVERSEARCH_CACHE", str(tmp_path))
    clocks = Clock(), Clock()
    first, again = (parametrization(curved, guidance, clock=clock) for clock in clocks)
    assert [clock.evaluations for clock in clocks] == [cost(curved) * (1 if guidance == 1 else 2), 0]
    assert first == again
    (path,) = cache_folder().glob("statistics-*")
    path.write_bytes(b"damaged")
    assert parametrization(curved, guidance) == first
    path.unlink()
    assert parametrization(curved.started(curved.schedule.start_of(0.5)), guidance) == first  # of the whole model


def test_baselines_have_the_model_s_own() -> None:
    model = normal(0.3, 0.5)
    (found,) = baselines(model, 4, 1.0, among={("dpm_v3_2", "logsnr")})
    nodes = grid("logsnr", model.schedule, 4)
    assert found.table == get("dpm_v3_2").tableau(model.schedule, nodes, parametrization(model))
    assert found.table != get("dpm_v3_2").tableau(model.schedule, nodes)


def test_a_model_without_statistics_has_the_other_baselines() -> None:
    model = normal(float("nan"))
    assert {each.solver for each in baselines(model, 4, 1.0, among={("dpm_v3_2", "logsnr"), ("ddim", "logsnr")})} == {"ddim"}


def test_a_space_s_candidates_have_it_and_travel_with_it() -> None:
    own = Parametrization((-1.0, 0.0, 2.0), (0.9, 0.1 + 0.2, 0.3), (0.0, -0.5, -1.0 / 3))
    space = SearchSpace.model_validate(
        {"name": "v3", "timesteps": "logsnr", "solver": "dpm_v3", "order": 2, "search": {"stages": {"fit": False}}}
    )
    candidate = Domain.of(space, VE(), 4, 1.0, parametrization=own).candidate({})
    assert CANDIDATES.validate_json(CANDIDATES.dump_json([candidate])) == [candidate]
    table = trace(dpm_v3(2, corrects=False), VE(), grid("logsnr", VE(), 4), own)
    assert candidate.tableau(VE()) == table != trace(dpm_v3(2, corrects=False), VE(), grid("logsnr", VE(), 4))


def test_a_search_measures_it_where_its_space_asks_for_it() -> None:
    model, told = normal(0.4, 0.7), []
    for space in ("dpm_v3", "dc"):
        task = Task(model, Settings.of(SearchSpace.named(space), nfe=4).sized(model), lambda *note: None)
        told.append(task.domain([]).parametrization)
        assert task.clock.evaluations == (cost(model) if space == "dpm_v3" else 0)
    assert told == [parametrization(model), DATA]


def test_an_import_of_an_empirical_solver_is_refused() -> None:
    with pytest.raises(UserError, match="dpm_v3_2 takes statistics of a model"):
        named("dpm_v3_2")


def test_a_search_begins_without_those_of_each_channel(curved: Model) -> None:
    """Its surrogates run no components; the comparison has them."""
    assert not all(each.plain for each in baselines(curved, 3, 1.0, among={("dpm_v3_2_by_channel", "logsnr")}))
    settings = Settings.of(SearchSpace(), nfe=3, polish=False, fit_samples=32, validation_samples=16).sized(curved)
    found = run_stages(Task(curved, settings, lambda *note: None))
    assert {"best baseline", "instant"} <= {each.name for each in found.stages}
