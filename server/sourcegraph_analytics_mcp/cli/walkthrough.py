"""The whole job in the terminal, on the made-up company: a person watches what an assistant would do."""

import shlex
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from mcp import Client, MCPError
from mcp_types import CallToolResult, TextContent
from rich.bar import Bar
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.rule import Rule
from rich.table import Table

from ..demo.embedded import demo_settings, embedded_upstream
from ..errors import AnalyticsError
from ..files import Held
from ..settings import Settings
from .client import TerminalClient
from .install import command

_QUESTIONS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    (
        "How did Cody adoption change month by month?",
        "query_usage",
        {
            "metrics": ["active_users", "chat_events", "completion_acceptances"],
            "group_by": ["month"],
            "period": "this_year",
        },
    ),
    (
        "Which languages accept completions least?",
        "query_usage",
        {
            "metrics": ["completion_acceptance_rate", "completion_suggestions"],
            "group_by": ["language"],
            "period": "last_quarter",
            "order_by": "completion_acceptance_rate",
            "descending": False,
            "limit": 5,
        },
    ),
    ("Who has not been here for 60 days?", "list_inactive_users", {"days": 60, "limit": 8}),
)
_WEEKS = 13  # of the chart


class Stopped(Exception):
    """A step that went wrong; the text says what."""


async def walk() -> int:
    """Show every step; 0 when each went well, else 1 and one sentence on stderr.

    Raises:
        AnalyticsError: `store_corrupt` where no temporary directory can be made.
    """
    with _folder() as folder:
        environment = {"SRC_ANALYTICS_DEMO": "1", "SRC_ANALYTICS_DATA_DIR": folder, "SRC_ANALYTICS_LOG_LEVEL": "ERROR"}
        settings = demo_settings(Settings.from_env(environment)).model_copy(update={"access_token": None})
        terminal = TerminalClient(settings, embedded_upstream(), assume_yes=True)
        async with terminal.connected() as client:
            shown = Walk(client, terminal.console, Path(folder))
            try:
                for step in STEPS:
                    await step(shown)
            except (Stopped, MCPError) as error:
                print(f"The demo ended early: {error}", file=sys.stderr)  # noqa: T201
                return 1
            shown.close()
    return 0


@contextmanager
def _folder() -> Iterator[str]:
    """A directory for the walk alone, which goes with it, however that ends."""
    try:
        held = Held(Path(tempfile.mkdtemp(prefix="sourcegraph-analytics-demo-")))
    except OSError:
        raise AnalyticsError(
            "store_corrupt", "The demo has no place for its files.", "Set TMPDIR to a directory that can be written."
        ) from None
    try:
        yield str(held.folder)
    finally:
        held.close()


class Walk:
    """Where the walk is: the client, the terminal, and what earlier steps left."""

    def __init__(self, client: Client, console: Console, folder: Path) -> None:
        self.client = client
        self.console = console
        self.folder = folder
        self.token_id = ""
        self.export: dict[str, Any] = {}

    def headline(self, text: str) -> None:
        self.console.print()
        self.console.print(Rule(f"[bold]{text}", align="left"))

    def say(self, markdown: str) -> None:
        self.console.print(Markdown(markdown.replace(str(self.folder), "…")))

    async def call(self, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Call a tool and show its answer; what it is as data."""
        result = await self.client.call_tool(tool, arguments)
        data = _data(result)
        self.say(_text(result))
        return data

    def close(self) -> None:
        self.headline("That was it")
        self.say(
            "Everything above came from a made-up company; nothing left this machine. To do the same by asking an "
            "assistant, add to your client (`claude-desktop`, `claude-code`, `cursor` or `vscode`) what this prints:"
        )
        line = shlex.join([*command(), "--demo", "install", "claude-desktop"])
        self.console.print(f"\n{line}", markup=False, highlight=False, soft_wrap=True)


def _text(result: CallToolResult) -> str:
    return "\n".join(block.text for block in result.content if isinstance(block, TextContent))


def _data(result: CallToolResult) -> dict[str, Any]:
    if result.is_error:
        raise Stopped(_text(result))
    return result.structured_content or {}


async def _connect(walk: Walk) -> None:
    walk.headline("1  A company's usage of Sourcegraph, made up for this demo")
    tools = (await walk.client.list_tools()).tools
    walk.say(f"The server offers {len(tools)} tools: " + ", ".join(f"`{tool.name}`" for tool in tools) + ".")


async def _create(walk: Walk) -> None:
    walk.headline("2  Create an access token (its secret is stored, never shown)")
    answer = await walk.call("create_token", {"display_name": "demo walk", "expires_in_days": 7})
    walk.token_id = answer["token"]["id"]


async def _export(walk: Walk) -> None:
    walk.headline("3  Export the usage of every person, day, editor and language as CSV")
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[what]}"), TimeElapsedColumn())
    with Progress(*columns, console=walk.console) as bar:
        task = bar.add_task("downloading and checking", total=None, what="")

        async def progress(progress: float, total: float | None, message: str | None) -> None:
            bar.update(task, completed=progress, total=total, what=message or "")

        walk.export = {"status": "running"}
        while walk.export["status"] == "running":  # on a slow machine a call ends first; the next waits on
            walk.export = _data(await walk.client.call_tool("export_csv", {}, progress_callback=progress))["export"]
        rows = f"{walk.export['row_count']:,} rows"
        bar.update(task, total=1, completed=1, what=rows)
    walk.say(f"{rows} about {walk.export['active_users']} people, proved complete, in one file of "
             f"{walk.export['byte_count'] / 1e6:.1f} MB. An assistant gets these lines, not the rows:")  # fmt: skip


async def _summary(walk: Walk) -> None:
    contents = (await walk.client.read_resource(walk.export["summary_uri"])).contents
    walk.say("\n".join(getattr(content, "text", "") for content in contents).split("\n\nRows: ")[0])


async def _questions(walk: Walk) -> None:
    for number, (question, tool, arguments) in enumerate(_QUESTIONS, 4):
        walk.headline(f"{number}  {question}")
        await walk.call(tool, arguments)


async def _chart(walk: Walk) -> None:
    """One chart, drawn from an answer's figures as an assistant would draw it; of whole weeks, as it shows no notes."""
    walk.headline(f"{4 + len(_QUESTIONS)}  Cody chats of the last {_WEEKS} whole weeks, drawn from one answer")
    today = datetime.now(UTC).date()
    monday = today - timedelta(days=today.weekday())
    days = {"start_date": str(monday - timedelta(weeks=_WEEKS)), "end_date": str(monday - timedelta(days=1))}
    asked = {"metrics": ["chat_events"], "group_by": ["week"], **days}
    rows = _data(await walk.client.call_tool("query_usage", asked))["rows"]
    most = max(chats or 0 for _, chats in rows)
    grid = Table.grid(padding=(0, 1))
    grid.add_column()
    grid.add_column(justify="right")
    grid.add_column()
    for week, chats in rows:
        grid.add_row(week, f"{chats or 0:,}", Bar(most or 1, 0, chats or 0, width=50, color="cyan"))
    walk.console.print(grid)


async def _revoke(walk: Walk) -> None:
    walk.headline(f"{5 + len(_QUESTIONS)}  Revoke the token again, proved by the token list")
    await walk.call("revoke_token", {"token_id": walk.token_id})


STEPS = (_connect, _create, _export, _summary, _questions, _chart, _revoke)
