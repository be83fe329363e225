"""Serve one client over stdin and stdout, and leave promptly and cleanly at the end of input."""

from typing import Any, cast

import anyio
from mcp.server.stdio import stdio_server

from ..surface.server import AnalyticsServer
from .leaving import leave
from .lines import Input, Output, standard_streams
from .unanswered import Unanswered

_PUT_AWAY_WITHIN = 3.0  # seconds
_LAST_WORDS_WITHIN = 1.0  # seconds for a client that no longer reads


async def serve_stdio(server: AnalyticsServer) -> None:
    """Serve until the input ends.

    A thread that writes to a pipe cannot be stopped, so once everything is put away the process ends itself.
    """
    closed, ended = anyio.Event(), anyio.Event()
    source, sink = standard_streams()
    unanswered = Unanswered()
    output = Output(sink, unanswered)
    lines: Any = Input(source, output, unanswered, ended.set)

    async def watch_end() -> None:
        await ended.wait()
        await anyio.sleep(_LAST_WORDS_WITHIN)
        with anyio.move_on_after(_PUT_AWAY_WITHIN, shield=True):
            await closed.wait()
        leave(0)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch_end)
        server.on_close = closed.set
        async with stdio_server(lines, cast(Any, output)) as (read, write):
            await server.serve(read, write)
        tasks.cancel_scope.cancel()
