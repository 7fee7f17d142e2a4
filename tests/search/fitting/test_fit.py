"""The closed-form fit."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.fft import dctn, idctn
from torch import Tensor

from solversearch.components import Components
from solversearch.grids import explicit, grid
from solversearch.judging.objectives.endpoint import endpoint_mse
from solversearch.models.base import Clock, Denoiser, Model
from solversearch.runtime import Row, Tableau, run, scalars, steps
from solversearch.sampling import alone, sample
from solversearch.schedules import CLEAN, VE
from solversearch.search.fitting import design_matrix as columns
from solversearch.search.fitting.design_matrix import Recorder, row, weights
from solversearch.search.fitting.fit import fit
from solversearch.solvers import get
from solversearch.teacher import Teacher, teach


def baseline(model: Model, solver: str = "unipc_2", name: str = "quadratic", nfe: int = 5, guidance: float = 1.0) -> Tableau:
    return get(solver).tableau(model.schedule, grid(name, model.schedule, nfe)).guided(guidance)


def denoiser(model: Model, teacher: Teacher, split: bool = False) -> Denoiser:
    return Denoiser(model, teacher.conditions, split=split)


def mean_error(model: Model, table: Tableau, teacher: Teacher) -> float:
    return float(endpoint_mse(sample(model, table, teacher), teacher.endpoint).mean())


@pytest.mark.parametrize("robust", [False, True])
def test_fit_beats_its_prior_on_held_out_noise(digits: Model, fitting: Teacher, held_out: Teacher, robust: bool) -> None:
    prior = baseline(digits, "ddim")
    table, _ = fit(prior, fitting, denoiser(digits, fitting), fitting.noise, 1e-4, robust)
    assert mean_error(digits, table, held_out) < 0.5 * mean_error(digits, prior, held_out)


def test_samples_returned_are_those_of_the_fitted_table(digits: Model, fitting: Teacher) -> None:
    table, samples = fit(baseline(digits), fitting, denoiser(digits, fitting), fitting.noise)
    torch.testing.assert_close(samples, sample(digits, table, fitting), rtol=0, atol=1e-6)


@pytest.mark.parametrize("robust", [False, True])
def test_rows_are_those_of_weighted_ridge_regressions(digits: Model, fitting: Teacher, robust: bool) -> None:
    """Row 1, from the noise and the first output, by `lstsq`: once, or three times with weights 1 / (error + median error)."""
    prior, teacher, ridge = baseline(digits, nfe=2), fitting.first(33), 1e-3
    table, _ = fit(prior, teacher, denoiser(digits, teacher), teacher.noise, ridge, robust)
    output = denoiser(digits, teacher)(table.rows[0].x * teacher.noise, table.nodes[0])
    assert isinstance(output, torch.Tensor)
    known = np.stack([teacher.noise.double().numpy(), output.detach().double().numpy()]).reshape(2, 33, -1)
    start = np.array([prior.rows[1].x, *prior.rows[1].d])
    residual = teacher.state(table.nodes[1]).double().numpy().reshape(33, -1) - np.tensordot(start, known, 1)
    weight, change = np.ones(33), np.zeros(2)
    for _ in range(3 if robust else 1):
        root = np.sqrt(weight / weight.mean())[:, None]
        weighted = (known * root).reshape(2, -1)
        penalty = np.diag(np.sqrt(ridge * (weighted**2).sum(1)))
        target = np.concatenate([(residual * root).ravel(), np.zeros(2)])
        change = np.linalg.lstsq(np.concatenate([weighted.T, penalty]), target, rcond=None)[0]
        error = ((residual - np.tensordot(change, known, 1)) ** 2).mean(1)
        weight = 1 / (error + np.median(error))
    assert [table.rows[1].x, *table.rows[1].d] == pytest.approx(start + change, rel=1e-6)


def test_few_columns_at_a_time_are_the_same(digits: Model, fitting: Teacher, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, prior = fitting.first(33), baseline(digits, nfe=3)

    def fitted() -> tuple[Tableau, torch.Tensor]:
        seen = Recorder(teacher.noise)
        alone(denoiser(digits, teacher), seen.watched(steps(prior.nodes, prior.rows, teacher.noise)))
        return fit(prior, teacher, denoiser(digits, teacher), teacher.noise)[0], seen.gram(3)

    whole, gram = fitted()
    monkeypatch.setattr(columns, "CHUNK", 64 * 4 * 10)  # ten samples of four columns
    parts, sums = fitted()
    torch.testing.assert_close(sums, gram, rtol=1e-12, atol=0)
    for a, b in zip(parts.rows, whole.rows, strict=True):
        assert [a.x, *a.d] == pytest.approx([b.x, *b.d], rel=1e-6)


def test_infinite_ridge_is_the_prior_and_no_ridge_is_least_squares(digits: Model, fitting: Teacher) -> None:
    prior = baseline(digits, nfe=3)
    kept, _ = fit(prior, fitting, denoiser(digits, fitting), fitting.noise, ridge=1e12)
    for i, (given, found) in enumerate(zip(prior.rows, kept.rows, strict=True)):
        torch.testing.assert_close(weights(found, i), weights(given, i), rtol=0, atol=1e-9)
    free, _ = fit(prior, fitting, denoiser(digits, fitting), fitting.noise, ridge=0.0)
    seen = Recorder(fitting.noise)
    alone(denoiser(digits, fitting), seen.watched(steps(free.nodes, free.rows, fitting.noise)))
    for i in range(3):
        target = fitting.endpoint if i == 2 else fitting.state(free.nodes[i + 1])
        features = torch.cat([each[:, 0].mT for _, each in seen.columns(i + 1, len(fitting))]).flatten(0, 1)
        solution = np.linalg.lstsq(features.numpy(), target.double().flatten().numpy(), rcond=None)[0]
        fitted = weights(free.rows[i + 1], i + 1)[0]
        np.testing.assert_allclose(features.numpy() @ fitted.numpy(), features.numpy() @ solution, atol=1e-5)


BANDS, MIXED = (0.1, 0.3, 1.0), ((0.6, 0.8), (-0.8, 0.6))


def coloured() -> Model:
    """Gaussian pictures of two channels, whose spectrum in the frame of `MIXED` the exact flow scales by hats of `BANDS`."""
    most, scales = 10.0, torch.tensor([[0.9, 0.3, 0.05], [0.5, 0.2, 0.1]], dtype=torch.float64)
    down, across = torch.meshgrid(torch.arange(12) / 12, torch.arange(8) / 8, indexing="ij")
    place = np.interp(np.log(np.maximum(torch.hypot(down, across) / 2**0.5, 1e-9)), np.log(BANDS), range(3))
    hats = torch.tensor(np.maximum(0, 1 - abs(place - np.arange(3)[:, None, None])))
    scale = torch.einsum("cb,bhw->chw", scales, hats)
    variance = scale**2 / (1 - (scale / most) ** 2)  # the flow takes noise most z to sqrt(variance / (variance + most^2)) most z

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        y = torch.tensor(dctn(np.einsum("cd,bdhw->bchw", MIXED, x.double().numpy()), axes=(2, 3), norm="ortho"))
        y = y * variance / (variance + t.double()[:, None, None, None] ** 2)
        return torch.tensor(np.einsum("cd,bchw->bdhw", MIXED, idctn(y.numpy(), axes=(2, 3), norm="ortho"))).to(x)

    return Model("coloured", network, VE(0.001, most), "sample", (2, 12, 8))


def test_one_evaluation_is_exact_where_the_spectrum_is_of_the_bands() -> None:
    model = coloured()
    teacher = teach(model, "fit", 48, steps=128)
    nodes = (model.schedule.node(10.0),)
    plain = Tableau(nodes, (Row(1.0), Row(0.05, (0.5,))))
    errors = {}
    for components in (None, Components(BANDS), Components((), MIXED), Components(BANDS, MIXED)):
        fitted, samples = fit(replace(plain, components=components), teacher, Denoiser(model, None), teacher.noise, ridge=1e-10)
        errors[len(components or ())] = float((samples - teacher.endpoint).square().mean())
        assert fitted.components == components
    assert errors[6] < 1e-4 * errors[0] and errors[3] < errors[0] > errors[2] > errors[6] < errors[3]


def test_components_are_least_squares_on_columns_made_by_hand() -> None:
    model = coloured()
    teacher = teach(model, "fit", 24, steps=32)
    components = Components(BANDS, MIXED)
    prior = Tableau(tuple(map(model.schedule.node, (10.0, 0.5))), (Row(1.0), Row(0.3, (0.6,)), Row(0.0, (0.1, 0.9))), components=components)
    kept, _ = fit(prior, teacher, Denoiser(model, None), teacher.noise, ridge=1e12)
    assert all(np.allclose(scalars(a), scalars(b), atol=1e-9) for a, b in zip(prior.rows[2].d, kept.rows[2].d, strict=True))
    free, _ = fit(prior, teacher, Denoiser(model, None), teacher.noise, ridge=0.0)
    states: list[torch.Tensor] = []
    run(free.nodes, free.rows, Denoiser(model, None), teacher.noise, callback=lambda i, x, d: states.append(d), components=components)
    place = np.interp(
        np.log(np.maximum(np.hypot(*np.mgrid[:12, :8] / np.array([12, 8])[:, None, None]) / 2**0.5, 1e-9)), np.log(BANDS), range(3)
    )
    columns = []
    for each in (teacher.noise, *states):
        y = dctn(np.einsum("cd,bdhw->bchw", MIXED, each.double().numpy()), axes=(2, 3), norm="ortho")
        for c in range(2):
            for b in range(3):
                part = np.zeros_like(y)
                part[:, c] = y[:, c] * np.maximum(0, 1 - abs(place - b))
                columns.append(np.einsum("cd,bchw->bdhw", MIXED, idctn(part, axes=(2, 3), norm="ortho")).ravel())
    features, target = np.stack(columns, 1), teacher.endpoint.double().numpy().ravel()
    solution = np.linalg.lstsq(features, target, rcond=None)[0]
    fitted = np.concatenate([scalars(each) for each in (free.rows[2].x, *free.rows[2].d)])
    np.testing.assert_allclose(features @ fitted, features @ solution, atol=1e-5)


def test_linear_model_is_solved_exactly() -> None:
    """For one Gaussian every state is a multiple of the noise, so that the fit finds the exact flow even from a wrong prior."""
    variance = 0.3
    schedule = VE(0.01, 10.0)

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return x * (variance / (variance + t**2))[:, None]

    model = Model("gaussian", network, schedule, "sample", (6,))
    teacher = teach(model, "fit", 32, steps=128)
    table = get("ddim").tableau(schedule, explicit(schedule, [10.0, 2.0, 0.4]))
    wrong = Tableau(table.nodes, tuple(replace(r, d=tuple(2 * value for value in r.d)) for r in table.rows))
    _, samples = fit(wrong, teacher, Denoiser(model, None), teacher.noise, ridge=1e-12)
    scale = np.sqrt((variance + 0.01**2) / (variance + 10.0**2)) * variance / (variance + 0.01**2)
    torch.testing.assert_close(samples, (teacher.noise * 10.0 * scale), rtol=1e-3, atol=1e-4)
    assert CLEAN.sigma == 0


def test_split_columns_help_under_guidance(digits: Model) -> None:
    teacher = teach(digits, "fit", 96, guidance=4.0)
    prior = baseline(digits, guidance=4.0)
    together, _ = fit(prior, teacher, denoiser(digits, teacher), teacher.noise, 1e-6)
    apart, samples = fit(prior, teacher, denoiser(digits, teacher, split=True), teacher.noise, 1e-6)
    assert apart.split and not together.split
    assert float(endpoint_mse(samples, teacher.endpoint).mean()) < mean_error(digits, together, teacher)


def test_row_and_weights_are_inverse() -> None:
    given = Row(1.5, (0.25,), (0.0, -2.0))
    assert row(weights(given, 3, (0, 1, 2)), 3, (0, 1, 2)) == Row(1.5, (0.25, 0.0, 0.0), (0.0, -2.0, 0.0))
    assert row(weights(given, 3, (1, 3)), 3, (1, 3)) == Row(1.5, (0.25, 0.0, 0.0), (0.0, -2.0))
    assert row(weights(given, 3), 3) == Row(1.5, (0.25, 0.0, 0.0), ())


def without_guidance(table: Tableau, *nodes: int) -> Tableau:
    """The table with guidance 1 at some evaluations."""
    return replace(table, nodes=tuple(replace(node, guidance=1.0) if i in nodes else node for i, node in enumerate(table.nodes)))


def test_rows_use_the_differences_of_nodes_that_guide_alone(digits: Model) -> None:
    """All rows by `lstsq` over the noise, the outputs and two differences, which are made of D_c and D_u by hand."""
    teacher, ridge, clock = teach(digits, "fit", 33, guidance=4.0), 1e-3, Clock()
    prior = without_guidance(baseline(digits, nfe=3, guidance=4.0), 1)
    table, samples = fit(prior, teacher, Denoiser(digits, teacher.conditions, split=True, clock=clock), teacher.noise, ridge)
    assert [node.guidance_difference for node in table.nodes] == ["compute", "reuse", "compute"]
    assert clock.evaluations == 33 * 5 and table.network_calls == prior.network_calls == 5
    denoise = denoiser(digits, teacher)
    x, outputs, found = teacher.noise.double(), list[Tensor](), dict[int, Tensor]()
    for i, given in enumerate(table.rows):
        known = torch.stack([teacher.noise.double(), *outputs, *found.values()]).reshape(1 + i + len(found), -1).numpy()
        if i:
            start = np.array([prior.rows[i].x, *prior.rows[i].d, *[0.0] * len(found)])
            target = (teacher.endpoint if i == 3 else teacher.state(table.nodes[i])).double().flatten().numpy() - start @ known
            penalty = np.diag(np.sqrt(ridge * (known**2).sum(1)))
            change = np.linalg.lstsq(np.vstack([known.T, penalty]), np.concatenate([target, np.zeros(len(known))]), rcond=None)[0]
            delta = [*given.delta, *[0.0] * (i - len(given.delta))]
            assert [given.x, *given.d, *(delta[j] for j in found)] == pytest.approx(start + change, rel=1e-4, abs=1e-5)
            assert not any(delta[j] for j in range(i) if j not in found)
            x = torch.from_numpy((start + change) @ known).reshape(teacher.noise.shape)
        else:
            x = given.x * teacher.noise.double()
        if i < 3:
            node = table.nodes[i]
            c, u = (denoise(x.float(), replace(node, guidance=w, guidance_difference="compute")) for w in (1.0, 0.0))
            assert isinstance(c, torch.Tensor) and isinstance(u, torch.Tensor)
            outputs.append((u + node.guidance * (c - u)).double())
            if i != 1:
                found[i] = (c - u).double()
    torch.testing.assert_close(samples.double(), x, rtol=0, atol=1e-4)


def test_a_difference_that_a_row_uses_is_computed_without_guidance_too(digits: Model) -> None:
    teacher, prior = teach(digits, "fit", 16, guidance=4.0), without_guidance(baseline(digits, nfe=3, guidance=4.0), 0, 1)
    rows = (*prior.rows[:2], replace(prior.rows[2], delta=(0.0, 0.5)), prior.rows[3])
    table, _ = fit(replace(prior, rows=rows), teacher, denoiser(digits, teacher, split=True), teacher.noise)
    assert [node.reuses for node in table.nodes] == [True, False, False] and table.network_calls == 5
    assert table.uses_difference(1) and not table.uses_difference(0)


def test_reused_differences_make_up_for_what_is_not_computed(digits: Model) -> None:
    """Half an evaluation fewer: rows over the differences of the others are nearer than the conditional network alone."""
    teacher, held = teach(digits, "fit", 256, guidance=4.0), teach(digits, "held_out", 256, guidance=4.0)
    prior = without_guidance(baseline(digits, guidance=4.0), 2, 4)
    reusing, alone = (fit(prior, teacher, denoiser(digits, teacher, split), teacher.noise, 1e-6)[0] for split in (True, False))
    assert reusing.network_calls == alone.network_calls == 8
    assert mean_error(digits, reusing, held) < 0.75 * mean_error(digits, alone, held)
