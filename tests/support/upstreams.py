"""Upstreams on real loopback sockets: the made-up company's, and one that sends whatever bytes a test wants."""

import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import anyio
import uvicorn
from anyio.abc import SocketStream

from sourcegraph_analytics_mcp.demo.company import Company
from sourcegraph_analytics_mcp.demo.upstream import Received, TokenDesk, Upstream


@dataclass
class Served:
    """The made-up upstream while it is served."""

    url: str
    upstream: Upstream

    @property
    def company(self) -> Company:
        return self.upstream.company

    @property
    def desk(self) -> TokenDesk:
        return self.upstream.desk

    @property
    def ledger(self) -> list[Received]:
        return self.upstream.ledger

    def sent(self, method: str, path: str = "/api/") -> list[Received]:
        return [r for r in self.ledger if r.method == method and r.path.startswith(path)]


@contextmanager
def serve_company(company: Company) -> Iterator[Served]:
    """Serve a company's upstream from a thread of its own."""
    upstream = Upstream(company, lambda: datetime.now(UTC))
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(upstream.app(), log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield Served(f"http://127.0.0.1:{listener.getsockname()[1]}", upstream)
    finally:
        server.should_exit = True
        thread.join()


Handler = Callable[["Exchange"], Awaitable[None]]


@dataclass
class Exchange:
    """One request that a scripted upstream received, and the way to answer it."""

    number: int
    method: str
    target: str
    headers: dict[str, str]
    stream: SocketStream
    body: bytes = b""

    async def send(self, data: bytes) -> None:
        await self.stream.send(data)

    async def answer(
        self, body: bytes = b"", status: str = "200 OK", content_type: str = "text/csv", extra: str = ""
    ) -> None:
        """A well-framed answer."""
        head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
        await self.send(head.encode() + body)


@dataclass
class Scripted:
    url: str
    exchanges: list[Exchange]


@asynccontextmanager
async def scripted_upstream(handler: Handler) -> AsyncIterator[Scripted]:
    """Serve by a handler that writes raw bytes; each connection takes one request and is closed after it."""
    exchanges: list[Exchange] = []

    async def serve(stream: SocketStream) -> None:
        async with stream:
            received = b""
            while b"\r\n\r\n" not in received:
                try:
                    received += await stream.receive()
                except (anyio.EndOfStream, anyio.BrokenResourceError):
                    return
            begin, _, body = received.partition(b"\r\n\r\n")
            head, *lines = begin.decode().split("\r\n")
            method, target, _ = head.split(" ")
            headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}
            while len(body) < int(headers.get("content-length", 0)):  # unread, it would turn the close into a reset
                try:
                    body += await stream.receive()
                except (anyio.EndOfStream, anyio.BrokenResourceError):
                    return
            exchange = Exchange(len(exchanges) + 1, method, target, headers, stream, body)
            exchanges.append(exchange)
            try:
                await handler(exchange)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream):
                return

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        yield Scripted(f"http://127.0.0.1:{port}", exchanges)
        tasks.cancel_scope.cancel()
    await listener.aclose()
