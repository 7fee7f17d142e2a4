"""What every registered exporter promises."""

import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from solversearch import export
from solversearch.errors import UserError
from solversearch.export import EXPORTERS, Exporter
from solversearch.plan import Plan, PlanVariant
from tests.contracts import docstring_lacks, entries, files_are_registered, lacks, one_line
from tests.export.consumers import PLANS as SAMPLERS
from tests.export.consumers import plan_of, table_of

PLANS = (plan_of(table_of("dpmpp_2m", "epsilon").guided(7.5), "epsilon", 7.5), plan_of(table_of("ddim", "flow"), "flow"))
"""Every target takes one of these."""


def a_plan(exporter: Exporter, folder: Path) -> Plan:
    for plan in PLANS:
        with suppress(UserError):
            exporter.write(plan, folder / exporter.place)
            return plan
    pytest.fail(f"{exporter.name} lacks: a plan that it takes; it refuses all PLANS of this file, where you may add one")


def test_every_file_of_exporters_is_registered() -> None:
    files_are_registered(export, "EXPORTERS")
    assert [each for _, each in entries(export, "EXPORTERS")] == list(EXPORTERS.values())


@pytest.mark.parametrize(("module", "exporter"), list(entries(export, "EXPORTERS")), ids=EXPORTERS)
def test_an_exporter_says_what_it_is(module: ModuleType, exporter: Exporter) -> None:
    lacks(exporter.name, [
        *docstring_lacks(module),
        (not one_line(exporter.description) or not exporter.description.endswith("."), "a description, one sentence that ends in a point"),
        (not re.search("{(out|name)}", exporter.use), "what to do with it (`use`), with {out} or {name}"),
        (not exporter.place or Path(exporter.place).is_absolute(), "a place of its own, relative"),
    ])  # fmt: skip


@pytest.mark.parametrize("exporter", EXPORTERS.values(), ids=EXPORTERS)
def test_an_exporter_writes_what_it_returns_and_the_same_again(exporter: Exporter, tmp_path: Path) -> None:
    plan, place = a_plan(exporter, tmp_path), tmp_path / "new" / exporter.place
    written = exporter.write(plan, place)
    assert written and all(path.is_file() and (path == place or path.is_relative_to(place)) for path in written)
    contents = [path.read_bytes() for path in written]
    assert exporter.write(plan, place) == written and [path.read_bytes() for path in written] == contents
    assert sorted(path for path in (tmp_path / "new").rglob("*") if path.is_file()) == sorted(written)
    if exporter.text:
        assert exporter.text(plan).encode() == contents[0]
    lacks(exporter.name, [(not one_line(note), f"one line in its note {note!r}") for note in exporter.notes(plan)])


@pytest.mark.parametrize("exporter", EXPORTERS.values(), ids=EXPORTERS)
def test_a_plan_of_several_networks_goes_where_a_person_calls_them(exporter: Exporter, tmp_path: Path) -> None:
    plan = PLANS[1]
    nodes = (replace(plan.nodes[0], variant="small"), *plan.nodes[1:])
    fields = {name: getattr(plan, name) for name in Plan.model_fields if name not in ("digest", "nodes", "version", "variants")}
    several = Plan(**fields, nodes=nodes, version=3, variants={"small": PlanVariant(cost=0.3)})
    if exporter.name == "numpy":
        exporter.write(several, tmp_path / exporter.place)
        return
    with pytest.raises(UserError, match=r"calls other networks than the model's own at some evaluations \(small\)") as caught:
        exporter.write(several, tmp_path / exporter.place)
    assert one_line(str(caught.value)) and not any(tmp_path.iterdir())


@pytest.mark.parametrize("exporter", EXPORTERS.values(), ids=EXPORTERS)
def test_a_plan_that_starts_from_pictures_goes_where_they_can_be_given(exporter: Exporter, tmp_path: Path) -> None:
    plan = SAMPLERS["pictures"]("epsilon")
    if exporter.name in ("numpy", "comfyui", "k-diffusion"):
        exporter.write(plan, tmp_path / exporter.place)
        lacks(exporter.name, [(not one_line(note), f"one line in its note {note!r}") for note in exporter.notes(plan)])
        return
    with pytest.raises(UserError, match="starts from noised pictures") as caught:
        exporter.write(plan, tmp_path / exporter.place)
    assert one_line(str(caught.value)) and not any(tmp_path.iterdir())


@pytest.mark.parametrize("exporter", EXPORTERS.values(), ids=EXPORTERS)
def test_a_place_that_is_taken_is_told_in_one_line(exporter: Exporter, tmp_path: Path) -> None:
    plan = a_plan(exporter, tmp_path)
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(UserError) as caught:
        exporter.write(plan, tmp_path / "taken" / exporter.place)
    told = str(caught.value)
    lacks(exporter.name, [(not one_line(told) or "taken" not in told, f"one line with the path in {told!r}")])
