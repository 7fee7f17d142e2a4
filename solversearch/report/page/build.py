"""From a page's blocks to one HTML file: nothing in it asks the network for anything, and no script runs but its own.

The policy (CSP) in the head names the digests of the page's scripts, so that text from a file could not run even if it were not escaped.
The library that draws the charts is packed, and unpacked by the page: it would be nearly all of the file.
"""

import base64
import gzip
import hashlib
import json
from collections.abc import Sequence
from importlib.resources import files
from math import asinh
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from solversearch.errors import UserError, one_line
from solversearch.plan import write_text
from solversearch.report.colours import DARK
from solversearch.report.page.blocks import Chart, Element, Matrix, Page
from solversearch.report.page.files import PAGE
from solversearch.report.page.run import run_page
from solversearch.report.page.study import study_page
from solversearch.report.page.sweep import sweep_page

LINEAR = 0.1
"""Coefficient up to which colours grow in proportion; above, with its logarithm."""


def write_page(folder: Path, out: Path | None = None) -> Path:
    """Writes the page of a run, a study or a sweep; `folder`/report.html where no place is named. Raises `UserError` with one line."""
    out = out or folder / PAGE
    write_text(out, render(_page(folder, out.parent)))
    return out


def _page(folder: Path, base: Path) -> Page:
    if not folder.is_dir():
        raise UserError(f"{one_line(str(folder))}: no such folder; name the folder of a run")
    if (folder / "sweep.json").exists():
        return sweep_page(folder, base)
    return study_page(folder) if (folder / "study.json").exists() else run_page(folder)


def render(page: Page) -> str:
    charts = [block for section in page.sections for block in section.blocks if isinstance(block, Chart)]
    library, script = _plotly() if charts else "", _resource("page.js")
    return _filled(
        "page.html.j2",
        page=page,
        style=Markup(_resource("page.css")),
        library=Markup(_packed(library)) if charts else None,
        script=Markup(script),
        policy=" ".join(f"'sha256-{_digest(each)}'" for each in (library, script) if each),
        figures=Markup(_json([chart.figure for chart in charts])),
        dark=Markup(_json(DARK)),
    )


def render_cell(verdict: str, blocks: Sequence[Element]) -> str:
    """For a notebook: the style of the page, inside of one element; charts would need a script, and are no part of it."""
    return _filled("cell.html.j2", verdict=verdict, blocks=blocks, style=Markup(_resource("page.css").replace(":root", "&")))


def _filled(template: str, **given: object) -> str:
    environment = Environment(loader=PackageLoader("solversearch.report.page", "assets"), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True)  # fmt: skip
    return environment.get_template(template).render(strength=strength, coefficient=coefficient, **given)


def strength(matrix: Matrix, value: float) -> float:
    """How strong the colour of a coefficient is, from 0 to 1 for the largest."""
    largest = max((abs(each) for _, row in matrix.rows for each in row if each is not None), default=0.0)
    return round(asinh(abs(value) / LINEAR) / asinh(max(largest, LINEAR) / LINEAR), 3)


def coefficient(value: float) -> str:
    return "0" if not value else f"{value:.3f}" if abs(value) < 1000 else f"{value:.1e}"


def _resource(name: str) -> str:
    return (files("solversearch.report.page") / "assets" / name).read_text(encoding="utf-8")


def _plotly() -> str:
    """The library that draws the charts, as its Python package carries it."""
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def _packed(text: str) -> str:
    """Compressed, in letters that HTML leaves alone inside of a script: there is no slash among them, which could end it."""
    return base64.b85encode(gzip.compress(text.encode(), mtime=0)).decode()


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _json(value: object) -> str:
    """JSON that no text in it can end early."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
