"""Ask thousands of generated questions and hold each answer against the reference; any seed can be replayed.

python tests/campaigns/questions.py --questions 2000 --seed 1
"""

import argparse
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import anyio

sys.path.insert(0, str(Path(__file__).parents[1]))

from sourcegraph_analytics_mcp.demo.upstream import DEMO_INSTANCE, DEMO_TOKEN
from sourcegraph_analytics_mcp.settings import Settings
from support.agreement import agree
from support.campaign import for_many_servers


def settings(url: str, **more: Any) -> Settings:
    given = {"URL": url, "INSTANCE": DEMO_INSTANCE, "ACCESS_TOKEN": DEMO_TOKEN, "LOG_LEVEL": "ERROR"}
    given |= {name.upper(): str(value) for name, value in more.items()}
    return Settings.from_env({f"SRC_ANALYTICS_{name}": value for name, value in given.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    for_many_servers()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        answered, refused = anyio.run(partial(agree, asked.seed, asked.questions, settings, Path(folder)))
    print(f"seed {asked.seed}: {answered} answers agree, {refused} refused as they must be, "
          f"0 disagree; {time.monotonic() - begun:.0f} s")  # fmt: skip


if __name__ == "__main__":
    main()
