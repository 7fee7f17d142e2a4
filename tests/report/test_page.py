"""The page of a run: all that was measured stands in it, whatever the run lacks; nothing in a file runs, and nothing is asked for."""

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from solversearch.api import Result
from solversearch.errors import UserError
from solversearch.judging.compare import Comparison, Tau
from solversearch.models.options import Options
from solversearch.plan import Interval, Plan, PlanVariant, read_json, write_text
from solversearch.report.colours import DARK, GRID, contrast
from solversearch.report.page import write_page
from solversearch.report.page.blocks import Matrix, Page
from solversearch.report.page.build import render, strength
from solversearch.report.page.cell import cell_of
from solversearch.report.page.charts import MARKED, steps, taus
from solversearch.report.page.files import importances
from solversearch.report.page.recipes import recipes
from solversearch.report.sweep_view import sweep_tables
from solversearch.search.evaluating.run_folder import Run
from solversearch.search.settings import Settings
from solversearch.spaces import SearchSpace
from solversearch.studies.study import BASELINE, Study, StudyRow, StudySpec
from solversearch.studies.sweep import Sweep, SweepRow, SweepSpec
from tests.report.conftest import EVIL, write_journal
from tests.test_report import PLANS, comparison, ratio

MOST = 2 * 10**6
"""Bytes of a page, pictures apart."""


class Reader(HTMLParser):
    """The page as a browser takes it apart: tags with their attributes, scripts, and the text outside of them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        inside = self.tags[-1][0] if self.tags else ""
        if inside == "script" and self.cdata_elem == "script":
            self.scripts.append(data)
        else:
            self.text += data

    @property
    def policy(self) -> str:
        return next(str(attrs["content"]) for _, attrs in self.tags if attrs.get("http-equiv") == "Content-Security-Policy")

    @property
    def figures(self) -> list[dict[str, Any]]:
        return json.loads(self.scripts[0])


def page_of(folder: Path) -> Reader:
    return Reader(write_page(folder, folder.parent / "page.html").read_text(encoding="utf-8"))


# What stands in it ---------------------------------------------------------------------------------------------------


def test_a_run_is_told_in_full(run: Path) -> None:
    page = page_of(run)
    assert (run.parent / "page.html").stat().st_size < MOST
    plan = Plan.read(run / "plan.json")
    for wanted in (
        "Better at 5 evaluations: on 93.0 % of 1,024 held-out samples",
        "Of 500 pairs of solver and grid",
        "0.002 [0.0016, 0.0026]",
        "solver_11",
        "0.18 ×",
        "0.2 ×",
        "0.22 [0.176, 0.275]",
        "mean, of the least of all baselines (less is better)",
        "teacher",
        "5 → 8",
        "best baseline",
        "polish",
        "pareto/plan-2.json",
        "PlanScheduler.from_plan",
        "--to comfyui",
        "Plan.read",
        plan.digest,
        "Δ4",
        "Δ: conditional minus unconditional",
    ):
        assert wanted in page.text, wanted
    assert len(page.figures) == sum("data-figure" in attrs for _, attrs in page.tags) == 8
    names = {trace["name"] for figure in page.figures for trace in figure["data"]}
    assert {"plan", "best baseline", "noise schedule", "surrogate alone"} <= names
    bars = next(figure["data"][0] for figure in page.figures if figure["data"][0]["type"] == "bar")
    assert bars["x"] == [0.005, 0.003, 0.002, 0.001] and bars["y"][0].startswith("best baseline")
    ladder = next(trace for trace in page.figures[0]["data"] if trace["name"] == "best baseline")
    assert ladder["x"] == [5, 6, 7, 8] and ladder["y"][0] == 0.01
    coefficients = [attrs for tag, attrs in page.tags if tag == "td" and attrs.get("class") in ("plus", "minus")]
    shown = [float(str(attrs["title"])) for attrs in coefficients]
    assert shown == [value for i, row in enumerate(plan.rows) for value in (row.x, *row.d, *row.delta)]
    uri = next(str(attrs["src"]) for tag, attrs in page.tags if tag == "img")
    assert base64.b64decode(uri.removeprefix("data:image/png;base64,")) == (run / "samples.png").read_bytes()
    carried = next(str(attrs["href"]) for tag, attrs in page.tags if tag == "a")
    assert base64.b64decode(carried.partition(",")[2]) == (run / "plan.json").read_bytes()


def test_the_same_run_is_the_same_page(run: Path, tmp_path: Path) -> None:
    assert write_page(run, tmp_path / "a.html").read_bytes() == write_page(run, tmp_path / "b.html").read_bytes()


@pytest.mark.parametrize("name", PLANS)
def test_every_kind_of_plan_has_a_page(fresh: Callable[..., Path], name: str) -> None:
    page = page_of(fresh(PLANS[name]))
    written = any(attrs.get("class") == "matrix" for _, attrs in page.tags)
    assert written == (PLANS[name].nfe <= 40) and PLANS[name].digest in page.text
    times = next(figure for figure in page.figures if "λ" in figure["layout"]["yaxis"]["title"]["text"])
    assert times["data"][-1]["x"] == [node.t for node in PLANS[name].nodes]


def test_what_a_run_lacks_is_left_out(fresh: Callable[..., Path]) -> None:
    """As of a comparison alone, of a model without pictures."""
    bare = fresh(progress=(), trials=(), predictions=(), predictor=(), stages=(), nodes=(), schedule=())
    for name in ("samples.png", "journal.log"):
        (bare / name).unlink()
    page = page_of(bare)
    assert len(page.figures) == 2 and not any(tag == "img" for tag, _ in page.tags)
    assert "Parameter importances are left out: the run has no journal." in page.text


def test_a_heavy_picture_is_made_smaller(fresh: Callable[..., Path]) -> None:
    folder = fresh()
    noise = np.random.default_rng(0).integers(0, 256, (900, 2400, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "samples.png")
    assert (folder / "samples.png").stat().st_size > 6 * 10**6
    page = page_of(folder)
    assert (folder.parent / "page.html").stat().st_size < MOST + 1.5 * 10**6
    assert any(str(attrs.get("src", "")).startswith("data:image/jpeg;base64,") for _, attrs in page.tags)


def test_a_page_does_not_grow_with_the_search(fresh: Callable[..., Path]) -> None:
    best = np.minimum.accumulate(np.random.default_rng(0).random(10_000)).tolist()
    history = [{"evaluated": n, "surrogate": 1 / n, "learned": -1 / n, "both": n / 10_001} for n in range(8, 10_001, 8)]
    folder = fresh()
    small = write_page(folder).stat().st_size
    trials = [{"value": value, "samples": 64} for value in np.random.default_rng(1).random(10_000).tolist()]
    predictions = [{"predicted": 1.1 * each["value"], "measured": each["value"]} for each in trials]
    changed(progress=[None, *best[1:]], predictor=history, trials=trials, predictions=predictions)(folder)
    large = write_page(folder).stat().st_size
    assert small < large < MOST and large - small < 100_000


def test_curves_of_steps_keep_what_they_show() -> None:
    """The value at every number, read off the curve, is the value that was there."""
    rng = np.random.default_rng(0)
    for count in (1, 2, 500):
        best = [None, None, *np.minimum.accumulate(rng.random(count)).tolist(), 0.0, 0.0]
        points = steps(best)
        assert len(points) < 20 and points[-1] == (len(best), 0.0)
        numbers = [number for number, _ in points]
        assert [points[np.searchsorted(numbers, k, side="right") - 1][1] for k in range(1, len(best) + 1)] == best
    assert steps([None]) == [(1, None)] and steps([]) == []


def test_every_candidate_is_drawn_with_what_was_predicted_of_it(fresh: Callable[..., Path]) -> None:
    figures = page_of(fresh()).figures
    drawn = {trace["name"]: (trace["x"], trace["y"]) for figure in figures for trace in figure["data"]}
    assert drawn["candidates on all samples"] == ([2, 3], [0.01, 0.004]) and drawn["candidates on few samples"] == ([4], [0.02])
    assert drawn["candidates"] == ([0.01, 0.004, 0.02], [0.02, 0.004, 0.01]) and drawn["as predicted"][0] == [0.004, 0.02]
    assert drawn["polish"] == ([1, 4], [0.001, 0.001])
    best = next(figure for figure in figures if any(trace["name"] == "the best so far" for trace in figure["data"]))
    assert {"best baseline", "polish"} < {trace["name"] for trace in best["data"]}


def test_the_teacher_stands_beside_frechet_distances(fresh: Callable[..., Path]) -> None:
    distance = Interval(mean=0.4, low=0.3, high=0.5)
    rows = tuple(row.model_copy(update={"frechet_data": distance}) for row in comparison().rows)
    text = page_of(fresh(rows=rows)).text
    assert "teacherabout 1e-07–––––00.32164" in text.replace("\n", "")


def test_every_axis_of_errors_says_which_end_is_the_good_one(run: Path) -> None:
    titles = [figure["layout"][axis]["title"]["text"] for figure in page_of(run).figures for axis in ("xaxis", "yaxis")]
    errors = [title for title in titles if ("error" in title or "MSE" in title or "endpoint" in title) and "ln(" not in title]
    assert len(errors) == 5 and all("less is better" in title for title in errors if "what the network said" not in title)
    assert "Kendall's tau (more is better)" in titles


COINS = "python:my files/coins.py:factory"
"""A model as it was typed."""


@pytest.mark.parametrize(
    ("name", "asked", "pictures", "wanted", "missing"),
    [
        ("digits", None, True, ["sample --plan plan.json --model digits\n", "--to numpy"], ["PlanScheduler", "comfyui"]),
        ("coins.factory", COINS, False, [f"--model '{COINS}'\n", "--to numpy"], ["solversearch sample", "PlanScheduler", "coins.factory"]),
        ("coins.factory", None, True, ["sample --plan plan.json --model python:FILE:FACTORY\n"], ["PlanScheduler", "coins.factory"]),
        ("sd21", "sd21", True, ["--model sd21\n", "PlanScheduler.from_plan", "--to comfyui --out"], []),
        ("tuned", "tuned", True, ["--model tuned\n", "PlanScheduler.from_plan"], []),
        ("my", "object:my", False, ["--model python:FILE:FACTORY"], ["object:my", "PlanScheduler"]),
        ("hf:a/b; rm -rf ~", None, True, ["--model 'hf:a/b; rm -rf ~'"], ["--model hf:a"]),
    ],
)
def test_recipes_are_those_that_apply_as_they_can_be_typed(
    tmp_path: Path, name: str, asked: str | None, pictures: bool, wanted: list[str], missing: list[str]
) -> None:
    plan = PLANS["unipc"]
    plan = plan.model_copy(update={"provenance": plan.provenance.model_copy(update={"model": name})})
    if asked:
        settings = Settings.of(SearchSpace(), nfe=5, samples=16, fit_samples=8, validation_samples=8, batch_size=1)
        Run(model=asked, options=Options(), model_digest="0", settings=settings, command="", versions={}).write(tmp_path)
    if pictures:
        (tmp_path / "samples.png").touch()
    text = "\n".join(recipes(tmp_path, plan).values())
    assert "(D, D_c - D_u)" not in text and "denoise(x, node): the network's data prediction of x at node.t;" in text
    assert all(each in text for each in wanted) and not [each for each in missing if each in text]


@pytest.mark.parametrize("asked", [True, False])
def test_the_recipe_of_a_plan_of_several_networks_brings_them(tmp_path: Path, asked: bool) -> None:
    plain = PLANS["unipc"]
    nodes = (replace(plain.nodes[0], variant="small"), replace(plain.nodes[1], variant="skip2"), *plain.nodes[2:])
    variants = {"small": PlanVariant(cost=0.3, digest="1"), "skip2": PlanVariant(cost=0.7, skips=("unet.mid_block.resnets.0",))}
    fields = {
        name: getattr(plain, name) for name in Plan.model_fields if name not in ("digest", "nodes", "version", "variants", "provenance")
    }
    plan = Plan(**fields, nodes=nodes, version=3, variants=variants, provenance=plain.provenance.model_copy(update={"model": "sd21"}))
    if asked:
        settings = Settings.of(SearchSpace(), nfe=5, samples=16, fit_samples=8, validation_samples=8, batch_size=1)
        options = Options(variant=("small=hf:a/small",))
        Run(model="sd21", options=options, model_digest="0", settings=settings, command="", versions={}).write(tmp_path)
    found = recipes(tmp_path, plan)
    assert 'scheduler.attach(pipe, variants={"small": its_network})' in found["diffusers"]
    assert f"--model sd21 --variant small={'hf:a/small' if asked else 'MODEL'}" in found["Command line"]
    assert (
        "of the network, or the blocks of it, that node.variant names" in found["Python, any model"]
        and "--to numpy" in found["Command line"]
    )


def test_the_recipe_of_a_split_plan_says_what_denoise_returns(tmp_path: Path) -> None:
    """And what it says runs: two arrays, where one is an error."""
    plan = PLANS["split"]
    assert "# denoise(x, node): (D, D_c - D_u), " in recipes(tmp_path, plan)["Python, any model"]
    noise = np.ones((2, 3))
    assert plan.sample(lambda x, node: (0.5 * x, 0.1 * x), noise).shape == (2, 3)
    with pytest.raises(ValueError, match="denoise returned no pair"):
        plan.sample(lambda x, node: 0.5 * x, noise)


def test_lines_of_many_points_have_no_markers() -> None:
    def modes(count: int) -> set[str]:
        return {trace["mode"] for trace in taus([Tau(evaluated=n, surrogate=0.5, learned=0.1, both=0.6) for n in range(count)])["data"]}

    assert modes(MARKED) == {"lines+markers"} and modes(MARKED + 1) == {"lines"}


def test_colours_grow_with_coefficients() -> None:
    matrix = Matrix("", "ab", [("x", [0.0, 1e-3]), ("y", [-0.5, 2.0]), ("z", [None, -2.0])])
    strengths = [strength(matrix, value) for value in (0.0, 1e-3, 0.5, 2.0)]
    assert strengths == sorted(strengths) and strengths[0] == 0 and strengths[-1] == strength(matrix, -2.0) == 1
    assert 0 < strength(matrix, 1e-3) < 0.02 and strength(matrix, 0.5) > 0.4


# What does not run ---------------------------------------------------------------------------------------------------


def test_names_from_files_are_read_and_never_run(run: Path) -> None:
    page = page_of(run)
    assert page.text.count(EVIL) > 20
    assert [attrs.get("type") for tag, attrs in page.tags if tag == "script"] == ["application/json"] * 2 + ["text/plain", None]
    assert sum(tag == "img" for tag, _ in page.tags) == 1
    assert not [attrs for _, attrs in page.tags for name in attrs if name.startswith("on")]
    shown = json.dumps(page.figures)
    assert "<img" not in shown and "&lt;img src=x" in shown, "plotly takes tags in names for its own"


def test_cells_of_a_notebook_have_no_script_and_run_no_name(run: Path) -> None:
    plan, comparison = Plan.read(run / "plan.json"), read_json(Comparison, run / "comparison.json", "comparison")
    result = Result(plan, comparison, run, "digits")
    for cell in (cell_of(plan), cell_of(comparison), cell_of(result)):
        page = Reader(cell)
        assert not {tag for tag, _ in page.tags} & {"script", "button", "iframe", "link"} and page.tags[0][0] == "div"
        assert EVIL in page.text and not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
        assert all(str(attrs["src"]).startswith("data:image/") for tag, attrs in page.tags if tag == "img")
    for cell in (cell_of(plan), cell_of(result)):
        shown = [float(str(attrs["title"])) for tag, attrs in Reader(cell).tags if tag == "td" and attrs.get("class") in ("plus", "minus")]
        assert shown == [value for row in plan.rows for value in (row.x, *row.d, *row.delta)]
    assert plan.digest in cell_of(plan) and "93.0 % of 1,024 held-out samples" in cell_of(comparison)


def test_only_the_scripts_of_the_page_may_run_and_nothing_may_be_asked_for(run: Path) -> None:
    page = page_of(run)
    library = gzip.decompress(base64.b85decode(page.scripts[2]))
    assert b"plotly.js v" in library[:1000]
    allowed = [base64.b64encode(hashlib.sha256(script).digest()).decode() for script in (library, page.scripts[3].encode())]
    assert page.policy == (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src "
        + " ".join(f"'sha256-{each}'" for each in allowed)
        + "; base-uri 'none'; form-action 'none'"
    )
    places = [str(attrs[name]) for _, attrs in page.tags for name in ("src", "href") if name in attrs]
    assert len(places) == 3 and all(place.startswith("data:") for place in places)


# Files that are missing, damaged or somebody else's ------------------------------------------------------------------


def missing(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def filled(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def changed(**values: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = folder / "comparison.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (missing("plan.json"), "no plan.json there"),
        (missing("comparison.json"), "no comparison.json there"),
        (filled("plan.json", b"{}"), "plan.json: "),
        (filled("comparison.json", b"{"), "comparison.json: Invalid JSON"),
        (filled("comparison.json", b"\xff"), "comparison.json: Invalid JSON"),
        (changed(ladder=[]), "comparison.json: ladder"),
        (changed(ratios=[]), "comparison.json: ratios: the first must be of the geometric mean"),
        (changed(exported="baseline", best_baseline="solver_0", ratios=[ratio("geometric mean", 2.0, "absent").model_dump(),
                                                                        ratio("mean", 2.0).model_dump()]), "exported: rows do not have"),
        (changed(version=1), "comparison.json: version"),
        (changed(extra=1), "comparison.json: extra: unknown key"),
        (changed(nfe=7), "of different runs"),
        (changed(rows=[]), "at least one baseline"),
        (changed(teacher_error=float("nan")), "teacher_error"),
        (changed(nodes=[{"t": 1, "alpha": 1, "sigma": "1"}]), "nodes.0.sigma"),
        (changed(pareto=[{"file": "a", "network_calls": 1, "values": {"a": 1}}, {"file": "b", "network_calls": 1, "values": {"b": 1}}]),
         "pareto: the plans have values of different objectives"),
        (filled("samples.png", b"\x89PNG\r\n"), "samples.png: not a picture"),
        (filled("samples.png", b"<svg onload='alert(1)'/>"), "samples.png: not a picture"),
        (filled("journal.log", b'{"op_code": 99}\n{}\n'), "journal.log: a damaged journal"),
        (filled("journal.log", b"\x00\n\x00\n"), "journal.log: a damaged journal"),
        (filled("study.json", b"[]"), "study.json: "),
    ],
)  # fmt: skip
def test_damage_is_one_line(fresh: Callable[..., Path], damage: Callable[[Path], object], message: str) -> None:
    folder = fresh()
    damage(folder)
    with pytest.raises(UserError) as caught:
        page_of(folder)
    assert message in str(caught.value) and str(folder) in str(caught.value) and str(caught.value).isprintable()


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        write_page(tmp_path / "absent")


# Importances ---------------------------------------------------------------------------------------------------------


def test_importances_are_those_of_the_journal(tmp_path: Path) -> None:
    write_journal(tmp_path / "journal.log", 30)
    before = (tmp_path / "journal.log").read_bytes()
    shares = importances(tmp_path / "journal.log")
    assert isinstance(shares, dict) and shares["order.1"] > 0.8 and sum(shares.values()) == pytest.approx(1)
    assert importances(tmp_path / "journal.log") == shares
    assert (tmp_path / "journal.log").read_bytes() == before and [each.name for each in tmp_path.iterdir()] == ["journal.log"]


def test_a_journal_that_is_cut_off_in_its_last_line_is_read(tmp_path: Path) -> None:
    write_journal(tmp_path / "journal.log", 30)
    with (tmp_path / "journal.log").open("ab") as file:
        file.write(b'{"op_code": 4, "wor')
    assert isinstance(importances(tmp_path / "journal.log"), dict)


def test_few_candidates_have_no_importances(tmp_path: Path) -> None:
    write_journal(tmp_path / "journal.log", 10)
    assert importances(tmp_path / "journal.log") == "8 candidates were seen on all samples; importances need 10"
    assert importances(tmp_path / "absent.log") == "the run has no journal"
    assert not (tmp_path / "absent.log").exists()


# Studies and sweeps --------------------------------------------------------------------------------------------------


def study() -> Study:
    asked = StudySpec(
        model="digits", model_digest="d", methods=("s3", EVIL), nfe=(4, 6), guidance=(1.0, 4.0), evaluations=1000, samples=128, seed=0
    )
    rows = [
        StudyRow(method=name, nfe=nfe, guidance=guidance, endpoint_mse=Interval(mean=ratio / nfe, low=0, high=1), frechet_teacher=None,
            ratio=2 * ratio, ratio_median=3 * ratio, ratio_geometric=Interval(mean=ratio, low=0.9 * ratio, high=1.1 * ratio),
            share=Interval(mean=1 - ratio / 2, low=0, high=1), network_calls=nfe, evaluations=10, seconds=2.0 * ratio)
        for nfe in asked.nfe for guidance in asked.guidance for name, ratio in ((BASELINE, 1.0), ("s3", 0.5), (EVIL, 0.25 * guidance))
    ]  # fmt: skip
    return Study(asked=asked, rows=tuple(rows))


def test_a_study_has_a_page(tmp_path: Path) -> None:
    write_text(tmp_path / "run" / "study.json", study().model_dump_json())
    page = page_of(tmp_path / "run")
    assert f"Least geometric mean error in each cell: {EVIL} 2 of 4, s3 2 of 4. The best is 0.25 of the least of all baselines" in page.text
    assert len(page.figures) == 8, "two guidance scales; no features"
    lines = {trace["name"]: trace["y"] for trace in page.figures[0]["data"]}
    assert lines["s3"] == [0.5, 0.5] and "<" not in "".join(lines)
    assert [{trace["name"]: trace["y"] for trace in figure["data"]}["s3"] for figure in page.figures[1:4]] == [
        [1.0] * 2,
        [1.5] * 2,
        [1.0] * 2,
    ]
    assert "0.5 [0.45, 0.55]" in page.text and "75.0 %" in page.text and "best baseline's" not in page.text


def sweep(**changes: Any) -> Sweep:
    """Cells of two guidance scales and two spaces, one of them failed."""

    def row(calls: int, error: float, pareto: bool, guidance: float = 1.0, space: str = "s3") -> SweepRow:
        return SweepRow(path=f"cell-{calls}-{guidance:g}", model=EVIL, space=space, nfe=calls, guidance=guidance, seed=0, plan="p",
                   endpoint_mse=error, endpoint_median=error, ratio=error / 2, ratio_geometric=error / 3,
                   verdict="better", network_calls=calls, seconds=2.5,
                   pareto=pareto)  # fmt: skip

    rows = [row(4, 0.4, True), row(8, 0.2, False, space=EVIL), row(6, 0.1, True), row(8, 0.9, True, 4.0),
            SweepRow(path="cell-failed", model=EVIL, space="s3", nfe=9, guidance=4.0, seed=0, failure=f"interrupted {EVIL}")]  # fmt: skip
    asked = SweepSpec(models=(EVIL,), nfe=(4, 6, 8, 9), guidance=(1.0, 4.0), settings={"trials": 3})
    return Sweep(asked=asked, rows=tuple(rows), notes=("no regression",)).model_copy(update=changes)


def test_a_sweep_has_a_page(tmp_path: Path) -> None:
    write_text(tmp_path / "run" / "sweep.json", sweep().model_dump_json())
    page = page_of(tmp_path / "run")
    for wanted in ("1 of 5 cells have no plan. 3 plans are beaten by no other", 
                   f"The largest gain: {EVIL}, NFE 6, guidance 1, space s3, with 0.0333 of the least geometric mean error",
                   "no regression", "better",
                   "geometric ratio",
                   f"interrupted {EVIL}", '{"trials": 3}', "cell-failed"):  # fmt: skip
        assert wanted in page.text, wanted
    assert len(page.figures) == 2
    line, *groups = page.figures[0]["data"]
    assert (line["x"], line["y"]) == ([4, 6], [0.4, 0.1]) and [len(group["x"]) for group in groups] == [2, 1]
    assert "<" not in "".join(group["name"] for group in groups)


def test_a_sweep_links_the_pages_and_folders_of_its_cells(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    rows = [row.model_copy(update={"path": name}) for row, name in zip(sweep().rows, ("a b", "c", "../out", "none", "d#1"), strict=True)]
    write_text(folder / "sweep.json", sweep(rows=tuple(rows)).model_dump_json())
    for name in ("a b", "c", "../out", "d#1"):
        (folder / name).mkdir()
    write_text(folder / "a b" / "report.html", "")

    def places(page: Path) -> list[object]:
        return [attrs["href"] for tag, attrs in Reader(write_page(folder, page).read_text(encoding="utf-8")).tags if tag == "a"]

    assert places(folder / "report.html") == ["a%20b/report.html", "c/", "d%231/"], "only what is there, and the sweep's own"
    assert places(tmp_path / "elsewhere.html") == ["run/a%20b/report.html", "run/c/", "run/d%231/"]


def test_a_sweep_has_a_table_a_model_and_guidance_scale() -> None:
    console = Console(width=200, no_color=True)
    with console.capture() as capture:
        console.print(*sweep_tables(sweep()))
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capture.get().splitlines() if line.startswith("│")]
    assert lines == [
        ["cell-4-1", "4", "better", "0.133", "0.2", "0.4", "-", "2.5", "*"],
        ["cell-6-1", "6", "better", "0.0333", "0.05", "0.1", "-", "2.5", "*"],
        ["cell-8-1", "8", "better", "0.0667", "0.1", "0.2", "-", "2.5", ""],
        ["cell-failed", "-", "-", "-", "-", "-", "-", "-", ""],
        ["cell-8-4", "8", "better", "0.3", "0.45", "0.9", "-", "2.5", "*"],
    ]


def test_a_sweep_without_a_plan_has_no_page(tmp_path: Path) -> None:
    write_text(tmp_path / "run" / "sweep.json", sweep(rows=()).model_dump_json())
    with pytest.raises(UserError, match="no cell of the sweep has a plan yet"):
        page_of(tmp_path / "run")


def test_a_page_without_charts_needs_no_library() -> None:
    assert len(render(Page("empty", "", "nothing"))) < 20_000


# Colours -------------------------------------------------------------------------------------------------------------


def test_text_of_a_page_can_be_read_in_light_and_dark() -> None:
    """By the constants of the style; what a browser makes of them is in test_browser.py."""
    css = (files("solversearch.report.page") / "assets" / "page.css").read_text(encoding="utf-8")
    light, dark = (dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", part)) for part in css.split("@media (prefers-color-scheme: dark)")[:2])
    assert light.keys() == dark.keys() > {"paper", "card", "ink", "soft", "link", "strong", "plus", "minus"}
    for colours in (light, dark):
        for ink, papers in {"ink": ("paper", "card", "strong", "plus", "minus"), "soft": ("paper", "card"), "link": ("paper",)}.items():
            assert all(contrast(colours[ink], colours[paper]) >= 4.5 for paper in papers), (ink, colours)
    assert all(
        contrast(colour, light["paper"]) >= 4.5 and contrast(on, dark["paper"]) >= 4.5 for colour, on in DARK.items() if colour != GRID
    )
