"""The walk through the demo ends with a sentence at whatever step goes wrong."""

import io
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from mcp import MCPError
from rich.console import Console

from sourcegraph_analytics_mcp.demo.company import COUNTS, Company
from sourcegraph_analytics_mcp.demo.walkthrough import STEPS, Stopped, Walk
from sourcegraph_analytics_mcp.settings import Settings
from support.client import answering, connected

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("step", STEPS[1:], ids=lambda step: step.__name__.removeprefix("_"))
async def test_a_step_that_goes_wrong_says_what(
    step: Callable[[Walk], Awaitable[None]], make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = make_settings("http://127.0.0.1:9", access_token="", cas_cookie="")
    async with connected(settings, elicitation_callback=answering("accept")) as client:
        walk = Walk(client, Console(), tmp_path)
        walk.token_id = "00000000-0000-0000-0000-000000000000"
        walk.export = {"summary_uri": "analytics://exports/" + "0" * 32}
        with pytest.raises((Stopped, MCPError), match=r"^\[(auth_missing|not_found)\] ") as stopped:
            await step(walk)
    assert "\n" not in str(stopped.value)


async def test_the_chart_is_of_whole_weeks(settings: Settings, company: Company, tmp_path: Path) -> None:
    chart = next(step for step in STEPS if step.__name__ == "_chart")
    shown = Console(file=io.StringIO(), width=100)
    async with connected(settings) as client:
        await chart(Walk(client, shown, tmp_path))
    drawn = re.findall(r"^(\d{4}-\d\d-\d\d) +([\d,]+) ", shown.file.getvalue(), re.MULTILINE)  # type: ignore[attr-defined]
    chats: Counter[str] = Counter()
    for one in company.activities:
        chats[str(one.day - timedelta(days=one.day.weekday()))] += one.counts[COUNTS.index("chats")] or 0
    today = datetime.now(UTC).date()
    weeks = [str(today - timedelta(days=today.weekday(), weeks=ago)) for ago in range(13, 0, -1)]
    assert drawn == [(week, f"{chats[week]:,}") for week in weeks]
