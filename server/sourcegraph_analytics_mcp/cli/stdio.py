"""Serve one client over stdin and stdout, and leave promptly and cleanly on signals."""

import os
import signal

import anyio

from ..surface.server import AnalyticsServer


async def serve_stdio(server: AnalyticsServer) -> None:
    """Serve until the input ends or a signal comes.

    The SDK's reader thread cannot be stopped, so after a signal the process ends itself once everything is put away.
    """
    closed = anyio.Event()

    async def watch(scope: anyio.CancelScope) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async for number in signals:
                scope.cancel()
                with anyio.CancelScope(shield=True), anyio.move_on_after(3):
                    await closed.wait()
                os._exit(128 + number)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch, tasks.cancel_scope)
        server.on_close = closed.set
        await server.run_stdio_async()
        tasks.cancel_scope.cancel()
