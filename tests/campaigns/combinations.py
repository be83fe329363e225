"""Calls that meet troubles of upstream's: any call, any trouble, at any request, once, twice or for good.

python tests/campaigns/combinations.py --count 2000 --seed 1
python tests/campaigns/combinations.py --only 17 --seed 1      the one case again, with what came of it
"""

import io
import os
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import anyio

sys.path[:0] = [str(Path(__file__).parents[1])]
os.environ["PYTHON_KEYRING_BACKEND"] = "keyring.backends.fail.Keyring"

from support.campaign import arguments, for_many_servers, reporter
from support.combinations import Case, case, logged, met


def stranger() -> tuple[socket.socket, str]:
    """A host that must never be asked."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    return listener, f"http://127.0.0.1:{listener.getsockname()[1]}"


def visited(listener: socket.socket) -> bool:
    try:
        listener.accept()
    except BlockingIOError:
        return False
    return True


async def work(cases: Iterator[tuple[int, Case]], log: io.StringIO, wrong: list[str], seen: Counter[str]) -> None:
    for number, one in cases:
        with tempfile.TemporaryDirectory() as folder:
            try:
                outcome = await met(one, Path(folder) / "data", log)
            except (TimeoutError, ExceptionGroup) as error:
                wrong.append(f"case {number} ({one}): no answer, {error!r}")
                continue
        seen[outcome.data["error"]["code"] if outcome.failed else "ok"] += 1
        seen["requests"] += len(outcome.desk.ledger)
        wrong += [f"case {number} ({one}): {line}" for line in outcome.wrong]


async def main() -> int:
    for_many_servers()
    asked = arguments(__doc__, 2000, jobs=(3, "cases at once"), only=(-1, "one case by its number"))
    report, wrong, seen = reporter("combinations", asked), list[str](), Counter[str]()
    listener, elsewhere = stranger()
    numbers = range(asked.count) if asked.only < 0 else [asked.only]
    cases = ((number, case(asked.seed, number, elsewhere)) for number in numbers)
    with logged() as log:
        async with anyio.create_task_group() as tasks:
            for _ in range(asked.jobs):
                tasks.start_soon(partial(work, cases, log, wrong, seen))
    if visited(listener):
        wrong.append("another host was asked")
    requests, ok = seen.pop("requests"), seen.pop("ok", 0)
    codes = " ".join(f"{code} {count}" for code, count in seen.most_common())
    return report(wrong, succeeded=ok, failed=f"{seen.total()} ({codes})", requests=requests)


if __name__ == "__main__":
    sys.exit(anyio.run(main))
