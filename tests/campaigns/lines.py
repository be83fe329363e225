"""Send lines that are no messages, or messages nobody should send, between valid ones: every valid one is answered.

python tests/campaigns/lines.py --count 50000 --seed 1
"""

import json
import random
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1])]

from support.campaign import arguments, reporter
from support.stdio import META, spawned

VALUES: tuple[object, ...] = (
    None,
    True,
    -1,
    1.5,
    1e308,
    "",
    "x" * 3000,
    "\ud800",
    "\x00\x1b[2J",
    "../../etc/passwd",
    [],
    {},
    [[]],
    2**70,
)
METHODS = ("tools/call", "tools/list", "resources/read", "prompts/get", "completion/complete", "ping", "initialize",
           "server/discover", "logging/setLevel", "notifications/cancelled", "tasks/get", "x", "")  # fmt: skip
TOOLS = ("query_usage", "export_csv", "list_exports", "query_export", "revoke_token", "nothing", "")


def value(rng: random.Random, depth: int = 0) -> object:
    if depth < 3 and rng.random() < 0.3:
        keys = ("name", "arguments", "uri", "metrics", "sql", "export_id", "_meta", "limit", "period")
        return {rng.choice(keys): value(rng, depth + 1) for _ in range(rng.randrange(4))}
    return rng.choice(VALUES)


def line(rng: random.Random) -> bytes:
    """One line that is broken in one of many ways, or well-formed and odd. Its ids are never those of the pings."""
    message = {
        "jsonrpc": rng.choice(("2.0", "2.0", "1.0", 2)),
        "id": rng.choice((None, 1.5, "odd", -5, [], "")),
        "method": rng.choice(METHODS),
        "params": {"name": rng.choice(TOOLS), "arguments": value(rng), "uri": "analytics://exports/x", "_meta": META}
        if rng.random() < 0.5
        else value(rng),
    }
    for key in rng.sample(sorted(message), rng.choice((0, 0, 1, 2))):
        del message[key]
    data = bytearray(json.dumps(message).encode())
    match rng.randrange(6):
        case 0:
            del data[rng.randrange(len(data)) :]
        case 1:
            for _ in range(rng.randrange(1, 6)):
                data[rng.randrange(len(data))] = rng.randrange(256)
        case 2:
            data[:] = rng.randbytes(rng.randrange(200))
        case 3:
            data = bytearray(b"[" + data + b"]")
    return bytes(data).replace(b"\n", b" ").replace(b"\r", b" ") + b"\n"


def main() -> int:
    asked = arguments(__doc__, 50_000)
    report, wrong, answered = reporter("lines", asked), list[str](), 0
    rng = random.Random(asked.seed)
    with (
        tempfile.TemporaryDirectory() as folder,
        spawned(Path(folder), "--demo", lifetime=7200, LOG_LEVEL="ERROR") as raw,
    ):
        raw.handshake()
        for _ in range(asked.count // 10):
            raw.write(b"".join(line(rng) for _ in range(10)))
            try:
                answered += bool(raw.ask("tools/list")["tools"])
            except (AssertionError, BrokenPipeError) as error:
                wrong.append(f"{error}"[:200])
                break
        raw.process.stdin.close()  # type: ignore[union-attr]
        if raw.process.wait(10) != 0:
            wrong.append(f"exit {raw.process.returncode}")
    return report(wrong, odd_lines=asked.count, valid_requests_answered=answered)


if __name__ == "__main__":
    sys.exit(main())
