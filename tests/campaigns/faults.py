"""Cut and damage a report at every point, in every framing and encoding: it is whole, or it is an error.

python tests/campaigns/faults.py --count 2000 --seed 1
"""

import gzip
import random
import sys
import tempfile
from pathlib import Path

import anyio

sys.path[:0] = [str(Path(__file__).parents[1])]

from support.campaign import arguments, reporter, settings
from support.client import call, connected, text
from support.upstreams import Exchange, scripted_upstream

ROWS = [f'{n},"a ""q"" {n}\né",{n * 7}' for n in range(40)]
BODY = ("Instance user ID,Username,Searches\r\n" + "\r\n".join(ROWS) + "\r\n").encode()
SEARCHES = sum(n * 7 for n in range(40))


def message(rng: random.Random) -> tuple[bytes, str]:
    """A whole answer, and what it is called."""
    encoding = rng.choice(("identity", "gzip", "two members"))
    middle = rng.randrange(len(BODY))
    body = {
        "identity": BODY,
        "gzip": gzip.compress(BODY, mtime=0),
        "two members": gzip.compress(BODY[:middle], mtime=0) + gzip.compress(BODY[middle:], mtime=0),
    }[encoding]
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\n"
    head += b"" if encoding == "identity" else b"Content-Encoding: gzip\r\n"
    framing = rng.choice(("length", "chunked", "close"))
    if framing == "length":
        return head + f"Content-Length: {len(body)}\r\n\r\n".encode() + body, f"{framing} {encoding}"
    if framing == "close":
        return head + b"\r\n" + body, f"{framing} {encoding}"
    pieces = [body[i : i + 97] for i in range(0, len(body), 97)]
    chunks = b"".join(f"{len(p):x}\r\n".encode() + p + b"\r\n" for p in pieces)
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n", f"{framing} {encoding}"


def damaged(rng: random.Random) -> tuple[bytes, str]:
    """A cut answer, or one with a changed byte that its encoding proves; at times a whole one."""
    data, name = message(rng)
    begin = data.index(b"\r\n\r\n") + 4
    if rng.random() < 0.03:
        return data, f"whole {name}"
    at = rng.randrange(begin, len(data))
    if name.endswith("identity") or rng.random() < 0.7:
        return data[:at], f"{name} cut at {at - begin}"
    return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :], f"{name} bit at {at - begin}"


async def main() -> int:
    asked = arguments(__doc__, 2000)
    report, wrong, kept, refused = reporter("faults", asked), list[str](), 0, 0
    rng = random.Random(asked.seed)
    current = b""

    async def answer(exchange: Exchange) -> None:
        await exchange.send(current)

    with tempfile.TemporaryDirectory() as folder:
        async with scripted_upstream(answer) as fake, connected(settings(fake.url, Path(folder))) as client:
            for _ in range(asked.count):
                current, name = damaged(rng)
                result = await client.call_tool("export_csv", {"granularity": "by_user", "refresh": True})
                if result.is_error:
                    refused += 1
                    if name.startswith("whole") and "close" not in name:
                        wrong.append(f"{name}: {text(result)}")
                    continue
                kept += 1
                assert result.structured_content is not None
                export = result.structured_content["export"]
                sql = "SELECT count(*), sum(searches) FROM usage"
                rows = (await call(client, "query_export", export_id=export["id"], sql=sql))["rows"]
                if rows != [[40, SEARCHES]] or export["byte_count"] != len(BODY):
                    wrong.append(f"{name}: {rows}")
                await call(client, "delete_export", export_id=export["id"])
        left = [p.name for p in (Path(folder) / "staging").iterdir()]
    return report(wrong + left, kept_whole=kept, refused=refused)


if __name__ == "__main__":
    sys.exit(anyio.run(main))
