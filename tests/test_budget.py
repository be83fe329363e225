"""What the product may cost: characters that a model reads, and packages that come with it."""

import json
import re
from importlib.metadata import requires

import pytest
from bench.questions import TYPICAL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from sourcegraph_analytics_mcp.settings import Settings
from support.client import call, connected, read, text

pytestmark = pytest.mark.anyio
ROOT = "sourcegraph-analytics-mcp"
TOKEN = 2.5  # characters of one token in our tables (o200k; measured: 1.9 to 2.8)


async def test_typical_answers_fit_the_budget(settings: Settings) -> None:
    async with connected(settings) as client:
        for tool, arguments in TYPICAL:
            result = await client.call_tool(tool, arguments)
            assert not result.is_error, text(result)
            assert len(text(result)) <= 600 * TOKEN, (tool, arguments)
            assert result.structured_content is not None
            assert len(json.dumps(result.structured_content)) <= 1_000 * TOKEN, (tool, arguments)


async def test_a_summary_fits_the_budget(settings: Settings) -> None:
    async with connected(settings) as client:
        export = (await call(client, "export_csv"))["export"]
        assert len(await read(client, export["summary_uri"])) <= 1_500 * TOKEN


def test_little_is_installed() -> None:
    found: set[str] = set()
    waiting = [(ROOT, frozenset[str]())]
    while waiting:
        name, extras = waiting.pop()
        for text_ in requires(name) or ():
            needed = Requirement(text_)
            wanted = needed.marker is None or any(needed.marker.evaluate({"extra": e}) for e in extras | {""})
            if wanted and canonicalize_name(needed.name) not in found:
                found.add(canonicalize_name(needed.name))
                waiting.append((needed.name, frozenset(needed.extras)))
    assert len(found) <= 49, sorted(found)
    assert not found & {"numpy", "pandas", "pyarrow", "fastmcp"}
    assert all(re.fullmatch(r"[a-z0-9-]+", name) for name in found)
