"""A comparison of methods: its rows, how it goes on, what is switched off in an ablation, and how it is shown."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.text import Text
from numpy.typing import NDArray
from rich.console import Console

import solversearch.judging.baselines as peers
import solversearch.studies.study as module
from solversearch.errors import UserError
from solversearch.plan import Plan
from solversearch.report import pictures
from solversearch.report.study_view import methods, study_picture, study_tables
from solversearch.report.tables import percent
from solversearch.runtime import Tableau
from solversearch.sampling import sample
from solversearch.search.settings import Settings
from solversearch.search.stages import baseline
from solversearch.spaces import Domain, SearchSpace, presets
from solversearch.studies.study import BASELINE, Study, StudySpec, ablations, study
from solversearch.teacher import teach
from tests.assets import coins

MODEL = coins.factory()
OTHER = coins.other_weights()
METHODS = {name: Settings.of(SearchSpace.named(name), nfe=1) for name in ("autodiffusion", "nonstationary")}
ASKED = StudySpec(
    model="coins", model_digest=MODEL.fingerprint, methods=tuple(METHODS), nfe=(3, 4), guidance=(1.0, 2.0), evaluations=6000, samples=128,
    seed=3,
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def few_baselines() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(baseline, "STARTS", 2)
        for name, kept in (("SOLVERS", ("ddim", "unipc_2", "ipndm_3")), ("GRIDS", ("logsnr", "quadratic"))):
            patch.setattr(peers, name, {key: getattr(peers, name)[key] for key in kept})
        yield


def quiet(stage: str, done: int, total: int, note: str) -> None:
    pass


def run(folder: Path, asked: StudySpec = ASKED, wanted: dict[str, Settings] = METHODS, progress: Any = quiet) -> Study:
    return study(MODEL, asked, wanted, folder, "the command", progress)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Study]:
    folder = tmp_path_factory.mktemp("study")
    return folder, run(folder)


def without_seconds(found: Study) -> list[dict[str, Any]]:
    return [row.model_dump(exclude={"seconds"}) for row in found.rows]


def test_every_method_has_a_row_in_every_cell(done: tuple[Path, Study]) -> None:
    folder, found = done
    cells = [(nfe, guidance) for nfe in (3, 4) for guidance in (1.0, 2.0)]
    assert [(row.method, row.nfe, row.guidance) for row in found.rows] == [
        (name, *cell) for cell in cells for name in (BASELINE, "autodiffusion", "nonstationary")
    ]
    assert Study.model_validate_json((folder / "study.json").read_text()) == found
    for row in found.rows:
        assert row.network_calls == row.nfe * (2 if row.guidance != 1 else 1)
        assert row.endpoint_mse.low <= row.endpoint_mse.mean <= row.endpoint_mse.high and row.frechet_teacher is not None
        rival = found.row(BASELINE, row.nfe, row.guidance)
        assert rival is not None and row.endpoint_mse.mean / row.ratio == pytest.approx(rival.endpoint_mse.mean / rival.ratio)
        assert (rival.ratio_geometric.low, rival.ratio_geometric.mean, rival.ratio_geometric.high) == (1, 1, 1) and rival.share.mean == 0.5
        assert rival.ratio >= 1 and rival.ratio_median >= 1
        assert (row.seconds > 0) == (row.evaluations > 0) == (row.method != BASELINE)
    # Fitted coefficients beat hand-made ones on such a model, whatever else.
    assert all(row.ratio < 0.5 for row in found.rows if row.method == "nonstationary" and row.guidance == 1)


@pytest.mark.parametrize(("nfe", "guidance"), [(3, 1.0), (4, 2.0)])
def test_ratios_are_over_the_least_of_all_baselines(done: tuple[Path, Study], nfe: int, guidance: float) -> None:
    folder, found = done
    teacher = teach(MODEL, "held_out", 128, guidance, 3, trajectory=False)

    def errors(table: Tableau) -> NDArray[np.float64]:
        return ((sample(MODEL, table, teacher) - teacher.endpoint).double() ** 2).flatten(1).mean(1).numpy()

    def geometric(values: NDArray[np.float64]) -> float:
        return float(np.exp(np.log(values).mean()))

    rivals = [errors(each.table) for each in peers.baselines(MODEL, nfe, guidance)]
    assert len(rivals) >= 6
    best = min(rivals, key=geometric)
    for name in METHODS:
        row, own = found.row(name, nfe, guidance), errors(Plan.read(folder / f"{name}-nfe{nfe}-g{guidance:g}.json").tableau)
        assert row is not None and row.endpoint_mse.mean == pytest.approx(own.mean(), rel=1e-4)
        assert row.ratio == pytest.approx(own.mean() / min(each.mean() for each in rivals), rel=1e-3)
        medians = [np.sort(each)[63] for each in (own, *rivals)]
        assert row.ratio_median == pytest.approx(medians[0] / min(medians[1:]), rel=1e-3)
        assert row.ratio_geometric.mean == pytest.approx(geometric(own) / geometric(best), rel=1e-3)
        logs = np.log(own / best)
        half = 1.9788 * logs.std(ddof=1) / 128**0.5  # Student's t with 127 degrees of freedom
        assert row.ratio_geometric.low == pytest.approx(np.exp(logs.mean() - half), rel=1e-3)
        assert row.ratio_geometric.high == pytest.approx(np.exp(logs.mean() + half), rel=1e-3)
        less, less_or_same = ((own < best * (1 + apart)).mean() for apart in (-1e-5, 1e-5))  # a plan may be the baseline itself
        assert row.share.mean == pytest.approx((less + less_or_same) / 2, abs=1 / 128)


def test_the_budget_is_the_same_for_all(done: tuple[Path, Study]) -> None:
    for row in done[1].rows:
        one = row.network_calls * 512  # a candidate's fitting and validation samples
        assert row.method == BASELINE or 6000 - one < row.evaluations < 6000 + 4 * one
        assert row.method != "autodiffusion" or row.evaluations < 6000 + one


def test_every_row_has_its_plan(done: tuple[Path, Study]) -> None:
    folder, found = done
    for row in found.rows:
        if row.method != BASELINE:
            plan = Plan.read(folder / f"{row.method}-nfe{row.nfe}-g{row.guidance:g}.json")
            assert (plan.nfe, plan.guidance, plan.network_calls) == (row.nfe, row.guidance, row.network_calls)
            assert [score.endpoint_mse for score in plan.scores] == [row.endpoint_mse]
            assert plan.decisions["space"] == row.method and plan.provenance.seed == 3 and plan.provenance.command == "the command"
    assert len(list(folder.glob("*-nfe*.json"))) == 8


def test_a_study_goes_on_where_it_was_interrupted(done: tuple[Path, Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a cell, too: while its baselines race, and between its methods."""
    for place, rows in (("best baseline, NFE 3, guidance 2", 3), ("nonstationary, NFE 3, guidance 2", 5)):

        def interrupt(stage: str, *_: Any, place: str = place) -> None:
            if stage.startswith(place):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, progress=interrupt)
        kept = Study.model_validate_json((tmp_path / "study.json").read_text())
        assert without_seconds(kept) == without_seconds(done[1])[:rows]
    assert without_seconds(run(tmp_path)) == without_seconds(done[1])

    def fails(*_: Any) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(module, "_measured", fails)
    assert without_seconds(run(tmp_path)) == without_seconds(done[1])


def test_a_study_knows_settings_by_content(done: tuple[Path, Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of the same name may say something else today, and so may a default."""
    text = presets()["nonstationary"].read_text()
    (tmp_path / "nonstationary.yaml").write_text(text.replace("high: 1.0e-2", "high: 1.0e-1").replace("  - ays_sd15\n", ""))
    edited = Settings.of(SearchSpace.named(str(tmp_path / "nonstationary.yaml")), nfe=1)
    with pytest.raises(UserError, match=r"with other settings of nonstationary \(space\.timesteps, space\.ridge\); choose another folder"):
        run(done[0], wanted={**METHODS, "nonstationary": edited})
    fitted = METHODS["autodiffusion"].model_copy(update={"fit": True})
    with pytest.raises(UserError, match=r"with other settings of autodiffusion \(fit\); choose"):
        run(done[0], wanted={**METHODS, "autodiffusion": fitted})
    with monkeypatch.context() as patch:
        patch.setattr("solversearch.search.settings.SAMPLES", {1e9: (128, 256, 128)})
        with pytest.raises(UserError, match=r"autodiffusion \(validation_samples\), settings of nonstationary \(validation_samples\);"):
            run(done[0])
    before = json.loads((done[0] / "study.json").read_text())
    del before["asked"]["settings"]  # as written before they were in it
    (tmp_path / "study.json").write_text(json.dumps(before))
    with pytest.raises(UserError, match="with other settings of autodiffusion, settings of nonstationary; choose"):
        run(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nfe": (3, 5)}, "holds another study, with other nfe; choose another folder with --out"),
        ({"seed": 4, "samples": 256}, "with other samples, seed"),
        ({"model_digest": "0"}, "with other model_digest; choose"),
        ({"model_digest": OTHER.fingerprint}, "with other model_digest; choose"),
        ({"methods": ("nonstationary", "autodiffusion")}, "with other methods"),
    ],
)
def test_a_folder_holds_one_study(done: tuple[Path, Study], change: dict[str, Any], message: str) -> None:
    before = (done[0] / "study.json").read_bytes()
    with pytest.raises(UserError, match=message):
        run(done[0], ASKED.model_copy(update=change))
    assert (done[0] / "study.json").read_bytes() == before


@pytest.mark.parametrize("content", ["", "{", '{"asked": {}}', '{"rows": [], "more": 1}'])
def test_a_damaged_study_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "study.json").write_text(content)
    with pytest.raises(UserError, match=r"study\.json: cannot continue this study: .*; choose another folder with --out") as caught:
        run(tmp_path)
    assert "\n" not in str(caught.value) and (tmp_path / "study.json").read_text() == content


def test_what_a_method_cannot_do_is_told_before_any_work(tmp_path: Path) -> None:
    wanted = {**METHODS, "odd": METHODS["autodiffusion"].model_copy(update={"strategy": "tpee"})}
    with pytest.raises(UserError, match="did you mean 'tpe'"):
        run(tmp_path, wanted=wanted)
    assert list(tmp_path.iterdir()) == []


def test_no_method_is_spared_what_another_has_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Teachers' samples that the polish, or a recipe, is alone to want are paid for, whether or not the cache has them."""
    monkeypatch.setenv("SOLVERSEARCH_CACHE", str(tmp_path / "cache"))
    wanted = {name: Settings.of(SearchSpace.named(name), nfe=1) for name in ("default", "gs")}
    asked = ASKED.model_copy(update={"methods": tuple(wanted), "nfe": (3,), "guidance": (2.0,), "evaluations": 90_000})
    cold, warm = (run(tmp_path / name, asked, wanted) for name in ("cold", "warm"))
    assert without_seconds(cold) == without_seconds(warm) and [row.evaluations > 20_000 for row in cold.rows] == [False, True, True]


# Ablations -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", presets())
def test_an_ablation_switches_one_thing_off_at_a_time(name: str) -> None:
    space = SearchSpace.named(name)
    found = ablations(space)
    whole = found.pop(name)
    assert whole == Settings.of(space, nfe=1)
    assert len(found) == len(space.decided()) + sum(map(bool, (whole.instant, whole.fit, whole.searches, whole.polish)))
    for label, settings in found.items():
        changed = [field for field in Settings.model_fields if getattr(settings, field) != getattr(whole, field)]
        assert len(changed) == 1, label
        if changed != ["space"]:
            assert label == f"{name} without the {changed[0]} stage" and getattr(settings, changed[0]) is False
            continue
        fields = [field for field in SearchSpace.model_fields if getattr(settings.space, field) != getattr(space, field)]
        assert fields == [label.removeprefix(f"{name} without ")]
        assert fields[0] not in settings.space.decided()
        domain = Domain.of(settings.space, MODEL.schedule, 4, 2.0)
        assert domain.tableau(domain.random(np.random.default_rng(0))).nfe == 4


def test_the_full_space_can_be_ablated() -> None:
    assert {"full without input_shift", "full without timesteps", "full without the fit stage"} <= set(ablations(SearchSpace.named("full")))


@pytest.mark.parametrize("name", ["times", "dc"])
def test_an_ablation_runs(name: str, tmp_path: Path) -> None:
    """Without a search there is still a descent, or the best baseline; without free times there are grids."""
    wanted = ablations(SearchSpace.named(name))
    asked = ASKED.model_copy(update={"methods": tuple(wanted), "nfe": (3,), "guidance": (1.0,), "evaluations": 3000})
    found = run(tmp_path, asked, wanted)
    assert methods(found) == [BASELINE, *wanted]
    assert all(row.ratio < 1.5 for row in found.rows)


# For the eye ------------------------------------------------------------------------------------------------------------


def printed(found: Study) -> str:
    console = Console(width=200, no_color=True)
    with console.capture() as capture:
        for table in study_tables(found):
            console.print(table)
    return capture.get()


def test_tables_say_what_was_measured(done: tuple[Path, Study]) -> None:
    text = printed(done[1])
    told = " ".join(text.split())
    assert (
        told.count("error over the least of all baselines, geometric mean; mean / median; samples with less error than the best baseline")
        == 2
    )
    assert "searches of 6,000 network evaluations each; the best baseline is the one of the least geometric mean" in told
    lines = [line for line in text.splitlines() if line.startswith("│ nonstationary")]
    assert len(lines) == 2
    row = done[1].row("nonstationary", 4, 1.0)
    assert row is not None and row.frechet_teacher is not None
    assert lines[0].split("│")[3].strip() == (
        f"{row.ratio_geometric.mean:.3g}; {row.ratio:.3g} / {row.ratio_median:.3g}; "
        f"{percent(row.share.mean)} [{row.frechet_teacher.mean:.3g}]"
    )
    part = Study(asked=ASKED, rows=done[1].rows[:2])  # as after an interruption
    cells = next(line for line in printed(part).splitlines() if "autodiffusion" in line).split("│")
    assert cells[2].strip() != "-" and cells[3].strip() == "-"


def test_the_picture_has_a_line_a_method(done: tuple[Path, Study], tmp_path: Path) -> None:
    figure = study_picture(done[1])
    assert len(figure.axes) == 6  # a row a guidance scale; error, Frechet distance, seconds
    for ax in figure.axes[:2]:
        assert [line.get_label() for line in ax.get_lines()] == [BASELINE, "autodiffusion", "nonstationary"]
    drawn = figure.axes[0].get_lines()[2]
    assert list(drawn.get_xdata()) == [3, 4]  # type: ignore[arg-type]
    assert list(drawn.get_ydata()) == [  # type: ignore[arg-type]
        row.ratio_geometric.mean for row in done[1].rows if row.method == "nonstationary" and row.guidance == 1
    ]
    assert figure.axes[0].get_title() == "guidance 1: geometric mean error / least baseline"
    assert any("guidance 2" in found.get_text() for found in figure.findobj(Text) if isinstance(found, Text))
    pictures.save(figure, tmp_path / "study.png")
    written = (tmp_path / "study.png").read_bytes()
    assert written.startswith(b"\x89PNG\r\n") and len(written) > 30_000


def test_one_cell_and_no_features_can_be_shown(done: tuple[Path, Study], tmp_path: Path) -> None:
    asked = ASKED.model_copy(update={"nfe": (3,), "guidance": (1.0,)})
    rows = tuple(row.model_copy(update={"frechet_teacher": None}) for row in done[1].rows[:3])
    found = Study(asked=asked, rows=rows)
    figure = study_picture(found)
    assert len(figure.axes) == 2 and "[" not in printed(found).splitlines()[-3]
    pictures.save(figure, tmp_path / "study.png")
    assert json.loads(found.model_dump_json())["rows"][0]["frechet_teacher"] is None
