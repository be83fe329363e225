"""Markdown as a terminal can show it, or as plain lines where there is none."""

import io

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import Markdown, TableElement
from rich.table import Table

_WIDE = 10_000  # columns where nobody looks at them, so that nothing is broken or cut
_NARROW = 60  # columns; with fewer a table of ids has no room for anything else


class Terminal(Console):
    """Standard output; rich would end the process where nobody reads it."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


class _WholeTable(TableElement):
    """A table whose first column, which holds the ids, is never broken, and of which nothing is cut."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for table in super().__rich_console__(console, options):
            assert isinstance(table, Table)
            for column in table.columns:
                column.overflow = "fold"
            for first in table.columns[:1]:
                first.no_wrap = True
            yield table


class _Whole(Markdown):
    elements = Markdown.elements | {"table_open": _WholeTable}


def show(console: Console, markdown: str) -> None:
    """Show Markdown as a terminal can, or as plain lines of any length where there is none, or a narrow one."""
    if console.is_terminal and console.width >= _NARROW:
        console.print(_Whole(markdown))
        return
    plain = Console(file=io.StringIO(), width=_WIDE)
    with plain.capture() as captured:
        plain.print(_Whole(markdown))
    lines = (line.rstrip() for line in captured.get().splitlines())
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
