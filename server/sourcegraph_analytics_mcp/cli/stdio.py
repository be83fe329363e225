"""Serve one client over stdin and stdout, and leave promptly and cleanly at the end of input and on signals."""

from typing import Any, cast

import anyio
from mcp.server.stdio import stdio_server

from ..surface.server import AnalyticsServer
from .leaving import leave, signals
from .lines import Input, Output, standard_streams
from .unanswered import Unanswered

_PUT_AWAY_WITHIN = 3.0  # seconds
_LAST_WORDS_WITHIN = 1.0  # seconds for a client that no longer reads


async def serve_stdio(server: AnalyticsServer) -> None:
    """Serve until the input ends or a signal comes.

    A thread that writes to a pipe cannot be stopped, so once everything is put away the process ends itself.
    """
    closed, ended = anyio.Event(), anyio.Event()
    source, sink = standard_streams()
    unanswered = Unanswered()
    output = Output(sink, unanswered)
    lines: Any = Input(source, output, unanswered, ended.set)

    async def put_away(number: int) -> None:
        with anyio.CancelScope(shield=True):
            with anyio.move_on_after(_PUT_AWAY_WITHIN):
                await closed.wait()
        leave(number)

    async def watch_signals(scope: anyio.CancelScope) -> None:
        with anyio.open_signal_receiver(*signals()) as received:
            async for number in received:
                scope.cancel()
                await put_away(number)

    async def watch_end() -> None:
        await ended.wait()
        await anyio.sleep(_LAST_WORDS_WITHIN)
        await put_away(0)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch_signals, tasks.cancel_scope)
        tasks.start_soon(watch_end)
        server.on_close = closed.set
        async with stdio_server(lines, cast(Any, output)) as (read, write):
            await server.serve(read, write)
        tasks.cancel_scope.cancel()
