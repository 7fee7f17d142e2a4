"""Tables that fit the screen: nothing in them is ever cut.

Columns stand in the order of their priority, the names first. Where a table is too wide its intervals go; what is still too wide goes
below, the last columns first, each time beside the names. Light: it needs nothing of the search.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rich.box import HEAVY_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

INTERVAL = re.compile(r" \[[^][,]+, [^][,]+]")
NARROWEST = 24
"""Letters of a line of prose."""


@dataclass
class Column:
    """prose is text whose lines may be broken between its words."""

    name: str
    justify: Literal["left", "right"] = "right"
    prose: bool = False
    cells: list[str] = field(default_factory=list)

    @property
    def least(self) -> int:
        """The width that breaks no word of the name, and no cell that is not prose."""
        whole = 0 if self.prose else self.whole
        broken = [word for text in (self.name, *(self.cells if self.prose else ())) for word in text.split()]
        return max([whole, *map(cell_len, broken), min(NARROWEST, self.whole) if self.prose else 1])

    @property
    def whole(self) -> int:
        return max(map(cell_len, self.cells), default=1)

    @property
    def most(self) -> int:
        return max(cell_len(self.name), self.whole)


class Fitted:
    """Rows under named columns: the first are names, which stand on the left, the others numbers unless they are said to be prose.

    A `strong` row is in bold, with a line below it where the table has headings. Cells are text as it is: no markup.
    """

    def __init__(
        self, names: Sequence[str], title: str = "", caption: str = "", left: Sequence[str] = (), prose: Sequence[str] = (),
        headings: bool = True,
    ) -> None:  # fmt: skip
        self.columns = [
            Column(name, "left" if i == 0 or name in left or name in prose else "right", name in prose) for i, name in enumerate(names)
        ]
        self.title, self.caption, self.headings = title, caption, headings
        self.strong: list[bool] = []

    def add_row(self, *cells: str, strong: bool = False) -> None:
        for column, cell in zip(self.columns, cells, strict=True):
            column.cells.append(cell)
        self.strong.append(strong)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, columns, caption = options.max_width, self.columns, self.caption
        if self._width([column.most for column in columns]) > width:
            shown = [*columns[:1], *(column if column.prose else _without_intervals(column) for column in columns[1:])]
            if shown != columns:
                columns, caption = shown, "; ".join(filter(None, [caption, "the screen is too narrow for the intervals"]))
        for i, part in enumerate(self._parts(columns, width)):
            yield self._table(part, width, self.title if i == 0 else "")
        if caption:
            yield Text(caption, style="table.caption")

    def _width(self, widths: Sequence[int]) -> int:
        """Of a table with its lines."""
        return sum(widths) + 3 * len(widths) + 1 if self.headings else sum(widths) + 2 * len(widths) - 2

    def _parts(self, columns: Sequence[Column], width: int) -> Iterator[list[Column]]:
        """The columns of each table, one below the other."""
        first, *others = columns
        part = [first]
        for column in others:
            if len(part) > 1 and self._width([each.least for each in (*part, column)]) > width:
                yield part
                part = [first]
            part.append(column)
        yield part

    def _table(self, columns: Sequence[Column], width: int, title: str) -> Table:
        table = Table(title=title or None, title_justify="left", show_header=self.headings, box=HEAVY_HEAD if self.headings else None,
                      padding=(0, 1) if self.headings else (0, 2, 0, 0), pad_edge=self.headings)  # fmt: skip
        widths = [column.most for column in columns]
        if self._width(widths) > width:  # names first, then numbers, and prose has what is left
            widths = [column.least for column in columns]
            room = width - self._width(widths)
            for i in sorted(range(len(columns)), key=lambda i: columns[i].prose):
                more = max(min(columns[i].most - widths[i], room), 0)
                widths[i], room = widths[i] + more, room - more
            widest = max(range(len(widths)), key=widths.__getitem__)
            widths[widest] += min(room, 0)  # a word longer than the screen goes on in the next line
        for column, size in zip(columns, widths, strict=True):
            style = "" if self.headings or column is not columns[0] else "bold"
            table.add_column(Text(column.name), justify=column.justify, width=max(size, 1), overflow="fold", style=style)
        for i, strong in enumerate(self.strong):
            table.add_row(*(Text(column.cells[i]) for column in columns), style="bold" if strong else None, end_section=strong)
        return table


def _without_intervals(column: Column) -> Column:
    return Column(column.name, column.justify, column.prose, [INTERVAL.sub("", cell) for cell in column.cells])


def facts(entries: dict[str, Any]) -> Fitted:
    """Names and what they are, without lines."""
    table = Fitted(("", " "), prose=(" ",), headings=False)
    for name, fact in entries.items():
        table.add_row(name, str(fact))
    return table
