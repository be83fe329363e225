"""A person's terminal as an MCP client of the server in the same process."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
from mcp import Client
from mcp_types import ElicitResult, TextContent
from rich.prompt import Confirm
from rich.text import Text

from ..settings import Settings
from ..surface.server import AnalyticsServer
from .console import Terminal, show
from .leaving import Interrupted, asking
from .saying import masked
from .wording import for_a_person


class TerminalClient:
    """Calls tools and shows their answers as a terminal can."""

    def __init__(
        self, settings: Settings, upstream: Callable[..., Any] | None = None, *, assume_yes: bool = False
    ) -> None:
        self._server = AnalyticsServer(settings, upstream)
        self.console = Terminal()
        self._assume_yes = assume_yes

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Client]:
        """The MCP client, while the server runs."""
        async with Client(self._server, elicitation_callback=self._ask) as client:
            yield client

    async def show(
        self,
        tool: str,
        arguments: dict[str, Any],
        *,
        flags: Mapping[str, str] | None = None,
        succeeded: Callable[[dict[str, Any]], bool] = lambda data: True,
    ) -> int:
        """Call one tool, show what it says, an error on stderr, and return the exit status.

        Args:
            flags: what the person typed for which argument, so that errors name it.
        """
        async with self.connected() as client:
            result = await client.call_tool(tool, arguments)
        said = "\n".join(block.text for block in result.content if isinstance(block, TextContent))
        text = for_a_person(said, flags or {}, tables=tool == "check_connection")
        if result.is_error:
            complaints = Terminal(stderr=True)
            complaints.print(text, markup=False, soft_wrap=not complaints.is_terminal)
        else:
            show(self.console, text)
        return 1 if result.is_error or not succeeded(result.structured_content or {}) else 0

    async def _ask(self, context: Any, params: Any) -> ElicitResult:
        question = masked(params.message)  # which names what was typed
        if self._assume_yes:
            self.console.print(f"{question} yes", markup=False)
            return ElicitResult(action="accept", content={"confirm": True})
        try:
            with asking():
                agreed = Confirm.ask(Text(question), console=self.console, default=False)
        except EOFError:  # nobody is there to ask
            return ElicitResult(action="cancel")
        except Interrupted:
            await anyio.sleep_forever()  # the event loop hears the signal, too
        return ElicitResult(action="accept", content={"confirm": agreed})
