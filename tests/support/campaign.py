"""What every campaign shares: its arguments, settings without a test's fixtures, and one line of report."""

import argparse
import atexit
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sourcegraph_analytics_mcp.demo.upstream import DEMO_COOKIE, DEMO_INSTANCE, DEMO_TOKEN
from sourcegraph_analytics_mcp.exports.engine.forks import forks
from sourcegraph_analytics_mcp.settings import Settings


def arguments(description: str | None, count: int, **more: tuple[int, str]) -> argparse.Namespace:
    """`--count` and `--seed` from the command line, and more numbers by name: what they are without one, and a word."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=count, help=f"how many cases ({count})")
    parser.add_argument("--seed", type=int, default=1, help="where the cases come from (1)")
    for name, (number, word) in more.items():
        parser.add_argument(f"--{name}", type=int, default=number, help=f"{word} ({number})")
    return parser.parse_args()


def named(url: str, home: Path, **more: object) -> dict[str, Any]:
    """What the command needs to work against an upstream on loopback, by the names of settings."""
    given = {
        "URL": url, "INSTANCE": DEMO_INSTANCE, "ACCESS_TOKEN": DEMO_TOKEN, "CAS_COOKIE": DEMO_COOKIE,
        "DATA_DIR": str(home), "LOG_LEVEL": "ERROR", "RETRY_BASE_DELAY": "0.001",
    }  # fmt: skip
    return {name.lower(): value for name, value in given.items()} | {name: str(value) for name, value in more.items()}


def settings(url: str, home: Path, **more: object) -> Settings:
    return Settings.from_env({f"SRC_ANALYTICS_{k.upper()}": v for k, v in named(url, home, **more).items()})


def for_many_servers() -> None:
    """Let the servers of this process share a fork server: each would start its own else, which takes 100 ms."""
    used = forks.used()
    used.__enter__()
    atexit.register(used.__exit__, None, None, None)


def reporter(name: str, asked: argparse.Namespace) -> Callable[..., int]:
    """Prints the report; its answer is the exit code."""
    begun = time.monotonic()

    def report(wrong: list[Any], **counted: object) -> int:
        parts = ", ".join(f"{value} {key.replace('_', ' ')}" for key, value in counted.items())
        options = " ".join(f"--{key} {value}" for key, value in vars(asked).items())
        print(f"{name} {options}: {parts}, {len(wrong)} wrong; {time.monotonic() - begun:.0f} s")
        for line in wrong[:20]:
            print("  ", line)
        return 1 if wrong else 0

    return report


def shared(work: Callable[[int], None], numbers: Iterable[int], jobs: int) -> None:
    """Do all of it, so many at once, in threads (they wait for processes)."""
    with ThreadPoolExecutor(jobs) as pool:
        for _ in pool.map(work, numbers):
            pass
