"""Markdown as a terminal can show it, or as plain lines where there is none."""

import io
import shutil
from collections.abc import Iterator
from typing import Any, cast

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import Markdown, TableElement
from rich.table import Column, Table
from rich.text import Text

_WIDE = 10_000  # columns where nobody looks at them, so that nothing is broken or cut
_LONG = 30  # columns of the terminal; a longer word beside the first column, which is no date or name, may be broken
_BETWEEN = 3  # columns that a table takes beside the text of each of its own


class Terminal(Console):
    """Standard output; rich would end the process where nobody reads it, and show nothing in no columns."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        if not self.width:  # which is how some environments say that they do not know it
            self.width = shutil.get_terminal_size().columns

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


class _WholeTable(TableElement):
    """A table of which nothing is cut, and no id, date or name broken; without room for that, a block for each row."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for table in super().__rich_console__(console, options):
            assert isinstance(table, Table)
            for column in table.columns:
                column.overflow = "fold"
            widths = _widths(table, options.max_width - _BETWEEN * len(table.columns))
            if widths is None:
                yield from _blocks(table)
                continue
            for column, width in zip(table.columns, widths, strict=True):
                column.width = width
            yield table


def _widths(table: Table, room: int) -> list[int] | None:
    """How wide each column's texts may be, together within the room; None where a word of one has none.

    rich takes from each by how wide it is, whatever its words. The first column has the ids: none is too long for it.
    """
    least = [
        _longest(column) if column is table.columns[0] else min(_longest(column), _LONG) for column in table.columns
    ]
    widths = [max((text.cell_len for text in _texts(column)), default=0) for column in table.columns]
    if sum(least) > room:
        return None
    for _ in range(sum(widths) - room):
        spare = [width - narrow for width, narrow in zip(widths, least, strict=True)]
        widths[spare.index(max(spare))] -= 1
    return widths


def _texts(column: Column) -> Iterator[Text]:
    """The heading and the cells, which Markdown makes of texts."""
    yield cast(Text, column.header)
    yield from cast(Iterator[Text], column.cells)


def _longest(column: Column) -> int:
    """How many columns of the terminal its longest word takes."""
    return max((cell_len(word) for text in _texts(column) for word in text.plain.split()), default=0)


def _blocks(table: Table) -> Iterator[Text]:
    headings, *rows = zip(*map(_texts, table.columns), strict=True)
    for row in rows:
        yield Text()
        for heading, cell in ((heading, cell) for heading, cell in zip(headings, row, strict=True) if cell):
            yield Text.assemble((f"{heading.plain}: ", "bold"), cell, overflow="fold")


class _Whole(Markdown):
    elements = Markdown.elements | {"table_open": _WholeTable}


def show(console: Console, markdown: str) -> None:
    """Show Markdown as a terminal can, or as plain lines of any length where there is none."""
    if console.is_terminal:
        console.print(_Whole(markdown))
        return
    plain = Console(file=io.StringIO(), width=_WIDE)
    with plain.capture() as captured:
        plain.print(_Whole(markdown))
    lines = (line.rstrip() for line in captured.get().splitlines())
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
