"""Sweeps: what a file may ask, and cells that are searched by Ray Tune, go on where they were begun, and are told in one file."""

import json
from pathlib import Path

import optuna
import pytest

import solversearch.studies.sweep_trials as trials
from solversearch.cpr import Cpr, read_plans
from solversearch.errors import UserError
from solversearch.judging.compare import Comparison
from solversearch.models import DEFAULT
from solversearch.plan import Plan, read_json
from solversearch.search.estimate import estimate
from solversearch.search.evaluating.fleet import Fleet
from solversearch.search.evaluating.run_folder import Run
from solversearch.search.optimize import optimize
from solversearch.search.settings import Settings
from solversearch.spaces import SearchSpace
from solversearch.studies.sweep import Sweep, SweepRow, SweepSpec
from solversearch.studies.sweep_run import _front, estimates, sweep
from tests.assets import coins

pytest.importorskip("ray", reason="Ray is not installed")
MODEL = f"python:{coins.__file__}:factory"
FILE = """
models: digits
nfe: [2, 3]
guidance: [1, 2]
settings: {trials: 12, samples: 128, fit_samples: 32, validation_samples: 64, strategy: random, instant: false, fit: true, polish: false}
"""


def asked(folder: Path, text: str = FILE, own: tuple[str, ...] = ()) -> SweepSpec:
    (folder / "sweep.yaml").write_text(text)
    return SweepSpec.read(folder / "sweep.yaml", own)


def test_a_file_is_every_combination(tmp_path: Path) -> None:
    cells = asked(tmp_path, FILE + "spaces: [default, s3]\nseeds: [0, 7]").cells()
    assert len(cells) == 2 * 2 * 2 * 2
    model, settings = cells["digits-s3-nfe3-g2-s7"]
    assert (model, settings.nfe, settings.guidance, settings.seed, settings.trials) == ("digits", 3, 2.0, 7, 12)
    assert settings.space.name == "s3"
    assert {cell.model for cell in asked(tmp_path, FILE, (MODEL,)).cells().values()} == {MODEL}


def test_guidance_is_the_models_own_unless_the_file_says_it(tmp_path: Path) -> None:
    """As in `optimize`."""
    without = asked(tmp_path, FILE.replace("guidance: [1, 2]\n", "").replace("digits", "[digits, sdxl]"))
    cells = without.cells({"digits": 1.0, "sdxl": 5.0})
    assert [cell.settings.guidance for cell in cells.values()] == [1.0, 1.0, 5.0, 5.0]
    assert list(cells)[2] == "sdxl-default-nfe2-g5-s0"
    assert {cell.settings.guidance for cell in asked(tmp_path).cells({"digits": 7.0}).values()} == {1.0, 2.0}


def test_a_file_names_models_of_ones_own(tmp_path: Path) -> None:
    found = asked(tmp_path, FILE.replace("digits", f"[{MODEL}, ./my-pipeline, mixture]")).models
    assert found == (MODEL, "./my-pipeline", "mixture")


def test_settings_have_the_names_and_meanings_of_options(tmp_path: Path) -> None:
    (cell, *_) = asked(tmp_path, "models: digits\nnfe: 2\nsettings: {fit-samples: 40, instant: true, polish: true}").cells().values()
    asked_for = cell.settings
    assert asked_for == Settings.asked(SearchSpace.named("default"), {"nfe": 2, "fit_samples": 40, "instant": True, "polish": True})
    assert asked_for.only_instant and asked_for.fit_samples == 40 and asked_for.polish == "all"
    (cell, *_) = asked(tmp_path, FILE).cells().values()
    assert not cell.settings.instant and not cell.settings.only_instant


def test_cells_may_be_told_apart_by_their_price(tmp_path: Path) -> None:
    """A budget under guidance has room for half as many evaluations; a plan costs what its evaluations do."""
    wanted = asked(tmp_path, FILE.replace("nfe: [2, 3]", "budget: [4, 6.5]").replace("false}", "false, split: true}"), (MODEL,))
    cells = wanted.cells()
    assert [(cell.settings.budget, cell.settings.nfe, cell.settings.guidance) for cell in cells.values()] == [
        (4, 4, 1), (4, 2, 2), (6.5, 6, 1), (6.5, 3, 2)
    ]  # fmt: skip
    assert [name.rpartition("-default-")[2] for name in cells] == ["budget4-g1-s0", "budget4-g2-s0", "budget6.5-g1-s0", "budget6.5-g2-s0"]


def test_what_a_sweep_would_cost_is_what_its_searches_would(tmp_path: Path) -> None:
    costs = estimates(asked(tmp_path, FILE, (MODEL,)))
    assert list(costs) == list(asked(tmp_path, FILE, (MODEL,)).cells())
    for name, cell in asked(tmp_path, FILE, (MODEL,)).cells().items():
        alone = estimate(coins.factory(), cell.settings)
        same = [key for key in alone if key.startswith(("network evaluations", "samples"))]
        assert len(same) > 5 and [costs[name][key] for key in same] == [alone[key] for key in same]


def test_trials_of_all_cells_are_in_one_database(tmp_path: Path) -> None:
    """Which is new, and which two cells are at together; one that cannot be is told before any work."""
    wanted = asked(tmp_path, FILE.replace("nfe: [2, 3]\nguidance: [1, 2]", "nfe: [2]\nguidance: [1, 2]"), (MODEL,))
    with pytest.raises(UserError, match=r"^--storage sqlite:////nowhere/at/all.db: .*unable to open"):
        sweep(wanted, tmp_path / "sweep", "", Fleet(), lambda *_: None, storage="sqlite:////nowhere/at/all.db")
    assert not (tmp_path / "sweep").exists()
    address = f"sqlite:///{tmp_path}/trials.db"
    found = sweep(wanted, tmp_path / "sweep", "", Fleet(2), lambda *_: None, storage=address)
    assert not any(row.failure for row in found.rows)
    studies = optuna.get_all_study_summaries(address)
    assert sorted(study.study_name[:-9] for study in studies) == sorted(wanted.cells()) and {study.n_trials for study in studies} == {12}
    for row in found.rows:
        folder = tmp_path / "sweep" / row.path
        assert not (folder / "journal.log").exists() and Run.read(folder).storage == address
        assert {"comparison.png", "plan.png", "search.png"} <= {each.name for each in folder.iterdir()}  # as `optimize` draws them
    assert found.regressions == () and len(found.notes) == 1
    assert found.notes[0].endswith("got 2: through two goes a line, and nothing says whether what lies between is on it")


@pytest.mark.parametrize(("text", "message"), [
    ("nfe: 4", r"sweep\.yaml:1: models is missing"),
    (FILE + "nfes: [4]", r"sweep\.yaml:6: nfes: Extra inputs"),
    (FILE.replace("[2, 3]", "[2, 2]"), r"sweep\.yaml:3: nfe: .*stands twice"),
    (FILE.replace("[2, 3]", "few"), r"sweep\.yaml:3: nfe.*valid integer"),
    (FILE.replace("trials: 12", "budget: 3"), r"settings: budget: it is named in the list budget, beside settings"),
    (FILE + "budget: 3", r"sweep\.yaml.*nfe and budget: name one of them, the other follows from it"),
    ("models: digits", r"sweep\.yaml.*nfe is missing, or a budget"),
    (FILE.replace("nfe: [2, 3]", "budget: 1"), r"--budget 1 has no room for an evaluation, which costs 2; ask for more"),
    (FILE.replace("trials: 12", "seed: 3"), r"settings: seed: it is named in the list seeds, beside settings"),
    (FILE.replace("[1, 2]", ""), r"sweep\.yaml:4: guidance: no value; leave the key out"),
    ("nfe: &a [4]\nseeds: *a", r"sweep\.yaml:2: aliases"),
    (FILE.replace("trials", "trails"), "settings: trails: unknown key"),
    (FILE + "spaces: s4", "unknown search space 's4'"),
    (FILE + f"spaces: {'k' * 5000}", "unknown search space 'kkk"),
])  # fmt: skip
def test_mistakes_are_one_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as caught:
        asked(tmp_path, text).cells()
    assert "\n" not in str(caught.value)


def test_the_front_is_of_one_model_at_one_guidance() -> None:
    def row(calls: int, error: float | None, guidance: float = 1.0) -> SweepRow:
        return SweepRow(path="", model="m", space="s", nfe=1, guidance=guidance, seed=0, plan=error and "p", endpoint_mse=error,
                   network_calls=error and calls)  # fmt: skip

    rows = [row(4, 0.3), row(5, 0.3), row(5, 0.1), row(6, 0.2), row(8, 0.9, guidance=2.0), row(3, None)]
    assert [each.pareto for each in _front(rows)] == [True, False, True, False, True, False]


def test_cells_are_searched_and_begun_ones_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def kill(stage: str, done: int, *_: object) -> None:
        if stage == "search" and done == 5:
            raise Killed

    wanted, folder, begun = asked(tmp_path, FILE, (MODEL,)), tmp_path / "sweep", ""
    cells = wanted.cells()
    for name, cell in list(cells.items())[:1]:
        with pytest.raises(Killed):
            optimize(coins.factory(), cell.settings, folder / name, "", kill, name=MODEL, options=DEFAULT)
        begun = (folder / name / "evaluations.log").read_text()
    found = sweep(wanted, folder, "solversearch sweep sweep.yaml", Fleet(2), lambda *_: None)
    assert Sweep.model_validate_json((folder / "sweep.json").read_text()) == found
    assert [row.path for row in found.rows] == list(cells) and not any(row.failure for row in found.rows)
    assert (folder / found.rows[0].path / "evaluations.log").read_text().startswith(begun)
    for row in found.rows:
        plan = Plan.read(folder / str(row.plan))
        assert (plan.nfe, plan.guidance, plan.network_calls) == (row.nfe, row.guidance, row.network_calls)
        assert plan.scores[0].endpoint_mse.mean == row.endpoint_mse
        compared = read_json(Comparison, folder / row.path / "comparison.json", "comparison")
        assert (
            row.verdict == compared.verdict
            and row.ratio_geometric == compared.exported_row.geometric_mean / compared.ratios[0].baseline_value
        )
        assert row.ratio == compared.exported_row.endpoint_mse.mean / compared.ratios[1].baseline_value
        assert list((folder / "tune" / row.path).glob("events.out.tfevents*"))
        last = json.loads((folder / "tune" / row.path / "result.json").read_text().splitlines()[-1])
        assert last["endpoint_mse"] == row.endpoint_mse and last["trials"] == 12
    assert all(row.pareto for row in found.rows)
    (regression,) = found.regressions
    assert found.notes == (f"{regression}: {Cpr.read(folder / regression).left_out}",)
    assert "each of 4 configurations left out, the others miss its times by " in found.notes[0]
    assert read_plans([folder]) == [Plan.read(folder / str(row.plan)) for row in sorted(found.rows, key=lambda row: row.path)]
    assert Cpr.read(folder) == Cpr.read(folder / regression)
    with pytest.raises(UserError, match=r"there is no plan\.json in this folder; name one of .*-nfe2-g1-s0, .* and 1 more"):
        Plan.read(folder)
    assert Plan.read(folder / found.rows[0].path) == Plan.read(folder / str(found.rows[0].plan))
    assert Cpr.read(folder / regression).predict(3, 1.5, coins.factory()).nfe == 3
    # All is done: nothing runs again, and another search is not mistaken for this one.
    monkeypatch.setattr(trials, "search_cells", None)
    monkeypatch.setattr("solversearch.studies.sweep_run.fit_runs", None)
    assert sweep(wanted, folder, "", Fleet(), lambda *_: None) == found
    with pytest.raises(UserError, match="was begun with another trials"):
        sweep(asked(tmp_path, FILE.replace("12", "13"), (MODEL,)), folder, "", Fleet(), lambda *_: None)


def test_a_cell_of_another_space_or_model_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a file of the same name says is what counts."""
    monkeypatch.setattr(trials, "search_cells", None)
    space = tmp_path / "mine.yaml"
    space.write_text("name: mine\nsolver: [dpmpp, unip]\n")
    wanted = asked(tmp_path, FILE + f"spaces: {space}", (MODEL,))
    (name, cell), *_ = wanted.cells().items()
    settings, folder = cell.settings.sized(coins.factory()), tmp_path / "sweep"
    for model, text, message in (
        (coins.factory(), "name: mine\nsolver: dpmpp\n", "was begun with another space;"),
        (coins.other_weights(), space.read_text(), "was begun with another model;"),
    ):
        digest = model.fingerprint
        Run(model=MODEL, options=DEFAULT, model_digest=digest, settings=settings, command="", versions={}).write(folder / name)
        space.write_text(text)
        with pytest.raises(UserError, match=message):
            sweep(wanted, folder, "", Fleet(), lambda *_: None)
