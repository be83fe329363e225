"""What can go wrong between an upstream that means well and a client: one name, and the bytes, for each trouble.

Each belongs to a row of the retry table of the security specification (§3), repeated here by hand, apart from the code.
"""

import gzip
import random
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import anyio
import anyio.abc

from support.upstreams import Exchange

KINDS = ("report", "read", "list", "create", "revoke")
# The most requests that the ledger may show in a row, for one request that meets nothing but this row's troubles.
MOST: dict[str, tuple[int, int, int, int, int]] = {
    "harmless": (1, 1, 1, 1, 1), "unheard": (2, 1, 1, 1, 1), "silent": (3, 3, 3, 1, 3), "broken": (3, 3, 3, 1, 1),
    "login": (1, 1, 1, 1, 1), "misread": (1, 1, 1, 1, 1), "empty": (2, 1, 1, 1, 1), "nothing": (1, 1, 1, 1, 1),
    "redirect": (1, 1, 1, 1, 1), "refused": (1, 1, 1, 1, 1), "busy": (3, 3, 3, 1, 3), "limited": (3, 3, 3, 1, 2),
    "too long": (1, 1, 1, 1, 1), "failing": (2, 3, 3, 1, 3), "gateway": (4, 4, 4, 1, 3), "odd": (2, 2, 2, 1, 2),
    "endless": (2, 1, 1, 1, 1), "unframed": (1, 3, 3, 1, 1),
}  # fmt: skip
WAITING = ("unheard", "endless")  # rows that only a timeout ends
_STATUSES = {
    "nothing": (204, 205, 304), "redirect": (301, 302, 303, 307, 308),
    "refused": (400, 401, 403, 404, 405, 406, 409, 410, 413, 414, 415, 418, 422, 451, 501, 505, 525, 526),
    "busy": (408, 425), "limited": (429,), "failing": (500,), "gateway": (502, 503, 504, 520, 521, 522, 523, 524),
    "odd": (506, 507, 511, 530, 599), "misread": (202, 203, 206, 226),
}  # fmt: skip


@dataclass(frozen=True)
class Meant:
    """What a healthy upstream would answer."""

    status: str
    content_type: str
    body: bytes


@dataclass(frozen=True)
class Trouble:
    """One thing that goes wrong.

    Args:
        row: of the retry table.
        effect: whether upstream has done what it was asked before it went wrong.
        whole: a whole body that is sent instead, for an endpoint of no documented shape.
    """

    name: str
    row: str
    effect: bool
    answer: Callable[[Exchange, Meant], Awaitable[None]]
    whole: bytes | None = None

    def most(self, kind: str) -> int:
        return MOST[self.row][KINDS.index(kind)]


async def healthy(exchange: Exchange, meant: Meant) -> None:
    await exchange.answer(meant.body, meant.status, meant.content_type, "Connection: close\r\n")


def drawn(rng: random.Random, secrets: tuple[str, ...], elsewhere: str) -> Trouble:
    """Any trouble; its name and the seed say all about it.

    Args:
        secrets: what upstream's error pages say back.
        elsewhere: the address of a host that must never be asked.
    """
    make = rng.choices((_status, _body, _framing, _packed, _connection), (34, 22, 22, 12, 20))[0]
    return make(rng, secrets, elsewhere)


def _status(rng: random.Random, secrets: tuple[str, ...], elsewhere: str) -> Trouble:
    row = rng.choices(list(_STATUSES), (3, 3, 8, 2, 4, 3, 6, 2, 1))[0]
    status = rng.choice(_STATUSES[row])
    page = f"Authorization: Bearer {secrets[0]}; Cookie: cas={secrets[1]}; secret {secrets[2]}"
    body = b"" if row == "nothing" else rng.choice((b"", page.encode(), f"<html>{page}</html>".encode(),
                                                    f'{{"error": "{page}"}}'.encode()))  # fmt: skip
    extra = f"X-Echo: {page}\r\nSet-Cookie: cas=evil\r\nConnection: close\r\n"
    if row == "redirect":
        place = rng.choice((elsewhere, "/login", "//x.example/", f"{elsewhere}/?t={secrets[0]}", "", "http://[bad"))
        extra += f"Location: {place}\r\n"
    wait = _wait(rng) if row in ("limited", "busy", "failing", "gateway") else ""
    if wait in ("3600", "99999999999", "Fri, 31 Dec 9999 23:59:59 GMT"):
        row = "too long"
    extra += f"Retry-After: {wait}\r\n" if wait else ""
    head = f"HTTP/1.1 {status} Because\r\nContent-Type: text/html\r\n"
    head += "" if row == "nothing" else f"Content-Length: {len(body)}\r\n"

    async def answer(exchange: Exchange, meant: Meant) -> None:
        await exchange.send(f"{head}{extra}\r\n".encode() + body)

    effect = row in ("busy", "failing", "gateway", "odd") and rng.random() < 0.5
    return Trouble(f"status {status} wait={wait!r} body={len(body)}", row, effect, answer)


def _wait(rng: random.Random) -> str:
    past = format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True)
    return rng.choices(
        ("", "0", past, "-5", "soon", "1e3", "0, 3600", "3600", "99999999999", "Fri, 31 Dec 9999 23:59:59 GMT",
         "Mon, 99 Foo 2026 00:00:00 GMT"), (20, 3, 2, 1, 2, 1, 1, 2, 1, 1, 1),
    )[0]  # fmt: skip


def _body(rng: random.Random, secrets: tuple[str, ...], elsewhere: str) -> Trouble:
    """A whole answer that is something else."""
    row, name, body = rng.choice(
        (
            ("login", "html", b"<!doctype html><html>Sign in</html>"),
            ("login", "html after a mark and blank lines", b"\xef\xbb\xbf\r\n \n<html></html>"),
            ("login", "xml", b"<?xml version='1.0'?><Error/>"),
            ("login", "html with secrets", f"<p>{secrets[0]} {secrets[1]} {secrets[2]}".encode()),
            ("misread", "json error", f'{{"error": "no {secrets[0]}"}}'.encode()),
            ("misread", "json list", b"[1, 2]"), ("misread", "json text", b'"no"'), ("misread", "json null", b"null"),
            ("misread", "deep json", b"[" * 20_000 + b"]" * 20_000), ("empty", "empty", b""),
            ("empty", "blank lines", b"\r\n\n"), ("empty", "a mark alone", b"\xef\xbb\xbf"),
            ("misread", "words", b"Sorry, something went wrong"), ("misread", "pdf", b"%PDF-1.4\n%\xe2\xe3"),
            ("misread", "zip", b"PK\x03\x04" + bytes(50)), ("misread", "nul", b"\0" * 40),
            ("misread", "other columns", b"a,b\n1,2\n"), ("misread", "latin", "é,ü\n1,2\n".encode("latin-1")),
            ("misread", "utf-16", "Instance user ID,Searches\n1,2\n".encode("utf-16")),
        )
    )  # fmt: skip
    kind = rng.choice(("text/csv", "application/json", "text/html", "application/octet-stream", "x"))

    async def answer(exchange: Exchange, meant: Meant) -> None:
        await exchange.answer(body, meant.status.replace("204 No Content", "200 OK"), kind, "Connection: close\r\n")

    return Trouble(f"{name} as {kind}", row, rng.random() < 0.8, answer, body)


def _framing(rng: random.Random, secrets: tuple[str, ...], elsewhere: str) -> Trouble:
    """The right body in a frame that is wrong, or odd and right."""
    at, by = rng.random(), rng.randrange(1, 30)

    def sent(meant: Meant) -> bytes:
        head = f"HTTP/1.1 {meant.status}\r\nContent-Type: {meant.content_type}\r\n".encode()
        body = meant.body or b" "
        cut = body[: int(at * len(body))]
        length = f"Content-Length: {len(body)}\r\n".encode()
        chunks = f"{len(body):x}\r\n".encode() + body + b"\r\n"
        chunked = head + b"Transfer-Encoding: chunked\r\n\r\n"
        return {
            "cut": head + length + b"\r\n" + cut,
            "cut at a line": head + length + b"\r\n" + body[: body.rfind(b"\n", 0, len(body) - 1) + 1],
            "too long a length": head + f"Content-Length: {len(body) + by}\r\n\r\n".encode() + body,
            "two lengths": head + length + f"Content-Length: {len(body) + by}\r\n\r\n".encode() + body,
            "negative length": head + b"Content-Length: -5\r\n\r\n" + body,
            "length of words": head + b"Content-Length: all\r\n\r\n" + body,
            "unfinished chunks": chunked + chunks,
            "chunk cut": chunked + chunks[: len(chunks) - 2 - by % len(body)],
            "size of a chunk in words": chunked + b"zz\r\n" + body,
            "giant chunk": chunked + b"ffffffffff\r\n" + body,
            "junk after a chunk": chunked + chunks + b"junk\r\n",
            "by close, cut": head + b"\r\n" + cut,
            "chunked": chunked + chunks + b"0\r\n\r\n",
            "chunked with a trailer": chunked + chunks + b"0\r\nX-T: 1\r\n\r\n",
            "byte by byte": chunked + b"".join(b"1\r\n%c\r\n" % c for c in body) + b"0\r\n\r\n",
            "interim answers": b"HTTP/1.1 100 Continue\r\n\r\n" * 4 + head + length + b"\r\n" + body,
        }[name]  # fmt: skip

    harmless = ("chunked", "chunked with a trailer", "byte by byte", "interim answers")
    unread = ("two lengths", "negative length", "length of words")
    broken = ("cut", "cut at a line", "too long a length", "unfinished chunks", "chunk cut", "size of a chunk in words",
              "giant chunk", "junk after a chunk", "by close, cut")  # fmt: skip
    name = rng.choice((*harmless, *unread, *broken))
    row = "harmless" if name in harmless else "silent" if name in unread else "broken"
    row = "unframed" if name == "by close, cut" else row

    async def answer(exchange: Exchange, meant: Meant) -> None:
        if meant.status.startswith("204"):
            meant = Meant("200 OK", "application/json", b"{}")
        await exchange.send(sent(meant))

    return Trouble(f"{name} at {at:.3f}/{by}", row, True, answer)


def _packed(rng: random.Random, secrets: tuple[str, ...], elsewhere: str) -> Trouble:
    """Compression that is damaged, or not what was asked for."""
    name = rng.choice(("whole", "two members", "cut", "no trailer", "bad sum", "junk behind", "not packed", "br",
                       "zstd", "gzip, gzip", "deflate", "flipped"))  # fmt: skip
    at, bit = rng.random(), rng.randrange(8)

    def sent(body: bytes) -> bytes:
        packed, half = gzip.compress(body, mtime=0), int(at * len(body))
        place = 10 + int(at * (len(packed) - 10))
        made = {
            "two members": gzip.compress(body[:half], mtime=0) + gzip.compress(body[half:], mtime=0),
            "cut": packed[: 1 + int(at * (len(packed) - 1))],
            "no trailer": packed[:-8],
            "bad sum": _flipped(packed, len(packed) - 6, bit),
            "junk behind": packed + b"junk",
            "not packed": body or b"x",
            "flipped": _flipped(packed, place, bit),
        }
        return made.get(name, packed)

    row = {"whole": "harmless", "two members": "harmless"}.get(name, "broken")
    row = "misread" if name in ("br", "zstd", "gzip, gzip", "deflate") else row
    encoding = name if row == "misread" else "gzip"

    async def answer(exchange: Exchange, meant: Meant) -> None:
        if meant.status.startswith("204"):
            meant = Meant("200 OK", "application/json", b"{}")
        extra = f"Content-Encoding: {encoding}\r\nConnection: close\r\n"
        await exchange.answer(sent(meant.body), meant.status, meant.content_type, extra)

    return Trouble(f"gzip {name} at {at:.3f}.{bit}", row, True, answer)


def _flipped(data: bytes, place: int, bit: int) -> bytes:
    return data[:place] + bytes([data[place] ^ (1 << bit)]) + data[place + 1 :]


def _connection(rng: random.Random, secrets: tuple[str, ...], elsewhere: str) -> Trouble:
    """A connection that ends, stalls or speaks something else."""
    name = rng.choice(("closed", "reset", "reset in the head", "reset in the body", "junk", "old http", "huge head",
                       "nul in the head", "no answer", "half a head", "half a body", "drip", "endless interim",
                       "1.0 with a length"))  # fmt: skip
    row = {"no answer": "unheard", "half a head": "unheard", "half a body": "unheard", "drip": "unheard",
           "endless interim": "endless", "reset in the body": "broken",
           "1.0 with a length": "harmless"}.get(name, "silent")  # fmt: skip
    at = rng.random()

    async def answer(exchange: Exchange, meant: Meant) -> None:
        body = meant.body or b" "
        head = f"HTTP/1.1 {meant.status}\r\nContent-Type: {meant.content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
        cut = body[: int(at * len(body))]
        bytes_of = {
            "closed": b"",
            "reset": b"",
            "reset in the head": head[: int(at * (len(head) - 4))].encode(),
            "reset in the body": head.encode() + cut,
            "junk": b"\x16\x03\x01 no http\r\n\r\n",
            "old http": body,
            "huge head": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 140_000 + b"\r\n\r\n",
            "nul in the head": b"HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n" + body,
            "1.0 with a length": head.replace("HTTP/1.1", "HTTP/1.0").encode() + body,
        }
        if name not in bytes_of:
            await _stall(name, exchange, head.encode(), cut)
        if bytes_of[name]:
            await exchange.send(bytes_of[name])
        if name.startswith("reset"):
            await anyio.sleep(0.002)  # or what was sent would be lost with it
            _reset(exchange)

    return Trouble(f"{name} at {at:.3f}", row, rng.random() < 0.6 or name in _WITH_A_HEAD, answer)


_WITH_A_HEAD = ("reset in the body", "half a body", "drip", "1.0 with a length")  # so it has happened


async def _stall(name: str, exchange: Exchange, head: bytes, cut: bytes) -> None:
    """Go on for ever, until the other side gives up."""
    if name == "half a head":
        await exchange.send(head[: len(head) // 2])
    elif name == "half a body":
        await exchange.send(head + cut)
    elif name == "drip":
        await exchange.send(head)
    while True:
        if name == "endless interim":
            await exchange.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            await anyio.sleep(0.001)
        elif name == "drip":
            await exchange.send(b" ")
            await anyio.sleep(0.02)
        else:
            await exchange.stream.receive()


def _reset(exchange: Exchange) -> None:
    raw = exchange.stream.extra(anyio.abc.SocketAttribute.raw_socket)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
