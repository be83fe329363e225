"""Broken and hostile requests over HTTP between good ones: never a 5xx, never let in, and the good ones are answered.

python tests/campaigns/broken.py --count 2000 --seed 1
"""

import asyncio
import random
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1])]

from support.campaign import arguments, reporter
from support.web import ERAS, FREE, Site, site

CR, END = b"\r\n", b"\r\n\r\n"
GOOD_EVERY = 20
ODD = (b"\x00", b"\r", b"\n", b" ", b"\t", b"\xff", b":", b"\x7f", b"\r\n ", b"\x0b", b"%0d%0a", b"x" * 70_000)
METHODS = (
    b"GET",
    b"PUT",
    b"DELETE",
    b"OPTIONS",
    b"HEAD",
    b"TRACE",
    b"CONNECT",
    b"PRI",
    b"post",
    b"P\x00ST",
    b"X" * 200,
)
TARGETS = (
    b"*", b"/", b"//mcp", b"/mcp/", b"/mcp/../mcp", b"/%6dcp", b"/mcp%00", b"/mcp?access_token=x", b"mcp", b"/\xff",
    b"http://evil.example/mcp", b"http://127.0.0.1:1/mcp", b"/.well-known/oauth-protected-resource/mcp", b"/" * 9000,
)  # fmt: skip
LINES = (
    b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding : chunked",
    b"Transfer-Encoding: xchunked", b"Transfer-Encoding:\x0bchunked", b"Content-Length: 0", b"Content-Length: -1",
    b"Content-Length: 1e3", b"Content-Length: +5", b"Content-Length: 5, 6", b"Content-Length: 99999999999999999999",
    b"Host: evil.example", b"Host:", b"Origin: null", b"Origin: http://evil.example", b"Authorization: Bearer x",
    b"Authorization: Basic x", b"Authorization: Bearer " + b"a" * 100_000, b"Content-Encoding: gzip",
    b"Authorization: Bearer eyJhbGciOiJub25lIn0.e30.", b"X: " + b"a" * 100_000, b"Connection: close, host",
    b"Upgrade: websocket\r\nConnection: upgrade", b"Upgrade: h2c\r\nConnection: upgrade", b"Expect: 100-continue",
    b"Expect: x", b" folded: x", b"X: a\r\n b", b"X: a\n\tb", b"no colon", b": no name", b"\xff: x", b"Trailer: Host",
    b"X-Forwarded-Host: evil.example", b"Forwarded: host=evil.example", b"Content-Type: text/plain", b"Accept: x/y",
    b"MCP-Protocol-Version: 1", b"Mcp-Session-Id: x", b"Mcp-Method: tools/list", b"Last-Event-ID: 1", b"TE: trailers",
)  # fmt: skip
CHUNKS = (
    b"5\r\nhello\r\n0\r\n\r\n", b"5;x=" + b"y" * 9000 + b"\r\nhello\r\n0\r\n\r\n", b"-1\r\nx\r\n0\r\n\r\n",
    b"0x5\r\nhello\r\n0\r\n\r\n", b"FFFFFFFFFFFFFFFFF\r\nx", b"5\nhello\n0\n\n", b"5\r\nhelloXX0\r\n\r\n",
    b"0\r\nHost: evil.example\r\n\r\n",
)  # fmt: skip
BODIES = (
    b"", b"{}", b"[]", b"null", b"\xff\xfe", b"[" * 50_000, b'{"a":' * 20_000, b"1" * 5000, b'{"id":1e999}',
    b'{"jsonrpc":"2.0","id":1,"method":"x"}', b'{"jsonrpc":"2.0","id":{},"method":"tools/list"}', b'"\\ud800"',
    b'{"jsonrpc":"2.0","id":1,"result":{}}', b'{"jsonrpc":"2.0","method":"notifications/initialized"}',
)  # fmt: skip


@dataclass
class Request:
    """A request in parts, to be broken."""

    method: bytes
    target: bytes
    version: bytes
    lines: list[bytes]
    body: bytes

    def break_line(self, rng: random.Random) -> None:
        """Something wrong with what stands before the body."""
        match rng.randrange(7):
            case 0:
                self.method = rng.choice(METHODS)
            case 1:
                self.target = rng.choice(TARGETS)
            case 2:
                self.version = rng.choice((b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.1 x", b"", b"HTTP/9.9"))
            case 3 | 4:
                self.lines.insert(rng.randrange(len(self.lines) + 1), rng.choice(LINES))
            case 5:
                del self.lines[rng.randrange(len(self.lines))]
            case 6:
                self.lines *= rng.choice((1, 2, 60))

    def break_body(self, rng: random.Random) -> None:
        """Another body, in chunks or of about the length that is said."""
        chunked = rng.random() < 0.5
        self.body = rng.choice(CHUNKS if chunked else BODIES)
        length = b"Content-Length: %d" % (len(self.body) + rng.choice((0, 0, 0, -1, 1)))
        kept = rng.random() < 0.3
        self.lines = [line for line in self.lines if kept or not line.startswith(b"Content-Length")]
        self.lines.append(b"Transfer-Encoding: chunked" if chunked else length)

    def sent(self, rng: random.Random) -> bytes:
        """What goes over the wire: now and then with an odd byte, or cut."""
        first = b" ".join((self.method, self.target, self.version))
        whole = first + CR + CR.join(self.lines) + rng.choice((*[END] * 8, b"\n\n", CR)) + self.body
        if rng.random() < 0.3:
            at = rng.randrange(len(whole))
            whole = whole[:at] + rng.choice(ODD) + whole[at + rng.randrange(2) :]
        return whole[: rng.randrange(1, len(whole))] if rng.random() < 0.1 else whole


def broken(server: Site, rng: random.Random) -> bytes:
    """A good request with one to three things wrong with it."""
    era = rng.choice(ERAS)
    more = {"MCP-Protocol-Version": era} | ({"Mcp-Method": "tools/list"} if era == ERAS[0] else {})
    head, body = server.request("tools/list", {}, more).split(END, 1)
    first, *lines = head.split(CR)
    method, target, version = first.split(b" ")
    request = Request(method, target, version, lines, body)
    for _ in range(rng.randint(1, 3)):
        (request.break_body if rng.random() < 0.25 else request.break_line)(rng)
    return request.sent(rng)


async def sent(server: Site, request: bytes) -> bytes:
    """Everything that the server says to it, until it has said nothing for a while."""
    said = b""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    with suppress(OSError, TimeoutError):
        writer.write(request)
        while piece := await asyncio.wait_for(reader.read(1 << 16), 0.3):
            said += piece
    writer.transport.abort()
    return said


async def campaign(server: Site, count: int, seed: int) -> tuple[list[str], Counter[str], int]:
    wrong, answers, good = list[str](), Counter[str](), 0
    rng = random.Random(seed)
    for begin in range(0, count, GOOD_EVERY):
        requests = [broken(server, rng) for _ in range(min(GOOD_EVERY, count - begin))]
        for request, said in zip(requests, await asyncio.gather(*(sent(server, r) for r in requests)), strict=True):
            status = said[9:12].decode("latin-1") if said.startswith(b"HTTP/1.1 ") else "none"
            answers[status] += 1
            for each in [status, *(part[:3].decode("latin-1") for part in said.split(b"HTTP/1.1 ")[1:])]:
                if each.startswith("5") or b"Traceback" in said:
                    wrong.append(f"{said[:80]!r} to {request[:300]!r}")
                    break
        async with asyncio.timeout(5), server.client(ERAS[begin // GOOD_EVERY % 2]) as client:
            good += (await client.call("list_exports"))["isError"] is False
    if good != -(-count // GOOD_EVERY):
        wrong.append(f"{good} good requests answered")
    return wrong, answers, good


def main() -> int:
    asked = arguments(__doc__, 2000)
    report = reporter("broken", asked)
    with tempfile.TemporaryDirectory() as folder, site(Path(folder), "--demo", **FREE) as server:
        before = server.memory
        wrong, answers, good = asyncio.run(campaign(server, asked.count, asked.seed))
        wrong += [line[-700:] for line in server.log if "Traceback" in line or " ERROR " in line]
        wrong += [] if server.process.poll() is None else ["the server ended"]
        grown = server.memory - before
    counted = {f"answered_{status}": number for status, number in sorted(answers.items())}
    return report(wrong, **counted, good_ones_answered=good, MB_more=round(grown))


if __name__ == "__main__":
    sys.exit(main())
