"""What a page is made of: plain data, which the one template turns into HTML and escapes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from solversearch.plan import Interval
from solversearch.report.plan_view import number


@dataclass(frozen=True)
class Note:
    """A paragraph."""

    text: str
    kind: ClassVar = "note"


@dataclass(frozen=True)
class Chart:
    """A figure of plotly with its title; wide ones have a line of their own."""

    title: str
    figure: dict[str, Any]
    wide: bool = False
    kind: ClassVar = "chart"


@dataclass(frozen=True)
class TableCell:
    """Text of a table; a column whose cells have numbers is sorted by them. place is where a link in it leads."""

    text: str
    value: float | None = None
    place: str = ""


@dataclass(frozen=True)
class Table:
    """A table; `first` rows are printed strong and stay above the others when these are sorted; wide ones have lines of their own."""

    columns: Sequence[str]
    rows: Sequence[Sequence[TableCell]]
    caption: str = ""
    first: int = 0
    wide: bool = True
    kind: ClassVar = "table"


@dataclass(frozen=True)
class Facts:
    """Names and what they are."""

    entries: dict[str, str]
    kind: ClassVar = "facts"


@dataclass(frozen=True)
class Matrix:
    """Signed coefficients with a colour each, which grows with the size; None has no coefficient."""

    title: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[float | None]]]
    kind: ClassVar = "matrix"


@dataclass(frozen=True)
class Picture:
    """An image as a data URI."""

    title: str
    uri: str
    kind: ClassVar = "picture"


@dataclass(frozen=True)
class Code:
    """Text to be copied."""

    title: str
    text: str
    kind: ClassVar = "code"


@dataclass(frozen=True)
class Download:
    """A file that the page carries along."""

    title: str
    name: str
    uri: str
    kind: ClassVar = "download"


Element = Note | Chart | Table | Facts | Matrix | Picture | Code | Download


@dataclass(frozen=True)
class PageSection:
    title: str
    blocks: Sequence[Element]


@dataclass(frozen=True)
class Page:
    """verdict: the result in a sentence. tiles: the few numbers that matter, with what they are."""

    title: str
    subtitle: str
    verdict: str
    tiles: Sequence[tuple[str, str]] = ()
    sections: Sequence[PageSection] = field(default_factory=tuple)


def figure(value: float | None) -> TableCell:
    """A number of three digits; nothing where there is none."""
    return TableCell("–") if value is None else TableCell(number(value), value)


def interval(value: Interval | None) -> TableCell:
    """Sorted by its mean."""
    return TableCell("–") if value is None else TableCell(f"{number(value.mean)} [{number(value.low)}, {number(value.high)}]", value.mean)


def count(value: int) -> TableCell:
    return TableCell(f"{value:,}", value)
